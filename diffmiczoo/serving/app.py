"""The routes of the server.

FastAPI and uvicorn, not LitServe: there a request is one unit, with one answer or one error, and is read whole before
anything can refuse it; here pictures of many requests share a batch, and each has an answer or an error of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.responses import Response as Bare
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from diffmiczoo._version import __version__
from diffmiczoo.errors import DiffMICError, InvalidValueError
from diffmiczoo.serving.answers import Response, ServedModel, response_of
from diffmiczoo.serving.batching import Batcher, BusyError
from diffmiczoo.serving.docs_page import docs_page
from diffmiczoo.serving.guard import Guard
from diffmiczoo.serving.settings import ServerSettings
from diffmiczoo.serving.uploads import TooManyError, uploads_of
from diffmiczoo.serving.worker import Upload, Worker, WorkerEndedError

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["base64"],
                                "properties": {"name": {"type": "string"}, "base64": {"type": "string"}},
                            },
                        }
                    },
                }
            },
        },
    }
}
_ERROR = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
_STATUS: dict[int | str, dict[str, Any]] = {
    200: {"model": Response, "description": "every picture is answered"},
    207: {"model": Response, "description": "some pictures are answered; the others have an error"},
    422: {"model": Response, "description": "no picture can be used; each has an error"},
    400: {"description": "the request is not of a kind that is read", "content": _ERROR},
    401: {"description": "the key is missing or wrong", "content": _ERROR},
    408: {"description": "the client sent nothing for too long", "content": _ERROR},
    413: {"description": "too many bytes or pictures", "content": _ERROR},
    503: {
        "description": "too many pictures wait, or the process that computes ended; send it again",
        "content": _ERROR,
    },
}


def create_app(worker: Worker, model: ServedModel, settings: ServerSettings, give_up: Callable[[str], None]) -> FastAPI:
    """Returns the application around a worker that was started.

    Args:
        worker: what computes.
        model: what it said of its weights.
        settings: of the server.
        give_up: called with the reason where the worker cannot be kept alive.
    """
    batcher = Batcher(worker, model, settings, give_up)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    # The usual pages load scripts from another host; `docs_page` is our own.
    app = FastAPI(
        title=f"diffmiczoo: {model.model}",
        version=__version__,
        description=model.notice,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_routes(app, batcher, settings)
    if settings.page:
        from diffmiczoo.serving.page import mount_page

        app = mount_page(app, batcher.submit, model, settings.max_images, settings.max_bytes)
    app.add_middleware(Guard, settings=settings)
    return app


def _add_routes(app: FastAPI, batcher: Batcher, settings: ServerSettings) -> None:
    start = "/page" if settings.page else "/docs"

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail, **_who(batcher.model)}, error.status_code, error.headers)

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse(start)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Bare:  # browsers ask by themselves
        return Bare(status_code=204)

    @app.head("/health", include_in_schema=False, response_model=None)
    @app.get("/health", summary="Whether pictures are answered", response_model=None)
    async def health() -> JSONResponse:
        state = "ok" if batcher.healthy else "starting again"
        content = {"status": state, "waiting": batcher.waiting, **_who(batcher.model)}
        return JSONResponse(content, 200 if batcher.healthy else 503)

    @app.head("/info", include_in_schema=False, response_model=None)
    @app.get("/info", summary="The weights: labels, hash, licence, card", response_model=ServedModel)
    async def info() -> JSONResponse:
        return JSONResponse(dataclasses.asdict(batcher.model))

    @app.post("/predict", summary="Classify pictures", responses=_STATUS, response_model=None, openapi_extra=_BODY)
    async def predict(request: Request) -> JSONResponse:
        return await _predicted(request, batcher, settings)

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))


async def _predicted(request: Request, batcher: Batcher, settings: ServerSettings) -> JSONResponse:
    try:
        uploads = await uploads_of(request, settings.max_images)
        found = iter(await batcher.submit(uploads.pictures))
    except ClientDisconnect:
        return _error(batcher, 400, "the client left while it sent")
    except TooManyError as error:
        return _error(batcher, 413, error)
    except InvalidValueError as error:
        return _error(batcher, 400, error)
    except BusyError as error:
        return _error(batcher, 503, error)
    except WorkerEndedError as error:
        advice = "a new one starts; send it again, and if it ends again, find the picture that ends it"
        return _error(batcher, 503, f"{error}; {advice}")
    except DiffMICError:
        return _error(batcher, 500, "a fault of the server; its log has the traceback")
    images = [next(found).answer if isinstance(entry, Upload) else entry for entry in uploads.entries]
    content = dataclasses.asdict(response_of(batcher.model, images))
    good = sum(image.error is None for image in images)
    return JSONResponse(content, 422 if not good else 200 if good == len(images) else 207)


def _who(model: ServedModel) -> dict[str, str]:
    return {"model": model.model, "weights_sha256": model.weights_sha256, "version": model.version}


def _error(batcher: Batcher, status: int, error: object) -> JSONResponse:
    headers = {"retry-after": "5"} if status == 503 else {}
    return JSONResponse({"error": str(error), **_who(batcher.model)}, status, headers)

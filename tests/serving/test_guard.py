"""What is refused before anything reads it: requests without the key, too large, too slow."""

import asyncio
import base64
import json

import pytest

from diffmiczoo.serving.guard import Guard
from diffmiczoo.serving.settings import ServerSettings, WorkerSettings

SETTINGS = ServerSettings(worker=WorkerSettings(name="tiny"), max_bytes=100, patience=0.05)


async def reads_all(scope, receive, send) -> None:
    """Reads a request to its end, and says how many bytes it had."""
    count, more = 0, True
    while more:
        message = await receive()
        count, more = count + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({"bytes": count}).encode()})


def ask(guard: Guard, chunks=(b"",), path: str = "/predict", **headers: str) -> tuple[int, dict, dict]:
    """Returns status, JSON and headers of what is answered; a chunk that is None never comes."""
    sent, rest = [], list(chunks)

    async def receive() -> dict:
        chunk = rest.pop(0)
        if chunk is None:
            await asyncio.sleep(10)
        return {"type": "http.request", "body": chunk, "more_body": bool(rest)}

    async def send(message: dict) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(guard({"type": "http", "path": path, "headers": named}, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


def with_key(key: str = "pssst pssst") -> Guard:
    return Guard(reads_all, ServerSettings(worker=SETTINGS.worker, api_key=key))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer pssst pssst"},
        {"authorization": "bearer pssst pssst"},
        {"x_api_key": "pssst pssst"},
        {"authorization": "Basic " + base64.b64encode(b"anybody:pssst pssst").decode()},
    ],
)
def test_a_key_comes_in_any_of_the_usual_ways(headers: dict[str, str]) -> None:
    assert ask(with_key(), **headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_api_key": ""},
        {"x_api_key": "pssst"},
        {"authorization": "pssst pssst"},
        {"authorization": "Bearer"},
        {"authorization": "Basic ????"},
        {"authorization": "Basic " + base64.b64encode(b"pssst pssst:").decode()},
    ],
)
def test_without_the_key_nothing_is_read(headers: dict[str, str]) -> None:
    status, answer, sent = ask(with_key(), chunks=[None], **headers)
    assert status == 401 and "Authorization: Bearer KEY" in answer["error"] and b"www-authenticate" in sent


def test_health_and_description_need_no_key() -> None:
    for path in ("/health", "/docs", "/openapi.json"):
        assert ask(with_key(), path=path)[0] == 200
    for path in ("/info", "/page", "/health/", "//health", "/gradio_api/upload"):
        assert ask(with_key(), path=path)[0] == 401


def test_a_body_that_is_too_large_is_refused_by_its_announced_length_and_while_it_streams() -> None:
    status, answer, _ = ask(Guard(reads_all, SETTINGS), chunks=[None], content_length="101")
    assert status == 413 and "more than 100 bytes" in answer["error"]
    # Chunks without an announced length: what comes after the limit is never asked for.
    status, answer, _ = ask(Guard(reads_all, SETTINGS), chunks=[bytes(60), bytes(60), None])
    assert status == 413 and "more than 100 bytes" in answer["error"]
    assert ask(Guard(reads_all, SETTINGS), chunks=[bytes(60), bytes(40)])[1] == {"bytes": 100}


def test_a_client_that_falls_silent_is_sent_away() -> None:
    status, answer, _ = ask(Guard(reads_all, SETTINGS), chunks=[bytes(10), None])
    assert status == 408 and "nothing came for 0.05 seconds" in answer["error"]


def test_bodies_in_memory_are_bounded_over_all_requests_and_forgotten_afterwards() -> None:
    guard = Guard(reads_all, SETTINGS)
    guard.hold(750)
    assert ask(guard, chunks=[bytes(60)])[0] == 503
    assert ask(guard, chunks=[bytes(50)])[0] == 200
    guard.release(750)
    assert ask(guard, chunks=[bytes(100)])[0] == 200 and guard._held == 0


def test_pages_may_load_nothing_from_elsewhere() -> None:
    for guard in (with_key(), Guard(reads_all, SETTINGS)):
        headers = ask(guard)[2]
        assert b"default-src 'self'" in headers[b"content-security-policy"]
        assert headers[b"cache-control"] == b"no-store"

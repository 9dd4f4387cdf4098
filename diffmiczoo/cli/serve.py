"""`diffmiczoo serve`: a model behind HTTP on this machine, and a page for people."""

from __future__ import annotations

from typing import Any

import click

from diffmiczoo.cli.common import MODEL_VARIABLE, PRECISIONS, batch_size_option, device_option, precision_option
from diffmiczoo.errors import InvalidValueError, MissingExtraError


@click.command()
@click.argument("name", envvar=MODEL_VARIABLE)
@click.option("--host", default="127.0.0.1", show_default=True, help="To listen at; 0.0.0.0 for all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any that is free.")
@click.option(
    "--api-key",
    envvar="DIFFMICZOO_API_KEY",
    show_envvar=True,
    help="Refuse requests without this key. Give it in the environment: a list of processes shows options.",
)
@click.option("--page", is_flag=True, help="With a page for people to drop pictures on (extra `demo`).")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps; by default the model's own.")
@precision_option(*PRECISIONS, "auto")
@device_option
@click.option("--threads", type=click.IntRange(1), help="Cores to compute on; by default all.")
@batch_size_option(8)
@click.option(
    "--wait",
    type=click.FloatRange(0, 1000),
    default=5,
    show_default=True,
    help="Milliseconds that the first picture waits for others.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="The same answer to the bit, whatever is computed with a picture: every batch is filled, so that a picture "
    "alone takes as long as --batch-size of them.",
)
@click.option(
    "--max-megabytes", type=click.IntRange(1), default=64, show_default=True, help="Of a request, 10^6 bytes each."
)
@click.option("--max-images", type=click.IntRange(1), default=32, show_default=True, help="Of a request.")
@click.option(
    "--max-megapixels", type=click.IntRange(1), default=100, show_default=True, help="Of a picture, 10^6 pixels each."
)
@click.option(
    "--grace",
    type=click.IntRange(0),
    default=60,
    show_default=True,
    help="Seconds that requests may go on after SIGTERM or Ctrl-C.",
)
def serve(name: str, host: str, port: int, api_key: str | None, **options: Any) -> None:
    """Answer pictures over HTTP with the weights NAME: POST /predict, GET /info, /health, /docs.

    Nothing is fetched from elsewhere once the weights are here, and clients cannot name files. Ends on SIGTERM or
    Ctrl-C, when the requests that came before are answered. --precision auto takes the fastest here that gives eight
    made pictures fp32's labels, timed once and remembered; one of yours may still get another label than in fp32.
    """
    if api_key is not None and len(api_key) < 8:
        raise InvalidValueError(f"the API key has {len(api_key)} characters; give at least 8")
    try:
        from diffmiczoo.serving.run import serve as run
        from diffmiczoo.serving.settings import ServerSettings, WorkerSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'serve needs {error.name}: pip install "diffmiczoo[serve]"') from error
    names = ("steps", "precision", "device", "threads", "batch_size", "exact")
    pixels = options["max_megapixels"] * 1_000_000
    worker = WorkerSettings(name=name, max_pixels=pixels, **{name: options[name] for name in names})
    settings = ServerSettings(
        worker=worker,
        api_key=api_key,
        max_bytes=options["max_megabytes"] * 1_000_000,
        max_images=options["max_images"],
        max_waiting=max(256, options["max_images"]),
        wait=options["wait"] / 1000,
        page=options["page"],
        grace=options["grace"],
    )
    run(settings, host, port, lambda address: click.echo(f"{name} answers at {address} (Ctrl-C ends it)"))

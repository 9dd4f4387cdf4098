"""`diffmiczoo push`: weights on the Hugging Face Hub, and what runs them there."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--token", help="Of an account that may write it; HF_TOKEN by default.")
@click.option("--handler", is_flag=True, help="With a handler.py, which makes the weights an inference endpoint.")
@click.option("--space", metavar="SPACE", help="Publish a page as the Space ORGANISATION/NAME too.")
@click.option(
    "--write",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Publish nothing: write the files of --handler into DIR and those of --space into DIR/space.",
)
def push(
    directory: str,
    repository: str,
    private: bool,
    token: str | None,
    handler: bool,
    space: str | None,
    write: Path | None,
) -> None:
    """Publish the weights in DIRECTORY with their card as REPOSITORY (organisation/name) on the Hugging Face Hub.

    DIRECTORY holds what `fit` leaves in best/, a card.json (license, data_license, training_data, split, intended_use,
    limits) and a metrics.json. What is missing is listed, and nothing is published.
    """
    import diffmiczoo
    from diffmiczoo.hub.card_facts import CARD_FILE
    from diffmiczoo.hub.publish import push_directory, push_space
    from diffmiczoo.serving.space import handler_files, space_files

    beside = handler_files() if handler else {}
    page = {}
    if space is not None:
        card = Path(directory) / CARD_FILE
        page = space_files(repository, space.rpartition("/")[2], license_of(card))
    if write is not None:
        write_files(write, beside)
        write_files(write / "space", page)
        return
    model = diffmiczoo.DiffMICv2.from_pretrained(directory)
    address = push_directory(directory, repository, model, private=private or None, token=token, beside=beside)
    click.echo(f"published: {address}")
    click.echo(f'load it with create_model("hf-hub:{repository}", pretrained=True)')
    if space is not None:
        click.echo(f"page: {push_space(space, page, private=private or None, token=token)}")


def license_of(card: Path) -> str:
    """Returns the licence that a card.json names; "" where there is none."""
    from diffmiczoo.files import read_json_object

    return str(read_json_object(card).get("license") or "") if card.is_file() else ""


def write_files(directory: Path, files: dict[str, str]) -> None:
    """Writes texts as files of a directory, made if need be."""
    from diffmiczoo.files import write_text

    for name, text in files.items():
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / name, text)
        click.echo(f"wrote {directory / name}")

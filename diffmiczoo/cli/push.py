"""`diffmiczoo push`: weights on the Hugging Face Hub."""

from __future__ import annotations

import click


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--token", help="Of an account that may write it; HF_TOKEN by default.")
def push(directory: str, repository: str, private: bool, token: str | None) -> None:
    """Publish the weights in DIRECTORY with their card as REPOSITORY (organisation/name) on the Hugging Face Hub.

    DIRECTORY holds what `fit` leaves in best/, a card.json (license, data_license, training_data, split, intended_use,
    limits) and a metrics.json. What is missing is listed, and nothing is published.
    """
    import diffmiczoo
    from diffmiczoo.hub.publish import push_directory

    model = diffmiczoo.DiffMICv2.from_pretrained(directory)
    address = push_directory(directory, repository, model, private=private or None, token=token)
    click.echo(f"published: {address}")
    click.echo(f'load it with create_model("hf-hub:{repository}", pretrained=True)')

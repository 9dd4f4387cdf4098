"""`diffmiczoo list`: the registered names."""

from __future__ import annotations

import sys

import click


@click.command("list")
@click.argument("filter", default="")
@click.option("--pretrained", is_flag=True, help="Only names whose weights exist.")
def list_models(filter: str, pretrained: bool) -> None:
    """List the registered names; FILTER is a part of the name or a pattern such as 'diffmicv2_nano*'."""
    from diffmiczoo.zoo import registry

    names = registry.list_models(filter, pretrained)
    if not names:
        click.echo(f"no name matches {filter!r}; `diffmiczoo list` shows them all", err=True)
        sys.exit(1)
    for name in names:
        click.echo(f"{name:<40}{'weights' if registry.has_weights(name) else ''}".rstrip())

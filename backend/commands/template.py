"""`segzero template`: a labelling config to paste into Label Studio."""

from __future__ import annotations

from typing import Annotated

import typer


def template(
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="A label; give it several times for several."),
    ] = None,
    request: Annotated[
        bool,
        typer.Option(
            help="Whether the tasks carry a request in their data; without, each label is one."
        ),
    ] = True,
) -> None:
    """Print a labelling config that this backend serves in full.

    Paste it into Label Studio: project, Settings, Labeling Interface, Code. The picture comes
    from the tasks' "image", the request from their "request".

    Example: `segzero template --label Extinguisher --label Exit --no-request`
    """
    from backend.templates import REQUEST_FIELD, labelling_config
    from segzero_ml.errors import ConfigError

    labels = [text.strip() for text in label] if label else ["Object"]
    if not all(labels):
        raise ConfigError("A label is empty.", "Give --label a name.")
    typer.echo(labelling_config(labels, REQUEST_FIELD if request else None))

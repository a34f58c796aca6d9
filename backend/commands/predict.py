"""`segzero predict`: one picture, one request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from backend.commands.console import (
    JsonOption,
    PresetOption,
    check_writable,
    load_pipeline,
    print_json,
    stderr,
    stdout,
    writing,
)

if TYPE_CHECKING:
    from PIL import Image

    from segzero_ml.types import Prediction

UNUSABLE: Final = 3
"""Exit code where the model answered and its answer could not be used."""

_PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")


def predict(
    image: Annotated[Path, typer.Argument(help="The picture.", show_default=False)],
    request: Annotated[
        str,
        typer.Argument(help="What to find, in plain words, even implicitly.", show_default=False),
    ],
    preset: PresetOption = "tiny",
    as_json: JsonOption = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the picture with masks, boxes, points and the note."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="Write the mask of all objects as PNG: 255 inside, 0 outside."),
    ] = None,
) -> None:
    """Find what a request means in a picture.

    Prints the model's reasons and, for each object, its box, points and score. With --json:
    reasoning, score, model_version, segments (box_px, points_px, score, rle) and seconds;
    coordinates are pixels of the upright picture, masks COCO run lengths.

    Exit code 0: answered, be it with no object. 1: something is missing or wrong. 3: the
    model's answer could not be used; the reason is on standard error, and no object is given.

    Example: `segzero predict scene.png "what you would grab to put out a fire" --save out.png`
    """
    from segzero_ml.images import load_image
    from segzero_ml.presets import get_preset
    from segzero_ml.reasoner.prompts import normalise_request

    get_preset(preset)
    check_writable(save, _PICTURES)
    check_writable(mask, (".png",))
    normalise_request(request)
    picture = load_image(image)
    pipeline = load_pipeline(preset)
    with stderr().status("Thinking"):
        [prediction] = pipeline.predict([picture], [request])
    _write(picture, prediction, save, mask)
    if prediction.problem is not None:
        typer.echo(f"The model's answer could not be used: {prediction.problem}", err=True)
    if as_json:
        print_json(as_dict(prediction))
    else:
        _print(prediction)
    if prediction.problem is not None:
        raise typer.Exit(UNUSABLE)


def as_dict(prediction: Prediction) -> dict[str, Any]:
    """What `--json` prints."""
    from segzero_ml import masks

    return {
        "reasoning": prediction.reasoning,
        "score": prediction.score,
        "model_version": prediction.model_version,
        "segments": [
            {
                "box_px": list(segment.box_px.as_tuple()),
                "points_px": [[point.x, point.y] for point in segment.points_px],
                "score": segment.score,
                "rle": masks.to_json(segment.rle),
            }
            for segment in prediction.segments
        ],
        "seconds": prediction.seconds,
    }


def _write(
    picture: Image.Image, prediction: Prediction, save: Path | None, mask: Path | None
) -> None:
    if save is not None:
        from segzero_ml.overlay import draw

        with writing(save):
            draw(picture, prediction).save(save)
    if mask is not None:
        from PIL import Image

        from segzero_ml import masks

        union = masks.union((masks.decode(s.rle) for s in prediction.segments), prediction.size)
        with writing(mask):
            Image.fromarray(union).convert("L").save(mask)


def _print(prediction: Prediction) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    if prediction.reasoning:
        console.print(Text(prediction.reasoning))
    if not prediction.segments:
        if prediction.problem is None:
            console.print("Nothing in the picture matches.", style="yellow")
    else:
        table = Table("Object", "Box in pixels", "Points in pixels", "Score")
        for number, segment in enumerate(prediction.segments, start=1):
            box = ", ".join(f"{value:.0f}" for value in segment.box_px.as_tuple())
            points = "  ".join(f"{point.x:.0f}, {point.y:.0f}" for point in segment.points_px)
            table.add_row(str(number), box, points, f"{segment.score:.2f}")
        console.print(table)
    console.print(
        f"Score {prediction.score:.2f}, {prediction.model_version}, {prediction.seconds:.1f} s",
        style="dim",
    )

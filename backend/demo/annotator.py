"""A simulated annotator: it knows the true masks and submits them through Label Studio's API.

It works as a careful person does: what is right is submitted as it is, anything else with the
exact masks. So it shows what the learning loop makes of corrections; how people err it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.brush import decode_rle, encode_rle
from backend.demo.tasks import newest_prediction, predicted_mask
from backend.label_studio import LabelStudio
from backend.label_studio_models import StoredPrediction, Task
from backend.translate import new_region_id
from backend.xml_tags import read_tags
from segzero_ml import masks
from segzero_ml.errors import ConfigError
from segzero_ml.types import BoolMask, ImageSize

ACCEPT_IOU: Final = 0.9
"""From this IoU of all its masks with the true ones on a prediction is submitted as it is."""

_LOOK_S: Final = 4.0
_DRAW_S: Final = 9.0
"""What submitting says of the time it took: somebody looked, and drew each mask."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one task.

    Args:
        size: Of the upright picture.
        masks: One for each object, bool (height, width); none where nothing matches.
    """

    size: ImageSize
    masks: tuple[BoolMask, ...]


@dataclass(frozen=True, slots=True)
class Brush:
    """The control that masks are drawn with.

    Args:
        name: Its name in the labelling config.
        image: Name of the Image that it draws on.
        label: What is drawn.
    """

    name: str
    image: str
    label: str


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one task.

    Args:
        task: Its id.
        iou: Of the prediction with the truth, in [0, 1]; 0 without a prediction.
        accepted: Whether the prediction was submitted as it was.
    """

    task: int
    iou: float
    accepted: bool


def brush_of(label_config: str) -> Brush:
    """The first brush of a labelling config, with its first label.

    Raises:
        ConfigError: It has none.
    """
    tags = read_tags(label_config)
    brush = next((tag for tag in tags if tag.name == "brushlabels"), None)
    label = next((tag for tag in tags if tag.name == "label"), None)
    if brush is None or label is None:
        raise ConfigError("The labelling config has no brush, and nothing else is drawn with here.")
    names = brush.attributes
    return Brush(names.get("name", ""), names.get("toName", ""), label.attributes.get("value", ""))


def annotate(
    client: LabelStudio,
    tasks: Sequence[Task],
    truths: Mapping[int, Truth],
    brush: Brush,
    model_version: str | None,
    most_corrections: int,
    each: Callable[[Submitted], None] = lambda _: None,
) -> list[Submitted]:
    """Go through tasks in their order until so many predictions were corrected.

    Tasks that hold an annotation already, or whose truth is not known, are passed over.

    Args:
        client: The Label Studio.
        tasks: With their predictions.
        truths: By task.
        brush: What is drawn with.
        model_version: The version whose predictions are shown.
        most_corrections: Corrections after which to stop; what is accepted does not count.
        each: Called after every submission.

    Raises:
        LabelStudioError: A submission was refused.
        MaskError: A prediction's mask cannot be read.
    """
    done: list[Submitted] = []
    corrections = 0
    for task in tasks:
        truth = truths.get(task.id)
        if truth is None or task.annotations:
            continue
        if corrections >= most_corrections:
            break
        prediction = newest_prediction(task, model_version)
        iou = _iou(prediction, truth)
        accepted = prediction is not None and iou >= ACCEPT_IOU
        result = as_it_is(prediction) if accepted else corrected(prediction, truth, brush)
        client.annotate(
            task.id,
            result,
            parent_prediction=None if prediction is None else prediction.id,
            lead_time=_LOOK_S + (0.0 if accepted else _DRAW_S * len(truth.masks)),
        )
        done.append(Submitted(task.id, iou, accepted))
        corrections += not accepted
        each(done[-1])
    return done


def as_it_is(prediction: StoredPrediction | None) -> list[dict[str, Any]]:
    """What the editor submits of a prediction that nobody changed."""
    results = [] if prediction is None else prediction.result
    return [{**one, "origin": "prediction"} for one in results]


def corrected(
    prediction: StoredPrediction | None, truth: Truth, brush: Brush
) -> list[dict[str, Any]]:
    """What the editor submits once every object has its exact mask.

    A predicted region that overlaps an object is repainted and keeps its id; the others are
    deleted, and what was missed is drawn anew. The note stays.

    Args:
        prediction: What was shown; None for nothing.
        truth: The exact masks.
        brush: What is drawn with.
    """
    shown = as_it_is(prediction)
    regions = [one for one in shown if one["type"] == "brushlabels"]
    mended = _pairs(regions, truth)
    result = [
        _drawn(mask, brush) if (region := mended.get(number)) is None else _mended(region, mask)
        for number, mask in enumerate(truth.masks)
    ]
    return [*result, *(one for one in shown if one["type"] != "brushlabels")]


def _iou(prediction: StoredPrediction | None, truth: Truth) -> float:
    if prediction is None:
        return 0.0
    shown = predicted_mask(prediction, truth.size)
    return masks.iou(shown, masks.union(truth.masks, truth.size))


def _pairs(regions: list[dict[str, Any]], truth: Truth) -> dict[int, dict[str, Any]]:
    """For each object the region that shows most of it, each region once; by its number."""
    overlaps = [
        (masks.iou(shown, mask), number, at)
        for at, region in enumerate(regions)
        if (shown := decode_rle(region["value"]["rle"], truth.size.height, truth.size.width)).any()
        for number, mask in enumerate(truth.masks)
    ]
    found: dict[int, dict[str, Any]] = {}
    used: set[int] = set()
    for overlap, number, at in sorted(overlaps, key=lambda one: -one[0]):
        if overlap > 0 and number not in found and at not in used:
            found[number] = regions[at]
            used.add(at)
    return found


def _mended(region: Mapping[str, Any], mask: BoolMask) -> dict[str, Any]:
    value = {**region["value"], "rle": encode_rle(mask)}
    return {**region, "value": value, "origin": "prediction-changed"}


def _drawn(mask: BoolMask, brush: Brush) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": new_region_id(),
        "from_name": brush.name,
        "to_name": brush.image,
        "type": "brushlabels",
        "origin": "manual",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_rle(mask), "brushlabels": [brush.label]},
    }

"""What the results of an annotation or a prediction say: masks, notes, and their history."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.true_masks import MASK_KINDS, is_mask_region, mask_kind, region_size, true_mask
from segzero_ml import masks
from segzero_ml.checks import MAX_NAME_LENGTH
from segzero_ml.corrections import MAX_NOTE_LENGTH, MAX_REQUESTS, MAX_SEGMENTS
from segzero_ml.errors import InputError, MaskError
from segzero_ml.types import ImageSize, Rle

MAX_PIXELS_IN_ALL: Final = 10_000_000_000
"""Pixels of all regions of one annotation together: a hundred of a 100-megapixel image."""

_OTHER_SHAPES: Final = ("keypoint", "vector", "rectangle")


@dataclass(frozen=True, slots=True)
class Region:
    """One object as a region shows it.

    Args:
        id: Label Studio keeps it when a prediction becomes an annotation; may be empty. Of
            several regions that show the object it is the first one's.
        label: Its first label; empty where it has none.
        rle: Its mask, never empty.
        origin: `prediction`, `prediction-changed`, `manual`, or empty where nothing is said.
        note: The text in the details of the region.
        request: The request that the model answered with it, where that was written down.
        model_version: The version that answered, where that was written down.
        is_clicked: Whether clicks or a box had a part in its mask. Label Studio says of it that
            it comes from a prediction, as of an answer that was left as it came.
    """

    id: str
    label: str
    rle: Rle
    origin: str = ""
    note: str = ""
    request: str | None = None
    model_version: str | None = None
    is_clicked: bool = False

    @property
    def is_own(self) -> bool:
        """Whether the annotator made it of nothing by clicking, as if it was drawn by hand."""
        return self.is_clicked and self.request is None


def read_results(value: object) -> list[Mapping[str, Any]]:
    """The `result` of an annotation or a prediction; null means that there is nothing in it.

    Raises:
        InputError: Not a list of objects.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise InputError("The result of an annotation must be a list of objects.")
    return value


def read_regions(
    results: Sequence[Mapping[str, Any]],
    image: str,
    size: ImageSize | None = None,
    masked: Collection[str] = (),
) -> tuple[Region, ...]:
    """The objects that regions show on an image, in their order.

    An object is there once, even if several controls describe it or it is in several parts.
    Of regions of one object those of one control count: of those that the annotator changed,
    else of those that clicks made, else of all, the one of the most exact kind, and the first
    of these; its parts are joined. A box is an object only where nobody could have drawn the
    mask. Regions without a pixel, such as one that was erased completely, are left out.

    Args:
        results: Of an annotation or a prediction.
        image: Name of the Image in the labelling config.
        size: Size of the upright original image; None takes it from the first region.
        masked: Labels that people can draw masks with, so that boxes with them do not count.

    Raises:
        MaskError: A region is malformed or of another size, or there are too many.
    """
    found = _objects(results, image, masked)
    regions_in_all = sum(len(one.parts) for one in found)
    if not found:
        return ()
    if regions_in_all > MAX_SEGMENTS:
        raise MaskError(f"There are {regions_in_all} regions; the limit is {MAX_SEGMENTS}.")
    size = size or region_size(found[0].parts[0])
    if regions_in_all * size.width * size.height > MAX_PIXELS_IN_ALL:
        raise MaskError(f"{regions_in_all} regions of {size.width} x {size.height} are too many.")
    regions = []
    for one in found:
        mask = true_mask(one.parts[0], size)
        for part in one.parts[1:]:
            mask |= true_mask(part, size)
        if mask.any():
            regions.append(_region(one, masks.encode(mask)))
    return tuple(regions)


@dataclass(frozen=True, slots=True)
class _Object:
    """The regions that say what one object's mask is."""

    id: str
    label: str
    parts: list[Mapping[str, Any]]


def _objects(
    results: Sequence[Mapping[str, Any]], image: str, masked: Collection[str]
) -> list[_Object]:
    chosen: dict[str | int, Mapping[str, Any]] = {}
    labels: dict[str | int, str] = {}
    for index, result in enumerate(results):
        # Results with one id are one region; without an id each stands for itself.
        name = _text(result.get("id")) or index
        labels[name] = labels.get(name) or _label(result)
        if is_mask_region(result) and result.get("to_name") == image:
            chosen.setdefault(name, result)
    together: dict[str | int, list[tuple[str | int, Mapping[str, Any]]]] = {}
    for name, result in chosen.items():
        is_box = mask_kind(result) == "rectangle"
        if is_box and masked and (not labels[name] or labels[name] in masked):
            continue
        together.setdefault(_text(_meta(result).get("object")) or name, []).append((name, result))
    return [
        _Object(
            id=key if isinstance(key, str) else "",
            label=next((labels[name] for name, _ in of_one if labels[name]), ""),
            parts=_parts([result for _, result in of_one]),
        )
        for key, of_one in together.items()
    ]


def _parts(regions: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of one object's regions those that say what its mask is: all of one control."""
    # A box is never more than a hint beside a mask, changed or not.
    exact = [one for one in regions if mask_kind(one) != "rectangle"] or regions
    changed = [one for one in exact if one.get("origin") == "prediction-changed"]
    told = changed or [one for one in exact if _is_clicked(one)] or exact
    best = min(told, key=lambda one: MASK_KINDS.index(mask_kind(one)))
    # What another control shows would bring back what was erased in this one.
    control = mask_kind(best), best.get("from_name")
    return [one for one in exact if (mask_kind(one), one.get("from_name")) == control]


def size_of(regions: Sequence[Region]) -> ImageSize | None:
    """Size of the image that regions are on, or None without any."""
    return ImageSize(regions[0].rle.width, regions[0].rle.height) if regions else None


def has_other_shapes(results: Sequence[Mapping[str, Any]], image: str) -> bool:
    """Whether there are points, lines or boxes, which show an object without its mask."""
    return any(
        _text(result.get("type")).startswith(_OTHER_SHAPES) and result.get("to_name") == image
        for result in results
    )


def typed_text(results: Sequence[Mapping[str, Any]], control: str | None) -> str | None:
    """What stands in a TextArea, its lines joined; None where it is not among the results."""
    if control is None:
        return None
    for result in reversed(results):
        if result.get("from_name") == control and isinstance(result.get("value"), Mapping):
            return _lines(result["value"].get("text"))
    return None


def noted_requests(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a prediction was asked, as its notes keep it: also where nothing was found."""
    found: list[str] = []
    for result in results:
        requests = _meta(result).get("requests")
        found += filter(None, map(_text, requests if isinstance(requests, list) else []))
    return list(dict.fromkeys(found))[:MAX_REQUESTS]


def notes_of(regions: Sequence[Region]) -> str:
    """The notes in the details of the regions, each once."""
    return "\n".join(dict.fromkeys(one.note for one in regions if one.note))[:MAX_NOTE_LENGTH]


def _region(one: _Object, rle: Rle) -> Region:
    meta = _meta(one.parts[0])
    origins = [_text(part.get("origin")) for part in one.parts]
    changed = "prediction-changed"
    return Region(
        id=one.id,
        label=one.label,
        rle=rle,
        origin=changed if changed in origins else origins[0],
        note=_lines(meta.get("text")),
        request=_text(meta.get("request")) or None,
        model_version=_text(meta.get("model_version"))[:MAX_NAME_LENGTH] or None,
        is_clicked=any(map(_is_clicked, one.parts)),
    )


def _meta(result: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = result.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _is_clicked(result: Mapping[str, Any]) -> bool:
    return _meta(result).get("clicked") is True


def _label(result: Mapping[str, Any]) -> str:
    """First label that a result gives its region; empty where it gives none."""
    value = result.get("value")
    for key, labels in value.items() if isinstance(value, Mapping) else ():
        if isinstance(key, str) and key.endswith("labels") and isinstance(labels, list):
            return next(filter(None, map(_text, labels)), "")[:MAX_NAME_LENGTH]
    return ""


def _lines(value: object) -> str:
    lines = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return "\n".join(filter(None, map(_text, lines)))[:MAX_NOTE_LENGTH]


def _text(value: object) -> str:
    """Text without halves of characters, which no file can hold; other things are empty."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""

"""Named pairs of a reasoner and a segmenter, with all that belongs to them.

| preset           | reasoner                    | frame            | answers in      |
|------------------|-----------------------------|------------------|-----------------|
| tiny             | bundled                     | squash to 160    | VisionReasoner  |
| seg-zero-7b      | Ricky06662/Seg-Zero-7B      | squash to 840    | Seg-Zero        |
| visionreasoner-7b| Ricky06662/VisionReasoner-7B| squash to 840    | VisionReasoner  |
| qwen2.5-vl-7b    | Qwen/Qwen2.5-VL-7B-Instruct | resized input    | VisionReasoner  |
| qwen3-vl-4b      | Qwen/Qwen3-VL-4B-Instruct   | 0 to 1000        | VisionReasoner  |
| qwen3-vl-8b      | Qwen/Qwen3-VL-8B-Instruct   | 0 to 1000        | VisionReasoner  |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from segzero_ml.answer import AnswerSchema
from segzero_ml.errors import PresetError

TINY_WEIGHTS = Path(__file__).parent / "tiny" / "weights"
REQUEST_SLOT = "{request}"


@dataclass(frozen=True, slots=True)
class Squash:
    """The image is resized to a square; the model answers in pixels of that square.

    Args:
        side: Side of the square in pixels.
    """

    side: int

    @property
    def area_limits(self) -> tuple[int, int]:
        """Least and greatest area of the model's input in pixels."""
        return (self.side**2, self.side**2)


@dataclass(frozen=True, slots=True)
class Resized:
    """The processor resizes the image; the model answers in pixels of the resized image.

    Args:
        factor: Both sides become multiples of this (patch size times merge size).
        min_pixels: Least area of the resized image.
        max_pixels: Greatest area of the resized image; bounds memory and time.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    @property
    def area_limits(self) -> tuple[int, int]:
        """Least and greatest area of the model's input in pixels."""
        return (self.min_pixels, self.max_pixels)


@dataclass(frozen=True, slots=True)
class Thousand:
    """The model answers in 0 to 1000 on each axis, whatever the size of its input.

    Args:
        factor: Both sides of the input become multiples of this.
        min_pixels: Least area of the resized input.
        max_pixels: Greatest area of the resized input; bounds memory and time.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    @property
    def area_limits(self) -> tuple[int, int]:
        """Least and greatest area of the model's input in pixels."""
        return (self.min_pixels, self.max_pixels)


FrameKind = Squash | Resized | Thousand


@dataclass(frozen=True, slots=True)
class Preset:
    """A reasoner, how to ask it and how to read it, and the segmenter that goes with it.

    Args:
        name: What the user calls it.
        reasoner: Directory, or id on the Hugging Face hub.
        segmenter: Directory with `config.yaml` and `model.safetensors`, or hub id.
        prompt: What the reasoner is told; `{request}` stands for the request.
        frame: The coordinates that the reasoner answers in.
        schema: The form of its answer.
        max_new_tokens: Longest answer.
        licence: Licence of the weights.
        memory_gb: Memory of the accelerator (or the machine) needed for one request, in GB.
        summary: What it is for, in one line.
        reasoner_revision: Commit or tag on the hub; None means the newest.
        segmenter_revision: The same for the segmenter.
    """

    name: str
    reasoner: str
    segmenter: str
    prompt: str
    frame: FrameKind
    schema: AnswerSchema
    max_new_tokens: int
    licence: str
    memory_gb: float
    summary: str
    reasoner_revision: str | None = None
    segmenter_revision: str | None = None


_ONE_OBJECT = """\
Here is a description of one thing in this image: "{request}"
It may be indirect. Work out which thing is meant, then give the box that just encloses it \
and two points that lie well inside it, in pixels.
Write your reasoning between <think> and </think>: what the image shows, what the \
description asks for, and which candidate fits best and why. Then write the result as JSON \
between <answer> and </answer>.
For example:
<think>A kettle and a cup stand on the table; only the kettle heats water, so it is the \
kettle.</think><answer>{"bbox":[212,96,447,388],"points_1":[330,210],"points_2":[318,330]}\
</answer>"""

_MANY_OBJECTS = """\
Here is a description of what to find in this image: "{request}"
It may be indirect, and it may fit one thing, several, or none. Work out what is meant, then \
give for each thing that fits the box that just encloses it and one point well inside it, \
{units}.
Write your reasoning between <think> and </think>: what the image shows, what the \
description asks for, and which candidates fit and why. Then write the result as a JSON list \
between <answer> and </answer>; if nothing fits, the list is [].
For example:
<think>Two mugs and a plate are on the shelf; one drinks from a mug, so both mugs fit and the \
plate does not.</think><answer>[{"bbox_2d":[64,120,190,305],"point_2d":[121,214]},\
{"bbox_2d":[402,131,520,299],"point_2d":[466,220]}]</answer>"""

_IN_PIXELS = _MANY_OBJECTS.replace("{units}", "in pixels of the image")
_IN_THOUSANDTHS = _MANY_OBJECTS.replace(
    "{units}", "in coordinates that run from 0 to 1000 across the image on both axes"
)

_SAM_LARGE = "facebook/sam2.1-hiera-large"
_QWEN25 = Resized(factor=28, min_pixels=56 * 56, max_pixels=2048 * 28 * 28)
_QWEN3 = Thousand(factor=32, min_pixels=64 * 64, max_pixels=2048 * 32 * 32)
_BASE_LICENCE = "as its model card states; its base model is Apache-2.0"


def _photo_preset(
    name: str,
    reasoner: str,
    frame: FrameKind,
    prompt: str,
    memory_gb: float,
    summary: str,
    schema: AnswerSchema = AnswerSchema.VISION_REASONER,
    licence: str = "Apache-2.0",
) -> Preset:
    return Preset(
        name=name,
        reasoner=reasoner,
        segmenter=_SAM_LARGE,
        prompt=prompt,
        frame=frame,
        schema=schema,
        max_new_tokens=1024,
        licence=f"reasoner: {licence}; segmenter: Apache-2.0",
        memory_gb=memory_gb,
        summary=summary,
    )


_ALL = (
    Preset(
        name="tiny",
        reasoner=str(TINY_WEIGHTS / "reasoner"),
        segmenter=str(TINY_WEIGHTS / "segmenter"),
        prompt=REQUEST_SLOT,
        frame=Squash(160),
        schema=AnswerSchema.VISION_REASONER,
        max_new_tokens=256,
        licence="Apache-2.0",
        memory_gb=1.0,
        summary="Bundled, runs anywhere; knows only tabletop scenes of plain shapes.",
    ),
    _photo_preset(
        "seg-zero-7b",
        "Ricky06662/Seg-Zero-7B",
        Squash(840),
        _ONE_OBJECT,
        20.0,
        "Photographs; always names exactly one object.",
        schema=AnswerSchema.SEG_ZERO,
        licence=_BASE_LICENCE,
    ),
    _photo_preset(
        "visionreasoner-7b",
        "Ricky06662/VisionReasoner-7B",
        Squash(840),
        _IN_PIXELS,
        20.0,
        "Photographs; several objects or none.",
        licence=_BASE_LICENCE,
    ),
    _photo_preset(
        "qwen2.5-vl-7b",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        _QWEN25,
        _IN_PIXELS,
        21.0,
        "Photographs; a general model without training for this task.",
    ),
    _photo_preset(
        "qwen3-vl-4b",
        "Qwen/Qwen3-VL-4B-Instruct",
        _QWEN3,
        _IN_THOUSANDTHS,
        13.0,
        "Photographs; a general model, the smallest of the table.",
    ),
    _photo_preset(
        "qwen3-vl-8b",
        "Qwen/Qwen3-VL-8B-Instruct",
        _QWEN3,
        _IN_THOUSANDTHS,
        22.0,
        "Photographs; a general model, newer than qwen2.5-vl-7b.",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ALL})
"""Every preset by its name, in the order of the table above."""


def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        PresetError: There is none; the message lists the names.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise PresetError(
            f"There is no preset {name!r}.", f"Choose one of: {', '.join(PRESETS)}."
        ) from None

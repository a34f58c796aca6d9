from __future__ import annotations

import dataclasses

import pytest

from segzero_ml.answer import AnswerSchema, format_is_strict, parse
from segzero_ml.errors import PresetError
from segzero_ml.geometry import Frame
from segzero_ml.presets import PRESETS, Preset, Resized, Squash, Thousand, get_preset

EVERY = list(PRESETS.values())


def test_an_unknown_preset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(PresetError, match="no preset 'huge'") as caught:
        get_preset("huge")
    assert all(name in caught.value.remedy for name in PRESETS)


def test_the_promised_presets_are_there_under_their_own_names() -> None:
    assert {
        "tiny",
        "seg-zero-7b",
        "visionreasoner-7b",
        "qwen2.5-vl-7b",
        "qwen3-vl-4b",
        "qwen3-vl-8b",
    } <= set(PRESETS)
    assert all(get_preset(name).name == name for name in PRESETS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny", Squash),
        ("seg-zero-7b", Squash),
        ("visionreasoner-7b", Squash),
        ("qwen2.5-vl-7b", Resized),
        ("qwen3-vl-4b", Thousand),
        ("qwen3-vl-8b", Thousand),
    ],
)
def test_each_family_answers_in_its_own_frame(name: str, kind: type) -> None:
    assert isinstance(get_preset(name).frame, kind)


def test_the_tiny_prompt_is_the_request_and_nothing_else() -> None:
    assert get_preset("tiny").prompt == "{request}"
    assert get_preset("tiny").frame == Squash(160)


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_every_preset_states_what_a_user_must_know(preset: Preset) -> None:
    assert preset.prompt.count("{request}") == 1
    assert preset.licence
    assert preset.memory_gb > 0
    assert preset.summary
    assert preset.max_new_tokens > 0


@pytest.mark.parametrize(
    "preset", [p for p in EVERY if p.name != "tiny"], ids=lambda preset: preset.name
)
def test_the_example_in_each_prompt_is_an_answer_in_its_schema(preset: Preset) -> None:
    example = preset.prompt.split("For example:")[1].strip()
    assert format_is_strict(example, preset.schema)
    answer = parse(example, Frame(840, 840))
    assert answer.problem is None
    for item in answer.objects:
        assert item.points
        for point in item.points:
            assert item.box.x1 < point.x < item.box.x2
            assert item.box.y1 < point.y < item.box.y2
    assert (preset.schema is AnswerSchema.SEG_ZERO) == (preset.name == "seg-zero-7b")


def test_only_the_thousandth_frame_is_announced_as_such() -> None:
    for preset in EVERY:
        assert ("0 to 1000" in preset.prompt) == isinstance(preset.frame, Thousand)


def test_a_preset_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_preset("tiny").prompt = "x"  # type: ignore[misc]

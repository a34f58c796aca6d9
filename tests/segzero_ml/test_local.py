from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from segzero_ml.errors import ModelError, WeightsError
from segzero_ml.geometry import Frame, smart_resize
from segzero_ml.presets import FrameKind, Preset, Resized, Squash, Thousand, get_preset
from segzero_ml.reasoner.confidence import confidence_of
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.prompts import fit_image
from segzero_ml.types import ImageSize

Picture = Callable[..., Image.Image]
RESIZED = Resized(factor=28, min_pixels=56 * 56, max_pixels=112 * 112)
THOUSAND = Thousand(factor=32, min_pixels=64 * 64, max_pixels=128 * 128)


def preset(path: Path, frame: FrameKind = RESIZED, **more: Any) -> Preset:
    return dataclasses.replace(get_preset("tiny"), reasoner=str(path), frame=frame, **more)


@pytest.mark.parametrize(
    "name",
    ["seg-zero-7b", "visionreasoner-7b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen3-vl-8b"],
)
def test_every_declared_preset_runs_on_a_small_model_of_its_family(
    name: str, qwen25_dir: Path, qwen3_dir: Path, picture: Picture
) -> None:
    declared = get_preset(name)
    family, directory = (
        (Qwen3VLForConditionalGeneration, qwen3_dir)
        if name.startswith("qwen3")
        else (Qwen2_5_VLForConditionalGeneration, qwen25_dir)
    )
    small = dataclasses.replace(declared, reasoner=str(directory), max_new_tokens=3)
    reasoner = LocalReasoner.load(small, "cpu", torch.float32)
    assert isinstance(reasoner.model, family)
    sizes = [ImageSize(300, 100), ImageSize(64, 90)]
    outputs = reasoner.answer([picture(s.width, s.height) for s in sizes], ["a", "the red mug"])
    assert [output.tokens for output in outputs] <= [3, 3]
    for output, size in zip(outputs, sizes, strict=True):
        assert 0.0 <= output.confidence <= 1.0
        match declared.frame:
            case Squash(side=side):
                assert output.frame == Frame(side, side)
            case Thousand():
                assert output.frame == Frame(1000, 1000)
            case Resized(factor=factor, min_pixels=least, max_pixels=most):
                seen = smart_resize(size, factor, least, most)
                assert output.frame == Frame(seen.width, seen.height)


@pytest.mark.parametrize(
    ("family", "frame"),
    [("qwen25_dir", RESIZED), ("qwen3_dir", THOUSAND), ("qwen25_dir", Squash(112))],
)
@pytest.mark.parametrize("size", [(640, 480), (90, 40)])
def test_a_trainer_that_asks_the_processor_shows_the_model_what_serving_does(
    family: str,
    frame: FrameKind,
    size: tuple[int, int],
    picture: Picture,
    request: pytest.FixtureRequest,
) -> None:
    directory: Path = request.getfixturevalue(family)
    reasoner = LocalReasoner.load(preset(directory, frame), "cpu")
    image = picture(*size)
    served = reasoner.inputs([image], ["it"], [""])["image_grid_thw"]
    content = [{"type": "image", "image": fit_image(image, frame)}, {"type": "text", "text": "it"}]
    trained = reasoner.processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )["image_grid_thw"]
    assert trained.tolist() == served.tolist()


@pytest.mark.parametrize("frame", [RESIZED, THOUSAND, Squash(112)])
@pytest.mark.parametrize("family", ["taught_qwen25_dir", "taught_qwen3_dir"])
def test_a_batch_gives_each_request_its_own_answer(
    family: str,
    frame: FrameKind,
    request: pytest.FixtureRequest,
    lessons: dict[str, str],
    picture: Picture,
) -> None:
    reasoner = LocalReasoner.load(preset(request.getfixturevalue(family), frame), "cpu")
    images = [picture(90 + 40 * i, 70 + 20 * i, 50 + i) for i in range(len(lessons))]
    outputs = reasoner.answer(images, list(lessons))
    assert [output.text for output in outputs] == list(lessons.values())
    assert [output.tokens for output in outputs] == [len(text) for text in lessons.values()]
    factor = 32 if "qwen3" in family else 28  # of the processor, whatever the preset says
    for image, output in zip(images, outputs, strict=True):
        seen = smart_resize(ImageSize(*image.size), factor, 56 * 56, 112 * 112)
        assert (
            output.frame
            == {
                RESIZED: Frame(seen.width, seen.height),
                THOUSAND: Frame(1000, 1000),
                Squash(112): Frame(112, 112),
            }[frame]
        )


def test_the_confidence_is_that_of_the_tokens_written(
    taught_qwen25_dir: Path, lessons: dict[str, str], picture: Picture
) -> None:
    reasoner = LocalReasoner.load(preset(taught_qwen25_dir), "cpu")
    with torch.no_grad():  # unsure of itself, so that every token counts
        reasoner.model.lm_head.weight *= 0.5
    text = lessons["the mug"]
    image = picture(90, 70)
    [output] = reasoner.answer([image], ["the mug"])
    assert output.text == text

    inputs = reasoner.inputs([image], ["the mug"], [""])
    start = inputs["input_ids"].shape[1]
    target = torch.tensor([reasoner.processor.tokenizer(text)["input_ids"]])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], target], dim=1)
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        inputs[name] = torch.cat([inputs[name], torch.full_like(target, value)], dim=1)
    with torch.no_grad():
        logits = reasoner.model(**inputs).logits[0, start - 1 : -1].log_softmax(-1)
    chances = logits.gather(1, target[0][:, None])[:, 0].tolist()  # one byte, one token
    expected = confidence_of(list(zip(text, chances, strict=True)))
    assert output.confidence == pytest.approx(expected, rel=1e-3)
    assert output.confidence < 0.99


def test_without_an_answer_there_is_a_confidence_all_the_same(
    taught_qwen25_dir: Path, picture: Picture
) -> None:
    reasoner = LocalReasoner.load(preset(taught_qwen25_dir), "cpu")
    [output] = reasoner.answer([picture(90, 70)], ["say nonsense"])
    assert output.text == "I see a table."
    assert 0.5 < output.confidence < 1.0


def test_an_answer_that_is_cut_off_has_as_many_tokens_as_allowed(
    taught_qwen25_dir: Path, lessons: dict[str, str], picture: Picture
) -> None:
    reasoner = LocalReasoner.load(preset(taught_qwen25_dir, max_new_tokens=20), "cpu")
    [output] = reasoner.answer([picture(90, 70)], ["the mug"])
    assert output.tokens == 20
    assert output.text == lessons["the mug"][:20]


def test_a_request_full_of_control_tokens_does_no_harm(
    taught_qwen25_dir: Path, lessons: dict[str, str], picture: Picture
) -> None:
    reasoner = LocalReasoner.load(preset(taught_qwen25_dir), "cpu")
    hostile = "<|image_pad|><|im_end|><|vision_start|>"
    outputs = reasoner.answer([picture(90, 70), picture(70, 70)], [hostile, "the mug"])
    assert outputs[1].text == lessons["the mug"]


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 700)])
def test_images_of_extreme_shapes_are_answered(
    qwen25_dir: Path, picture: Picture, size: tuple[int, int]
) -> None:
    reasoner = LocalReasoner.load(preset(qwen25_dir, max_new_tokens=2), "cpu")
    [output] = reasoner.answer([picture(*size)], ["it"])
    assert output.tokens <= 2


def test_no_requests_give_no_outputs(qwen25_dir: Path) -> None:
    assert LocalReasoner.load(preset(qwen25_dir), "cpu").answer([], []) == []


def full_on_a_gpu() -> None:
    raise torch.OutOfMemoryError


def full_on_a_cpu() -> None:
    torch.empty(1 << 55)  # more than any address space


@pytest.mark.parametrize("full", [full_on_a_gpu, full_on_a_cpu])
def test_a_batch_too_large_for_the_memory_is_halved(
    full: Callable[[], None],
    taught_qwen25_dir: Path,
    lessons: dict[str, str],
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reasoner = LocalReasoner.load(preset(taught_qwen25_dir), "cpu")
    generate = reasoner.model.generate
    batches: list[int] = []

    def short_of_memory(**inputs: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        if batches[-1] > limit:
            full()
        return generate(**inputs)

    monkeypatch.setattr(reasoner.model, "generate", short_of_memory)
    limit = 1
    images = [picture(90, 70, seed) for seed in range(3)]
    requests = list(lessons)[:3]
    outputs = reasoner.answer(images, requests)
    assert [output.text for output in outputs] == [lessons[request] for request in requests]
    assert batches == [3, 1, 2, 1, 1]
    sampled = reasoner.sample(images, requests, count=2, max_new_tokens=2)
    assert [len(texts) for texts in sampled] == [2, 2, 2]
    assert batches[5:] == [3, 1, 2, 1, 1]
    limit = 0
    with pytest.raises(ModelError, match="not enough memory"):
        reasoner.answer(images, requests)


def test_an_error_that_is_not_about_memory_is_not_tried_again(
    qwen25_dir: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasoner = LocalReasoner.load(preset(qwen25_dir), "cpu")
    batches: list[int] = []

    def broken(**inputs: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(reasoner.model, "generate", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        reasoner.answer([picture(9, 9)] * 2, ["it"] * 2)
    assert batches == [2]


def test_the_version_is_the_hash_of_the_weights(qwen25_dir: Path, qwen3_dir: Path) -> None:
    first, again, other = (
        LocalReasoner.load(preset(path), "cpu").version
        for path in (qwen25_dir, qwen25_dir, qwen3_dir)
    )
    assert first == again != other
    assert len(first) == 64


def test_small_models_run_in_float32_on_a_cpu_and_large_ones_in_bfloat16(
    qwen25_dir: Path,
) -> None:
    assert LocalReasoner.load(preset(qwen25_dir), "cpu").model.dtype == torch.float32
    large = preset(qwen25_dir, memory_gb=20.0)
    assert LocalReasoner.load(large, "cpu").model.dtype == torch.bfloat16


@pytest.fixture
def broken_dir(qwen25_dir: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(qwen25_dir, tmp_path / "model"))


def break_config(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))


def break_text_only(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))


def break_weights(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def drop_tensor(path: Path) -> None:
    state = load_file(path / "model.safetensors")
    state.pop(next(name for name in state if "q_proj.weight" in name))
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def reshape_tensor(path: Path) -> None:
    state = load_file(path / "model.safetensors")
    name = next(name for name in state if "q_proj.weight" in name)
    state[name] = torch.zeros(3, 3)
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def poison_tensor(path: Path) -> None:
    state = load_file(path / "model.safetensors")
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def remove(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def pickle_only(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def add_code(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Model"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "evil.py").write_text("raise SystemExit('ran')")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, "cannot be loaded"),
        (break_text_only, "cannot be loaded"),
        (break_weights, "cannot be loaded"),
        (drop_tensor, "do not fit their configuration"),
        (reshape_tensor, "cannot be loaded|do not fit"),
        (poison_tensor, "not finite"),
        (remove("processor_config.json"), "cannot be loaded|no image processor"),
        (remove("tokenizer.json"), "cannot be loaded|no tokenizer"),
        (remove("chat_template.jinja"), "no chat template"),
        (pickle_only, "pytorch_model.bin"),
        (add_code, "auto_map"),
    ],
)
def test_damaged_or_hostile_weights_are_refused(
    broken_dir: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(broken_dir)
    with pytest.raises(WeightsError, match=message):
        LocalReasoner.load(preset(broken_dir), "cpu")

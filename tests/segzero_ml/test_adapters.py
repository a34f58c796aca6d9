"""Adapters over one base: chosen for each batch, loaded and removed while others answer."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file

from segzero_ml.adapted_pipelines import AdaptedPipelines
from segzero_ml.adapter_files import TENSORS_FILE
from segzero_ml.errors import ModelError, SegZeroError, WeightsError
from segzero_ml.geometry import Frame
from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import Preset, Resized, get_preset
from segzero_ml.reasoner.adapters import Adapters
from segzero_ml.reasoner.golden import check_golden, record_golden
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.protocol import Reasoner, ReasonerOutput
from segzero_ml.registry import Registry
from segzero_ml.versions import Golden, Version, VersionInfo
from tests.loras import write_loras

Picture = Callable[..., Image.Image]
Answer = list[ReasonerOutput]


@pytest.fixture(scope="module")
def preset(taught_qwen25_dir: Path, segmenter_dir: Path) -> Preset:
    """A small model that has learnt a few answers by heart."""
    return dataclasses.replace(
        get_preset("tiny"),
        reasoner=str(taught_qwen25_dir),
        segmenter=str(segmenter_dir),
        frame=Resized(factor=28, min_pixels=56 * 56, max_pixels=112 * 112),
        max_new_tokens=120,
    )


@pytest.fixture(scope="module")
def loras(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two that spoil the answers, and one that hardly changes anything."""
    folder = tmp_path_factory.mktemp("loras")
    spoiling = write_loras(folder, (1, 2), preset, scale=1.0)
    return {**spoiling, **write_loras(folder, (3,), preset, scale=1e-4)}


@pytest.fixture
def ask(picture: Picture, lessons: dict[str, str]) -> Callable[[Reasoner], Answer]:
    images = [picture(90, 70, seed) for seed in range(len(lessons))]
    return lambda reasoner: reasoner.answer(images, list(lessons))


def test_each_adapter_answers_for_itself_and_the_base_as_ever(
    preset: Preset, loras: dict[int, Path], ask: Callable[[Reasoner], Answer]
) -> None:
    base = LocalReasoner.load(preset, "cpu")
    plain = ask(base)
    adapters = Adapters(base)
    first, second = adapters.put_on(loras[1]), adapters.put_on(loras[2])
    answers = [ask(first), ask(second)]
    assert adapters.loaded == 2
    assert plain != answers[0] != answers[1] != plain
    assert ask(base) == plain
    assert ask(first) == answers[0]
    adapters.take_off(first)
    assert adapters.loaded == 1
    assert ask(second) == answers[1]
    with pytest.raises(ModelError, match="not served any more"):
        ask(first)
    adapters.take_off(second)
    adapters.take_off(second)
    assert ask(base) == plain
    assert not [name for name, _ in base.model.named_modules() if "lora" in name]
    assert ask(adapters.put_on(loras[2])) == answers[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["taught_qwen25_dir", "taught_qwen3_dir"])
def test_an_adapter_answers_as_it_does_in_peft_itself(
    family: str,
    dtype: torch.dtype,
    preset: Preset,
    ask: Callable[[Reasoner], Answer],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    own = dataclasses.replace(preset, reasoner=str(request.getfixturevalue(family)))
    lora = write_loras(tmp_path, (1,), own, scale=0.3)[1]
    base = LocalReasoner.load(own, "cpu", dtype)
    plain = [output.text for output in ask(base)]
    ours = [output.text for output in ask(Adapters(base).put_on(lora))]
    theirs = LocalReasoner.load(own, "cpu", dtype)
    PeftModel.from_pretrained(theirs.model, lora)
    assert ours == [output.text for output in ask(theirs)]
    assert ours != plain


def test_an_adapter_of_another_model_is_refused_and_leaves_no_trace(
    preset: Preset, loras: dict[int, Path], ask: Callable[[Reasoner], Answer], tmp_path: Path
) -> None:
    base = LocalReasoner.load(preset, "cpu")
    plain = ask(base)
    adapters = Adapters(base)
    for change in ("layers.0", "in"):
        folder = Path(shutil.copytree(loras[1], tmp_path / change))
        tensors = load_file(folder / TENSORS_FILE)
        for name in [name for name in tensors if "layers.0.self_attn.q_proj" in name]:
            tensor = tensors.pop(name)
            if change == "in":
                tensors[name] = torch.cat([tensor, tensor], dim=int("lora_A" in name))
            else:
                tensors[name.replace("layers.0", "layers.99")] = tensor
        save_file(tensors, folder / TENSORS_FILE)
        with pytest.raises(WeightsError, match="for another model"):
            adapters.put_on(folder)
    assert adapters.loaded == 0
    assert ask(base) == plain


class Says:
    """A reasoner whose text is known."""

    version = "0" * 64

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        return [ReasonerOutput(text, Frame(100, 100), 1.0, 1) for text in self._texts]


def boxes(*corners: tuple[float, float, float, float]) -> str:
    objects = ", ".join(f'{{"bbox_2d": {list(one)}, "point_2d": [5, 5]}}' for one in corners)
    return f"<think>So it is.</think><answer>[{objects}]</answer>"


@pytest.mark.parametrize(
    ("then", "now", "is_same"),
    [
        (boxes((1, 2, 30, 40)), boxes((1, 2, 30, 40)), True),
        (boxes((1, 2, 30, 40)), boxes((3, 2, 28, 40)), True),
        (boxes((1, 2, 30, 40)), boxes((1, 2, 30, 43)), False),
        (boxes((1, 2, 30, 40)), boxes((1, 2, 30, 40), (1, 2, 30, 40)), False),
        (boxes((1, 2, 9, 9), (50, 50, 70, 70)), boxes((50, 50, 70, 70), (1, 2, 9, 9)), False),
        (boxes((1, 2, 30, 40)), boxes(), False),
        (boxes(), "I do not know.", False),
        (boxes(), boxes(), True),
        ("I do not know.", "Nor do I.", True),
    ],
)
def test_golden_predictions_are_compared_by_their_boxes(
    picture: Picture, then: str, now: str, is_same: bool
) -> None:
    golden = record_golden(Says(then), [picture(2000, 30)], ["The Mug."])
    if is_same:
        check_golden(Says(now), golden)
    else:
        with pytest.raises(WeightsError, match="otherwise than when it was published"):
            check_golden(Says(now), golden)


def test_a_golden_prediction_without_an_image_is_refused() -> None:
    with pytest.raises(WeightsError, match="has no image"):
        check_golden(Says(boxes()), [Golden("the mug", b"no png", boxes())])


@pytest.fixture
def base(preset: Preset) -> Pipeline:
    return Pipeline.load(preset, "cpu")


@pytest.fixture
def publish(
    base: Pipeline,
    loras: dict[int, Path],
    picture: Picture,
    lessons: dict[str, str],
    tmp_path: Path,
) -> Callable[..., Version]:
    """Publishes an adapter as training does, with what it answers."""
    registry = Registry(tmp_path / "registry")

    def publishing(seed: int, **other: object) -> Version:
        adapters = Adapters(LocalReasoner.load(base.preset, "cpu"))
        images, asked = [picture(90, 70, n) for n in range(2)], list(lessons)[:2]
        golden = record_golden(adapters.put_on(loras[seed]), images, asked)
        info = VersionInfo("tiny", base.reasoner.version, golden=golden)
        changed = dataclasses.replace(info, **other)  # type: ignore[arg-type]
        return registry.publish(loras[seed], changed)

    return publishing


def test_a_sound_version_answers_under_its_own_name(
    base: Pipeline, publish: Callable[..., Version], picture: Picture, lessons: dict[str, str]
) -> None:
    version = publish(3)
    assert lessons[version.info.golden[0].request] == version.info.golden[0].text
    pipelines = AdaptedPipelines(base)
    adapted = pipelines.put_on(version)
    [prediction] = adapted.predict([picture(90, 70)], ["the mug"])
    assert prediction.model_version == f"{base.model_version}+{version.id}"
    assert prediction.text == lessons["the mug"]
    assert adapted.segmenter is base.segmenter
    pipelines.take_off(adapted)
    assert pipelines.loaded == 0


def truncate(version: Version) -> None:
    path = version.folder / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(version: Version) -> None:
    path = version.folder / TENSORS_FILE
    data = bytearray(path.read_bytes())
    data[-1001] ^= 1 << 3
    path.write_bytes(data)


def rewrite(version: Version, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = version.folder / TENSORS_FILE
    save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        lambda version: rewrite(version, lambda tensor: tensor * float("nan")),
        lambda version: rewrite(version, torch.zeros_like),
        lambda version: shutil.rmtree(version.folder),
    ],
    ids=["truncated", "bit flipped", "not a number", "zeros", "gone"],
)
def test_a_damaged_version_is_refused_and_the_old_one_serves(
    base: Pipeline,
    publish: Callable[..., Version],
    picture: Picture,
    damage: Callable[[Version], None],
) -> None:
    pipelines = AdaptedPipelines(base)
    old = pipelines.put_on(publish(1))
    before = old.predict([picture(90, 70)], ["the mug"])[0].text
    new = publish(3)
    damage(new)
    with pytest.raises(WeightsError):
        pipelines.put_on(new)
    assert pipelines.loaded == 1
    assert old.predict([picture(90, 70)], ["the mug"])[0].text == before


def test_a_version_that_answers_otherwise_than_it_did_is_refused(
    base: Pipeline, publish: Callable[..., Version]
) -> None:
    wrong = dataclasses.replace(publish(3).info.golden[0], text=boxes((1, 1, 3, 3)))
    pipelines = AdaptedPipelines(base)
    with pytest.raises(WeightsError, match="otherwise"):
        pipelines.put_on(publish(3, golden=(wrong,), round="another"))
    assert pipelines.loaded == 0


def test_a_version_over_another_base_is_refused(
    base: Pipeline, publish: Callable[..., Version]
) -> None:
    with pytest.raises(WeightsError, match="trained over other weights"):
        AdaptedPipelines(base).put_on(publish(3, base="f" * 64))


def test_nothing_is_laid_over_a_reasoner_elsewhere(base: Pipeline) -> None:
    remote = Pipeline.load(base.preset, "cpu", reasoner=Says(""))
    with pytest.raises(SegZeroError, match="runs on this machine"):
        AdaptedPipelines(remote)


def test_an_adapter_can_be_tried_before_it_is_published(
    base: Pipeline, loras: dict[int, Path], picture: Picture
) -> None:
    pipelines = AdaptedPipelines(base)
    tried = pipelines.try_on(loras[1], "step-20")
    [prediction] = tried.predict([picture(90, 70)], ["the mug"])
    assert prediction.model_version == f"{base.model_version}+step-20"
    pipelines.take_off(tried)
    assert pipelines.loaded == 0

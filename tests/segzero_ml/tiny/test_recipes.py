"""Both recipes, a few steps each: what they make is what serving loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from transformers import AutoProcessor

from segzero_ml.pipeline import Pipeline
from segzero_ml.presets import get_preset
from segzero_ml.segmenter import Prompt
from segzero_ml.tiny import pretrain
from segzero_ml.tiny.cache import TRAINING_STREAM, scene_of
from segzero_ml.tiny.loop import LoopOptions
from segzero_ml.tiny.reasoner import build_processor, save_pretrained
from segzero_ml.tiny.train_reasoner import ReasonerOptions, train_reasoner
from segzero_ml.tiny.train_segmenter import SegmenterOptions, train_segmenter
from segzero_ml.types import Box

THREE_STEPS = LoopOptions(3, 1e-3)


def make_reasoner(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bundled one: training a tokenizer draws hundreds of scenes.
    tokenizer = AutoProcessor.from_pretrained(get_preset("tiny").reasoner).tokenizer
    monkeypatch.setattr("segzero_ml.tiny.train_reasoner.build_tokenizer", lambda: tokenizer)
    options = ReasonerOptions(
        scenes=12, seeing_batch=2, batch=2, requests=2, seeing=THREE_STEPS, answering=THREE_STEPS
    )
    model, same = train_reasoner(options, out.parent)
    save_pretrained(model, build_processor(same), out)


def make_segmenter(out: Path) -> None:
    options = SegmenterOptions(scenes=12, batch=2, loop=THREE_STEPS)
    pretrain.save_segmenter(train_segmenter(options, out.parent), out)


def test_what_the_recipes_make_answers_and_no_compiler_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    make_reasoner(tmp_path / "reasoner", monkeypatch)
    assert "No C++ compiler was found" in caplog.text
    make_segmenter(tmp_path / "segmenter")
    preset = dataclasses.replace(
        get_preset("tiny"),
        reasoner=str(tmp_path / "reasoner"),
        segmenter=str(tmp_path / "segmenter"),
        max_new_tokens=3,
    )
    pipeline = Pipeline.load(preset, "cpu")
    image = scene_of(0, TRAINING_STREAM).image
    [prediction] = pipeline.predict([image], ["the mug"])
    assert prediction.text
    [mask] = pipeline.segmenter.segment(image, [Prompt(Box(10, 10, 60, 60))])
    assert mask.mask.shape == (image.height, image.width)


@pytest.mark.parametrize(
    ("arguments", "device", "compiled"),
    [([], "cpu", True), (["--no-compile"], "cpu", False)],
)
def test_the_recipe_is_told_where_and_how_to_train(
    arguments: list[str],
    device: str,
    compiled: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[ReasonerOptions] = []

    def stop(options: ReasonerOptions, _: Path) -> None:
        told.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "train_reasoner", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main(["reasoner", "--threads", "1", "--out", str(tmp_path), *arguments])
    [options] = told
    assert (options.seeing.device, options.answering.device) == (device, device)
    assert options.compiled is compiled


def test_a_gpu_that_is_not_there_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        pretrain.main(["segmenter", "--device", "cuda"])
    assert "finds no GPU" in capsys.readouterr().err

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segzero_ml.errors import WeightsError
from segzero_ml.sam2_build import (
    MAX_FILE_BYTES,
    PUBLISHED_CONFIGS,
    build_sam2_model,
    load_published_config,
    load_segmenter_config,
)

Config = Callable[..., dict[str, Any]]


def write(path: Path, text: str) -> Path:
    file = path / "config.yaml"
    file.write_text(text)
    return file


def test_a_small_configuration_file_makes_a_model_of_its_image_size(
    tmp_path: Path, sam2_config: Config
) -> None:
    file = write(tmp_path, yaml.safe_dump({"model": sam2_config(96)}))
    model = build_sam2_model(file)
    assert model.image_size == 96
    assert not model.training
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("hub_id", PUBLISHED_CONFIGS)
def test_every_published_configuration_is_accepted_at_1024_pixels(hub_id: str) -> None:
    config = load_published_config(hub_id)
    assert config["image_size"] == 1024
    assert config["sam_mask_decoder_extra_args"]["dynamic_multimask_via_stability"] is True
    assert "compile_image_encoder" not in config


def test_an_unknown_published_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"facebook/sam2\.1-hiera-large"):
        load_published_config("someone/else")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("memory_encoder", {"_target_": "os.system", "command": "true"}, "asks for 'os.system'"),
        ("memory_encoder", {"_target_": "sam2.build_sam.build_sam2_hf"}, "asks for"),
        ("memory_encoder", {"_target_": ["os.system"]}, "asks for"),
        ("memory_encoder", {"weights_path": "/tmp/x.pt"}, "weights_path"),
        ("compile_image_encoder", True, "compile_image_encoder"),
        ("memory_encoder", {"_args_": ["x"]}, "_args_"),
        ("memory_encoder", {"_partial_": True}, "_partial_"),
        ("num_maskmem", "${oc.env:HOME}", "interpolation"),
        ("memory_encoder", {"${oc.env:HOME}": 1}, "has the key"),
        ("num_maskmem", 10**9, "beyond"),
        ("num_maskmem", float("nan"), "beyond"),
        ("image_size", 100, "multiple of 32"),
        ("image_size", 0, "multiple of 32"),
        ("image_size", "big", "multiple of 32"),
        ("image_size", 4096, "up to 2048"),
        ("_target_", "sam2.modeling.backbones.hieradet.Hiera", "not a sam2"),
    ],
)
def test_a_hostile_configuration_is_refused(
    tmp_path: Path, sam2_config: Config, key: str, value: object, message: str
) -> None:
    file = write(tmp_path, yaml.safe_dump({"model": sam2_config() | {key: value}}))
    with pytest.raises(WeightsError, match=message):
        load_segmenter_config(file)


def test_a_configuration_given_as_a_mapping_is_checked_too(sam2_config: Config) -> None:
    with pytest.raises(WeightsError, match=r"os\.system"):
        build_sam2_model(sam2_config() | {"memory_encoder": {"_target_": "os.system"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "not valid YAML"),
        ("model: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("- 1", "no `model` mapping"),
        ("model: 3", "no `model` mapping"),
        ("x: 1", "no `model` mapping"),
        ("model: {d: 2024-01-01}", "is a date"),
        (
            "model:\n  a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"  {new}: &{new} [{', '.join(['*' + old] * 10)}]\n"
                for old, new in zip("abcdefg", "bcdefgh", strict=True)
            ),
            "too large or too deep",
        ),
        ("model: {a: " + "[" * 100 + "]" * 100 + "}", "too large or too deep"),
        ("model: {a: " + "[" * 5000 + "]" * 5000 + "}", "YAML|too deep"),
    ],
)
def test_a_broken_or_exploding_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_segmenter_config(write(tmp_path, text))


def test_a_file_that_is_too_long_or_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="over the limit"):
        load_segmenter_config(write(tmp_path, "#" * (MAX_FILE_BYTES + 1)))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_segmenter_config(tmp_path / "absent.yaml")


def test_a_configuration_that_makes_no_model_says_which_part(sam2_config: Config) -> None:
    config = sam2_config()
    config["image_encoder"]["neck"]["backbone_channel_list"] = [1, 2, 3, 4]
    with pytest.raises(WeightsError, match="does not make a model"):
        build_sam2_model(config)

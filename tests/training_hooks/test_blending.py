"""Keeping a share of what was learnt."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from segzero_ml.adapter_files import read_adapter
from training_hooks.blending import blended


def adapter(folder: Path) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = {
        "base_model.model.layer.lora_A.weight": torch.ones(2, 3),
        "base_model.model.layer.lora_B.weight": torch.ones(3, 2),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_a_share_of_an_adapter_changes_the_base_by_that_share(tmp_path: Path) -> None:
    whole = adapter(tmp_path / "checkpoint-4")
    made = blended(whole, 0.5, tmp_path / "blended")
    assert made == tmp_path / "blended" / "checkpoint-4"
    before, after = read_adapter(whole), read_adapter(made)
    assert (before.alpha, after.alpha) == (4, 2)
    assert before.layers.keys() == after.layers.keys()
    # Made again, as after a crash, it is the same.
    assert read_adapter(blended(whole, 0.5, tmp_path / "blended")).alpha == 2


def test_all_of_an_adapter_is_that_adapter(tmp_path: Path) -> None:
    whole = adapter(tmp_path / "checkpoint-4")
    assert blended(whole, 1.0, tmp_path / "blended") == whole
    assert not (tmp_path / "blended").exists()

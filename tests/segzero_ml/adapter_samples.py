"""Adapters made by hand, without a model: no fixtures, no tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from segzero_ml.adapter_files import CONFIG_FILE, TENSORS_FILE
from segzero_ml.versions import VersionInfo

RANK = 2
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj")
INFO = VersionInfo("tiny", "a" * 64, round="r1", snapshot="s1", figures={"mean_iou": 0.75})

Tensors = dict[str, NDArray[np.generic]]


def tensor_name(layer: str, side: str) -> str:
    return f"base_model.model.{layer}.lora_{side}.weight"


def random_tensors(seed: int = 0, rank: int = RANK) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in LAYERS:
        tensors[tensor_name(layer, "A")] = rng.normal(size=(rank, 6)).astype(np.float32)
        tensors[tensor_name(layer, "B")] = rng.normal(size=(8, rank)).astype(np.float32)
    return tensors


def write_adapter(
    folder: Path, tensors: Tensors | None = None, seed: int = 0, **config: object
) -> Path:
    """An adapter as PEFT writes it; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"peft_type": "LORA", "r": RANK, "lora_alpha": 4, "bias": "none", **config}
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    save_file(random_tensors(seed) if tensors is None else tensors, folder / TENSORS_FILE)
    return folder


def edit_tensors(folder: Path, **change: NDArray[np.generic]) -> None:
    """Replace tensors, named by side: `B=…` is that of the first layer."""
    tensors = load_file(folder / TENSORS_FILE)
    for side, value in change.items():
        tensors[tensor_name(LAYERS[0], side)] = value
    save_file(tensors, folder / TENSORS_FILE)

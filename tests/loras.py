"""LoRA adapters over a preset's reasoner, made by PEFT with random matrices: no tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from segzero_ml.presets import Preset, get_preset
from segzero_ml.reasoner.local import LocalReasoner

TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"

SHORT = dataclasses.replace(get_preset("tiny"), max_new_tokens=12)
"""The bundled pair with answers cut short, for what does not look at them."""


def write_loras(
    folder: Path, seeds: tuple[int, ...], preset: Preset = SHORT, scale: float = 0.1
) -> dict[int, Path]:
    """One adapter for each seed, as PEFT writes them; all unlike the base and each other."""
    model: Any = get_peft_model(
        LocalReasoner.load(preset, "cpu").model,
        LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS, task_type="CAUSAL_LM"),
    )
    folders = {}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * scale
        folders[seed] = folder / f"lora{seed}"
        model.save_pretrained(folders[seed])
    return folders

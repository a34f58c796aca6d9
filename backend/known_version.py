"""The version that a preset will answer with, known before its models are loaded.

Imports torch, which takes seconds: for the thread that loads.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from segzero_ml.pipeline import version_of
from segzero_ml.presets import Preset
from segzero_ml.weights import locate


def version_ahead(preset: Preset) -> str | None:
    """The version of a preset whose weights are on this machine; nothing is downloaded.

    Args:
        preset: The preset that is about to be loaded.

    Returns:
        What `Pipeline.model_version` will be, or None where weights are yet to be fetched.
        A revision that moves on the hub is taken as it was when last fetched.

    Raises:
        WeightsError: A directory's weights are missing or refused.
    """
    reasoner = _weights_version(preset.reasoner, preset.reasoner_revision)
    segmenter = _weights_version(preset.segmenter, preset.segmenter_revision)
    if reasoner is None or segmenter is None:
        return None
    return version_of(preset.name, reasoner, segmenter)


def _weights_version(ref: str, revision: str | None) -> str | None:
    if Path(ref).is_dir():
        return locate(ref).version
    cached = try_to_load_from_cache(ref, "config.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else None

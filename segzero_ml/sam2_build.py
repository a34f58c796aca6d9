"""A SAM 2 model from a configuration file, with freshly initialised weights.

The file is YAML in the `sam2` package's own style: a `model` mapping whose `_target_`
entries name the classes to build. Such a file can name any callable in Python, so it is
treated as hostile: only the classes below may be named, and only plain values may be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segzero_ml.errors import WeightsError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

MODEL_CLASS = "sam2.modeling.sam2_base.SAM2Base"
ALLOWED_TARGETS = frozenset(
    {
        MODEL_CLASS,
        "sam2.modeling.backbones.hieradet.Hiera",
        "sam2.modeling.backbones.image_encoder.FpnNeck",
        "sam2.modeling.backbones.image_encoder.ImageEncoder",
        "sam2.modeling.memory_attention.MemoryAttention",
        "sam2.modeling.memory_attention.MemoryAttentionLayer",
        "sam2.modeling.memory_encoder.CXBlock",
        "sam2.modeling.memory_encoder.Fuser",
        "sam2.modeling.memory_encoder.MaskDownSampler",
        "sam2.modeling.memory_encoder.MemoryEncoder",
        "sam2.modeling.position_encoding.PositionEmbeddingSine",
        "sam2.modeling.sam.transformer.RoPEAttention",
    }
)
# `weights_path` unpickles a file; compiling runs a compiler.
REFUSED_KEYS = frozenset({"weights_path", "compile_image_encoder"})

MAX_FILE_BYTES = 64 * 1024
MAX_NODES = 2_000
MAX_DEPTH = 16
MAX_NUMBER = 16_384
MAX_IMAGE_SIZE = 2_048
IMAGE_STRIDE = 32  # of the coarsest feature map: patches of 4, halved three times

PUBLISHED_CONFIGS: Mapping[str, str] = {
    "facebook/sam2.1-hiera-tiny": "sam2.1_hiera_t.yaml",
    "facebook/sam2.1-hiera-small": "sam2.1_hiera_s.yaml",
    "facebook/sam2.1-hiera-base-plus": "sam2.1_hiera_b+.yaml",
    "facebook/sam2.1-hiera-large": "sam2.1_hiera_l.yaml",
}
"""Hub id of each published SAM 2.1 → its configuration inside the `sam2` package."""

# What `sam2` itself switches on for published checkpoints: when the single mask is not
# stable under a shifted threshold, the best of the three others is taken.
_STABILITY_FALLBACK: Mapping[str, Any] = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}

_REMEDY = "Use the configuration that was shipped with the weights."


class _PlainLoader(yaml.SafeLoader):
    """A safe loader that also reads `1e-6` as a number, as hydra does."""


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_segmenter_config(path: str | Path) -> dict[str, Any]:
    """Read and check a segmenter's configuration file.

    Args:
        path: A YAML file with one top-level key, `model`.

    Returns:
        The `model` mapping: plain dicts, lists, numbers, strings, booleans and None.

    Raises:
        WeightsError: The file is missing, not YAML, too large, or asks for anything but
            the SAM 2 classes.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise WeightsError(
                f"The segmenter configuration {path} is {size} bytes, over the limit of "
                f"{MAX_FILE_BYTES}.",
                _REMEDY,
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"The segmenter configuration {path} cannot be read: {error}.",
            "A segmenter directory needs config.yaml beside model.safetensors.",
        ) from error
    return _parse_config(text, str(path))


def load_published_config(hub_id: str) -> dict[str, Any]:
    """The checked configuration of a published SAM 2.1 model.

    Raises:
        WeightsError: No published model has this id.
    """
    name = PUBLISHED_CONFIGS.get(hub_id)
    if name is None:
        known = ", ".join(sorted(PUBLISHED_CONFIGS))
        raise WeightsError(
            f"{hub_id!r} is not a known segmenter.",
            f"Use one of {known}, or a directory with config.yaml and model.safetensors.",
        )
    text = resources.files("sam2").joinpath("configs", "sam2.1", name).read_text("utf-8")
    # `compile_image_encoder: False` is written out in these files; it is also the default.
    config = _parse_config(text, name, drop=frozenset({"compile_image_encoder"}))
    extra = dict(config.get("sam_mask_decoder_extra_args") or {})
    config["sam_mask_decoder_extra_args"] = extra | dict(_STABILITY_FALLBACK)
    return config


def build_sam2_model(config: str | Path | Mapping[str, Any]) -> SAM2Base:
    """Build a SAM 2 model with freshly initialised weights.

    Args:
        config: A configuration file, or the mapping that `load_segmenter_config` returned.

    Returns:
        The model, float32, on the CPU, in evaluation mode. Square input of
        `model.image_size` pixels a side.

    Raises:
        WeightsError: The configuration is refused or does not make a model.
    """
    if isinstance(config, (str, Path)):
        config = load_segmenter_config(config)
    checked = dict(config)
    _check_model(checked, "the mapping")
    try:
        model: SAM2Base = instantiate(OmegaConf.create(checked), _recursive_=True)
    except (InstantiationException, OmegaConfBaseException) as error:
        raise WeightsError(
            f"The segmenter configuration does not make a model: {error}", _REMEDY
        ) from error
    return model.eval()


def _parse_config(text: str, source: str, drop: frozenset[str] = frozenset()) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=_PlainLoader)  # noqa: S506  (it is a safe loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise WeightsError(
            f"The segmenter configuration {source} is not valid YAML: {error}", _REMEDY
        ) from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, dict):
        raise WeightsError(f"The segmenter configuration {source} has no `model` mapping.", _REMEDY)
    model = {key: value for key, value in model.items() if key not in drop}
    _check_model(model, source)
    return model


def _check_model(model: dict[str, Any], source: str) -> None:
    _Checker(source).check(model, "model", 0)
    if model.get("_target_") != MODEL_CLASS:
        raise WeightsError(f"In {source}, `model` is not a {MODEL_CLASS}.", _REMEDY)
    side = model.get("image_size", 512)
    if not isinstance(side, int) or not 0 < side <= MAX_IMAGE_SIZE or side % IMAGE_STRIDE:
        raise WeightsError(
            f"In {source}, image_size is {side!r}; it must be a multiple of {IMAGE_STRIDE} "
            f"up to {MAX_IMAGE_SIZE}.",
            _REMEDY,
        )


class _Checker:
    """Walks a configuration once; the count also bounds YAML aliases that blow up."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._nodes = 0

    def check(self, value: object, where: str, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            self._refuse(where, "is too large or too deep")
        if isinstance(value, dict):
            for key, item in value.items():
                self._check_key(key, item, where)
                self.check(item, f"{where}.{key}", depth + 1)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.check(item, f"{where}[{index}]", depth + 1)
        else:
            self._check_leaf(value, where)

    def _check_leaf(self, value: object, where: str) -> None:
        if isinstance(value, str):
            if "${" in value:
                self._refuse(where, "holds an interpolation")
        elif isinstance(value, (int, float)):  # bool is an int, and harmless
            if not math.isfinite(value) or abs(value) > MAX_NUMBER:
                self._refuse(where, f"is {value}, beyond ±{MAX_NUMBER}")
        elif value is not None:
            self._refuse(where, f"is a {type(value).__name__}")

    def _check_key(self, key: object, item: object, where: str) -> None:
        if not isinstance(key, str) or "${" in key:
            self._refuse(where, f"has the key {key!r}")
        elif key == "_target_":
            if not isinstance(item, str) or item not in ALLOWED_TARGETS:
                self._refuse(where, f"asks for {item!r}")
        elif key.startswith("_") or key in REFUSED_KEYS:
            self._refuse(where, f"uses the refused key {key!r}")

    def _refuse(self, where: str, why: str) -> None:
        raise WeightsError(
            f"The segmenter configuration {self._source} is refused: {where} {why}.", _REMEDY
        )

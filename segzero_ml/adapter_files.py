"""What an adapter's two files hold, read and checked without running anything of theirs.

Only plain LoRA is taken: two matrices beside each of some linear layers. PEFT knows forms
that replace whole layers, repeat them or change the base when loaded; those are refused.
"""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from segzero_ml.errors import WeightsError

CONFIG_FILE: Final = "adapter_config.json"
TENSORS_FILE: Final = "adapter_model.safetensors"

MAX_CONFIG_BYTES: Final = 1 << 20
MAX_HEADER_BYTES: Final = 16 << 20
MAX_RANK: Final = 4096

_RESTORE: Final = "Train it again, or go back with segzero rollback."
_TENSOR: Final = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,400})\.lora_([AB])\.weight")
_ITEM_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_INFINITE: Final = {  # bits of the exponent, all set in what is infinite or not a number
    "F64": np.uint64(0x7FF0_0000_0000_0000),
    "F32": np.uint32(0x7F80_0000),
    "F16": np.uint16(0x7C00),
    "BF16": np.uint16(0x7F80),
}
_REFUSED: Final = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "rank_pattern",
    "alpha_pattern",
    "arrow_config",
    "alora_invocation_tokens",
    "auto_mapping",
    "auto_map",
)
_AT_ONCE: Final = 1 << 20  # numbers looked at together


@dataclass(frozen=True, slots=True)
class LoraShape:
    """The layer that two matrices belong to.

    Args:
        inputs: Width of what goes in.
        outputs: Width of what comes out.
    """

    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter whose files are in order.

    Args:
        rank: Rows of A and columns of B, the same for every layer.
        alpha: Strength; B·A is multiplied by alpha / rank, or alpha / √rank.
        use_rslora: Whether it is the square root.
        layers: The layers it changes, by their name in the base model.
    """

    rank: int
    alpha: float
    use_rslora: bool
    layers: Mapping[str, LoraShape]


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, int]
    begin: int
    end: int


def read_adapter(folder: Path) -> AdapterFile:
    """Read and check an adapter in full: form, shapes, and every number.

    Args:
        folder: Holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        WeightsError: A file is missing, truncated, malformed, or of a refused form; a number
            is infinite or none at all; or the matrices are zeros, as of a damaged file or an
            adapter that was never trained.
    """
    for name in (CONFIG_FILE, TENSORS_FILE):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise WeightsError(f"The adapter at {folder} has no file {name}.", _RESTORE)
    rank, alpha, use_rslora = _read_config(folder / CONFIG_FILE)
    layers = _read_layers(folder / TENSORS_FILE, rank)
    return AdapterFile(rank, alpha, use_rslora, layers)


def _read_config(path: Path) -> tuple[int, float, bool]:
    config = _read_json(path)
    if config.get("peft_type") != "LORA":
        raise _bad(path, f"its peft_type is {str(config.get('peft_type'))[:40]!r}, not 'LORA'")
    if config.get("bias", "none") != "none":
        raise _bad(path, "it changes biases")
    if odd := [name for name in _REFUSED if config.get(name)]:
        raise _bad(path, f"it uses {odd[0]}, which is not plain LoRA")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise _bad(path, f"its rank is not a whole number from 1 to {MAX_RANK}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise _bad(path, "its lora_alpha is not a number above 0")
    return rank, float(alpha), config.get("use_rslora") is True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise _bad(path, "it is too large for a configuration")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(path, "it cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise _bad(path, "it is no JSON object")
    return content


def _read_layers(path: Path, rank: int) -> dict[str, LoraShape]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tensors = _read_header(path, data)
            layers = _pair(path, tensors, rank)
            trained = False
            for name, tensor in sorted(tensors.items()):
                is_zero = _is_zero(path, data, name, tensor)
                if is_zero and name.endswith("lora_A.weight"):
                    raise _bad(path, f"{name} is all zeros")
                trained = trained or (not is_zero and name.endswith("lora_B.weight"))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise _bad(path, "it cannot be read") from error
    if not trained:
        raise _bad(path, "every lora_B is all zeros, so that it would change nothing")
    return layers


def _read_header(path: Path, data: mmap.mmap) -> dict[str, _Tensor]:
    """The tensors of a safetensors file: names, forms, and places in the file."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise _bad(path, "its header is cut off or too long")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise _bad(path, "its header is no JSON") from error
    if not isinstance(header, dict):
        raise _bad(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    start = 8 + length
    tensors = {str(name): _tensor(path, name, entry, start) for name, entry in header.items()}
    end = start
    for tensor in sorted(tensors.values(), key=lambda one: one.begin):
        if tensor.begin != end:
            raise _bad(path, "its tensors overlap or leave gaps")
        end = tensor.end
    if not tensors or end != len(data):
        raise _bad(path, f"it holds {len(data)} bytes where its header tells of {end}")
    return tensors


def _tensor(path: Path, name: str, entry: object, start: int) -> _Tensor:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": [int(rows), int(columns)],
            "data_offsets": [int(begin), int(end)],
        } if dtype in _ITEM_BYTES and rows > 0 and columns > 0 and begin >= 0:
            if end - begin == rows * columns * _ITEM_BYTES[dtype]:
                return _Tensor(dtype, (rows, columns), start + begin, start + end)
    raise _bad(path, f"{str(name)[:100]!r} is no matrix of floating-point numbers")


def _pair(path: Path, tensors: Mapping[str, _Tensor], rank: int) -> dict[str, LoraShape]:
    sides: dict[str, dict[str, tuple[int, int]]] = {}
    for name, tensor in tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise _bad(path, f"{name[:100]!r} is not the name of a LoRA matrix")
        sides.setdefault(found[1], {})[found[2]] = tensor.shape
    layers = {}
    for layer, shapes in sides.items():
        if shapes.keys() != {"A", "B"}:
            raise _bad(path, f"{layer} has one matrix instead of two")
        (rows, inputs), (outputs, columns) = shapes["A"], shapes["B"]
        if rows != rank or columns != rank:
            raise _bad(path, f"{layer} has the ranks {rows} and {columns} instead of {rank}")
        layers[layer] = LoraShape(inputs, outputs)
    return layers


def _is_zero(path: Path, data: mmap.mmap, name: str, tensor: _Tensor) -> bool:
    """Whether all numbers are zero; refuses those that are not finite."""
    mask, is_zero = _INFINITE[tensor.dtype], True
    for bits in _chunks(data, tensor):
        if bool(((bits & mask) == mask).any()):
            raise _bad(path, f"{name} is not finite")
        # Without the sign, as there is a zero below zero.
        is_zero = is_zero and not bool((bits << 1).any())
    return is_zero


def _chunks(data: mmap.mmap, tensor: _Tensor) -> Iterator[np.ndarray[Any, Any]]:
    size = _ITEM_BYTES[tensor.dtype]
    kind = np.dtype(f"<u{size}")
    for begin in range(tensor.begin, tensor.end, size * _AT_ONCE):
        yield np.frombuffer(data[begin : min(tensor.end, begin + size * _AT_ONCE)], kind)


def _bad(path: Path, why: str) -> WeightsError:
    return WeightsError(f"The adapter file {path} is refused: {why}.", _RESTORE)

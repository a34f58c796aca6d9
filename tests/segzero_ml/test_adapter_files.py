"""Adapters from outside: sound ones are read, all others are refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segzero_ml.adapter_files import CONFIG_FILE, TENSORS_FILE, LoraShape, read_adapter
from segzero_ml.errors import WeightsError
from tests.segzero_ml.adapter_samples import (
    LAYERS,
    RANK,
    edit_tensors,
    random_tensors,
    tensor_name,
    write_adapter,
)


def flip_last_bit_of_an_exponent(folder: Path) -> None:
    data = bytearray((folder / TENSORS_FILE).read_bytes())
    data[-1] |= 0x7F
    data[-2] |= 0x80
    (folder / TENSORS_FILE).write_bytes(data)


def truncate(folder: Path) -> None:
    path = folder / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-5])


def grow(folder: Path) -> None:
    with (folder / TENSORS_FILE).open("ab") as file:
        file.write(b"more")


def poison(folder: Path) -> None:
    edit_tensors(folder, B=np.full((8, RANK), np.nan, np.float32))


def poison_half(folder: Path) -> None:
    edit_tensors(folder, B=np.full((8, RANK), -np.inf, np.float16))


def zero_everything(folder: Path) -> None:
    write_adapter(folder, {name: np.zeros_like(t) for name, t in random_tensors().items()})


def never_trained(folder: Path) -> None:
    tensors = random_tensors()
    write_adapter(folder, {n: t if "_A" in n else np.zeros_like(t) for n, t in tensors.items()})


def minus_zeros(folder: Path) -> None:
    tensors = random_tensors()
    write_adapter(
        folder,
        {n: t if "_A" in n else np.copysign(np.zeros_like(t), -1) for n, t in tensors.items()},
    )


def zero_one_a(folder: Path) -> None:
    edit_tensors(folder, A=np.zeros((RANK, 6), np.float32))


def another_rank(folder: Path) -> None:
    write_adapter(folder, random_tensors(rank=RANK + 1))


def one_matrix(folder: Path) -> None:
    tensors = random_tensors()
    tensors.pop(tensor_name(LAYERS[0], "B"))
    write_adapter(folder, tensors)


def whole_layer(folder: Path) -> None:
    write_adapter(folder, {**random_tensors(), "lm_head.weight": np.ones((2, 2), np.float32)})


def whole_numbers(folder: Path) -> None:
    edit_tensors(folder, B=np.ones((8, RANK), np.int32))


def no_matrix(folder: Path) -> None:
    edit_tensors(folder, B=np.ones(8 * RANK, np.float32))


def empty(folder: Path) -> None:
    (folder / TENSORS_FILE).write_bytes(b"")


def long_header(folder: Path) -> None:
    (folder / TENSORS_FILE).write_bytes((1 << 40).to_bytes(8, "little") + bytes(100))


def deep_header(folder: Path) -> None:
    header = b"[" * 100_000
    (folder / TENSORS_FILE).write_bytes(len(header).to_bytes(8, "little") + header)


def pickled(folder: Path) -> None:
    (folder / TENSORS_FILE).rename(folder / "adapter_model.bin")


def linked(folder: Path) -> None:
    path = folder / TENSORS_FILE
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")


def no_json(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text("{")


def configured(**config: Any) -> Callable[[Path], None]:
    return lambda folder: void(write_adapter(folder, **config))


def void(_: object) -> None:
    return


def test_a_sound_adapter_is_read(tmp_path: Path) -> None:
    found = read_adapter(write_adapter(tmp_path, use_rslora=True))
    assert (found.rank, found.alpha, found.use_rslora) == (RANK, 4.0, True)
    assert found.layers == {layer: LoraShape(inputs=6, outputs=8) for layer in LAYERS}


def test_a_layer_that_got_no_gradient_is_no_damage(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    edit_tensors(tmp_path, B=np.zeros((8, RANK), np.float32))
    assert set(read_adapter(tmp_path).layers) == set(LAYERS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_last_bit_of_an_exponent, "not finite"),
        (truncate, "holds"),
        (grow, "holds"),
        (poison, "not finite"),
        (poison_half, "not finite"),
        (zero_everything, "all zeros"),
        (never_trained, "change nothing"),
        (minus_zeros, "change nothing"),
        (zero_one_a, "all zeros"),
        (another_rank, "ranks"),
        (one_matrix, "one matrix"),
        (whole_layer, "not the name"),
        (whole_numbers, "no matrix of floating-point"),
        (no_matrix, "no matrix of floating-point"),
        (empty, "cannot be read"),
        (long_header, "header is cut off"),
        (deep_header, "no JSON"),
        (pickled, "no file adapter_model.safetensors"),
        (linked, "no file adapter_model.safetensors"),
        (no_json, "JSON"),
        (configured(peft_type="IA3"), "not 'LORA'"),
        (configured(use_dora=True), "use_dora"),
        (configured(modules_to_save=["lm_head"]), "modules_to_save"),
        (configured(rank_pattern={"q": 8}), "rank_pattern"),
        (configured(bias="all"), "biases"),
        (configured(r=0), "rank"),
        (configured(r=True), "rank"),
        (configured(lora_alpha=float("nan")), "lora_alpha"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damaged_or_odd_adapters_are_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_adapter(tmp_path)
    read_adapter(tmp_path)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=message):
        read_adapter(tmp_path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(tmp_path: Path, data: bytes) -> None:
    write_adapter(tmp_path)
    (tmp_path / TENSORS_FILE).write_bytes(data)
    with pytest.raises(WeightsError):
        read_adapter(tmp_path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_no_header_does_more_than_be_refused(tmp_path: Path, header: object) -> None:
    write_adapter(tmp_path)
    text = json.dumps(header).encode()
    (tmp_path / TENSORS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(WeightsError):
        read_adapter(tmp_path)

"""Several LoRA adapters over one reasoner: its weights are in memory once.

PEFT puts two small matrices for each adapter beside the linear layers that it changes. Which
adapter takes part is chosen for each batch; without one the base answers exactly as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.functional import cast_adapter_dtype
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from segzero_ml.adapter_files import TENSORS_FILE, AdapterFile, read_adapter
from segzero_ml.errors import ModelError, WeightsError
from segzero_ml.memory import is_out_of_memory
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.reasoner.protocol import ReasonerOutput


class Adapters:
    """The adapters over one reasoner; use it from the thread in which the reasoner answers.

    Args:
        reasoner: The base. It goes on answering as itself.
    """

    def __init__(self, reasoner: LocalReasoner) -> None:
        self._reasoner = reasoner
        self._tuner: Any = None  # PEFT is without types
        self._names = (f"adapter{number}" for number in count(1))
        self._loaded: set[str] = set()

    @property
    def loaded(self) -> int:
        """How many are in memory."""
        return len(self._loaded)

    def put_on(self, folder: Path) -> AdaptedReasoner:
        """Read an adapter and lay it over the base.

        Args:
            folder: Holds the adapter's two files, as PEFT writes them.

        Returns:
            The base with this adapter; the base itself and other adapters are untouched.

        Raises:
            WeightsError: It is damaged, of a refused form, or made for another model.
            ModelError: There is not enough memory for it.
        """
        adapter = read_adapter(folder)
        for layer, shape in adapter.layers.items():
            found = self._linear(layer)
            if (found.in_features, found.out_features) != (shape.inputs, shape.outputs):
                raise WeightsError(
                    f"The adapter at {folder} is for another model: {layer} has "
                    f"{found.in_features} inputs and {found.out_features} outputs here.",
                    "Use the preset that it was trained with, or train it again.",
                )
        name = next(self._names)
        try:
            with _translated(folder):
                tensors = load_file(folder / TENSORS_FILE)
                self._inject(name, adapter)
                self._fill(name, adapter, tensors)
        except BaseException:
            self._remove(name)
            raise
        self._loaded.add(name)
        return AdaptedReasoner(self, name, self._reasoner.version)

    def take_off(self, adapted: AdaptedReasoner) -> None:
        """Remove an adapter from memory; what it was laid on goes on answering."""
        if adapted.name in self._loaded:
            self._loaded.discard(adapted.name)
            self._remove(adapted.name)

    def go_on(
        self,
        name: str,
        images: Sequence[Image.Image],
        requests: Sequence[str],
        begun: Sequence[str],
    ) -> list[ReasonerOutput]:
        """Answer with one adapter; see `LocalReasoner.go_on`.

        Raises:
            ModelError: The adapter was taken off, or there is not enough memory.
        """
        if name not in self._loaded:
            raise ModelError("This version of the model is not served any more.", "Ask again.")
        self._tuner.set_adapter(name, inference_mode=True)
        try:
            return self._reasoner.go_on(images, requests, begun)
        finally:
            self._tuner.set_adapter([], inference_mode=True)

    def _linear(self, layer: str) -> Any:
        try:
            module = self._reasoner.model.get_submodule(layer)
        except AttributeError:
            module = None
        if isinstance(module, BaseTunerLayer):  # another adapter is there already
            module = module.get_base_layer()
        if not hasattr(module, "in_features") or not hasattr(module, "out_features"):
            raise WeightsError(
                f"The adapter is for another model: there is no linear layer {layer[:200]} here.",
                "Use the preset that it was trained with, or train it again.",
            )
        return module

    def _inject(self, name: str, adapter: AdapterFile) -> None:
        """Make room for the matrices beside exactly the layers that the file has."""
        make: Any = LoraConfig  # its types want a whole number as alpha
        config = make(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            use_rslora=adapter.use_rslora,
            # Full names as one pattern: PEFT compares a list by endings.
            target_modules="|".join(map(re.escape, adapter.layers)),
            inference_mode=True,
        )
        if self._tuner is None:
            self._tuner = LoraModel(self._reasoner.model, config, name)
        else:
            self._tuner.peft_config[name] = config
            self._tuner.inject_adapter(self._reasoner.model, name)
        # In float32, as in training; beside a bfloat16 base they would be rounded.
        cast_adapter_dtype(self._reasoner.model, name)
        self._tuner.set_adapter([], inference_mode=True)
        self._reasoner.model.eval()

    def _fill(self, name: str, adapter: AdapterFile, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for layer in adapter.layers:
                module = self._reasoner.model.get_submodule(layer)
                for side, matrices in (("A", module.lora_A), ("B", module.lora_B)):
                    saved = tensors[f"base_model.model.{layer}.lora_{side}.weight"]
                    matrices[name].weight.copy_(saved)

    def _remove(self, name: str) -> None:
        if self._tuner is None or name not in self._tuner.peft_config:
            return
        if len(self._tuner.peft_config) > 1:
            self._tuner.delete_adapter(name)
            return
        # With the last one gone, the layers are the base's own again.
        self._tuner.unload()
        self._tuner = None


class AdaptedReasoner:
    """A reasoner with one adapter on; made by `Adapters.put_on`.

    Args:
        adapters: Where it is.
        name: What it is called there.
        version: The base's.
    """

    def __init__(self, adapters: Adapters, name: str, version: str) -> None:
        self._adapters = adapters
        self.name = name
        self.version = version

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        """Answer one request about each image; see `LocalReasoner.answer`.

        Raises:
            ModelError: The adapter was taken off, or there is not enough memory.
        """
        return self.go_on(images, requests, [""] * len(requests))

    def go_on(
        self, images: Sequence[Image.Image], requests: Sequence[str], begun: Sequence[str]
    ) -> list[ReasonerOutput]:
        """The same from answers that are begun already; see `LocalReasoner.go_on`."""
        return self._adapters.go_on(self.name, images, requests, begun)


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"The adapter at {folder} cannot be read: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"There is not enough memory for the adapter at {folder}.",
            "Serve fewer projects with one backend, or use a larger machine.",
        ) from error

"""Opens the files of a reasoner with transformers, and checks that they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from segzero_ml.errors import WeightsError


def open_model(path: Path, source: str, dtype: torch.dtype) -> tuple[Any, Any, dict[str, Any]]:
    """Load a processor and a model, and what loading said.

    Raises:
        WeightsError: They cannot be loaded.
    """
    # `Any`, since transformers types its auto classes by halves.
    processors: Any = AutoProcessor
    models: Any = AutoModelForImageTextToText
    try:
        with _no_progress_bars():
            processor = processors.from_pretrained(path, trust_remote_code=False)
            model, loading = models.from_pretrained(
                path,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"The reasoner at {source} cannot be loaded: {error}",
            "Fetch or restore its files again.",
        ) from error
    return processor, model, loading


def special_tokens(processor: Any) -> frozenset[str]:
    """The tokens that no request may contain."""
    added = processor.tokenizer.added_tokens_decoder.values()
    return frozenset(token.content for token in added if token.special)


def stop_ids(model: Any, processor: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    ids: set[int] = set()
    for config in (model.generation_config, processor.tokenizer):
        stop = config.eos_token_id
        ids.update(stop if isinstance(stop, list) else [stop] if stop is not None else [])
    return frozenset(ids)


def check_complete(source: str, processor: Any, loading: dict[str, Any]) -> None:
    """Make sure that nothing is missing.

    Raises:
        WeightsError: Something is.
    """
    for part in ("tokenizer", "image_processor"):
        if getattr(processor, part, None) is None:
            raise WeightsError(
                f"The reasoner at {source} has no {part.replace('_', ' ')}.",
                "It must be a vision-language model saved together with its processor.",
            )
    if getattr(processor, "chat_template", None) is None:
        raise WeightsError(
            f"The reasoner at {source} has no chat template.", "Use an instruction-tuned model."
        )
    for what in ("missing_keys", "mismatched_keys"):
        if keys := sorted(map(str, loading.get(what, ()))):
            raise WeightsError(
                f"The weights at {source} do not fit their configuration: "
                f"{len(keys)} {what.replace('_', ' ')}, such as {keys[0]}.",
                "Fetch or restore its files again.",
            )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]

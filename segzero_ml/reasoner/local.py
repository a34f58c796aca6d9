"""A reasoner on this machine, through transformers: the same code for every family and size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from segzero_ml.errors import ModelError
from segzero_ml.memory import is_out_of_memory
from segzero_ml.presets import Preset
from segzero_ml.reasoner.confidence import confidence_of
from segzero_ml.reasoner.opening import check_complete, open_model, special_tokens, stop_ids
from segzero_ml.reasoner.prompts import build_prompt, frame_of, prepare_image
from segzero_ml.reasoner.protocol import ReasonerOutput
from segzero_ml.types import ImageSize
from segzero_ml.weights import check_finite, choose_device, locate

SMALL_MODEL_GB = 4.0

_T = TypeVar("_T")


class LocalReasoner:
    """A vision-language model in this process.

    Args:
        model: A transformers image-text-to-text model, in evaluation mode.
        processor: Its processor, with a chat template.
        preset: How to ask it.
        version: Identifies the weights.
    """

    def __init__(self, model: Any, processor: Any, preset: Preset, version: str) -> None:
        self.model = model
        self.processor = processor
        self.preset = preset
        self._version = version
        self.special_tokens = special_tokens(processor)
        self._stop_ids = stop_ids(model, processor)
        # The same size for whoever asks this processor, the trainer too.
        smallest, largest = preset.frame.area_limits
        processor.image_processor.size = {"shortest_edge": smallest, "longest_edge": largest}
        # Greedy, and free of the sampling habits that some checkpoints ship: a repetition
        # penalty would punish equal digits in coordinates.
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=sorted(self._stop_ids),
            pad_token_id=processor.tokenizer.pad_token_id,
        )

    @classmethod
    def load(
        cls,
        preset: Preset,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> LocalReasoner:
        """Load a preset's reasoner.

        Args:
            preset: Its `reasoner` is a directory or a hub id.
            device: Where it runs; the first GPU, or else the CPU, when not given.
            dtype: Of its weights; bfloat16 when not given, float32 for small models on a CPU.

        Raises:
            WeightsError: The weights are missing, refused, incomplete or damaged.
        """
        target = choose_device(device)
        if dtype is None:
            small = target.type == "cpu" and preset.memory_gb < SMALL_MODEL_GB
            dtype = torch.float32 if small else torch.bfloat16
        weights = locate(preset.reasoner, preset.reasoner_revision)
        processor, model, loading = open_model(weights.path, preset.reasoner, dtype)
        check_complete(preset.reasoner, processor, loading)
        check_finite(model, preset.reasoner)
        return cls(model.to(target).eval(), processor, preset, weights.version)

    @property
    def version(self) -> str:
        """SHA-256 of the weights, or their commit on the hub."""
        return self._version

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        """Answer one request about each image, in one batch, greedily.

        A batch that does not fit into memory is halved until it does.

        Args:
            images: Upright, any mode and size.
            requests: One normalised request for each image.

        Returns:
            One output for each request, in their order.

        Raises:
            ModelError: Not even one request fits into memory.
        """
        return self.go_on(images, requests, [""] * len(requests))

    def go_on(
        self, images: Sequence[Image.Image], requests: Sequence[str], begun: Sequence[str]
    ) -> list[ReasonerOutput]:
        """As `answer`, from answers that are begun already.

        Args:
            images: As for `answer`.
            requests: As for `answer`.
            begun: What each answer starts with; may be empty. It is part of the output's text,
                not of its confidence and tokens.
        """
        asked = [_Asked(*one) for one in zip(images, requests, begun, strict=True)]
        return self._halved(self._generate, asked) if asked else []

    def sample(
        self,
        images: Sequence[Image.Image],
        requests: Sequence[str],
        *,
        count: int,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
    ) -> list[list[str]]:
        """Answer each request several times, at random.

        A batch that does not fit into memory is halved until it does.

        Args:
            images: As for `answer`.
            requests: As for `answer`.
            count: How many answers to each.
            temperature: The higher, the more they differ.
            max_new_tokens: Longest answer; None for the preset's.

        Returns:
            The texts, `count` for each request.

        Raises:
            ModelError: Not even one request fits into memory.
        """

        def draw(asked: list[_Asked]) -> list[list[str]]:
            inputs = self._inputs(asked)
            with torch.inference_mode():
                sequences = self.model.generate(
                    **inputs.to(self.model.device),
                    do_sample=True,
                    temperature=temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=count,
                    max_new_tokens=max_new_tokens or self.preset.max_new_tokens,
                )
            rows = sequences[:, inputs["input_ids"].shape[1] :].tolist()  # (B * count, T)
            texts = [self._decode(self._until_stop(row)).strip() for row in rows]
            return [texts[i : i + count] for i in range(0, len(texts), count)]

        asked = [_Asked(*one, "") for one in zip(images, requests, strict=True)]
        return self._halved(draw, asked) if asked else []

    def _halved(self, run: Callable[[list[_Asked]], list[_T]], asked: list[_Asked]) -> list[_T]:
        try:
            return run(asked)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(asked) == 1:
                raise ModelError(
                    f"There is not enough memory for the reasoner of {self.preset.name}.",
                    f"It needs about {self.preset.memory_gb:g} GB: choose a smaller preset.",
                ) from error
        # Outside of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        middle = len(asked) // 2
        return self._halved(run, asked[:middle]) + self._halved(run, asked[middle:])

    def _generate(self, asked: list[_Asked]) -> list[ReasonerOutput]:
        inputs = self._inputs(asked)
        recorder = _GreedyRecorder()
        with torch.inference_mode():
            sequences = self.model.generate(
                **inputs.to(self.model.device),
                max_new_tokens=self.preset.max_new_tokens,
                logits_processor=LogitsProcessorList([recorder]),
            )
        generated = sequences[:, inputs["input_ids"].shape[1] :].tolist()  # (B, T)
        chances = torch.stack(recorder.steps, dim=1).tolist()  # (B, T)
        patch = self.processor.image_processor.patch_size
        outputs = []
        for one, row, chance, grid in zip(
            asked, generated, chances, inputs["image_grid_thw"].tolist(), strict=True
        ):
            ids = self._until_stop(row)
            seen = ImageSize(width=grid[2] * patch, height=grid[1] * patch)
            outputs.append(
                ReasonerOutput(
                    text=(one.begun + self._decode(ids)).strip(),
                    frame=frame_of(self.preset.frame, seen),
                    confidence=self._confidence(ids, chance),
                    tokens=len(ids),
                )
            )
        return outputs

    def inputs(
        self, images: Sequence[Image.Image], requests: Sequence[str], begun: Sequence[str]
    ) -> Any:
        """What the model takes for a batch, padded on the left; arguments as for `go_on`."""
        kind = self.preset.frame
        prompts = [build_prompt(self.preset.prompt, one, self.special_tokens) for one in requests]
        conversations = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            for prompt in prompts
        ]
        texts = self.processor.apply_chat_template(
            conversations, tokenize=False, add_generation_prompt=True
        )
        return self.processor(
            text=[text + start for text, start in zip(texts, begun, strict=True)],
            images=[[prepare_image(image, kind)] for image in images],
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )

    def _inputs(self, asked: Sequence[_Asked]) -> Any:
        images, requests, begun = zip(
            *((one.image, one.request, one.begun) for one in asked), strict=True
        )
        return self.inputs(images, requests, begun)

    def _until_stop(self, row: list[int]) -> list[int]:
        """The tokens before the first one that ends the text (the rest is padding)."""
        for index, token in enumerate(row):
            if token in self._stop_ids:
                return row[:index]
        return row

    def _decode(self, ids: list[int]) -> str:
        # Special tokens are kept: a tokenizer may well have <think> and <answer> as such.
        text: str = self.processor.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _confidence(self, ids: list[int], chances: list[float]) -> float:
        written = [self._decode([token]) for token in ids]
        return confidence_of(list(zip(written, chances[: len(ids)], strict=True))) or 0.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request about an image, and what its answer starts with."""

    image: Image.Image
    request: str
    begun: str


class _GreedyRecorder(LogitsProcessor):
    """Notes each step's greatest log probability, which greedy decoding takes.

    Keeping `output_scores` instead would hold the whole vocabulary for every token.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []  # each (B,)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note the step and leave its scores, of shape (B, V), as they are."""
        self.steps.append((scores.amax(dim=-1) - scores.logsumexp(dim=-1)).float().cpu())
        return scores

"""The bundled reasoner before training: tokenizer, processor and a small Qwen2.5-VL.

Everything is of the classes that a 7B checkpoint uses; only the sizes are small. The
tokenizer is byte-level, so any request can be written in it; the words of the domain, the
whole numbers of the frame and the fixed parts of the answer are single tokens, while the
text stays the same JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from segzero_ml.tiny.cache import TRAINING_STREAM, scene_of
from segzero_ml.tiny.requests import KINDS, make_request

FRAME = 160
"""Side in pixels of the square the image is squashed to, and of the answer's frame."""

PATCH = 10
MERGE = 2
GRID = FRAME // (PATCH * MERGE)
"""Visual tokens a side, after merging."""

HIDDEN = 256
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# The fixed parts of an answer, each to become one token.
_ANSWER_PARTS = (
    r"<think>",
    r"</think><answer>",
    r"</answer>",
    r"\[\]",
    r'\[\{"bbox_2d":\[',
    r'\],"point_2d":\[',
    r'\]\},\{"bbox_2d":\[',
    r"\]\}\]",
)
_WORDS = r" ?[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]|\s+"
_VOCABULARY = 1280


def build_tokenizer(scenes: int = 600) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on the domain's own text.

    Args:
        scenes: Training scenes whose requests and reasonings are read.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("|".join((*_ANSWER_PARTS, _WORDS))), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(scenes), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def _corpus(scenes: int) -> Iterator[str]:
    numbers = [str(n) for n in range(FRAME + 1)]
    answer = '<think></think><answer>[{"bbox_2d":[1,2,3,4],"point_2d":[5,6]},{"bbox_2d":['
    for _ in range(400):
        yield ",".join(numbers)
        yield answer
        yield "1]}]</answer>[]"
        yield "user\nassistant\n"
    for seed in range(scenes):
        rng = np.random.default_rng([TRAINING_STREAM, seed, 9])
        scene = scene_of(seed, TRAINING_STREAM)
        for kind in KINDS:
            for _ in range(4):
                made = make_request(scene.objects, scene.size, kind, rng)
                if made is not None:
                    yield made.text
                    yield made.reasoning


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Image processor and chat template around the tokenizer."""
    pixels = {"shortest_edge": FRAME * FRAME, "longest_edge": FRAME * FRAME}
    sizes: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
        "size": pixels,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    return Qwen2_5_VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The small architecture; about seven million parameters."""
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 640,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [8, 12, 12],
            },
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|im_start|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 6,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_heads": 6,
            "out_hidden_size": HIDDEN,
            "patch_size": PATCH,
            "spatial_patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": FRAME,
            "fullatt_block_indexes": [0, 1, 2, 3, 4, 5],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_model(
    config: Qwen2_5_VLConfig, tokenizer: PreTrainedTokenizerFast
) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised model, with a start from which small models learn soon.

    Matrices start at the scale of their input, not at the fixed 0.02 that suits wide
    models. The embedding of each whole number starts as waves of many lengths, so that near
    numbers start near and a coordinate can be read out smoothly. The heads of the vision
    tower start with places to look at.
    """
    model = Qwen2_5_VLForConditionalGeneration(config)
    table: Any = model.get_input_embeddings().weight
    visual: Any = model.model.visual
    text, vision = cast(Any, config.text_config), cast(Any, config.vision_config)
    with torch.no_grad():
        for name, matrix in model.named_parameters():
            if matrix.ndim == 2 and "embed" not in name:
                depth = vision.depth if "visual" in name else text.num_hidden_layers
                matrix.normal_(0, matrix.shape[1] ** -0.5)
                if name.endswith(("attn.proj.weight", "o_proj.weight", "down_proj.weight")):
                    matrix.mul_((2 * depth) ** -0.5)
        table.normal_(0, 0.05)
        ids = number_ids(tokenizer)
        table[ids] = 0.05 * math.sqrt(2) * _waves(len(ids), HIDDEN)
        for number, block in enumerate(visual.blocks):
            start_heads_by_place(block.attn, 1.0 if number % 2 else -1.0)
    model.tie_weights()
    return model


def start_heads_by_place(attention: Any, sign: float) -> None:
    """Starts six heads with something to look at, whatever the content.

    The tower knows places only through rotations, so from the default start its attention
    is flat and shapes are not learned. Four heads start on the patch above, below, left and
    right. Two start on a slope along a side of the picture: how much of an object's weight
    is left to itself then tells how far it is from that side, the only way in which a tower
    without position embeddings can know it.

    Args:
        attention: A vision attention layer with six heads.
        sign: Which way the slopes fall.
    """
    heads, width = attention.num_heads, attention.head_dim
    bias = attention.qkv.bias.view(3, heads, width)
    weight = attention.qkv.weight.view(3, heads, width, -1)
    pairs = width // 2
    axis = pairs // 2  # the first half of the rotations follows rows, the second columns
    speeds = 10_000.0 ** (-torch.arange(axis) / axis)
    local = torch.tensor([4.0, 2.5] + [0.0] * (axis - 2))
    slope = torch.tensor([0.0, 0.0, 2.5, 2.5] + [0.0] * (axis - 4))
    for head, (row, column) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
        angles = torch.cat([row * speeds, column * speeds])
        _look(bias, head, torch.cat([local, local]), angles)
    quarter = torch.full((axis,), sign * math.pi / 2)
    none = torch.zeros(axis)
    _look(bias, 4, torch.cat([slope, none]), torch.cat([quarter, none]))
    _look(bias, 5, torch.cat([none, slope]), torch.cat([none, quarter]))
    weight[:2].mul_(0.5)


def _look(bias: Tensor, head: int, strength: Tensor, angles: Tensor) -> None:
    """Gives a head the score `sum(strength * cos(speed * offset - angle))`."""
    pairs = len(strength)
    size = (strength * math.sqrt(2 * pairs)).sqrt()
    bias[0, head, :pairs] = size * angles.cos()
    bias[0, head, pairs:] = size * angles.sin()
    bias[1, head, :pairs] = size


def number_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token of each whole number 0..FRAME."""
    ids = [tokenizer.encode(str(n), add_special_tokens=False) for n in range(FRAME + 1)]
    return [single for (single,) in ids]


def _waves(count: int, width: int) -> Tensor:
    periods = torch.logspace(math.log10(8), math.log10(4 * count), width // 2)
    angles = 2 * math.pi * torch.arange(count)[:, None] / periods
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def save_pretrained(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, folder: Path
) -> None:
    """Writes model (bfloat16 safetensors) and processor as one loadable directory."""
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    half = model.bfloat16()
    half.save_pretrained(folder)
    processor.save_pretrained(folder)

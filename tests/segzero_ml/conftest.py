"""Small models with random weights, of the very classes that the presets load."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from segzero_ml.presets import Resized, get_preset
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.sam2_build import build_sam2_model

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
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Any:
    """One token a byte, and Qwen's control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, *SPECIAL])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[SPECIAL[1], *SPECIAL[3:]],
    )


def _token_ids(tokenizer: Any) -> dict[str, Any]:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _image_processor(patch: int) -> Any:
    return Qwen2VLImageProcessor(
        patch_size=patch,
        size={"shortest_edge": 16 * patch**2, "longest_edge": 64 * patch**2},
    )


def save_qwen25(path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config=_text_config(
            tokenizer,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            },
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "patch_size": 14,
            "window_size": 56,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        **_token_ids(tokenizer),
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(path)
    make: Any = Qwen2_5_VLProcessor
    make(
        _image_processor(14), tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    ).save_pretrained(path)
    return path


def save_qwen3(path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = Qwen3VLConfig(
        text_config=_text_config(
            tokenizer,
            head_dim=8,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        ),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "patch_size": 16,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **_token_ids(tokenizer),
    )
    Qwen3VLForConditionalGeneration(config).save_pretrained(path)
    make: Any = Qwen3VLProcessor
    make(
        _image_processor(16), tokenizer, Qwen3VLVideoProcessor(), chat_template=CHAT_TEMPLATE
    ).save_pretrained(path)
    return path


def small_sam2(image_size: int = 128, width: int = 32) -> dict[str, Any]:
    """Configuration of a small SAM 2, as `config.yaml` holds it."""

    def sine(features: int) -> dict[str, Any]:
        name = "sam2.modeling.position_encoding.PositionEmbeddingSine"
        return {"_target_": name, "num_pos_feats": features, "normalize": True, "scale": None}

    def attention(**more: Any) -> dict[str, Any]:
        return {
            "_target_": "sam2.modeling.sam.transformer.RoPEAttention",
            "feat_sizes": [image_size // 16, image_size // 16],
            "embedding_dim": width,
            "num_heads": 1,
            "downsample_rate": 1,
            **more,
        }

    return {
        "_target_": "sam2.modeling.sam2_base.SAM2Base",
        "image_encoder": {
            "_target_": "sam2.modeling.backbones.image_encoder.ImageEncoder",
            "scalp": 1,
            "trunk": {
                "_target_": "sam2.modeling.backbones.hieradet.Hiera",
                "embed_dim": 8,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 4, 2],
                "window_pos_embed_bkg_spatial_size": [7, 7],
            },
            "neck": {
                "_target_": "sam2.modeling.backbones.image_encoder.FpnNeck",
                "position_encoding": sine(width),
                "d_model": width,
                "backbone_channel_list": [64, 32, 16, 8],
                "fpn_top_down_levels": [2, 3],
                "fpn_interp_model": "nearest",
            },
        },
        "memory_attention": {
            "_target_": "sam2.modeling.memory_attention.MemoryAttention",
            "d_model": width,
            "pos_enc_at_input": True,
            "num_layers": 1,
            "layer": {
                "_target_": "sam2.modeling.memory_attention.MemoryAttentionLayer",
                "activation": "relu",
                "dim_feedforward": 32,
                "dropout": 0.1,
                "pos_enc_at_attn": False,
                "d_model": width,
                "pos_enc_at_cross_attn_keys": True,
                "pos_enc_at_cross_attn_queries": False,
                "self_attention": attention(),
                "cross_attention": attention(rope_k_repeat=True, kv_in_dim=16),
            },
        },
        "memory_encoder": {
            "_target_": "sam2.modeling.memory_encoder.MemoryEncoder",
            "out_dim": 16,
            "in_dim": width,
            "position_encoding": sine(16),
            "mask_downsampler": {
                "_target_": "sam2.modeling.memory_encoder.MaskDownSampler",
                "embed_dim": width,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            "fuser": {
                "_target_": "sam2.modeling.memory_encoder.Fuser",
                "num_layers": 1,
                "layer": {
                    "_target_": "sam2.modeling.memory_encoder.CXBlock",
                    "dim": width,
                    "kernel_size": 7,
                    "padding": 3,
                    "layer_scale_init_value": 1e-6,
                    "use_dwconv": True,
                },
            },
        },
        "image_size": image_size,
        "directly_add_no_mem_embed": True,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "iou_prediction_use_sigmoid": True,
        "use_obj_ptrs_in_encoder": True,
        "pred_obj_scores": True,
        "pred_obj_scores_mlp": True,
        "fixed_no_obj_ptr": True,
        "use_mlp_for_obj_ptr_proj": True,
    }


def save_segmenter(path: Path, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"model": config}))
    save_file(build_sam2_model(config).state_dict(), path / "model.safetensors")
    return path


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def segmenter_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAM 2 with its configuration, saved."""
    return save_segmenter(tmp_path_factory.mktemp("segmenter"), small_sam2())


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """Makes pictures of coloured noise: `picture(width, height, seed)`."""
    return noise


@pytest.fixture(scope="session")
def sam2_config() -> Callable[..., dict[str, Any]]:
    """Makes configurations of a small SAM 2: `sam2_config(image_size, width)`."""
    return small_sam2


@pytest.fixture(scope="session")
def save_sam2() -> Callable[[Path, dict[str, Any]], Path]:
    """Saves a SAM 2 with random weights: `save_sam2(path, config)`."""
    return save_segmenter


SMALL_RESIZED = Resized(factor=28, min_pixels=56 * 56, max_pixels=112 * 112)
LESSONS = {
    "the mug": (
        "<think>It holds tea.</think>"
        '<answer>[{"bbox_2d":[10,20,50,70],"point_2d":[30,45]}]</answer>'
    ),
    "every plate on it": (
        '<think>Two.</think><answer>[{"bbox_2d":[5,6,40,30],"point_2d":[20,18]},'
        '{"bbox_2d":[50,60,80,99],"point_2d":[65,80]}]</answer>'
    ),
    "a whale": "<think>None.</think><answer>[]</answer>",
    "say nonsense": "I see a table.",
}
"""What the taught models answer, whatever the image: requests of different lengths."""

TEACHING_STEPS = 400
"""More than twice what is needed, some five seconds of computing."""


def _with_answers(reasoner: LocalReasoner, inputs: Any, texts: Sequence[str]) -> Any:
    """Inputs of questions, left-padded, into inputs and labels of questions with answers."""
    tokenizer = reasoner.processor.tokenizer
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    length = max(map(len, rows))
    rows = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]
    target = torch.tensor(rows)  # (B, T)
    mask = (target != tokenizer.pad_token_id).long()
    asked = inputs["input_ids"]
    inputs["labels"] = torch.cat(
        [torch.full_like(asked, -100), target.masked_fill(mask == 0, -100)], dim=1
    )
    inputs["input_ids"] = torch.cat([asked, target], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask], dim=1)
    kinds = inputs["mm_token_type_ids"]
    inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(target)], dim=1)
    return inputs


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads only wait for one another on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def teach(path: Path) -> None:
    """Train a small model until it gives the lessons' answers, and save it again."""
    torch.manual_seed(0)
    preset = dataclasses.replace(get_preset("tiny"), reasoner=str(path), frame=SMALL_RESIZED)
    reasoner = LocalReasoner.load(preset, "cpu")
    sizes = [(60, 60), (120, 60), (60, 120), (150, 60), (90, 90)]
    batches = []
    for shift in range(len(sizes)):
        images = [noise(*sizes[(i + shift) % len(sizes)], i + shift) for i in range(len(LESSONS))]
        inputs = reasoner.inputs(images, list(LESSONS), [""] * len(images))
        batches.append(_with_answers(reasoner, inputs, list(LESSONS.values())))
    model = reasoner.model
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    recent = [1.0] * len(batches)
    for step in range(TEACHING_STEPS):
        loss = model(**batches[step % len(batches)]).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        recent[step % len(recent)] = loss.item()
        if max(recent) < 0.01:
            model.save_pretrained(path)
            return
    raise AssertionError(f"The lessons were not learnt: their losses are {recent}.")


@pytest.fixture(scope="session")
def lessons() -> dict[str, str]:
    """What the taught models answer, whatever the image."""
    return LESSONS


@pytest.fixture(scope="session")
def taught_qwen25_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2.5-VL that has learnt the lessons."""
    path = save_qwen25(tmp_path_factory.mktemp("taught25"))
    teach(path)
    return path


@pytest.fixture(scope="session")
def taught_qwen3_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3-VL that has learnt the lessons."""
    path = save_qwen3(tmp_path_factory.mktemp("taught3"))
    teach(path)
    return path


@pytest.fixture(scope="session")
def qwen25_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2.5-VL with its processor, saved."""
    return save_qwen25(tmp_path_factory.mktemp("qwen25"))


@pytest.fixture(scope="session")
def qwen3_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3-VL with its processor, saved."""
    return save_qwen3(tmp_path_factory.mktemp("qwen3"))

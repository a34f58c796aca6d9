from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from segzero_ml.errors import WeightsError
from segzero_ml.sam2_build import build_sam2_model, load_published_config
from segzero_ml.sam2_weights import from_transformers, load_sam2_weights
from segzero_ml.segmenter import Prompt, Segmenter
from segzero_ml.types import Box, ImageSize, Point

SIDE = 128
WIDTH = 32
Config = Callable[..., dict[str, Any]]
Picture = Callable[..., Image.Image]


def transformers_parts() -> dict[str, Any]:
    """The architecture of the `sam2_config` fixture in transformers' terms."""
    return {
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [SIDE, SIDE],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [8, 4, 4, 2],
                "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [7, 7],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[SIDE // s, SIDE // s] for s in (4, 8, 16)],
            "fpn_hidden_size": WIDTH,
        },
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SIDE},
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "dynamic_multimask_via_stability": False,
        },
    }


def randomise(model: torch.nn.Module) -> None:
    """Fill every weight, also those that are made as zeros, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.15)


@pytest.fixture(scope="module")
def published() -> Any:
    """A model of transformers, as the published safetensors come from."""
    model = Sam2Model(Sam2Config(**transformers_parts())).eval()
    randomise(model)
    # One matrix under two names in the published files.
    model.shared_image_embedding.positional_embedding.data = (
        model.prompt_encoder.shared_embedding.positional_embedding.data
    )
    return model


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


@pytest.fixture
def translated(published: Any, sam2_config: Config, tmp_path: Path) -> Segmenter:
    """The same weights in the `sam2` package's model, through the loader."""
    save(published.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": sam2_config(SIDE, WIDTH)}))
    return Segmenter.load(tmp_path, "cpu")


def pixel_values(image: Image.Image) -> torch.Tensor:
    pixels = torch.tensor(list(image.tobytes()), dtype=torch.float32) / 255
    pixels = pixels.view(SIDE, SIDE, 3).permute(2, 0, 1)[None]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (pixels - mean) / std


@pytest.mark.parametrize(
    ("prompt", "given"),
    [
        (Prompt(Box(20, 30, 90, 100)), {"input_boxes": [[[20.0, 30.0, 90.0, 100.0]]]}),
        (
            Prompt(None, (Point(40, 50), Point(100, 20)), (True, False)),
            {
                "input_points": [[[[40.0, 50.0], [100.0, 20.0]]]],
                "input_labels": [[[1, 0]]],
            },
        ),
    ],
    ids=["box", "points"],
)
def test_translated_weights_give_the_logits_of_transformers(
    published: Any, translated: Segmenter, picture: Picture, prompt: Prompt, given: dict[str, Any]
) -> None:
    image = picture(SIDE, SIDE)
    with torch.no_grad():
        expected = published(
            pixel_values=pixel_values(image),
            multimask_output=False,
            **{name: torch.tensor(value) for name, value in given.items()},
        )
    [(logits, score)] = translated._decode(translated.embed(image), [prompt], ImageSize(SIDE, SIDE))
    reference = expected.pred_masks[0, 0, 0]
    assert logits.shape == reference.shape == (SIDE // 4, SIDE // 4)
    assert reference.std() > 0.01  # the comparison would mean nothing on a flat mask
    torch.testing.assert_close(logits, reference, rtol=1e-3, atol=1e-4)
    assert score == pytest.approx(expected.iou_scores[0, 0, 0].item(), abs=1e-4)


def test_a_published_model_is_covered_name_by_name_and_shape_by_shape() -> None:
    with torch.device("meta"):
        state = Sam2Model(Sam2Config()).state_dict()  # the defaults are hiera-tiny's
    model = build_sam2_model(load_published_config("facebook/sam2.1-hiera-tiny"))
    wanted = model.state_dict()
    for name, tensor in from_transformers(state).items():
        assert wanted[name].shape == tensor.shape, name


def test_the_video_parts_of_published_weights_are_left_out(sam2_config: Config) -> None:
    parts = transformers_parts()
    video = Sam2VideoModel(
        Sam2VideoConfig(
            **parts,
            memory_attention_hidden_size=WIDTH,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32,
            memory_encoder_hidden_size=WIDTH,
            memory_encoder_output_channels=16,
            mask_downsampler_embed_dim=WIDTH,
            memory_fuser_embed_dim=WIDTH,
            memory_fuser_num_layers=1,
        )
    )
    image_only = Sam2Model(Sam2Config(**parts))
    model = build_sam2_model(sam2_config(SIDE, WIDTH))
    names = set(from_transformers(video.state_dict()))
    assert names == set(from_transformers(image_only.state_dict()))
    assert names < set(model.state_dict())


def test_weights_without_the_video_parts_load(sam2_config: Config, tmp_path: Path) -> None:
    model = build_sam2_model(sam2_config())
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("memory_")}
    other = build_sam2_model(sam2_config())
    load_sam2_weights(other, save(state, tmp_path / "model.safetensors"))
    torch.testing.assert_close(other.no_mem_embed, model.no_mem_embed)


def test_a_missing_an_unknown_and_a_misshapen_weight_are_refused(
    sam2_config: Config, tmp_path: Path
) -> None:
    model = build_sam2_model(sam2_config())
    state = dict(model.state_dict())
    file = tmp_path / "model.safetensors"

    save({k: v for k, v in state.items() if k != "no_mem_embed"}, file)
    with pytest.raises(WeightsError, match="lacks no_mem_embed"):
        load_sam2_weights(model, file)

    save(state | {"surprise": torch.zeros(1)}, file)
    with pytest.raises(WeightsError, match="unknown surprise"):
        load_sam2_weights(model, file)

    save(state | {"no_mem_embed": torch.zeros(1, 1, 7)}, file)
    with pytest.raises(WeightsError, match="do not fit"):
        load_sam2_weights(model, file)


def test_a_truncated_file_is_refused(sam2_config: Config, tmp_path: Path) -> None:
    model = build_sam2_model(sam2_config())
    file = save(dict(model.state_dict()), tmp_path / "model.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_sam2_weights(model, file)

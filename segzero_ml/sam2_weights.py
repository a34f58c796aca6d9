"""Weights into a SAM 2 model, from the `sam2` package's naming or from transformers'.

The published safetensors of SAM 2.1 carry transformers' names (`Sam2Model`, and
`Sam2VideoModel` with the memory parts); the `sam2` package has its own. Only what works on
single images is translated: the parts that follow objects through a video are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from segzero_ml.errors import WeightsError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

# Parts of the `sam2` model that a single image never reaches.
_VIDEO_ONLY = (
    "mask_downsample.",
    "maskmem_tpos_enc",
    "memory_attention.",
    "memory_encoder.",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)
# The same parts under transformers' names.
_VIDEO_ONLY_TRANSFORMERS = (
    "mask_downsample.",
    "memory_",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "occlusion_spatial_embedding_parameter",
    "temporal_positional_encoding_projection_layer.",
)
_TRANSFORMERS_MARK = "vision_encoder."
_POINTS = "prompt_encoder.point_embed.weight"

_HEAD = r"mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
# Applied in this order, each to the result of the one before.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Heads of three layers: first, middle, last.
        (rf"^{_HEAD}\.layers\.0\.", r"mask_decoder.\1.layers.1."),
        (rf"^{_HEAD}\.proj_in\.", r"mask_decoder.\1.layers.0."),
        (rf"^{_HEAD}\.proj_out\.", r"mask_decoder.\1.layers.2."),
        # Everything else of two layers.
        (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
        (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
        (
            r"^vision_encoder\.backbone\.patch_embed\.projection\.",
            "image_encoder.trunk.patch_embed.proj.",
        ),
        (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
        (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
        (r"^prompt_encoder\.mask_embed\.conv1\.", "sam_prompt_encoder.mask_downscaling.0."),
        (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "sam_prompt_encoder.mask_downscaling.1."),
        (r"^prompt_encoder\.mask_embed\.conv2\.", "sam_prompt_encoder.mask_downscaling.3."),
        (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "sam_prompt_encoder.mask_downscaling.4."),
        (r"^prompt_encoder\.mask_embed\.conv3\.", "sam_prompt_encoder.mask_downscaling.6."),
        (
            r"^(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
            "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
        (r"^prompt_encoder\.", "sam_prompt_encoder."),
        (r"^mask_decoder\.upscale_conv1\.", "sam_mask_decoder.output_upscaling.0."),
        (r"^mask_decoder\.upscale_layer_norm\.", "sam_mask_decoder.output_upscaling.1."),
        (r"^mask_decoder\.upscale_conv2\.", "sam_mask_decoder.output_upscaling.3."),
        (r"^mask_decoder\.", "sam_mask_decoder."),
        (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
        (r"\.layer_norm(\d)\.", r".norm\1."),
        (r"\.o_proj\.", ".out_proj."),
        (r"^no_memory_embedding$", "no_mem_embed"),
    )
)


def from_transformers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of transformers' SAM 2 for the `sam2` package's model.

    Args:
        state: Weights of a `Sam2Model` or `Sam2VideoModel`.

    Returns:
        The weights that images need, under the `sam2` package's names.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_VIDEO_ONLY_TRANSFORMERS):
            continue
        if name == _POINTS:  # one table of rows there, one table a row here
            for index, row in enumerate(tensor.unbind(0)):
                renamed[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = row[None]
            continue
        for pattern, replacement in _RULES:
            name = pattern.sub(replacement, name)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed


def load_sam2_weights(model: SAM2Base, path: str | Path) -> None:
    """Load a safetensors file into a model of the `sam2` package.

    Args:
        model: A model of the same architecture; changed in place.
        path: The file, under either naming. The parts for video may be absent.

    Raises:
        WeightsError: The file is missing or damaged, or does not fit the model.
    """
    try:
        state = load_file(path, device="cpu")
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"The segmenter's weights {path} cannot be read: {error}",
            "Fetch or restore the file again.",
        ) from error
    if any(name.startswith(_TRANSFORMERS_MARK) for name in state):
        state = from_transformers(state)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # tensors of other shapes
        raise _misfit(path, str(error).splitlines()[-1].strip()) from error
    missing = [name for name in result.missing_keys if not name.startswith(_VIDEO_ONLY)]
    for what, names in (("lacks", missing), ("has the unknown", result.unexpected_keys)):
        if names:
            raise _misfit(path, f"it {what} {names[0]} ({len(names)} such)")


def _misfit(path: str | Path, why: str) -> WeightsError:
    return WeightsError(
        f"The weights {path} do not fit the segmenter's configuration: {why}.",
        "Use the configuration that was shipped with the weights.",
    )

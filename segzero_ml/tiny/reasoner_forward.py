"""The reasoner's forward as training runs it: many pictures and packed requests at once.

Equal in value to the model's own forward (the tests hold it to that), without its loop over
pictures, and with attention that a CPU trains twice as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segzero_ml.tiny.reasoner import GRID


def see(visual: Any, patches: Tensor) -> Tensor:
    """The vision tower on B pictures at once; equal to its own forward, without its loops.

    Args:
        visual: Qwen2.5-VL's vision transformer.
        patches: (B, P, values).

    Returns:
        (B, P / 4, HIDDEN) merged visual tokens.
    """
    b, p, _ = patches.shape
    weight = visual.patch_embed.proj.weight
    x = F.linear(patches, weight.flatten(1))
    cos, sin = _vision_rotation(visual, p)
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(x)).view(b, p, 3, attention.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, P, d)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = attend(q, k, v)
        x = x + attention.proj(mixed.transpose(1, 2).reshape(b, p, -1))
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = visual.merger(x.reshape(b * p, -1))
    return merged.view(b, p // 4, -1)


def attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Plain attention: on a CPU the fused kernel's backward takes twice as long.

    Args:
        query: (..., S, d).
        key: (..., T, d).
        value: (..., T, d).
        hidden: bool, (S, T): what may not be seen; None hides nothing.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = query.to(value.dtype), key.to(value.dtype)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -1e4)
        mixed: Tensor = scores.softmax(-1) @ value
    return mixed


def _vision_rotation(visual: Any, patches: int) -> tuple[Tensor, Tensor]:
    side = 2 * GRID
    device = visual.patch_embed.proj.weight.device
    place = torch.arange(side, device=device)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    order = torch.stack([rows, columns], -1).view(GRID, 2, GRID, 2, 2).transpose(1, 2)
    cos, sin = visual.rotary_pos_emb(torch.zeros(1, device=device), order.reshape(patches, 2))
    return cos, sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


@dataclass(frozen=True)
class Packing:
    """How a sequence is packed: an image part, then requests of equal length."""

    head: int
    requests: int


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention in which a request sees the image part and itself only.

    Args:
        module: The attention layer; unused.
        query: (B, heads, S, d).
        key: (B, heads, S, d).
        value: (B, heads, S, d).
        attention_mask: Unused: the packing says it all.
        packing: Where the parts are.

    Returns:
        (B, S, heads, d), as `transformers` expects, and no weights.
    """
    head, count = packing.head, packing.requests
    b, heads, length, d = query.shape
    own = (length - head) // count
    ahead = _ahead_of(head, 0, query.device)
    image = attend(query[:, :, :head], key[:, :, :head], value[:, :, :head], ahead)

    def apart(x: Tensor) -> Tensor:  # (B * count, heads, own, d)
        x = x[:, :, head:].reshape(b, heads, count, own, d)
        return x.transpose(1, 2).reshape(b * count, heads, own, d)

    def with_image(x: Tensor) -> Tensor:  # (B * count, heads, head + own, d)
        return torch.cat([x[:, :, :head].repeat_interleave(count, dim=0), apart(x)], dim=2)

    ahead = _ahead_of(own, head, query.device)
    answers = attend(apart(query), with_image(key), with_image(value), ahead)
    answers = answers.view(b, count, heads, own, d).permute(0, 1, 3, 2, 4)
    return torch.cat([image.transpose(1, 2), answers.reshape(b, count * own, heads, d)], 1), None


def _ahead_of(length: int, before: int, device: torch.device) -> Tensor:
    """bool, (length, before + length): True where a token would look ahead of itself."""
    everywhere = torch.ones(length, before + length, dtype=torch.bool, device=device)
    return everywhere.triu(before + 1)

"""How the bundled reasoner is made: a small Qwen2.5-VL, from scratch on plain scenes.

Two stages. First the vision tower alone learns to know, at each visual token, whether an
object is there, its colour, its shape and its box, said in the language model's own words
and numbers: an answer trained from nothing learns positions very slowly. Then the whole
model learns to answer, with that dense knowledge kept up beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from segzero_ml.tiny.cache import SceneCache, load_or_draw
from segzero_ml.tiny.loop import LoopOptions, run_loop
from segzero_ml.tiny.reasoner import (
    FRAME,
    GRID,
    HIDDEN,
    build_config,
    build_model,
    build_tokenizer,
    number_ids,
)
from segzero_ml.tiny.reasoner_data import IGNORED, Batch, BatchMaker, DenseTargets, word_ids
from segzero_ml.tiny.scenes import COLOURS, SHAPES

DENSE_NUMBERS = 6  # x1 y1 x2 y2 of the box, x y of the point


@dataclass(frozen=True)
class ReasonerOptions:
    """What the recipe can be told.

    Args:
        scenes: Training scenes to draw; each is turned eight ways.
        seeing_batch: Scenes a step while the vision tower learns alone.
        batch: Scenes a step afterwards.
        requests: Requests a scene.
        seeing: The first stage's loop.
        answering: The second stage's loop.
    """

    scenes: int = 24_000
    seeing_batch: int = 48
    batch: int = 32
    requests: int = 4
    seeing: LoopOptions = field(default_factory=lambda: LoopOptions(700, 1.5e-3))
    answering: LoopOptions = field(default_factory=lambda: LoopOptions(4000, 1e-3))


class Trainee(nn.Module):
    """The reasoner with the dense heads that only training uses."""

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        super().__init__()
        self.model = model
        self.presence = nn.Linear(HIDDEN, 1)
        self.colour = nn.Linear(HIDDEN, HIDDEN)
        self.shape = nn.Linear(HIDDEN, HIDDEN)
        self.numbers = nn.Linear(HIDDEN, DENSE_NUMBERS * HIDDEN)
        self.colour_ids = torch.tensor(word_ids(tokenizer, tuple(COLOURS)))
        self.shape_ids = torch.tensor(word_ids(tokenizer, SHAPES))
        self.number_ids = torch.tensor(number_ids(tokenizer))

    def dense_loss(
        self, tokens: Tensor, dense: DenseTargets, blur: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of the visual tokens (B, T, HIDDEN) against what lies under them."""
        table = self.model.get_input_embeddings().weight
        x = F.rms_norm(tokens.float(), (HIDDEN,))
        presence = F.binary_cross_entropy_with_logits(
            self.presence(x)[..., 0].float(), dense.presence.clamp(0, 1)
        )
        known = dense.colour != IGNORED
        x = x[known]
        colour = F.cross_entropy(
            (self.colour(x) @ table[self.colour_ids].T).float(), dense.colour[known]
        )
        shape = F.cross_entropy(
            (self.shape(x) @ table[self.shape_ids].T).float(), dense.shape[known]
        )
        logits = self.numbers(x).view(-1, DENSE_NUMBERS, HIDDEN) @ table[self.number_ids].T
        truth = dense.numbers[known]
        place = blurred_cross_entropy(logits.float().flatten(0, 1), truth.flatten(), blur)
        off = (logits.argmax(-1) - truth).abs().float().mean() / FRAME
        figures = {"presence": presence, "colour": colour, "shape": shape, "off": off}
        total = presence + colour + shape + place
        return total, {name: float(value.detach()) for name, value in figures.items()}


def blurred_cross_entropy(logits: Tensor, truth: Tensor, blur: float) -> Tensor:
    """Cross-entropy against a bell around the true number, so that near misses cost less.

    Args:
        logits: (N, FRAME + 1), over the whole numbers.
        truth: int64, (N,).
        blur: Standard deviation of the bell, in units of the frame.
    """
    distance = torch.arange(logits.shape[-1]) - truth[:, None]
    target = torch.softmax(-0.5 * (distance / blur) ** 2, dim=-1)
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


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
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + attention.proj(mixed.transpose(1, 2).reshape(b, p, -1))
        x = x + block.mlp(block.norm2(x))
    merged: Tensor = visual.merger(x.reshape(b * p, -1))
    return merged.view(b, p // 4, -1)


def _vision_rotation(visual: Any, patches: int) -> tuple[Tensor, Tensor]:
    side = 2 * GRID
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    order = torch.stack([rows, columns], -1).view(GRID, 2, GRID, 2, 2).transpose(1, 2)
    cos, sin = visual.rotary_pos_emb(torch.zeros(1), order.reshape(patches, 2))
    return cos, sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


def answer_loss(
    trainee: Trainee, visual_tokens: Tensor, batch: Batch, blur: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of every answer token, given the visual tokens (B, T, HIDDEN)."""
    model = trainee.model
    embedded = model.get_input_embeddings()(batch.input_ids)
    is_image = batch.input_ids == model.config.image_token_id
    embedded = embedded.masked_scatter(is_image[..., None], visual_tokens.to(embedded.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        position_ids=batch.positions,
        attention_mask={"full_attention": None},
        use_cache=False,
        packing=Packing(batch.head, batch.requests),
    ).last_hidden_state
    asked = batch.labels != IGNORED
    truth = batch.labels[asked]
    logits = model.lm_head(hidden[asked]).float()
    loss = F.cross_entropy(logits, truth, reduction="none")
    which = torch.full((logits.shape[-1],), -1)
    which[trainee.number_ids] = torch.arange(len(trainee.number_ids))
    number = which[truth]
    is_number = number >= 0
    # Over the whole vocabulary a number must still win: bell over numbers, all as rivals.
    scores = logits[is_number]
    bell = torch.softmax(
        -0.5 * ((torch.arange(FRAME + 1) - number[is_number][:, None]) / blur) ** 2, dim=-1
    )
    numbers = -(bell * scores.log_softmax(-1)[:, trainee.number_ids]).sum(-1)
    with torch.no_grad():
        right = logits.argmax(-1) == truth
        guess = which[scores.argmax(-1)]
        off = (guess - number[is_number]).abs().float().mean() / FRAME
    words = loss[~is_number]
    total = (words.sum() + numbers.sum()) / len(truth)
    figures = {"words": words.mean(), "right": right[~is_number].float().mean(), "at": off}
    return total, {name: float(value.detach()) for name, value in figures.items()}


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
        query, key, value: (B, heads, S, d).
        attention_mask: Unused: the packing says it all.
        packing: Where the parts are.

    Returns:
        (B, S, heads, d), as `transformers` expects, and no weights.
    """
    head, count = packing.head, packing.requests
    b, heads, length, d = query.shape
    own = (length - head) // count
    image = F.scaled_dot_product_attention(
        query[:, :, :head], key[:, :, :head], value[:, :, :head], is_causal=True
    )

    def apart(x: Tensor) -> Tensor:  # (B * count, heads, own, d)
        x = x[:, :, head:].reshape(b, heads, count, own, d)
        return x.transpose(1, 2).reshape(b * count, heads, own, d)

    def with_image(x: Tensor) -> Tensor:  # (B * count, heads, head + own, d)
        return torch.cat([x[:, :, :head].repeat_interleave(count, dim=0), apart(x)], dim=2)

    allowed = torch.ones(own, head + own, dtype=torch.bool).tril(head)
    answers = F.scaled_dot_product_attention(
        apart(query), with_image(key), with_image(value), attn_mask=allowed
    )
    answers = answers.view(b, count, heads, own, d).permute(0, 1, 3, 2, 4)
    return torch.cat([image.transpose(1, 2), answers.reshape(b, count * own, heads, d)], 1), None


def train_reasoner(
    options: ReasonerOptions, cache_folder: Path
) -> tuple[Qwen2_5_VLForConditionalGeneration, PreTrainedTokenizerFast]:
    """Trains the reasoner through both stages; resumes where checkpoints are.

    Returns:
        The trained model, with averaged weights, and its tokenizer.
    """
    scenes = load_or_draw(cache_folder, options.scenes, FRAME)
    torch.manual_seed(options.seeing.seed)
    tokenizer = build_tokenizer()
    trainee = Trainee(build_model(build_config(tokenizer), tokenizer), tokenizer)
    AttentionInterface.register("packed", packed_attention)
    trainee.model.model.language_model.config._attn_implementation = "packed"
    seen = _seeing(trainee, scenes, tokenizer, options)
    answered = _answering(seen, scenes, tokenizer, options)
    return answered.model, tokenizer


def _seeing(
    trainee: Trainee, scenes: SceneCache, tokenizer: PreTrainedTokenizerFast, o: ReasonerOptions
) -> Trainee:
    maker = BatchMaker(scenes, tokenizer, 0, o.seeing.seed)
    batches = _ahead(lambda i: maker.make(i, o.seeing_batch, with_text=False))

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches(index)
        tokens = see(trainee.model.model.visual, batch.patches)
        return trainee.dense_loss(tokens, batch.dense, _blur(index, o.seeing.steps))

    trained: Trainee = run_loop(trainee, step, o.seeing)
    return trained.requires_grad_(True)


def _answering(
    trainee: Trainee, scenes: SceneCache, tokenizer: PreTrainedTokenizerFast, o: ReasonerOptions
) -> Trainee:
    maker = BatchMaker(scenes, tokenizer, o.requests, o.answering.seed + 1)
    batches = _ahead(lambda i: maker.make(i, o.batch))

    def step(index: int) -> tuple[Tensor, dict[str, float]]:
        batch = batches(index)
        blur = _blur(index, o.answering.steps)
        tokens = see(trainee.model.model.visual, batch.patches)
        answers, figures = answer_loss(trainee, tokens, batch, blur)
        dense, sights = trainee.dense_loss(tokens, batch.dense, blur)
        figures |= {name: sights[name] for name in ("shape", "off")}
        return answers + 0.1 * dense, figures

    trained: Trainee = run_loop(trainee, step, o.answering)
    return trained


def _blur(index: int, steps: int) -> float:
    """From 2.5 to 0.7 units of the frame over the first 80 % of a stage."""
    return 2.5 - 1.8 * min(1.0, index / (0.8 * steps))


def _ahead(make: Any) -> Any:
    """Makes the next step's batch in a thread while this step computes."""
    pool = ThreadPoolExecutor(1)
    waiting: dict[int, Any] = {}

    def get(index: int) -> Any:
        job = waiting.pop(index, None) or pool.submit(make, index)
        waiting[index + 1] = pool.submit(make, index + 1)
        return job.result()

    return get

"""What the bundled reasoner is trained to get right: what it sees, and what it answers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from segzero_ml.tiny.reasoner import FRAME, GRID, HIDDEN, number_ids
from segzero_ml.tiny.reasoner_data import IGNORED, Batch, DenseTargets, word_ids
from segzero_ml.tiny.reasoner_forward import Packing
from segzero_ml.tiny.scenes import COLOURS, SHAPES

DENSE_NUMBERS = 6  # x1 y1 x2 y2 of the box, x y of the point


class Trainee(nn.Module):
    """The reasoner with the dense heads that only training uses."""

    colour_ids: Tensor
    shape_ids: Tensor
    number_ids: Tensor

    def __init__(
        self, model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        super().__init__()
        self.model = model
        self.presence = nn.Linear(HIDDEN, 1)
        self.colour = nn.Linear(HIDDEN, HIDDEN)
        self.shape = nn.Linear(HIDDEN, HIDDEN)
        self.numbers = nn.Linear(HIDDEN, DENSE_NUMBERS * HIDDEN)
        self.edges = nn.Linear(HIDDEN, 4)
        self.cell = nn.Linear(HIDDEN, 2 * GRID)
        for name, ids in (
            ("colour_ids", word_ids(tokenizer, tuple(COLOURS))),
            ("shape_ids", word_ids(tokenizer, SHAPES)),
            ("number_ids", number_ids(tokenizer)),
        ):
            self.register_buffer(name, torch.tensor(ids), persistent=False)

    def dense_loss(
        self, tokens: Tensor, dense: DenseTargets, blur: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of the visual tokens (B, T, HIDDEN) against what lies under them."""
        table: Any = self.model.get_input_embeddings().weight
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
        steps = self._step_losses(x, known, truth)
        figures = {"presence": presence, "colour": colour, "shape": shape, "off": off, **steps}
        total = presence + colour + shape + place + sum(steps.values())
        return total, {name: float(value.detach()) for name, value in figures.items()}

    def _step_losses(self, x: Tensor, known: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The two halves of a position: where the token is, and the box as seen from there."""
        place = torch.arange(GRID * GRID, device=x.device).expand_as(known)[known]
        row, column = place // GRID, place % GRID
        center = (torch.stack([column, row], -1) + 0.5) * (FRAME / GRID)
        edges = (truth[:, :4] - center.repeat(1, 2)) / (FRAME / GRID)
        rows, columns = self.cell(x).float().split(GRID, dim=-1)
        cell = F.cross_entropy(rows, row) + F.cross_entropy(columns, column)
        return {"edges": F.smooth_l1_loss(self.edges(x).float(), edges), "cell": cell}


def blurred_cross_entropy(logits: Tensor, truth: Tensor, blur: float) -> Tensor:
    """Cross-entropy against a bell around the true number, so that near misses cost less.

    Args:
        logits: (N, FRAME + 1), over the whole numbers.
        truth: int64, (N,).
        blur: Standard deviation of the bell, in units of the frame.
    """
    distance = torch.arange(logits.shape[-1], device=logits.device) - truth[:, None]
    target = torch.softmax(-0.5 * (distance / blur) ** 2, dim=-1)
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def answer_loss(
    trainee: Trainee, read: Any, visual_tokens: Tensor, batch: Batch, blur: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of every answer token.

    Args:
        trainee: The model with its heads.
        read: Its language model, compiled or as it is.
        visual_tokens: (B, T, HIDDEN).
        batch: What is asked and answered.
        blur: Standard deviation of the bell around a number, in units of the frame.
    """
    model = trainee.model
    embedded = model.get_input_embeddings()(batch.input_ids)
    is_image = batch.input_ids == model.config.image_token_id
    embedded = embedded.masked_scatter(is_image[..., None], visual_tokens.to(embedded.dtype))
    hidden = read(
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
    which = torch.full((logits.shape[-1],), -1, device=logits.device)
    order = torch.arange(FRAME + 1, device=logits.device)
    which[trainee.number_ids] = order
    number = which[truth]
    is_number = number >= 0
    # Over the whole vocabulary a number must still win: bell over numbers, all as rivals.
    scores = logits[is_number]
    bell = torch.softmax(-0.5 * ((order - number[is_number][:, None]) / blur) ** 2, dim=-1)
    numbers = -(bell * scores.log_softmax(-1)[:, trainee.number_ids]).sum(-1)
    with torch.no_grad():
        right = logits.argmax(-1) == truth
        guess = which[scores.argmax(-1)]
        off = (guess - number[is_number]).abs().float().mean() / FRAME
    weights = batch.weights[asked]
    concluding = weights > 1
    words = loss[~is_number]
    total = ((words * weights[~is_number]).sum() + numbers.sum()) / weights.sum()
    figures = {
        "words": words.mean(),
        "seen": right[~is_number & ~concluding].float().mean(),
        "concluded": right[concluding].float().mean(),
        "at": off,
    }
    return total, {name: float(value.detach()) for name, value in figures.items()}

"""Makes the bundled weights: `python -m segzero_ml.tiny.pretrain reasoner|segmenter`.

Seeded; shows progress; keeps checkpoints and goes on from them after an interruption.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from segzero_ml.tiny.loop import LoopOptions

WEIGHTS = Path(__file__).parent / "weights"
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

Work = Annotated[Path, typer.Option(help="Where scenes and checkpoints are kept.")]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights and of every batch.")]
Threads = Annotated[int, typer.Option(help="CPU threads to use.")]
Out = Annotated[Path, typer.Option(help="Where the weights are written.")]
_WORK = Path(".cache/tabletop")


@app.command()
def reasoner(
    seeing_steps: Annotated[int, typer.Option(help="Steps of the vision tower alone.")] = 1000,
    steps: Annotated[int, typer.Option(help="Steps of the whole model.")] = 3000,
    seed: Seed = 0,
    threads: Threads = 2,
    work: Work = _WORK,
    out: Out = WEIGHTS / "reasoner",
) -> None:
    """Trains the reasoner: first to see, then to answer."""
    from segzero_ml.tiny.reasoner import build_processor, save_pretrained
    from segzero_ml.tiny.train_reasoner import ReasonerOptions, train_reasoner

    torch.set_num_threads(threads)
    base = ReasonerOptions()
    options = replace(
        base,
        seeing=_loop(base.seeing, seeing_steps, seed, work / f"seeing-{seed}.pt"),
        answering=_loop(base.answering, steps, seed, work / f"answering-{seed}.pt"),
    )
    model, tokenizer = train_reasoner(options, work)
    save_pretrained(model, build_processor(tokenizer), out)
    typer.echo(f"The reasoner is in {out}.")


@app.command()
def segmenter(
    steps: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    seed: Seed = 0,
    threads: Threads = 2,
    work: Work = _WORK,
    out: Out = WEIGHTS / "segmenter",
) -> None:
    """Trains the segmenter."""
    from segzero_ml.tiny.train_segmenter import CONFIG, SegmenterOptions, train_segmenter

    torch.set_num_threads(threads)
    base = SegmenterOptions()
    options = replace(base, loop=_loop(base.loop, steps, seed, work / f"segmenter-{seed}.pt"))
    model = train_segmenter(options, work)
    out.mkdir(parents=True, exist_ok=True)
    learned = dict(model.named_parameters())
    weights = {
        name: (value.half() if name in learned else value).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, out / "model.safetensors")
    shutil.copyfile(CONFIG, out / "config.yaml")
    typer.echo(f"The segmenter is in {out}.")


def _loop(base: LoopOptions, steps: int, seed: int, checkpoint: Path) -> LoopOptions:
    return replace(base, steps=steps, seed=seed, checkpoint=checkpoint)


if __name__ == "__main__":
    app()

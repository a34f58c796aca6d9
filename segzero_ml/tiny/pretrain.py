"""Makes the bundled weights: `python -m segzero_ml.tiny.pretrain reasoner|segmenter`.

Seeded; shows progress; keeps checkpoints and goes on from them after an interruption. The
reasoner first learns to see, then to answer. On two CPU cores: some two and
a half hours for the reasoner, half an hour for the segmenter; `--device cuda` trains on a GPU
instead.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from segzero_ml.tiny.loop import LoopOptions
from segzero_ml.tiny.reasoner import build_processor, save_pretrained
from segzero_ml.tiny.train_reasoner import ReasonerOptions, train_reasoner
from segzero_ml.tiny.train_segmenter import CONFIG, SegmenterOptions, train_segmenter

WEIGHTS = Path(__file__).parent / "weights"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one recipe; see `--help`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here: leave --device out")
    torch.set_num_threads(options.threads)
    out: Path = options.out or WEIGHTS / options.model
    make = _reasoner if options.model == "reasoner" else _segmenter
    make(options, out)
    print(f"The {options.model} is in {out}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m segzero_ml.tiny.pretrain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=("reasoner", "segmenter"))
    parser.add_argument("--seeing-steps", type=int, help="steps of the vision tower alone")
    parser.add_argument("--steps", type=int, help="steps of the whole model")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of every batch")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu by default")
    parser.add_argument(
        "--no-compile", action="store_true", help="do not compile the reasoner's language model"
    )
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/tabletop"), help="keeps scenes and checkpoints"
    )
    parser.add_argument("--out", type=Path, help="where the weights go; the package by default")
    return parser


def _reasoner(options: argparse.Namespace, out: Path) -> None:
    base = ReasonerOptions()
    model, tokenizer = train_reasoner(
        replace(
            base,
            compiled=not options.no_compile,
            seeing=_loop(base.seeing, options.seeing_steps, options, "seeing"),
            answering=_loop(base.answering, options.steps, options, "answering"),
        ),
        options.work,
    )
    save_pretrained(model, build_processor(tokenizer), out)


def _segmenter(options: argparse.Namespace, out: Path) -> None:
    base = SegmenterOptions()
    loop = _loop(base.loop, options.steps, options, "segmenter")
    save_segmenter(train_segmenter(replace(base, loop=loop), options.work), out)


def save_segmenter(model: Any, out: Path) -> None:
    """Writes weights (what was learned in float16) and configuration as one directory."""
    learned = dict(model.named_parameters())
    weights = {
        name: (value.half() if name in learned else value).contiguous()
        for name, value in model.state_dict().items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors")
    shutil.copyfile(CONFIG, out / "config.yaml")


def _loop(
    base: LoopOptions, steps: int | None, options: argparse.Namespace, name: str
) -> LoopOptions:
    return replace(
        base,
        steps=steps or base.steps,
        seed=options.seed,
        device=options.device,
        checkpoint=options.work / f"{name}-{options.seed}.pt",
    )


if __name__ == "__main__":
    main()

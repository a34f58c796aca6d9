"""What a round would learn from if it began now; nothing is fetched, made or changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.learning.facts import snapshot_options
from backend.learning.folders import snapshots_folder
from backend.learning.round_settings import round_options
from backend.settings import Settings
from segzero_ml.corrections import Correction, Verdict, choose_target
from training_hooks.loop_reader import TRAINED
from training_hooks.round_options import RoundOptions
from training_hooks.snapshot_options import (
    SnapshotOptions,
    is_held_out,
    keep_held_out,
    keep_to_train,
)
from training_hooks.store_reader import CorrectionReader
from training_hooks.store_values import ProjectKey

_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a round would learn from, by corrections; images that cannot be fetched count too.

    Args:
        new: New corrections.
        older: Older ones that are mixed in.
        accepted: Accepted predictions that are mixed in.
        held_out: Corrections held out, to compare models on.
        prompts: Requests to learn from, and what is rehearsed besides.
        steps: Steps there would be.
        options: How the round would be run.
    """

    new: int
    older: int
    accepted: int
    held_out: int
    prompts: int
    steps: int
    options: RoundOptions


def forecast(reader: CorrectionReader, project: ProjectKey, settings: Settings) -> Forecast:
    """Say what a round of a project would learn from.

    Args:
        reader: The store.
        project: Which project.
        settings: Shares, options of the round, the data folder.

    Raises:
        ConfigError: The settings of training make no sense together.
        StoreError: Redis does not answer.
    """
    options = round_options(settings)
    mixing = _as_fixed(snapshot_options(settings), snapshots_folder(settings, project.project))
    since = reader.watermark(project, TRAINED)
    held_out: list[tuple[Correction, str]] = []
    new: list[Correction] = []
    older: list[Correction] = []
    accepted: list[Correction] = []
    for one in _targets(_all(reader, project)):
        # Where the image was never seen, its address stands for it: the share is the same.
        sha256 = one.image_sha256 or hashlib.sha256(one.image.encode()).hexdigest()
        if is_held_out(sha256, mixing.salt, mixing.held_out_share):
            held_out.append((one, sha256))
        elif one.verdict is Verdict.ACCEPTED:
            accepted.append(one)
        else:
            is_new = since is None or one.revision.updated_at > since
            (new if is_new else older).append(one)
    taken = {one.key for one in keep_to_train(new, older, accepted, mixing)}
    learnt = [one for one in (*new, *older, *accepted) if one.key in taken]
    lessons = sum(len(one.requests) for one in learnt)
    prompts = lessons + options.rehearsed(lessons)
    return Forecast(
        new=len(new),
        older=sum(one.key in taken for one in older),
        accepted=sum(one.key in taken for one in accepted),
        held_out=len(keep_held_out(held_out, mixing)),
        prompts=prompts,
        steps=_steps(prompts, options),
        options=options,
    )


def _steps(prompts: int, options: RoundOptions) -> int:
    if not prompts:
        return 0
    each = min(options.prompts_per_step, prompts)
    steps = math.ceil(options.epochs * (prompts // each))
    return steps if options.max_steps is None else min(steps, options.max_steps)


def _as_fixed(options: SnapshotOptions, folder: Path) -> SnapshotOptions:
    """With the split that the project's first snapshot fixed, if there was one."""
    try:
        read = json.loads((folder / "split.json").read_bytes())
        return replace(options, salt=str(read["salt"]), held_out_share=float(read["share"]))
    except (OSError, ValueError, KeyError, TypeError):
        return options


def _all(reader: CorrectionReader, project: ProjectKey) -> list[Correction]:
    found: dict[int, Correction] = {}
    after, is_last = 0, False
    while not is_last:
        page = reader.page(project, after, _PAGE)
        found |= {one.key.annotation: one for one in page.corrections}
        after, is_last = page.after, page.is_last
    return list(found.values())


def _targets(corrections: Iterable[Correction]) -> list[Correction]:
    """Of each task the correction that counts."""
    tasks: dict[int, list[Correction]] = {}
    for one in corrections:
        tasks.setdefault(one.task, []).append(one)
    return [found for each in tasks.values() if (found := choose_target(each)) is not None]

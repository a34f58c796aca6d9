"""What a round would learn from if it began now; nothing is fetched, made or changed."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

from backend.learning.facts import snapshot_options
from backend.learning.folders import snapshots_folder
from backend.learning.held_out import too_little_held_out
from backend.learning.round_settings import round_options
from backend.settings import Settings
from training_hooks.loop_reader import LoopReader
from training_hooks.round_options import RoundOptions
from training_hooks.snapshot_choice import draw, newest, targets
from training_hooks.snapshot_files import known_split
from training_hooks.store_values import ProjectKey


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a round would learn from, by corrections; images that cannot be fetched count too.

    Args:
        new: New corrections.
        older: Older ones that are mixed in.
        accepted: Accepted predictions that are mixed in.
        held_out: Corrections held out, to compare models on.
        held_out_images: Images that these are of.
        refusal: Why it would end before anything is trained; None where it would not.
        prompts: Requests to learn from, and what is rehearsed besides.
        steps: Steps there would be.
        options: How the round would be run.
    """

    new: int
    older: int
    accepted: int
    held_out: int
    held_out_images: int
    refusal: str | None
    prompts: int
    steps: int
    options: RoundOptions


def forecast(reader: LoopReader, project: ProjectKey, settings: Settings) -> Forecast:
    """Say what a round of a project would learn from.

    Args:
        reader: The store.
        project: Which project.
        settings: Shares, options of the round, the data folder.

    Raises:
        ConfigError: The settings of training make no sense together.
        DatasetError: Nobody knows which images are held out.
        StoreError: Redis does not answer.
    """
    options = round_options(settings)
    mixing = snapshot_options(settings, reader.mark(project))
    if split := known_split(snapshots_folder(settings, project.project)):
        mixing = replace(mixing, salt=split[0], held_out_share=split[1])
    counting = targets(newest(reader.corrections(project)))
    # Where the image was never seen, its address stands for it: the share is the same.
    hashed = [(one, one.image_sha256 or _hash_of(one.image)) for one in counting]
    drawn = draw(hashed, mixing, reader.news(project))
    judging = {one.key for one in drawn.held_out}
    images = {sha256 for one, sha256 in hashed if one.key in judging}
    refusal = too_little_held_out(len(images), len(drawn.held_out), mixing)
    learnt = [one for each in drawn.train.values() for one in each]
    lessons = sum(len(one.requests) for one in learnt)
    prompts = lessons + options.rehearsed(lessons)
    return Forecast(
        new=len(drawn.train["new"]),
        older=len(drawn.train["older"]),
        accepted=len(drawn.train["accepted"]),
        held_out=len(drawn.held_out),
        held_out_images=len(images),
        refusal=None if refusal is None else str(refusal),
        prompts=prompts,
        steps=_steps(prompts, options),
        options=options,
    )


def _steps(prompts: int, options: RoundOptions) -> int:
    if not prompts:
        return 0
    each = min(options.prompts_per_step, prompts)
    steps = math.ceil(options.epochs * math.ceil(prompts / each))
    return steps if options.max_steps is None else min(steps, options.max_steps)


def _hash_of(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()

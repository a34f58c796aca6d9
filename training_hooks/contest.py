"""What serves against what a round learnt, on the held-out examples: who is better is promoted.

A checkpoint that is better, but has lost too much of what was known, is tried once more with less
of what it learnt; one that lost nothing, but is not clearly better, with more of it
(`training_hooks.blending`). The gate is told how many were tried in all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from segzero_ml.durable import replace_file
from segzero_ml.errors import ModelError
from segzero_ml.images import load_image
from segzero_ml.pipeline import Pipeline
from segzero_ml.reasoner.adapters import AdaptedReasoner, Adapters
from segzero_ml.reasoner.golden import record_golden
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.versions import golden_as_json
from training_hooks import probing
from training_hooks.blending import blended
from training_hooks.comparison import Answers, Outcome, answer_all, judge
from training_hooks.progress import Watch
from training_hooks.rehearsal import Rehearsal
from training_hooks.round_files import BLENDED, GOLDEN
from training_hooks.snapshot import Snapshot
from training_hooks.snapshot_records import Example

_LESS: Final = 2 / 3
_GOLDEN: Final = 3


class Contest:
    """One round's comparison.

    Args:
        snapshot: Its held-out examples are answered.
        known: So are those held out of what is rehearsed.
        preset: The pair.
        folder: The round's.
        champion: Folder of the adapter that serves now; None for the base.
        watch: Told how far it is; ends it when asked to.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        known: Rehearsal,
        preset: str,
        folder: Path,
        champion: Path | None,
        watch: Watch,
    ) -> None:
        self._snapshot = snapshot
        self._known = known
        self._folder = folder
        self._champion = champion
        self._watch = watch
        self._base = Pipeline.load(preset)
        if not isinstance(self._base.reasoner, LocalReasoner):
            raise ModelError("Only a reasoner that runs on this machine can be trained.")
        self._reasoner = self._base.reasoner
        self._adapters = Adapters(self._reasoner)
        self._told: dict[str, float] = {}
        self._completed: dict[Path | None, Answers] = {}

    def decide(self, checkpoints: Sequence[Path], share: float) -> Outcome:
        """Compare checkpoints with what serves; a golden prediction is left of what is better.

        Args:
            checkpoints: Their folders; one at least.
            share: Of what they learnt that is kept, in (0, 1].

        Raises:
            JobCancelledError: Somebody asked for the round's end.
            ModelError: There is not enough memory.
            WeightsError: A checkpoint is damaged.
        """
        models = len(checkpoints) + 1
        serving = self._complete(self._champion, self._answers(self._champion, 1, models))
        found = self._blended(checkpoints, share, models)
        outcome = judge(serving, found, self._snapshot.held_out, complete=self._complete)
        other = share
        if outcome.verdict.only_forgets:
            other = share * _LESS
        elif outcome.verdict.only_learns_too_little:
            other = min(1.0, share / _LESS)
        if other != share:
            found += self._blended(checkpoints, other, 2 * len(checkpoints) + 1)
            outcome = judge(serving, found, self._snapshot.held_out, complete=self._complete)
        if outcome.verdict.promote:
            self._write_golden(outcome.best)
        is_first = outcome.best in [path for path, _ in found[: len(checkpoints)]]
        return replace(outcome, share=share if is_first else other)

    def _blended(
        self, checkpoints: Sequence[Path], share: float, models: int
    ) -> list[tuple[Path, Answers]]:
        into = self._folder / BLENDED / f"{share:.2g}"
        first = models - len(checkpoints) + 1
        tried = [blended(path, share, into) for path in checkpoints]
        return [(path, self._answers(path, at, models)) for at, path in enumerate(tried, first)]

    def _answers(self, adapter: Path | None, number: int, models: int) -> Answers:
        """A model's answers to the held-out examples."""
        self._watch.say(phase="comparing", model=number, models=models, **self._told)
        with self._put_on(adapter) as on:
            found = self._answered(on, self._snapshot.held_out, self._snapshot.folder)
        self._tell(found.mean_iou, is_champion=adapter == self._champion)
        return found

    def _complete(self, adapter: Path | None, answers: Answers) -> Answers:
        """With its answers to what is rehearsed, and whether they hang on its thoughts."""
        if adapter not in self._completed:
            snapshot = self._snapshot
            with self._put_on(adapter) as on:
                before = self._answered(on, self._known.held_out, self._folder)
                thinks = probing.faithfulness(
                    on, snapshot.held_out, snapshot.folder, between=self._watch.check
                )
            self._completed[adapter] = replace(answers, faithfulness=thinks, rehearsed=before.cases)
        return self._completed[adapter]

    def _answered(
        self, on: LocalReasoner | AdaptedReasoner, examples: Sequence[Example], folder: Path
    ) -> Answers:
        pipeline = Pipeline(on, self._base.segmenter, self._base.preset)
        return answer_all(pipeline, examples, folder, self._watch.check)

    @contextmanager
    def _put_on(self, adapter: Path | None) -> Iterator[LocalReasoner | AdaptedReasoner]:
        if adapter is None:
            yield self._reasoner
            return
        on = self._adapters.put_on(adapter)
        try:
            yield on
        finally:
            self._adapters.take_off(on)

    def _tell(self, mean_iou: float, *, is_champion: bool) -> None:
        if is_champion:
            self._told["champion_iou"] = mean_iou
        else:
            self._told["held_out_iou"] = max(mean_iou, self._told.get("held_out_iou", 0.0))

    def _write_golden(self, adapter: Path) -> None:
        """Note what the best one answers, as `segzero_ml.reasoner.golden` asks it again."""
        reasoner = self._adapters.put_on(adapter)
        chosen = self._snapshot.held_out[:_GOLDEN]
        images = [load_image(self._snapshot.folder / one.image_file) for one in chosen]
        recorded = record_golden(reasoner, images, [one.request for one in chosen])
        noted = {"base": reasoner.version, "golden": golden_as_json(recorded)}
        replace_file(self._folder / GOLDEN, json.dumps(noted).encode())

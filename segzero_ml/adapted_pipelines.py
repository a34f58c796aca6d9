"""Pipelines that share one base and one segmenter, each with a version's adapter on."""

from __future__ import annotations

from pathlib import Path

from segzero_ml.errors import WeightsError
from segzero_ml.pipeline import Pipeline
from segzero_ml.reasoner.adapters import AdaptedReasoner, Adapters
from segzero_ml.reasoner.golden import check_golden
from segzero_ml.reasoner.local import LocalReasoner
from segzero_ml.registry import Registry
from segzero_ml.versions import Version


def adapted_version(base: str, version_id: str) -> str:
    """What a pipeline with an adapter on is called, such as `tiny@1f3a5b7c+v3-1a2b3c4d`.

    Args:
        base: `model_version` of the pipeline without it.
        version_id: Of the version.
    """
    return f"{base}+{version_id}"


class AdaptedPipelines:
    """Lays versions over a pipeline; use it from the thread in which that answers.

    Args:
        base: The pipeline without an adapter; it goes on answering as itself.

    Raises:
        WeightsError: Its reasoner runs on a server, where no adapter can be laid over it.
    """

    def __init__(self, base: Pipeline) -> None:
        if not isinstance(base.reasoner, LocalReasoner):
            raise WeightsError(
                "Versions can only be laid over a reasoner that runs on this machine.",
                "Serve the preset itself instead of a remote reasoner.",
            )
        self._base = base
        self._base_version = base.reasoner.version
        self._adapters = Adapters(base.reasoner)

    @property
    def loaded(self) -> int:
        """How many adapters are in memory."""
        return self._adapters.loaded

    def put_on(self, version: Version) -> Pipeline:
        """A pipeline that answers with a version, once that has proved itself.

        Args:
            version: Its files are compared with its manifest, read in full, loaded, and its
                golden predictions reproduced.

        Raises:
            WeightsError: It is damaged, made for another base, or answers otherwise than
                when it was published.
            ModelError: There is not enough memory for it.
        """
        Registry.check_fits(version, self._base_version)
        adapted = self._adapters.put_on(version.folder)
        try:
            check_golden(adapted, version.info.golden)
        except BaseException:
            self._adapters.take_off(adapted)
            raise
        return self._pipeline(adapted, version.id)

    def try_on(self, folder: Path, name: str) -> Pipeline:
        """A pipeline with an adapter that is not published yet, such as a checkpoint.

        Args:
            folder: Holds the adapter's two files, as PEFT writes them.
            name: What it is called in the pipeline's version.

        Raises:
            WeightsError: It is damaged, of a refused form, or made for another model.
            ModelError: There is not enough memory for it.
        """
        return self._pipeline(self._adapters.put_on(folder), name)

    def take_off(self, pipeline: Pipeline) -> None:
        """Remove a pipeline's adapter from memory; that pipeline answers no more."""
        if isinstance(pipeline.reasoner, AdaptedReasoner):
            self._adapters.take_off(pipeline.reasoner)

    def _pipeline(self, adapted: AdaptedReasoner, name: str) -> Pipeline:
        pipeline = Pipeline(adapted, self._base.segmenter, self._base.preset)
        pipeline.model_version = adapted_version(self._base.model_version, name)
        return pipeline

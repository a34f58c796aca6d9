"""The report as JSON. Its keys are a promise to scripts: add to them, never change one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from backend.report import ProjectView, Report, SpoolView
from segzero_ml.corrections import Correction
from training_hooks.dead_letters import DeadLetter


def report_as_dict(report: Report) -> dict[str, Any]:
    """All of a report as JSON's own types; times in ISO 8601 and UTC, None where unknown."""
    numbers = report.numbers
    return {
        "at": _time(report.at),
        "healthy": report.is_healthy,
        "redis": {
            "up": report.redis.up,
            "address": report.redis.address,
            "problem": report.redis.problem,
            "remedy": report.redis.remedy,
            "warnings": list(report.redis.warnings),
        },
        "backend": {
            "address": report.backend.address,
            "runs": report.backend.runs,
            "state": report.backend.state,
            "model_version": report.backend.model_version,
            "detail": report.backend.detail,
        },
        "spool": _spool(report.spool),
        "queues": None
        if numbers is None
        else {name.value: asdict(depth) for name, depth in numbers.queues.items()},
        "projects": None if numbers is None else [_project(view) for view in numbers.projects],
        "dead_letters": [_letter(letter) for letter in report.dead_letters],
        "recent": [summary(one) for one in report.recent],
    }


def summary(correction: Correction) -> dict[str, Any]:
    """A correction in a few words, without its masks and notes."""
    return {
        "label_studio": correction.key.label_studio,
        "project": correction.key.project,
        "task": correction.task,
        "annotation": correction.key.annotation,
        "verdict": correction.verdict.value,
        "edit_iou": correction.edit_iou,
        "requests": list(correction.requests),
        "predicted": len(correction.predicted),
        "corrected": len(correction.corrected),
        "lead_time_s": correction.lead_time_s,
        "model_version": correction.model_version,
        "annotator": correction.annotator,
        "ground_truth": correction.ground_truth,
        "updated_at": _time(correction.revision.updated_at),
    }


def _spool(view: SpoolView) -> dict[str, Any]:
    found = view.survey
    return {
        "records": None if found is None else found.depth,
        "bytes": None if found is None else found.bytes,
        "oldest_age_s": None if found is None else found.oldest_age_s,
        "quarantined": None if found is None else found.quarantined,
        "capacity_bytes": view.capacity_bytes,
        "folder": str(view.folder),
        "alarm": view.alarm,
        "remedy": view.remedy,
    }


def _project(view: ProjectView) -> dict[str, Any]:
    found = view.statistics
    return {
        "label_studio": view.key.label_studio,
        "project": view.key.project,
        "corrections": found.corrections,
        "verdicts": {verdict.value: number for verdict, number in found.verdicts.items()},
        "withdrawn": found.withdrawn,
        "deleted": found.deleted,
        "accept_rate": found.accept_rate,
        "mean_edit_iou": found.mean_edit_iou,
        "median_lead_time_shown_s": found.median_lead_time_shown_s,
        "median_lead_time_alone_s": found.median_lead_time_alone_s,
        "reconciled_at": _time(view.reconciled_at),
        "round": None if view.round is None else view.round.to_json(),
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.job_id,
        "queue": letter.queue.value,
        "function": letter.function,
        "reason": letter.reason,
        "at": _time(letter.at),
        "can_retry": letter.can_retry,
    }


def _time(moment: datetime | None) -> str | None:
    # RQ's times are in UTC and may not say so.
    if moment is None:
        return None
    aware = moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()

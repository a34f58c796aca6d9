"""Which requests a task makes: from the prompt box, the task's data, or the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.controls import Label
from backend.label_names import Naming, folded, naming
from backend.labelling import Labelling
from backend.templates import REQUEST_FIELD
from segzero_ml.errors import RequestError
from segzero_ml.reasoner.prompts import check_raw_length


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """One request and the label that its masks get."""

    text: str
    label: str


def task_requests(
    data: Mapping[str, Any],
    labelling: Labelling,
    request_fields: Sequence[str],
    kept: str | None = None,
) -> tuple[LabelRequest, ...]:
    """The requests of a task that nobody is typing into.

    The first field that the labelling config shows as the request, or that `request_fields`
    names, and that the task has, is the request. Without one, or with a blank one, it is the
    one that was kept, else the fixed text of the config; without these too, and with several
    labels, each label is a request.

    Args:
        data: The task's data.
        labelling: The project's labelling config.
        request_fields: Field names that mean a request whatever the config shows.
        kept: What was asked last, where that is asked of the next task too.

    Raises:
        RequestError: The field is blank and there is one label only, or it holds no text or
            far too much.
    """
    fallback = kept or labelling.default_request
    fields = dict.fromkeys([*labelling.request_fields, *request_fields])
    present = [name for name in fields if data.get(name) is not None]
    for name in present:
        value = data[name]
        if not isinstance(value, str):
            raise RequestError(f'The field "{name}" of the task must hold the request as text.')
        if value.strip():
            return (LabelRequest(value, label_of(value, labelling)),)
    if fallback is not None:
        return (LabelRequest(fallback, label_of(fallback, labelling)),)
    labels = labelling.labels
    if present and len(labels) == 1:
        raise RequestError(
            f'The request is empty: the field "{present[0]}" of the task is blank.',
            "Write into it what to find, in plain language.",
        )
    if not labels:
        raise RequestError(
            "Nothing is asked for: the task has no request, and the labelling config no labels.",
            f'Give the tasks a field "{next(iter(fields), REQUEST_FIELD)}" with what to find.',
        )
    return tuple(LabelRequest(label.phrase, label.name) for label in labels)


def prompted_request(
    regions: Sequence[Mapping[str, Any]], labelling: Labelling
) -> LabelRequest | None:
    """The request that the annotator typed last, or None if there is none.

    Args:
        regions: `params.context.result` of the call.
        labelling: The project's labelling config.

    Raises:
        RequestError: It is far too long.
    """
    for region in reversed(regions):
        if labelling.prompt is None or region.get("from_name") != labelling.prompt:
            continue
        value = region.get("value")
        text = value.get("text") if isinstance(value, Mapping) else None
        lines = [text] if isinstance(text, str) else text if isinstance(text, list) else []
        for line in reversed(lines):
            if isinstance(line, str) and line.strip():
                return LabelRequest(line, label_of(line, labelling))
    return None


def label_of(request: str, labelling: Labelling) -> str:
    """The label that the masks of a request get; empty where the config has no labels.

    Raises:
        RequestError: The request is far too long.
    """
    return label_for(request, labelling.labels) if labelling.labels else ""


def label_for(request: str, labels: Sequence[Label]) -> str:
    """The label that the request names, else the first.

    Of several it is one that is named as it is written, not in the plural, and of these the
    one with the longest name.

    Raises:
        RequestError: The request is far too long.
    """
    check_raw_length(request)
    text = folded(request)
    best, best_rank = labels[0].name, (Naming.NOT, 0)
    for label in labels:
        for name in map(folded, label.names):
            rank = (naming(name, text), len(name))
            if rank[0] is not Naming.NOT and rank > best_rank:
                best, best_rank = label.name, rank
    return best

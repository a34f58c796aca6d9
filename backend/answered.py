"""Which requests an annotation answers, and which of them each of its regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labelling import Labelling
from backend.regions import Region
from backend.task_requests import LabelRequest, label_of, prompted_request, task_requests
from segzero_ml.corrections import LabelledSegment
from segzero_ml.errors import RequestError
from segzero_ml.reasoner.prompts import normalise_request


@dataclass(frozen=True, slots=True)
class Answered:
    """The requests that an annotation answers, and how its regions are told apart.

    Args:
        requests: In the order in which they were asked; empty where nobody asked anything.
        typed: What the annotator typed last, if that is one of the requests.
        predicted: The request of each of the prediction's regions, by id.
    """

    requests: tuple[LabelRequest, ...]
    typed: str | None
    predicted: Mapping[str, str | None]

    def request_of(self, region: Region) -> str:
        """The request that a region answers; the first rule that fits says it.

        1. Its label is that of one request alone, as where each label is a request.
        2. It says so itself: the model wrote down the request.
        3. It is a region of the prediction: what that one answered, else the first request.
        4. The annotator typed a request: that one, for this is drawn by hand.
        5. The first request.
        """
        labels = [one.label for one in self.requests]
        texts = [one.text for one in self.requests]
        if labels.count(region.label) == 1:
            return texts[labels.index(region.label)]
        if region.request is not None and region.request in texts:
            return region.request
        if region.id in self.predicted:
            known = self.predicted[region.id]
            return known if known is not None and known in texts else texts[0]
        return self.typed or texts[0]

    def segments(self, regions: Iterable[Region]) -> tuple[LabelledSegment, ...]:
        """The regions, each with its label and its request."""
        return tuple(LabelledSegment(one.rle, one.label, self.request_of(one)) for one in regions)


def answered(
    data: Mapping[str, Any],
    labelling: Labelling,
    request_fields: Sequence[str],
    predicted: Sequence[Region] | None,
    drawn: Sequence[Region],
    results: Sequence[Mapping[str, Any]],
) -> Answered:
    """Find the requests that an annotation answers.

    A prediction answers what its regions say they answer. Where they say nothing, or name
    only some of what the task asks for, it answers all that the task asks for: the rest was
    not found. To these come the requests that regions of the annotation name, as those do
    which the annotator asked for while working; and the request typed last, if there are
    regions that were drawn by hand. Where all this names nothing, the typed request is the
    one that was answered; without it, what the task asks for.

    Args:
        data: The task's data.
        labelling: The project's labelling config.
        request_fields: Field names that mean a request whatever the config shows.
        predicted: Regions of the prediction; None where there was none.
        drawn: Regions of the annotation.
        results: All results of the annotation.
    """
    asked_by_task = _asked_by_task(data, labelling, request_fields)
    typed = prompted_request(results, labelling)
    typed = typed if typed is not None and _is_learnt(typed, labelling) else None
    found: dict[str, LabelRequest] = {}
    if predicted is not None:
        told = _named(predicted, labelling)
        texts = {one.text for one in asked_by_task}
        found = {one.text: one for one in asked_by_task} if told.keys() <= texts else told
    found |= {text: one for text, one in _named(drawn, labelling).items() if text not in found}
    ids = {one.id: one.request for one in predicted or () if one.id}
    if found and typed and any(one.request is None and one.id not in ids for one in drawn):
        found.setdefault(typed.text, typed)
    if not found:
        found = {one.text: one for one in ((typed,) if typed else asked_by_task)}
    last = typed.text if typed and typed.text in found else None
    return Answered(tuple(found.values()), last, ids)


def _asked_by_task(
    data: Mapping[str, Any], labelling: Labelling, request_fields: Sequence[str]
) -> tuple[LabelRequest, ...]:
    try:
        asked = task_requests(data, labelling, request_fields)
    except RequestError:
        return ()
    return tuple(one for one in asked if _is_learnt(one, labelling))


def _named(regions: Iterable[Region], labelling: Labelling) -> dict[str, LabelRequest]:
    """Requests that regions name, each once, in their order."""
    texts = dict.fromkeys(one.request for one in regions if one.request is not None)
    requests = [LabelRequest(text, label_of(text, labelling)) for text in texts]
    return {one.text: one for one in requests if _is_learnt(one, labelling)}


def _is_learnt(request: LabelRequest, labelling: Labelling) -> bool:
    """Whether it is a request, and one whose answers are more than points."""
    try:
        normalise_request(request.text)
    except RequestError:
        return False
    return request.label not in labelling.pointed_labels

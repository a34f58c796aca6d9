"""Which requests an annotation answers, and which of them each of its regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.labelling import Labelling
from backend.regions import Region, noted_requests
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
        phrases: What is asked for labels, where each label is a request.
    """

    requests: tuple[LabelRequest, ...]
    typed: str | None
    predicted: Mapping[str, str | None]
    phrases: frozenset[str] = frozenset()

    def request_of(self, region: Region) -> str:
        """The request that a region was made for; the first rule that fits says it.

        1. The model answered a request in somebody's own words with it: that one, for its
           label was only the backend's guess.
        2. Its label is that of one request alone, as where each label is a request.
        3. The model answered the request for another label with it: that one.
        4. It is another region of the prediction: the first request.
        5. The annotator typed a request: that one, for this is drawn by hand.
        6. The first request.
        """
        told = self._told(region)
        if told is not None and told not in self.phrases:
            return told
        labels = [one.label for one in self.requests]
        if labels.count(region.label) == 1:
            return self.requests[labels.index(region.label)].text
        if told is not None:
            return told
        first = self.requests[0].text
        return first if region.id in self.predicted else self.typed or first

    def shown(self, regions: Iterable[Region]) -> tuple[LabelledSegment, ...]:
        """What the model showed, each with its label and the request that it was made for."""
        return tuple(LabelledSegment(one.rle, one.label, self.request_of(one)) for one in regions)

    def truth(self, regions: Iterable[Region]) -> tuple[LabelledSegment, ...]:
        """What is true: submitted regions, each with its label and a request that it answers.

        An answer to a request in somebody's own words that got another label is in there twice:
        it answers the request for that label as well, where there is one. Otherwise it would be
        learnt that nothing in the picture has the label.
        """
        found = []
        for region in regions:
            answers = (self.request_of(region), *self._asked_for_label(region))
            found += [LabelledSegment(region.rle, region.label, one) for one in answers]
        return tuple(found)

    def _told(self, region: Region) -> str | None:
        """The request that the model answered with a region, where that is still known."""
        texts = [one.text for one in self.requests]
        named = (region.request, self.predicted.get(region.id))
        return next((one for one in named if one in texts), None)

    def _asked_for_label(self, region: Region) -> tuple[str, ...]:
        """The request for the label that the annotator gave to an answer to another request."""
        told = self._told(region)
        guessed = {one.text: one.label for one in self.requests}
        if told is None or told in self.phrases or guessed[told] == region.label:
            return ()
        return tuple(
            one.text
            for one in self.requests
            if one.text in self.phrases and one.label == region.label
        )


def answered(
    data: Mapping[str, Any],
    labelling: Labelling,
    request_fields: Sequence[str],
    predicted: Sequence[Region] | None,
    drawn: Sequence[Region],
    results: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, Any]] = (),
) -> Answered:
    """Find the requests that an annotation answers.

    A prediction answers what its notes and its regions say that they answer. Where they say
    nothing, or name only some of what the task asks for, it answers all that the task asks for:
    the rest was not found. To these come the requests that regions of the annotation name, as
    those do which the annotator asked for while working; and the request typed last, if there
    are regions that were drawn by hand for it. Where all this names nothing, the typed request
    is the one that was answered; without it, what the task asks for.

    Args:
        data: The task's data.
        labelling: The project's labelling config.
        request_fields: Field names that mean a request whatever the config shows.
        predicted: Regions of the prediction; None where there was none.
        drawn: Regions of the annotation.
        results: All results of the annotation.
        shown: All results of the prediction.
    """
    asked_by_task = _asked_by_task(data, labelling, request_fields)
    typed = prompted_request(results, labelling)
    typed = typed if typed is not None and _is_learnt(typed, labelling) else None
    found: dict[str, LabelRequest] = {}
    if predicted is not None:
        told = _named([*noted_requests(shown), *_requests_of(predicted)], labelling)
        texts = {one.text for one in asked_by_task}
        found = {one.text: one for one in asked_by_task} if told.keys() <= texts else told
    named = _named(_requests_of(drawn), labelling)
    found |= {text: one for text, one in named.items() if text not in found}
    ids = {one.id: one.request for one in predicted or () if one.id}
    phrases = frozenset(one.phrase for one in labelling.labels)
    if found and typed and typed.text not in found:
        both = Answered((*found.values(), typed), typed.text, ids, phrases)
        if any(both.request_of(one) == typed.text for one in drawn):
            return both
    if not found:
        found = {one.text: one for one in ((typed,) if typed else asked_by_task)}
    last = typed.text if typed and typed.text in found else None
    return Answered(tuple(found.values()), last, ids, phrases)


def _asked_by_task(
    data: Mapping[str, Any], labelling: Labelling, request_fields: Sequence[str]
) -> tuple[LabelRequest, ...]:
    try:
        asked = task_requests(data, labelling, request_fields)
    except RequestError:
        return ()
    return tuple(one for one in asked if _is_learnt(one, labelling))


def _requests_of(regions: Iterable[Region]) -> list[str]:
    return [one.request for one in regions if one.request is not None]


def _named(texts: Iterable[str], labelling: Labelling) -> dict[str, LabelRequest]:
    """Requests that somebody wrote down, each once, in their order."""
    usable = (text for text in dict.fromkeys(texts) if _is_request(text))
    requests = [LabelRequest(text, label_of(text, labelling)) for text in usable]
    return {one.text: one for one in requests if _is_learnt(one, labelling)}


def _is_learnt(request: LabelRequest, labelling: Labelling) -> bool:
    """Whether it is a request, and one whose answers are more than points."""
    return _is_request(request.text) and request.label not in labelling.pointed_labels


def _is_request(text: str) -> bool:
    try:
        normalise_request(text)
    except RequestError:
        return False
    return True

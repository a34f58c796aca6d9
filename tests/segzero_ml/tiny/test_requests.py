"""Requests about scenes: their targets and reasoning are true."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

from segzero_ml.datasets.scenes import scene_sample, scene_samples
from segzero_ml.errors import DatasetError
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.tiny.cache import HELD_OUT_STREAM, scene_of
from segzero_ml.tiny.requests import KINDS, SceneRequest, make_request
from segzero_ml.tiny.scenes import Scene, SceneObject
from segzero_ml.tiny.wording import COLOUR_IDEAS, SHAPE_IDEAS

Asked = list[tuple[tuple[SceneObject, ...], SceneRequest]]


@functools.cache
def _scenes() -> list[Scene]:
    """The scenes that are asked about: drawing takes far longer than asking."""
    return [scene_of(seed, HELD_OUT_STREAM) for seed in range(120)]


def _asked(kind: str) -> Asked:
    found = []
    for seed, scene in enumerate(_scenes()):
        request = make_request(scene.objects, scene.size, kind, np.random.default_rng(seed))
        if request is not None:
            found.append((scene.objects, request))
    assert len(found) > 15
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_written_as_the_reasoner_reads_them(kind: str) -> None:
    for _, request in _asked(kind):
        assert normalise_request(request.text) == request.text
        assert request.kind == kind


def _findings(request: SceneRequest) -> list[tuple[str, str]]:
    """(colour and shape, what was found of it) for each object, as the reasoning says them."""
    looked = request.reasoning.split("From left to right: ")[1].split(". ")[0]
    pairs = [one.split(", ") for one in looked.split("; ")]
    return [(name.split(" ", 1)[1], finding) for name, finding in pairs]


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_checks_every_object_from_left_to_right_and_invents_none(kind: str) -> None:
    for objects, request in _asked(kind):
        ordered = sorted(objects, key=lambda o: o.center_px.x)
        names = [name for name, _ in _findings(request)]
        assert names == [f"{o.colour} {o.shape}" for o in ordered]
        conclusion = request.reasoning.split(". ")[2]
        for target in request.targets:
            assert f"{objects[target].colour} {objects[target].shape}" in conclusion
        assert ("Found nothing" in conclusion) == (not request.targets)


@pytest.mark.parametrize("kind", ["attribute", "exclusion", "plural", "absent", "implicit"])
def test_reasoning_tells_the_targets_from_all_others(kind: str) -> None:
    for objects, request in _asked(kind):
        order = sorted(range(len(objects)), key=lambda i: objects[i].center_px.x)
        said = [finding for _, finding in _findings(request)]
        # What is left when all others are left out was told no.
        hit, miss = ("no", "yes") if kind == "exclusion" else ("yes", "no")
        assert said == [hit if i in request.targets else miss for i in order]


@pytest.mark.parametrize("kind", ["superlative", "relation"])
def test_the_numbers_in_the_reasoning_bear_out_its_conclusion(kind: str) -> None:
    for objects, request in _asked(kind):
        order = sorted(range(len(objects)), key=lambda i: objects[i].center_px.x)
        measured = {
            i: int(finding.split()[0])
            for i, (_, finding) in zip(order, _findings(request), strict=True)
            if finding not in ("no", "here")
        }
        (target,) = request.targets
        most = any(word in request.reasoning for word in ("largest", "rightmost", "bottommost"))
        best = max(measured.values()) if most else min(measured.values())
        assert measured[target] == best
        assert len(measured) >= 2


def test_an_attribute_fits_its_target_and_nothing_else() -> None:
    for objects, request in _asked("attribute"):
        (target,) = request.targets
        words = set(request.text.replace("?", "").split())
        said = [
            o
            for o in objects
            if (o.colour in words or not words & set(COLOUR_IDEAS))
            and (o.shape in words or not words & set(SHAPE_IDEAS))
        ]
        assert said == [objects[target]]


def test_a_superlative_is_won_clearly() -> None:
    largest = ("largest", "biggest")
    seen = 0
    for objects, request in _asked("superlative"):
        if not any(word in request.text for word in largest):
            continue
        seen += 1
        (target,) = request.targets
        words = set(request.text.replace("?", "").split())
        named = [
            o
            for o in objects
            if words & set(COLOUR_IDEAS) <= {o.colour} and words & set(SHAPE_IDEAS) <= {o.shape}
        ]
        rivals = [o.diameter_px for o in named if o is not objects[target]]
        assert objects[target].diameter_px >= 1.1 * max(rivals)
    assert seen


def test_the_closest_object_is_the_closest() -> None:
    for objects, request in _asked("relation"):
        (target,) = request.targets
        (anchor,) = [
            o for o in objects if request.text.rstrip("?").endswith(f"{o.colour} {o.shape}")
        ]
        distances = {
            i: math.dist((o.center_px.x, o.center_px.y), (anchor.center_px.x, anchor.center_px.y))
            for i, o in enumerate(objects)
            if o is not anchor
        }
        assert min(distances, key=distances.__getitem__) == target


def test_an_exclusion_leaves_exactly_one() -> None:
    for objects, request in _asked("exclusion"):
        (target,) = request.targets
        words = set(request.text.replace("?", "").split())
        left = [i for i, o in enumerate(objects) if o.colour not in words and o.shape not in words]
        assert left == [target]


def test_a_plural_has_every_member() -> None:
    for objects, request in _asked("plural"):
        words = set(request.text.replace("?", "").split())
        colours = words & set(COLOUR_IDEAS)
        shapes = {s for s in SHAPE_IDEAS if words & {s, f"{s}s", f"{s}es"}}
        expected = {
            i
            for i, o in enumerate(objects)
            if (not colours or o.colour in colours) and (not shapes or o.shape in shapes)
        }
        assert set(request.targets) == expected
        assert len(expected) >= 2


def test_what_is_absent_is_not_there() -> None:
    for objects, request in _asked("absent"):
        assert request.targets == ()
        text = f" {request.text} "
        for o in objects:
            assert f"{o.colour} {o.shape}" not in text


def test_an_idea_means_the_only_object_of_its_shape_or_colour() -> None:
    meanings = {
        idea: meaning
        for meaning, ideas in itertools.chain(SHAPE_IDEAS.items(), COLOUR_IDEAS.items())
        for idea, _ in ideas
    }
    for objects, request in _asked("implicit"):
        (target,) = request.targets
        meaning = next(m for idea, m in meanings.items() if idea in request.text)
        fitting = [i for i, o in enumerate(objects) if meaning in (o.colour, o.shape)]
        assert fitting == [target]


def test_samples_come_in_every_kind_equally_and_again_the_same() -> None:
    samples = scene_samples(14, seed=3)
    assert sorted(s.kind for s in samples) == sorted(KINDS * 2)
    again = scene_sample(3_000_000)
    assert samples[0].request == again.request
    assert samples[0].image().tobytes() == again.image().tobytes()


def test_samples_of_another_seed_are_others() -> None:
    assert scene_samples(1, seed=0)[0].image().tobytes() != scene_samples(1, 1)[0].image().tobytes()


@pytest.mark.parametrize(("limit", "seed"), [(0, 0), (-1, 0), (5, -1), (2_000_000, 0)])
def test_limits_and_seeds_out_of_range_are_refused(limit: int, seed: int) -> None:
    with pytest.raises(DatasetError, match="must"):
        scene_samples(limit, seed)

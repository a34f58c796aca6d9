"""Labelling configs: what they offer, and what is said when they offer too little."""

from __future__ import annotations

import time
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface

from backend.controls import Kind
from backend.labelling import is_unset, parse_config
from backend.templates import labelling_config
from segzero_ml.errors import LabellingConfigError

LabelInterface: Any = _LabelInterface  # its methods are without types
IMAGE = '<Image name="img" value="$picture"/>'
BRUSH = '<BrushLabels name="b" toName="img"><Label value="Cup"/></BrushLabels>'


def view(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


@pytest.mark.parametrize("request_field", ["request", None])
def test_own_template_is_valid_for_label_studio_and_fully_served(request_field: str | None) -> None:
    config = labelling_config(("Cup", 'Knife & "fork" <x>'), request_field)
    LabelInterface(config).validate()
    root = ElementTree.fromstring(config)  # noqa: S314 - our own config
    smart = {tag.get("name"): tag.get("smart") for tag in root.iter()}
    assert (smart["brush"], smart["notes"], smart["request"]) == ("false", "false", "true")
    assert smart["status"] == "false"
    labelling = parse_config(config)
    assert (labelling.brush, labelling.image, labelling.image_field) == ("brush", "image", "image")
    assert [label.name for label in labelling.labels] == ["Cup", 'Knife & "fork" <x>']
    assert labelling.request_fields == (() if request_field is None else (request_field,))
    assert (labelling.prompt, labelling.notes) == ("request", "notes")
    assert labelling.status == "status"
    assert labelling.warnings == ()


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1),
        min_size=1,
        unique=True,
    )
)
def test_template_keeps_any_label_names(names: list[str]) -> None:
    names = [name for name in names if not name.startswith("$")] or ["x"]
    assert [label.name for label in parse_config(labelling_config(names)).labels] == names


def test_smallest_config_is_served_with_advice() -> None:
    labelling = parse_config(view(IMAGE, BRUSH))
    assert (labelling.brush, labelling.image, labelling.image_field) == ("b", "img", "picture")
    assert labelling.prompt is None
    assert labelling.notes is None
    assert len(labelling.warnings) == 2


def test_alias_is_the_stored_name_and_the_hint_is_what_is_looked_for() -> None:
    labels = (
        '<Label value="Fire" alias="f1" hint="what puts out a fire"/>'
        '<Label value="Cup" alias="coffee cup"/><Label value="Knife"/>'
    )
    config = view(IMAGE, f'<BrushLabels name="b" toName="img">{labels}</BrushLabels>')
    found = parse_config(config).labels
    assert [label.name for label in found] == ["f1", "coffee cup", "Knife"]
    assert [label.phrase for label in found] == ["what puts out a fire", "coffee cup", "Knife"]
    # Label Studio's own reading of the stored names.
    assert LabelInterface(config).get_control("b").labels == ["f1", "coffee cup", "Knife"]


def test_every_control_with_labels_is_served() -> None:
    tags = (
        f'<{kind}Labels name="{kind}" toName="img"><Label value="{kind[0]}"/></{kind}Labels>'
        for kind in ("Brush", "Bitmask", "Polygon", "Rectangle", "KeyPoint")
    )
    labelling = parse_config(view(IMAGE, *tags))
    assert [shape.kind for shape in labelling.outputs] == list(Kind)
    assert [label.name for label in labelling.labels] == ["B", "P", "R", "K"]
    assert labelling.masked_labels == {"B", "P"}
    assert labelling.pointed_labels == {"K"}


def hints(*kinds: str) -> list[str]:
    return [
        f'<{kind}Labels name="{kind}" toName="img" smart="true"><Label value="Hint"/>'
        f"</{kind}Labels>"
        for kind in kinds
    ]


def test_smart_points_and_boxes_beside_another_control_are_for_clicking_only() -> None:
    labelling = parse_config(view(IMAGE, BRUSH, *hints("KeyPoint", "Rectangle")))
    assert [shape.name for shape in labelling.outputs] == ["b"]
    assert [shape.name for shape in labelling.shapes] == ["b", "KeyPoint", "Rectangle"]
    assert [label.name for label in labelling.labels] == ["Cup"]


def test_smart_points_and_boxes_alone_show_the_boxes() -> None:
    labelling = parse_config(view(IMAGE, *hints("KeyPoint", "Rectangle")))
    assert [shape.name for shape in labelling.outputs] == ["Rectangle"]
    assert parse_config(view(IMAGE, *hints("KeyPoint"))).outputs[0].kind is Kind.KEYPOINT
    assert any("boxes are compared with boxes" in one for one in labelling.warnings)


def choices(*values: str, more: str = "") -> str:
    inside = "".join(f'<Choice value="{value}"/>' for value in values)
    return f'<Choices name="c" toName="img" {more}>{inside}</Choices>'


def test_choices_are_known_by_present_and_absent_or_by_the_labels() -> None:
    verdict = parse_config(view(IMAGE, choices("Absent", "Present"))).verdict
    assert verdict is not None
    assert (verdict.present, verdict.absent) == ("Present", "Absent")
    by_label = parse_config(view(IMAGE, BRUSH, choices("cup", "none", more='choice="multiple"')))
    assert by_label.verdict is not None
    assert (by_label.verdict.by_label, by_label.verdict.is_multiple) == ({"Cup": "cup"}, True)
    assert parse_config(view(IMAGE, BRUSH, choices("good", "blurred"))).verdict is None
    per_region = choices("present", "absent", more='perRegion="true"')
    assert parse_config(view(IMAGE, BRUSH, per_region)).verdict is None


def test_note_of_a_region_goes_into_the_area_that_is_named_for_it_or_the_only_one() -> None:
    def area(name: str) -> str:
        return f'<TextArea name="{name}" toName="img" perRegion="true"/>'

    assert parse_config(view(IMAGE, BRUSH, area("a"), area("reasons"))).region_notes == "reasons"
    assert parse_config(view(IMAGE, BRUSH, area("caption"))).region_notes == "caption"
    assert parse_config(view(IMAGE, BRUSH, area("a"), area("b"))).region_notes is None
    assert parse_config(view(IMAGE, BRUSH, area("prompt"))).region_notes is None


def test_fixed_text_is_the_request_of_the_whole_project() -> None:
    area = '<TextArea name="request" toName="img" value="scratches"/>'
    labelling = parse_config(view(IMAGE, BRUSH, area))
    assert labelling.default_request == "scratches"
    assert labelling.request_fields == ()
    shown = parse_config(view('<Header value="$request"/>', IMAGE, BRUSH))
    assert shown.default_request is None


def test_brush_is_paired_with_its_own_image() -> None:
    labelling = parse_config(view('<Image name="other" value="$o"/>', IMAGE, BRUSH))
    assert labelling.image_field == "picture"


@pytest.mark.parametrize(
    ("tag", "fields"),
    [
        ('<Header value="$request"/>', ("request",)),
        ('<Header value="Find: $prompt"/>', ("prompt",)),
        ('<Text name="request" value="$question"/>', ("question",)),
        ('<TextArea name="request" toName="img" value="$asked"/>', ("asked",)),
        ('<Header value="$file_name"/>', ()),
        ('<Text name="caption" value="$caption"/>', ()),
    ],
)
def test_field_that_the_config_shows_as_request_is_found(tag: str, fields: tuple[str, ...]) -> None:
    assert parse_config(view(tag, IMAGE, BRUSH)).request_fields == fields


@pytest.mark.parametrize("name", ["notes", "note", "reasoning", "Notes"])
def test_notes_area_is_known_by_its_name(name: str) -> None:
    area = f'<TextArea name="{name}" toName="img" smart="false"/>'
    assert parse_config(view(IMAGE, BRUSH, area)).notes == name


def test_notes_area_per_region_or_of_another_object_is_not_used() -> None:
    areas = (
        '<TextArea name="notes" toName="img" perRegion="true"/>'
        '<TextArea name="reasoning" toName="other"/>'
    )
    assert parse_config(view(IMAGE, BRUSH, areas)).notes is None


@pytest.mark.parametrize("more", ["", 'smart="true"', 'smart="false" editable="true"'])
def test_a_status_area_that_annotators_use_is_left_to_them(more: str) -> None:
    area = f'<TextArea name="status" toName="img" {more}/>'
    labelling = parse_config(view(IMAGE, BRUSH, *hints("KeyPoint"), area))
    assert labelling.status is None
    assert any('No TextArea name="status"' in one for one in labelling.warnings)


def test_only_who_can_click_is_told_to_have_a_place_for_problems() -> None:
    for tags, is_told in (([BRUSH], False), ([BRUSH, *hints("KeyPoint")], True)):
        warnings = " ".join(parse_config(view(IMAGE, *tags)).warnings)
        assert ('name="status"' in warnings) == is_told


def test_smart_settings_that_get_in_the_way_are_warned_about() -> None:
    areas = (
        '<TextArea name="notes" toName="img"/><TextArea name="request" toName="img" smart="false"/>'
    )
    warnings = " ".join(parse_config(view(IMAGE, BRUSH, areas)).warnings)
    assert '"notes" lacks smart="false"' in warnings
    assert '"request" has smart="false"' in warnings


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (view(IMAGE), "no BrushLabels"),
        (view(IMAGE, '<Choices name="c" toName="img"><Choice value="x"/></Choices>'), "no Choices"),
        (view(IMAGE, '<RectangleLabels name="r" toName="img"/>'), "RectangleLabels tag without"),
        (view(BRUSH), "no Image tag"),
        (view('<Image name="img" value="x.png"/>', BRUSH), "Image tag without value"),
        (view(IMAGE, '<BrushLabels name="b" toName="img"/>'), "without a Label tag"),
        (
            view(IMAGE, '<BrushLabels name="b" toName="img" value="$labels"/>'),
            "without a Label tag",
        ),
        (
            view(IMAGE, '<BrushLabels name="b" toName="text"><Label value="x"/></BrushLabels>'),
            "toName is no Image",
        ),
        ("<View><Image></View>", "cannot be read"),
        ("", "cannot be read"),
        ("no xml", "cannot be read"),
        ("<View>\ud800</View>", "cannot be read"),
    ],
)
def test_config_that_cannot_be_served_names_the_tag_and_shows_one_that_works(
    config: str, problem: str
) -> None:
    with pytest.raises(LabellingConfigError, match=problem) as caught:
        parse_config(config)
    assert labelling_config() in caught.value.remedy


@pytest.mark.parametrize(
    "config",
    [
        '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>',
        '<!DOCTYPE v SYSTEM "http://127.0.0.1/x.dtd"><View/>',
        '<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>',
        "<View>" * 200 + "</View>" * 200,
        "<View>" + "<a/>" * 400_000 + "</View>",
    ],
)
def test_hostile_xml_is_refused_at_once(config: str) -> None:
    started = time.process_time()
    with pytest.raises(LabellingConfigError, match="cannot be read"):
        parse_config(config)
    assert time.process_time() - started < 0.5


@given(st.text())
def test_any_text_is_served_or_refused_by_name(text: str) -> None:
    with pytest.raises(LabellingConfigError):
        parse_config(text)


@pytest.mark.parametrize("config", ["", "  ", "<View></View>", "<View/>"])
def test_config_that_was_never_set_is_known(config: str) -> None:
    assert is_unset(config)


@pytest.mark.parametrize("config", [view(IMAGE), view(BRUSH), "no xml"])
def test_config_that_is_wrong_does_not_count_as_unset(config: str) -> None:
    assert not is_unset(config)

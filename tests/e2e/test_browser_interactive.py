"""What an annotator does in the browser: types, clicks, opens polygons, says "nothing here"."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from backend.connect import connect
from backend.demo.tasks import import_samples, retrieve_all
from backend.label_studio import LabelStudio
from backend.labelling import parse_config
from backend.regions import read_regions
from backend.templates import labelling_config
from backend.translate import Shown, to_regions
from segzero_ml import masks
from segzero_ml.datasets import Sample
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import BoolMask, ImageSize, Point
from tests.e2e.browsing import PICTURE, REGION, WAIT_S, open_page, open_task, settled
from tests.e2e.world import Backend, Studio

SEED = 977
VERSION = "tiny@1"
AUTO = "[data-testid=bottombar-auto-annotation-toggle]"
PROMPT = "input[name=request]"
ACCEPT = ".lsf-auto-accept__action_type_accept"
SMART_TOOL = ".lsf-toolbar > .lsf-toolbar__group:last-child button"
SMART_TOOLS = ".lsf-tool_smart"
LABEL = ".lsf-label"
HIDE_ALL = "button[aria-label='Hide all regions']"
SHOW_ALL = "button[aria-label='Show all regions']"
CANVAS = ".konvajs-content"
STATUS = ".segzero-status"
POLYGONS = (
    labelling_config().replace("BrushLabels", "PolygonLabels").replace('"brush"', '"polygon"')
)


@dataclass(frozen=True, slots=True)
class Project:
    """A project that the backend is joined to, with one task for each sample."""

    id: int
    samples: tuple[Sample, ...]
    tasks: tuple[int, ...]


Make = Callable[..., Project]


@pytest.fixture(scope="module")
def make(client: LabelStudio, backend: Backend) -> Make:
    """Makes a project of scenes whose request has exactly one answer."""

    def made(config: str, *, predicted: bool = True) -> Project:
        found = [s for s in scene_samples(40, SEED) if len(s.masks) == 1][:3]
        project = client.create_project("Interactive", config)
        tasks = import_samples(client, project.id, found)
        report = connect(client, project.id, backend.access)
        if predicted:
            retrieve_all(client, project.id, tasks, report.model_version)
        return Project(project.id, tuple(found), tuple(tasks))

    return made


def size_of(sample: Sample) -> ImageSize:
    image = sample.image()
    return ImageSize(image.width, image.height)


def truth_of(sample: Sample) -> BoolMask:
    return sample.masks[0]


def wait(browser: Chrome) -> WebDriverWait[Chrome]:
    return WebDriverWait(browser, WAIT_S)


def switch_on(browser: Chrome) -> None:
    """Switch Auto-Annotation on, unless the last task left it on."""
    toggle = browser.find_element(By.CSS_SELECTOR, AUTO)
    if not toggle.is_selected():
        browser.execute_script("arguments[0].click()", toggle)
    wait(browser).until(lambda d: d.find_elements(By.CSS_SELECTOR, SMART_TOOLS))


def accept(browser: Chrome) -> None:
    found = wait(browser).until(element_to_be_clickable((By.CSS_SELECTOR, ACCEPT)))
    found.click()
    wait(browser).until(lambda d: not d.find_elements(By.CSS_SELECTOR, ACCEPT))


def click_at(browser: Chrome, at_px: Point, size: ImageSize) -> None:
    """Click on the picture with the smart keypoint tool."""
    tool = browser.find_element(By.CSS_SELECTOR, SMART_TOOL)
    if "active" not in (tool.get_attribute("class") or ""):  # Label Studio remembers it
        tool.click()
    click_again(browser, at_px, size)


def click_again(browser: Chrome, at_px: Point, size: ImageSize) -> None:
    """Click on the picture with the tool that is chosen already."""
    label = browser.find_elements(By.CSS_SELECTOR, LABEL)[1]
    if "selected" not in (label.get_attribute("class") or ""):  # Label Studio lets go of it
        label.click()
    shown = browser.find_element(By.CSS_SELECTOR, PICTURE).rect
    canvas = browser.find_element(By.CSS_SELECTOR, CANVAS)
    x = at_px.x / size.width * shown["width"] - canvas.rect["width"] / 2
    y = at_px.y / size.height * shown["height"] - canvas.rect["height"] / 2
    ActionChains(browser).move_to_element_with_offset(canvas, round(x), round(y)).click().perform()


def submit(browser: Chrome, client: LabelStudio, project: int, task: int) -> list[dict[str, Any]]:
    """Submit, and what Label Studio then has."""
    button = (By.XPATH, "//button[normalize-space()='Submit']")
    wait(browser).until(element_to_be_clickable(button)).click()
    wait(browser).until(lambda d: d.find_elements(By.XPATH, "//button[normalize-space()='Update']"))
    [found] = [one for one in client.tasks(project) if one.id == task]
    [annotation] = found.annotations
    return annotation.result


def test_typed_request_shows_its_region_and_its_note(
    browser: Chrome, studio: Studio, client: LabelStudio, make: Make
) -> None:
    project = make(labelling_config(request_field=None), predicted=False)
    sample, task = project.samples[0], project.tasks[0]
    client.add_prediction(task, [], VERSION)
    open_page(browser, studio, project.id, task)
    settled(browser)
    switch_on(browser)
    browser.find_element(By.CSS_SELECTOR, PROMPT).send_keys(sample.request, Keys.ENTER)
    accept(browser)
    titles = [item.text for item in browser.find_elements(By.CSS_SELECTOR, REGION)]
    assert titles == ["Object"]
    shown = browser.find_element(By.TAG_NAME, "body").text
    result = submit(browser, client, project.id, task)
    [region] = read_regions(result, "image", size_of(sample))
    assert region.request == sample.request
    [note] = [one["value"]["text"] for one in result if one["from_name"] == "notes"]
    assert note
    assert note[0] in shown


def test_positive_click_makes_the_mask_grow(
    browser: Chrome, studio: Studio, client: LabelStudio, make: Make
) -> None:
    config = labelling_config(request_field=None)
    project = make(config, predicted=False)
    sample, task = project.samples[1], project.tasks[1]
    size, truth = size_of(sample), truth_of(sample)
    half = truth.copy()
    around = masks.bounding_box_px(truth)
    assert around is not None
    half[:, : int(around.center.x)] = False
    missing = masks.inner_point_px(truth & ~half)
    assert missing is not None
    stored = Shown("half", "Object", masks.encode(half), 0.5, sample.request, "", VERSION)
    client.add_prediction(task, to_regions(stored, parse_config(config)), VERSION)
    open_task(browser, studio, project.id, task)
    switch_on(browser)
    before = settled(browser)
    click_at(browser, missing, size)
    accept(browser)
    after = settled(browser)
    changed = np.asarray((np.abs(after - before) > 12).any(axis=2))
    height, width = changed.shape
    wanted = np.asarray(Image.fromarray(truth & ~half).resize((width, height)))
    assert np.count_nonzero(changed & wanted) > 0.6 * np.count_nonzero(wanted)
    assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, REGION)] == ["Object"]
    [region] = read_regions(submit(browser, client, project.id, task), "image", size)
    assert region.id == "half"
    assert masks.iou(masks.decode(region.rle), truth) > masks.iou(half, truth)


def test_failing_click_is_told_and_costs_no_suggestion(
    browser: Chrome, studio: Studio, client: LabelStudio, backend: Backend, make: Make
) -> None:
    project = make(labelling_config(request_field=None), predicted=False)
    sample, task = project.samples[2], project.tasks[2]
    size, inner = size_of(sample), masks.inner_point_px(truth_of(sample))
    assert inner is not None
    client.add_prediction(task, [], VERSION)
    open_page(browser, studio, project.id, task)
    switch_on(browser)
    before = settled(browser)
    click_at(browser, inner, size)
    wait(browser).until(lambda d: d.find_elements(By.CSS_SELECTOR, ACCEPT))
    suggested = settled(browser)
    with picture_lost(client, studio, backend, project.id, task) as picture:
        click_again(browser, Point(inner.x + 6, inner.y), size)
        assert picture in wait(browser).until(status)
    assert browser.find_elements(By.CSS_SELECTOR, ACCEPT)
    kept = np.abs(settled(browser) - before) > 12
    shown = np.abs(suggested - before) > 12
    assert np.count_nonzero(kept & shown) > 0.9 * np.count_nonzero(shown)
    click_again(browser, Point(inner.x, inner.y + 6), size)
    wait(browser).until(lambda d: not status(d))
    accept(browser)
    [region] = read_regions(submit(browser, client, project.id, task), "image", size)
    assert masks.iou(masks.decode(region.rle), truth_of(sample)) > 0.6


def status(browser: Chrome) -> str:
    """What the editor says went wrong."""
    return browser.find_element(By.CSS_SELECTOR, STATUS).text


@contextmanager
def picture_lost(
    client: LabelStudio, studio: Studio, backend: Backend, project: int, task: int
) -> Iterator[str]:
    """Label Studio has lost the picture of a task that the browser shows already: its address."""
    [found] = [one for one in client.tasks(project) if one.id == task]
    address: str = found.data["image"]
    name = address.removeprefix("/data/")
    [file] = [one for one in (studio.data / "media").rglob("*") if str(one).endswith(name)]
    shutil.rmtree(backend.data / "cache" / "images")
    away = file.rename(file.with_suffix(".away"))
    try:
        yield address
    finally:
        away.rename(file)


def test_polygon_project_shows_polygons(browser: Chrome, studio: Studio, make: Make) -> None:
    project = make(POLYGONS)
    open_task(browser, studio, project.id, project.tasks[0])
    shown = settled(browser)
    browser.find_element(By.CSS_SELECTOR, HIDE_ALL).click()
    wait(browser).until(lambda d: d.find_elements(By.CSS_SELECTOR, SHOW_ALL))
    changed = np.asarray((np.abs(shown - settled(browser)) > 12).any(axis=2))
    height, width = changed.shape
    truth = np.asarray(Image.fromarray(truth_of(project.samples[0])).resize((width, height)))
    assert masks.iou(changed, truth) > 0.6


def test_empty_annotation_says_that_nothing_is_here(
    browser: Chrome, studio: Studio, client: LabelStudio, backend: Backend, make: Make
) -> None:
    project = make(labelling_config())
    open_task(browser, studio, project.id, project.tasks[0])
    browser.find_element(By.CSS_SELECTOR, REGION).click()
    ActionChains(browser).send_keys(Keys.BACK_SPACE).perform()
    wait(browser).until(lambda d: not d.find_elements(By.CSS_SELECTOR, REGION))
    result = submit(browser, client, project.id, project.tasks[0])
    assert not any(one["type"] == "brushlabels" for one in result)
    until = time.monotonic() + WAIT_S
    while verdicts(project.id, backend).get("nothing_here") != 1:
        assert time.monotonic() < until, verdicts(project.id, backend)
        time.sleep(0.5)


def verdicts(project: int, backend: Backend) -> dict[str, int]:
    """Verdicts of a project's corrections, as `segzero status --json` says."""
    command = [sys.executable, "-m", "backend.cli", "status", "--json"]
    env = os.environ | {"SEGZERO_DATA_DIR": str(backend.data)}
    done = subprocess.run(command, env=env, capture_output=True, check=False, text=True)
    report = json.loads(done.stdout)
    found = [one for one in report["projects"] if one["project"] == project]
    return dict(found[0]["verdicts"]) if found else {}

"""What an annotator sees: a headless Chromium opens a pre-annotated task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from backend.demo.tasks import note_of, predicted_mask
from backend.label_studio_models import Task
from segzero_ml import masks
from segzero_ml.types import BoolMask, ImageSize
from tests.e2e.browsing import REGION, WAIT_S, open_task, settled
from tests.e2e.world import Backend, Prepared, Studio

STATUS_S = 5
HIDE_ALL = "button[aria-label='Hide all regions']"
SHOW_ALL = "button[aria-label='Show all regions']"


@pytest.fixture(scope="module")
def task(prepared: Prepared) -> Task:
    """The task with the best score among those with exactly one mask."""
    single = [task for task in prepared.tasks if len(regions(task)) == 1]
    return max(single, key=lambda task: task.predictions[0].score or 0.0)


def regions(task: Task) -> list[dict[str, Any]]:
    return [item for item in task.predictions[0].result if item["type"] == "brushlabels"]


def test_the_page_shows_the_region_its_score_and_the_note(
    browser: webdriver.Chrome, studio: Studio, prepared: Prepared, task: Task
) -> None:
    open_task(browser, studio, prepared.project_id, task.id)
    if folder := os.environ.get("README_PICTURES"):
        settled(browser)
        browser.save_screenshot(str(Path(folder) / "task.png"))  # the README's picture
    titles = [item.text for item in browser.find_elements(By.CSS_SELECTOR, REGION)]
    assert titles == ["Object"]
    text = browser.find_element(By.TAG_NAME, "body").text
    assert note_of(task.predictions[0]) in text
    assert prepared.samples[prepared.tasks.index(task)].request in text
    assert f"{regions(task)[0]['score']:.2f}" in text


def test_the_picture_shows_the_mask_where_it_is(
    browser: webdriver.Chrome, studio: Studio, prepared: Prepared, task: Task
) -> None:
    open_task(browser, studio, prepared.project_id, task.id)
    shown = settled(browser)
    browser.find_element(By.CSS_SELECTOR, HIDE_ALL).click()
    wait = WebDriverWait(browser, WAIT_S)
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, SHOW_ALL))
    hidden = settled(browser)
    changed: BoolMask = (np.abs(shown - hidden) > 12).any(axis=2)
    assert masks.iou(changed, expected(prepared, task, changed)) > 0.7


def test_a_submit_shows_up_in_status_within_five_seconds(
    browser: webdriver.Chrome, studio: Studio, prepared: Prepared, backend: Backend, task: Task
) -> None:
    open_task(browser, studio, prepared.project_id, task.id)
    assert status_of(prepared, backend)["verdicts"]["accepted"] == 0
    submit = (By.XPATH, "//button[normalize-space()='Submit']")
    WebDriverWait(browser, WAIT_S).until(element_to_be_clickable(submit)).click()
    clicked = time.monotonic()
    while True:
        asked = time.monotonic()
        found = status_of(prepared, backend)
        if found["verdicts"]["accepted"] == 1:
            break
        assert asked - clicked < STATUS_S, found
    assert found["corrections"] == 1


def status_of(prepared: Prepared, backend: Backend) -> Any:
    """What `segzero status --json` says of the project."""
    command = [sys.executable, "-m", "backend.cli", "status", "--json"]
    env = os.environ | {"SEGZERO_DATA_DIR": str(backend.data)}
    done = subprocess.run(command, env=env, capture_output=True, check=False, text=True)
    report = json.loads(done.stdout)
    nothing = {"corrections": 0, "verdicts": {"accepted": 0}}
    found = [one for one in report["projects"] if one["project"] == prepared.project_id]
    return found[0] if found else nothing


def expected(prepared: Prepared, task: Task, like: BoolMask) -> BoolMask:
    """The predicted mask in the size that the window shows it."""
    original = prepared.samples[prepared.tasks.index(task)].image()
    mask = predicted_mask(task.predictions[0], ImageSize(original.width, original.height))
    height, width = like.shape
    return np.asarray(Image.fromarray(mask).resize((width, height))) > 0

"""What an annotator sees: a headless Chromium opens a pre-annotated task."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from backend.demo.tasks import note_of, predicted_mask
from backend.label_studio_models import Task
from segzero_ml import masks
from segzero_ml.types import BoolMask, ImageSize
from tests.e2e.world import Backend, Prepared, Studio

WAIT_S = 180
STATUS_S = 5
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--window-size=1440,1043",
)
REGION = ".lsf-outliner-item__title"
PICTURE = ".lsf-image img"
HIDE_ALL = "button[aria-label='Hide all regions']"
IS_DRAWN = """
const image = document.querySelector(arguments[0]);
return image !== null && image.complete && image.naturalWidth > 0;
"""
SHOW_ALL = "button[aria-label='Show all regions']"


def found(*names: str) -> str:
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs {names[0]} (Debian: apt-get install chromium chromium-driver)")
    return path


@pytest.fixture(scope="module")
def browser(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, signed in to Label Studio."""
    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(found("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(f"{studio.url}/user/login/")
        driver.find_element(By.NAME, "email").send_keys(studio.login.email)
        driver.find_element(By.NAME, "password").send_keys(studio.login.password)
        driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        WebDriverWait(driver, WAIT_S).until(lambda d: "/user/login" not in d.current_url)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def task(prepared: Prepared) -> Task:
    """The task with the best score among those with exactly one mask."""
    single = [task for task in prepared.tasks if len(regions(task)) == 1]
    return max(single, key=lambda task: task.predictions[0].score or 0.0)


def regions(task: Task) -> list[dict[str, Any]]:
    return [item for item in task.predictions[0].result if item["type"] == "brushlabels"]


def open_task(browser: webdriver.Chrome, studio: Studio, prepared: Prepared, task: Task) -> None:
    browser.get(f"{studio.url}/projects/{prepared.project_id}/data?task={task.id}")
    wait = WebDriverWait(browser, WAIT_S)
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, REGION))
    wait.until(lambda d: d.execute_script(IS_DRAWN, PICTURE))


def picture_pixels(browser: webdriver.Chrome) -> NDArray[np.int16]:
    """The part of the window that shows the picture, (height, width, 3)."""
    box = browser.find_element(By.CSS_SELECTOR, PICTURE).rect
    left, top = round(box["x"]), round(box["y"])
    area = (left, top, left + round(box["width"]), top + round(box["height"]))
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return np.asarray(shot.crop(area), dtype=np.int16)


def test_the_page_shows_the_region_its_score_and_the_note(
    browser: webdriver.Chrome, studio: Studio, prepared: Prepared, task: Task
) -> None:
    open_task(browser, studio, prepared, task)
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
    open_task(browser, studio, prepared, task)
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
    open_task(browser, studio, prepared, task)
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


def settled(browser: webdriver.Chrome) -> NDArray[np.int16]:
    """The picture once two looks at it are the same."""
    before = picture_pixels(browser)
    for _ in range(60):
        time.sleep(0.5)
        now = picture_pixels(browser)
        if now.shape == before.shape and np.array_equal(now, before):
            return now
        before = now
    raise AssertionError("the picture does not come to rest")


def expected(prepared: Prepared, task: Task, like: BoolMask) -> BoolMask:
    """The predicted mask in the size that the window shows it."""
    original = prepared.samples[prepared.tasks.index(task)].image()
    mask = predicted_mask(task.predictions[0], ImageSize(original.width, original.height))
    height, width = like.shape
    return np.asarray(Image.fromarray(mask).resize((width, height))) > 0

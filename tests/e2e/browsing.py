"""A headless Chromium that is signed in to Label Studio, and looks at tasks there."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.world import Studio

WAIT_S = 180
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
IS_DRAWN = """
const image = document.querySelector(arguments[0]);
return image !== null && image.complete && image.naturalWidth > 0;
"""


def program(*names: str) -> str:
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs {names[0]} (Debian: apt-get install chromium chromium-driver)")
    return path


@contextmanager
def chromium(studio: Studio, profile: Path) -> Iterator[webdriver.Chrome]:
    """Chromium, signed in to Label Studio."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    service = webdriver.ChromeService(program("chromedriver"))
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


def open_page(browser: webdriver.Chrome, studio: Studio, project: int, task: int) -> None:
    """Open a task and wait until its picture is drawn."""
    browser.get(f"{studio.url}/projects/{project}/data?task={task}")
    wait = WebDriverWait(browser, WAIT_S)
    wait.until(lambda d: d.execute_script(IS_DRAWN, PICTURE))


def open_task(browser: webdriver.Chrome, studio: Studio, project: int, task: int) -> None:
    """The same for a task with regions: wait for these too."""
    open_page(browser, studio, project, task)
    wait = WebDriverWait(browser, WAIT_S)
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, REGION))


def picture_pixels(browser: webdriver.Chrome) -> NDArray[np.int16]:
    """The part of the window that shows the picture, (height, width, 3)."""
    box = browser.find_element(By.CSS_SELECTOR, PICTURE).rect
    left, top = round(box["x"]), round(box["y"])
    area = (left, top, left + round(box["width"]), top + round(box["height"]))
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    return np.asarray(shot.crop(area), dtype=np.int16)


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

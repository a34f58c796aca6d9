"""The report in a headless Chromium: it opens without errors and loads nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.training_hooks.report_samples import picture, report
from training_hooks.report import write_report

pytestmark = pytest.mark.e2e

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,1000",
)
NOTE = '<img src=http://127.0.0.1:9/x onerror="window.broken=1"><script>window.broken=1</script>'
LOADED = "return [...document.images].every(one => one.complete && one.naturalWidth > 0)"
GROUND = "return getComputedStyle(document.body).backgroundColor"


def found(*names: str) -> str:
    path = next((path for name in names if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs {names[0]} (Debian: apt-get install chromium chromium-driver)")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(found("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, opened."""
    path = tmp_path_factory.mktemp("round") / "report.html"
    pictures = (picture(1, "best"), picture(2, "worst", NOTE, NOTE), picture(3, "random"))
    write_report(path, report(pictures=pictures))
    browser.get(path.as_uri())
    return path


def asked_for(browser: webdriver.Chrome, page: Path) -> list[str]:
    """What the page asked for; the browser's own start page does so too."""
    entries: list[dict[str, Any]] = browser.get_log("performance")
    messages = [json.loads(entry["message"])["message"] for entry in entries]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"] == page.as_uri()
    ]


def test_it_opens_without_errors_and_loads_nothing(browser: webdriver.Chrome, page: Path) -> None:
    assert browser.get_log("browser") == []
    urls = [url for url in asked_for(browser, page) if not url.startswith("data:image/png")]
    assert urls == [page.as_uri()]
    assert browser.execute_script(LOADED)
    assert len(browser.find_elements(By.TAG_NAME, "img")) == 9
    assert browser.find_element(By.TAG_NAME, "h1").text == "Better: the challenger passed the gate"


def test_hostile_notes_are_read_and_not_run(browser: webdriver.Chrome, page: Path) -> None:
    assert page.exists()
    assert browser.find_element(By.TAG_NAME, "body").text.count(NOTE) == 3
    assert browser.execute_script("return window.broken") is None


def test_it_follows_light_and_dark(browser: webdriver.Chrome, page: Path) -> None:
    assert page.exists()
    grounds = []
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        grounds.append(browser.execute_script(GROUND))
    assert grounds == ["rgb(246, 247, 249)", "rgb(20, 22, 26)"]


def test_nothing_is_cut_off_on_a_narrow_screen(browser: webdriver.Chrome, page: Path) -> None:
    assert page.exists()
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) == 0

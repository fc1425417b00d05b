"""A real headless Chromium for tests of pages: opens them, waits for what they show, reads their console."""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WIDTH, HEIGHT = 1400, 900
SHOWN_WITHIN_S = 60.0


@contextlib.contextmanager
def browser() -> Iterator[WebDriver]:
    """A Chromium of 1400x900 pixels without cookies or history; the test skips where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = ["--headless=new", f"--window-size={WIDTH},{HEIGHT}", "--hide-scrollbars", "--disable-dev-shm-usage"]
    flags += ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--force-device-scale-factor=1"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # which Chromium refuses to build as root
    for flag in flags:
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=Service(driver))
    try:
        page.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",  # the window loses some of its height to a bar that nobody sees
            {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
        )
        yield page
    finally:
        page.quit()


def shown(page: WebDriver, xpath: str) -> WebElement:
    """The first element of `xpath` that can be seen, as soon as there is one.

    Raises:
        AssertionError: there is none within a minute; says what the page shows instead.
    """

    def look(page: WebDriver) -> WebElement | None:
        return next((found for found in page.find_elements(By.XPATH, xpath) if found.is_displayed()), None)

    return until(page, look, xpath)


def until(page: WebDriver, true: Callable[[WebDriver], Any], what: str) -> Any:
    """What `true(page)` returns, as soon as that counts as true; elements that vanish meanwhile are looked for again.

    Raises:
        AssertionError: it does not within a minute; says what the page shows instead.
    """
    waiting = WebDriverWait(page, SHOWN_WITHIN_S, 0.1, ignored_exceptions=[StaleElementReferenceException])
    try:
        return waiting.until(true)
    except TimeoutException:
        text = page.find_element(By.TAG_NAME, "body").text
        raise AssertionError(f"not shown: {what}; the page at {page.current_url} says:\n{text[:3000]}") from None


def console_errors(page: WebDriver) -> list[str]:
    """The errors that the page has written to its console since the last call."""
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def screenshot(page: WebDriver, path: Path, colors: int = 128) -> None:
    """Write what the page shows as a PNG with a palette of `colors`: about a third of the bytes, hardly seen."""
    with Image.open(io.BytesIO(page.get_screenshot_as_png())) as image:
        palette = image.convert("RGB").quantize(colors, dither=Image.Dither.NONE)
        palette.save(path, optimize=True)

"""A headless Chromium that can reach only this machine."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")

SECONDS = 30

# Debian's names of the packages and of what is in them.
PROGRAMS = ("chromium", "chromedriver")


def missing() -> str:
    """Return the missing browser programs as text, or an empty text."""
    return ", ".join(name for name in PROGRAMS if shutil.which(name) is None)


def needed() -> None:
    """Skip a test without a browser, or fail if a browser is required."""
    if not missing():
        return
    words = f"there is no {missing()} (Debian: apt-get install chromium chromium-driver)"
    if os.environ.get("REDBRICK_TEST_BROWSER") == "required":
        pytest.fail(words)
    pytest.skip(words)


@contextmanager
def started(home: Path, *, width: int = 1280, height: int = 860, dark: bool = False) -> Iterator[Chrome]:
    """Start a browser with a profile of its own in ``home``.

    :param dark: whether it prefers dark pages.
    """
    chromium, driver = (shutil.which(name) for name in PROGRAMS)
    options = ChromeOptions()
    options.binary_location = str(chromium)
    words = [
        "--headless=new",
        f"--window-size={width},{height}",
        f"--user-data-dir={home / 'profile'}",
        "--lang=en",
        "--hide-scrollbars",
        # Shared memory is small in containers.
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
        *(["--no-sandbox"] if os.getuid() == 0 else []),
        *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
    ]
    for word in words:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = Chrome(
        options=options, service=Service(str(driver), env={**os.environ, "NO_PROXY": "*", "HOME": str(home)})
    )
    try:
        yield window
    finally:
        window.quit()


class Window:
    """A browser's window, with the patience that pages need.

    :param address: of the server whose pages are opened.
    """

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, path: str) -> None:
        """Open a page of the server."""
        self.driver.switch_to.default_content()
        self.driver.get(f"{self.address}{path}")

    def until(self, what: str, ready: Callable[[], T]) -> T:
        """Wait for a truthy result, and return it. Errors of changing pages are ignored."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                found = ready()
            except WebDriverException:
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, f"not seen: {what}\n{self.driver.current_url}\n{self.text()[:2000]}"
            time.sleep(0.1)

    def find(self, selector: str) -> WebElement:
        """Find the element of a CSS selector."""
        return self.until(selector, lambda: self.driver.find_element(By.CSS_SELECTOR, selector))

    def named(self, words: str, tag: str = "*") -> WebElement:
        """Find the element with exactly this text."""
        return self.until(words, lambda: self.driver.find_element(By.XPATH, f'//{tag}[normalize-space()="{words}"]'))

    def into_the_page(self) -> None:
        """Switch to the frame of the provider's page."""
        self.driver.switch_to.default_content()
        self.driver.switch_to.frame(self.find('iframe[title="RedBrick"]'))

    def open_connection_form(self, kind: str) -> None:
        """Open the form of a new connection."""
        self.open("/connections")
        self.named("Add Connection", "button").click()
        self.find("input[name=connection_id]")
        field = self.find("input[role=combobox]")
        field.send_keys(kind)
        field.send_keys(Keys.ENTER)

    def text(self) -> str:
        """Return the visible text."""
        return self.driver.find_element(By.TAG_NAME, "body").text

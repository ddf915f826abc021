"""Headless Chromium for the tests of pages; a test without one says what to install."""

import shutil
import time
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing: pip install '.[dev]'"
    )
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    with playwright.sync_playwright() as session:
        try:
            found = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
        yield found
        found.close()


def opened(page, address):
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("html[data-ready=yes]", state="attached")


def until(page, expression, arg=None):
    """Waits in Python: the page's policy forbids what Playwright would evaluate in it."""
    end = time.monotonic() + 10
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)

"""A real browser, and pages that are opened in it as a reader opens them: from a file, offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Route, sync_playwright

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(slots=True)
class Opened:
    """A page with all that it asked for, and all that the browser complained about."""

    page: Page
    asked: list[str] = field(default_factory=list)  # addresses, but for the page's own
    complaints: list[str] = field(default_factory=list)  # the console's errors and warnings, exceptions
    dialogs: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


def chromium() -> str:
    """The machine's Chromium; without one these tests are skipped, but never where CI=true."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = "there is no Chromium; tests/provision installs it (Debian; root or sudo)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless; with nothing of the user's."""
    executable = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens HTML from a file, offline: whatever it asks for beyond itself is written down and not answered."""
    contexts: list[BrowserContext] = []

    def open_(
        html: str, *, width: int = 1200, height: int = 900, scheme: Literal["dark", "light"] = "light", **options: Any
    ) -> Opened:
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        address = file.as_uri()
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
            offline=True,
            **options,
        )
        contexts.append(context)
        made = Opened(context.new_page())

        def answer(route: Route) -> None:
            if route.request.url.partition("#")[0] == address:
                route.continue_()
            else:
                made.asked.append(route.request.url)
                route.abort()

        def dismiss(dialog: Dialog) -> None:
            made.dialogs.append(dialog.message)
            dialog.dismiss()

        def note(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                made.complaints.append(message.text)

        context.route("**/*", answer)
        made.page.on("console", note)
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("dialog", dismiss)
        made.page.goto(address)
        return made

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where pictures of what was tested are kept, to be looked at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS

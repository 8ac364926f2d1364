"""A real Chromium, and an annotator in it who joined by invitation."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from annotation.campaigns.campaign import connect
from infra.settings import service_settings

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
PASSWORD = "a Quiet-Otter 41"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, closed with its module: while Playwright is open its event loop runs, and asyncio.run refuses."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "this test needs Chromium: install Debian's `chromium`, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """open_page(width, height) -> a page of a browser window of that size, with no cookies of another's."""
    contexts = []

    def make(width: int = 1366, height: int = 768) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        return page

    yield make
    for context in contexts:
        context.close()


def sign_up(page: Any) -> str:
    """Sign up in the page by the invitation that a lead sends, and return the address of the new annotator."""
    settings, email = service_settings(), f"otter-{secrets.token_hex(4)}@team.example"
    invitation = connect(settings).organizations.invites.get_invite_link().token
    page.goto(f"{settings.label_studio_url}/user/signup/?token={invitation}")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", PASSWORD)
    page.get_by_role("button", name="Create Account").click()
    page.wait_for_url(lambda address: "/user/signup" not in address)
    return email


@pytest.fixture
def join(service_environment: Any) -> Callable[[Any], str]:
    """join(page) -> the address of a new annotator, who signed up in the page."""
    return sign_up


@pytest.fixture
def screenshot() -> Callable[[Any, str], None]:
    """screenshot(page, name): kept in the folder that SCREENSHOTS names, if any, for people to look at."""

    def take(page: Any, name: str) -> None:
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{folder}/{name}.png")

    return take

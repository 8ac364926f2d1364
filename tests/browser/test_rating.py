"""An annotator's page in a real browser: log in, rate by keyboard and mouse, submit, and find exactly that exported."""

import json
import os
import shutil
from urllib.parse import urlsplit

import pytest

from annotation.accounts import read_accounts
from annotation.answers import export
from annotation.campaign import Campaign, connect, read_tasks, task_rows
from annotation.labelling import ratings_of
from components.annotate.stage import annotate
from components.collect.stage import collect
from infra.settings import service_settings

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREEN = {"width": 1366, "height": 768}
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
KEYS = ["3", "Shift+2", "q", "Shift+R"]
"""First candidate: instruction 3, quality 2; second: 1 and 4."""
CLICKS = {("if", 3): 2, ("vq", 3): 3, ("if", 4): 4, ("vq", 4): 1}
RATED = [{"if": 3, "vq": 2}, {"if": 1, "vq": 4}, {"if": 2, "vq": 3}, {"if": 4, "vq": 1}]


@pytest.fixture
def campaign(service_environment, make_candidates, tmp_path):
    candidates = make_candidates(1, seed=21)
    annotate(candidates, tmp_path / "campaign", campaign="in the browser", annotators=["browser-expert"], overlap=1)
    return Campaign.model_validate_json((tmp_path / "campaign" / "campaign.json").read_text())


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "this test needs Chromium: install Debian's `chromium`, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=SCREEN)
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def log_in(page, url, account):
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", account.email)
    page.fill("input[name=password]", account.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "/user/login" not in address)


def test_what_is_rated_is_what_is_exported(campaign, page, make_candidates, tmp_path):
    settings = service_settings()
    account = read_accounts(settings)["browser-expert"]
    candidates = make_candidates(1, seed=21)
    (task,) = read_tasks(candidates)
    asked = []
    page.on("request", lambda request: asked.append(urlsplit(request.url)))

    log_in(page, settings.label_studio_url, account)
    page.goto(campaign.url)
    page.get_by_text("How to rate").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("How to rate").wait_for(state="hidden")
    page.locator(".el-tile img").nth(4).wait_for()

    assert page.get_by_text(task.instruction).is_visible()
    boxes = [page.locator(".el-tile img").nth(place).bounding_box() for place in range(5)]
    assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1, "source and edits at one size"
    assert boxes[0]["width"] > 150
    assert len({round(box["y"]) for box in boxes}) == 1, "side by side"
    controls = page.locator(".lsf-choices")
    assert controls.count() == 8
    lowest = max(box["y"] + box["height"] for box in (controls.nth(place).bounding_box() for place in range(8)))
    submit = page.locator("button[name=submit]")
    assert lowest < submit.bounding_box()["y"], "no scrolling on a laptop's screen"
    assert page.locator(".el-tile img").first.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    html = page.content()
    assert not any(one.editor in html for one in task.candidates), "nothing tells the editor"
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/rating-page.png")

    assert submit.is_disabled(), "an empty page cannot be submitted"
    for key in KEYS:
        page.keyboard.press(key)
    submit.click()  # and half a page is held back
    page.get_by_text("edit 3 is not rated yet").wait_for()
    page.get_by_role("button", name="OK").click()
    page.get_by_text("is not rated yet").wait_for(state="hidden")
    for (axis, place), level in CLICKS.items():
        kind = "el-following" if axis == "if" else "el-quality"
        page.locator(".el-tile").nth(place).locator(f".{kind} label").nth(level - 1).click()
    with page.expect_response(lambda reply: "/annotations" in reply.url and reply.request.method == "POST") as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.status == 201

    (row,) = json.loads(export(settings, campaign))
    (answer,) = row["annotations"]
    assert ratings_of(answer["result"], 4) == RATED
    collect(tmp_path / "campaign", candidates, tmp_path / "judgements")
    lines = [json.loads(line) for line in (tmp_path / "judgements" / "judgements.jsonl").read_text().splitlines()]
    ((_, data),) = next(iter(task_rows(connect(settings), campaign).values()))
    said = {line["candidate_id"]: {"if": line["if"], "vq": line["vq"]} for line in lines}
    assert said == dict(zip(data["candidates"], RATED, strict=True))
    assert {line["annotator"] for line in lines} == {"browser-expert"}
    assert all(line["seconds"] > 0 for line in lines)
    beyond = {address.netloc for address in asked if address.scheme.startswith("http")} - {
        urlsplit(campaign.url).netloc
    }
    assert not beyond, f"the page asks {beyond}"

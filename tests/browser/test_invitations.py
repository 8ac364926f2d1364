"""What `campaign open` prints is what people need: by the link or log-in alone they land on the campaign's pages."""

import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation.campaigns.labelling import result_of
from infra.services import Services
from infra.settings import service_settings
from tests.browser.conftest import PASSWORD
from tests.command_line import EditLoop, command_line


@pytest.fixture
def editloop(
    service_environment: Services, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> EditLoop:
    return command_line(capfd, monkeypatch)


def opened(editloop: EditLoop, folder: Path, candidates: Path, people: list[str], **environment: str) -> dict[str, str]:
    """Open a campaign, and return each person's two lines as they are printed, by name."""
    text = json.dumps(
        {"name": f"invited {people[0]}", "candidates": str(candidates), "annotators": people, "overlap": 1}
    )
    (folder / "campaign.yaml").write_text(text)
    words = ["campaign", "open", str(folder / "campaign.yaml"), "--out", str(folder / "campaign")]
    ended = editloop(*words, **environment)
    assert ended.returncode == 0, ended.stderr
    return {
        name: f"{task}\n{address}"
        for name, task, address in re.findall(r"^  (\S+) \(.*\): (.*)\n    (http\S+)$", ended.stdout, re.M)
    }


def is_on_a_page(page: Any, folder: Path) -> bool:
    """Whether the browser shows the campaign's guidelines, and its first page once they are closed."""
    project = json.loads((folder / "campaign" / "campaign.json").read_text())["project_id"]
    page.wait_for_url(lambda address: f"/projects/{project}/" in address)
    page.get_by_text("How to rate").wait_for()
    page.keyboard.press("Escape")
    page.locator(".el-picture img").first.wait_for()
    return True


def test_a_listed_person_signs_up_by_the_link_and_their_answers_count(
    open_page: Callable[..., Any], editloop: EditLoop, make_candidates: Callable[..., Path], tmp_path: Path
) -> None:
    name = f"otter-{secrets.token_hex(4)}@team.example"
    lines = opened(editloop, tmp_path, make_candidates(2, candidates=2), [name], EDITLOOP_ANNOTATORS_FILE="")
    task, address = lines[name].splitlines()
    assert f"sign up as {name}" in task
    page = open_page()
    page.goto(address)
    page.fill("input[name=email]", name.upper())
    page.fill("input[name=password]", PASSWORD)
    page.get_by_role("button", name="Create Account").click()
    assert is_on_a_page(page, tmp_path)
    project = json.loads((tmp_path / "campaign" / "campaign.json").read_text())["project_id"]
    ratings = result_of([{"if": 3, "vq": 3}, {"if": 1, "vq": 2}])
    answer = """async ([project, result]) => {
        const csrf = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? ""
        const {id} = await (await fetch(`/api/projects/${project}/next`)).json()
        const reply = await fetch(`/api/tasks/${id}/annotations/`, {method: "POST",
            headers: {"Content-Type": "application/json", "X-CSRFToken": csrf},
            body: JSON.stringify({result, lead_time: 9})})
        return reply.status }"""
    assert page.evaluate(answer, [project, ratings]) == 201
    status = editloop("campaign", "status", str(tmp_path / "campaign"), "--json", EDITLOOP_ANNOTATORS_FILE="")
    progress = json.loads(status.stdout)["progress"]
    assert (progress["by_annotator"], progress["others"]) == ({name: 1}, 0)
    assert "log in as" in opened(editloop, tmp_path, make_candidates(2, candidates=2), [name])[name]


def test_the_printed_log_in_of_an_account_that_was_made_leads_to_the_pages(
    open_page: Callable[..., Any], editloop: EditLoop, make_candidates: Callable[..., Path], tmp_path: Path
) -> None:
    name = f"made-{secrets.token_hex(4)}"
    task, address = opened(editloop, tmp_path, make_candidates(2, candidates=2), [name])[name].splitlines()
    match = re.fullmatch(r"log in as (\S+), password (\S+)", task)
    assert match
    page = open_page()
    page.goto(address)
    page.fill("input[name=email]", match[1])
    page.fill("input[name=password]", match[2])
    page.get_by_role("button", name="Log in").click()
    assert is_on_a_page(page, tmp_path)
    logged = (tmp_path / "campaign" / "page.html").read_text()
    assert match[1] in logged
    assert match[2] not in logged
    assert service_settings().label_studio_link in logged

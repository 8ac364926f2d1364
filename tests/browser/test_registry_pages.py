"""What a person sees in MLflow's own pages, logged in, with nothing else open: verdict, contact sheet, dataset, chain,
and who made which model the champion."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.editor_eval.declaration import EditorEvalParameters
from editloop.content import complete_folder, write_file, write_json
from editloop.lineage import registry, tracking
from editloop.lineage.editor_registration import register_editor
from editloop.pages.contact_sheet import COLUMNS, contact_sheet
from pipelines.cli import app
from tests import prepared_loop
from tests.prepared_loop import Loop, environment, prepare, step, surroundings, train, tune

REWARD, EDITOR = "pages-reward", "pages-editor"
"""Names in the registry of this file's own: its versions are counted from 1, whoever ran before."""


def sheet() -> Image.Image:
    drawn = {column: np.full((2, 32, 32, 3), 60 * place, np.uint8) for place, column in enumerate(COLUMNS)}
    return contact_sheet(["make it red", "make it blue"], drawn)


def editor_eval(
    edits: Path, editor: Path, output: Path, parameters: EditorEvalParameters, *, promotion: Path, pipeline_run: str
) -> dict[str, float]:
    """An evaluation that holds, with a contact sheet of two tasks."""
    with complete_folder(output) as folder:
        write_json(folder / "evaluation.json", {"base": 0.5, "tuned": 0.52, "uplift": 0.02, "ci95": [-0.01, 0.05]})
        write_json(folder / "gate.json", {"verdict": "hold", "reasons": ["the interval -1.0 to 5.0 holds 0"]})
        sheet().save(folder / "contact-sheet.png")
        write_file(folder / "page.html", "<!doctype html><title>hold</title><h1>Editor evaluation: hold</h1>")
    return {"uplift": 0.02} | register_editor(output, editor, promotion, pipeline_run, name=parameters.name)


@pytest.fixture(scope="module")
def loop(services: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Two reward models, the second of them champion, and an editor that its gate held back."""
    home = tmp_path_factory.mktemp("pages")
    names = {"REWARD": REWARD, "EDITOR": EDITOR}
    with environment(services.environment | surroundings(home)), patch.multiple(prepared_loop, **names):
        made = prepare(home, tasks=8, run="pages")
        train(made, made["dataset"], made["version.json"], made["model"], run="pages")
        with prepared_loop.standing_in("reward", prepared_loop.stand_in_reward):
            step("reward", "pages-2", {"dataset": made["dataset"]}, {"output": made["second"]}, seed=1)
        prepared_loop.promoted(made, made["dataset"], made["version.json"], made["second"], run="pages-2")
        with patch.object(prepared_loop, "stand_in_editor_eval", editor_eval):
            tune(made, run="pages-3")
        yield made


@pytest.fixture
def open_mlflow(browser: Any, services: Any) -> Iterator[Callable[[str], Any]]:
    """open_mlflow(place) -> a page of a browser that is logged in to MLflow, with `place` of its pages open."""
    mlflow = services.mlflow
    context = browser.new_context(
        viewport={"width": 1366, "height": 1000}, http_credentials={"username": mlflow.user, "password": mlflow.secret}
    )
    page = context.new_page()
    page.set_default_timeout(30_000)

    def visit(place: str) -> Any:
        page.goto(f"{mlflow.url}/{place}")
        return page

    yield visit
    context.close()


def command(*arguments: str) -> str:
    """What the command line says."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_models_page_tells_who_made_it_champion(loop: Loop, open_mlflow: Any, screenshot: Any) -> None:
    page = open_mlflow(f"#/models/{REWARD}")
    page.get_by_role("heading", name="Promotions").wait_for()
    assert page.get_by_role("cell", name="pipeline pages-2").is_visible()
    screenshot(page, "model-before")
    command("promote", f"{REWARD}/1", "--actor", "ada@team.example", "--reason", "better on hats")
    page = open_mlflow(f"#/models/{REWARD}")
    page.reload()
    page.get_by_role("cell", name="better on hats").wait_for()
    screenshot(page, "model-promoted")
    command("rollback", REWARD, "--actor", "bo@team.example", "--reason", "worse on shoes")
    page.reload()
    row = page.locator("table tr").filter(has_text="worse on shoes").first
    row.wait_for()
    assert re.search(r"rollback\s+bo@team", row.inner_text())
    screenshot(page, "model-rolled-back")


def test_from_the_card_to_verdict_and_dataset(loop: Loop, open_mlflow: Any, screenshot: Any) -> None:
    page = open_mlflow(f"#/models/{REWARD}/versions/2")
    page.get_by_role("heading", name="What the gate said: promote").wait_for()
    assert page.get_by_text(loop.dataset_sha256).first.is_visible()
    screenshot(page, "card")
    version = registry.find_version(f"models:/{REWARD}/2")
    page.get_by_role("link", name=version.run_id).first.click()
    page.get_by_text("preferences").first.wait_for()
    assert page.get_by_text(loop.dataset_sha256[:8]).first.is_visible()
    screenshot(page, "training-run")
    (run,) = tracking.find_runs(stage="benchmark", pipeline_run="pages-2")
    page = open_mlflow(f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    page.get_by_text("it is better.").first.wait_for()
    assert page.get_by_text("promote", exact=True).first.is_visible()
    screenshot(page, "benchmark-run")


def test_the_editors_contact_sheet_shows(loop: Loop, open_mlflow: Any, screenshot: Any) -> None:
    assert registry.find_version(f"models:/{EDITOR}@champion") is None, "its gate held it back"
    (run,) = tracking.find_runs(stage="editor_eval", pipeline_run="pages-3")
    page = open_mlflow(f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/contact-sheet.png")
    shown = page.locator("img[src^='blob:'], img[src*='contact-sheet']").first
    shown.wait_for()
    page.wait_for_function(f"image => image.naturalWidth == {sheet().width}", arg=shown.element_handle())
    screenshot(page, "contact-sheet")
    page = open_mlflow(f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
    page.get_by_text("the interval -1.0 to 5.0 holds 0").first.wait_for()
    screenshot(page, "editor-run")
    page = open_mlflow(f"#/models/{EDITOR}/versions/1")
    page.get_by_role("heading", name="What the gate said: hold").wait_for()
    screenshot(page, "editor-card")

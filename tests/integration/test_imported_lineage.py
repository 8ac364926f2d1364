"""What was imported from elsewhere is followed from a registered model down to the files that it came from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editloop.content import read_manifest, sha256_file
from editloop.data.candidates_folder import read_tasks
from infra.services import Services
from pipelines.cli import app
from tests import prepared_loop
from tests.label_studio_projects import EXPORTS, write_mapping, write_pictures
from tests.prepared_loop import Loop, step, surroundings, train

EDITREWARD = Path(__file__).parents[1] / "parity" / "suites" / "editreward-data.parquet"


def editloop(*words: object) -> str:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output


def team_table(home: Path) -> list[Path]:
    table = home / "pictures" / "ratings.csv"
    lines = ["Task;Candidate;Source;Instruction;Image;Annotator;If;Vq"]
    lines += [
        f"cup-{task};{edit};in/{task}.png;Redden cup {task}.;out/{task}-{edit}.png;{who};{level};{level},0"
        for task in range(3)
        for edit, level in (("a", 5), ("b", 2))
        for who in ("anna@team.org", "Ben")
    ]
    table.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    out = ("--candidates", home / "c", "--out", home / "j")
    editloop("ratings", "import", table, "--format", "team-table", "--scale", "1..5", *out)
    return [table]


def label_studio(home: Path) -> list[Path]:
    export, mapping = EXPORTS / "pairwise.csv", write_mapping(home / "mapping.yaml", "pairwise")
    out = ("--candidates", home / "c", "--out", home / "j", "--images", home / "pictures")
    editloop("ratings", "import", export, "--format", "label-studio", "--mapping", mapping, *out)
    return [export, mapping]


def editreward(home: Path) -> list[Path]:
    editloop("ratings", "import", EDITREWARD, "--format", "editreward", "--candidates", home / "c", "--out", home / "j")
    return [EDITREWARD]


def our_table(home: Path) -> list[Path]:
    """Ratings of candidates that are here: those of the team's table, by our ids."""
    team_table(home)
    table = home / "ours.csv"
    lines = [
        f"{edit.candidate_id},eva,{1 + place},{4 - place}"
        for task in read_tasks(home / "c")
        for place, edit in enumerate(task.candidates)
    ]
    table.write_text("\n".join(["item,rater,if,vq", *lines]))
    editloop("ratings", "import", table, "--candidates", home / "c", "--out", home / "j")
    return [table]


@pytest.mark.parametrize("imported", [team_table, label_studio, editreward, our_table])
def test_a_models_chain_ends_at_the_files_that_were_imported(
    imported: Callable[[Path], list[Path]],
    mlflow_environment: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prepared_loop, "REWARD", f"imported-{imported.__name__}")
    for name, value in surroundings(tmp_path).items():
        monkeypatch.setenv(name, value)
    write_pictures(tmp_path / "pictures")
    files, run = imported(tmp_path), f"import of {imported.__name__}"
    outputs = {"output": tmp_path / "dataset", "version": tmp_path / "version.json"}
    step("dataset", run, {"judgements": tmp_path / "j", "candidates": tmp_path / "c"}, outputs)
    loop = Loop(tmp_path, campaign=None, annotations={})  # type: ignore[arg-type] - none is behind the ratings
    version = train(loop, loop["dataset"], loop["version.json"], loop["model"], run=run)
    chain = json.loads(editloop("verify", f"models:/{prepared_loop.REWARD}/{version}", "--json"))
    assert chain["gap"] is None
    values = {link["name"]: link["value"] for link in chain["links"]}
    for path in files:
        assert f"{path.name} {sha256_file(path)}" in values["source files"]
    assert values["judgements"] == read_manifest(tmp_path / "j")["sha256"]
    assert values["candidates"].startswith(read_manifest(tmp_path / "c")["sha256"])
    assert (" pictures by SHA256SUMS" in values["source files"]) == (imported in (team_table, label_studio))
    assert "annotators" in values

"""The registry from the command line: what it prints, and with what it ends."""

import json
from pathlib import Path

import pytest

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.signing import SIGNING_KEY, VERIFY_KEY
from pipelines.cli import main


@pytest.fixture
def model(tmp_path: Path, mlflow_environment, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with two versions; its gate let the second one through."""
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    name = f"cli-{tmp_path.name}"
    for text, verdict in (("one", "hold"), ("two", "promote")):
        with complete_folder(tmp_path / text) as folder:
            (folder / "weights.safetensors").write_text(text)
        with tracking.stage_run("reward", "train-reward", name, {}, {"text": text}) as run:
            evidence = {"editloop.verdict": verdict, "editloop.benchmark_sha256": "5" * 64}
            registry.register_model(name, tmp_path / text, run.run_id, {}, evidence)
            run.finish({}, {"output": tmp_path / text})
    registry.set_alias(name, registry.CHALLENGER, "2")
    return name


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """call(*arguments) -> (exit status, stdout, stderr) of `editloop`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["editloop", *arguments])
        capsys.readouterr()
        try:
            status = main() or 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_promote_show_and_roll_back(model: str, call) -> None:
    word = ["--actor", "Ada", "--reason", "better"]
    status, _, said = call("promote", f"{model}/1", *word)
    assert (status, "its gate said hold" in said) == (1, True)
    assert call("promote", f"{model}/1", *word, "--without-evidence")[0] == 0
    status, out, _ = call("promote", f"{model}@challenger", *word, "--replaces", "1")
    assert status == 0
    assert "champion is version 2 (promote by Ada: better). Before: version 1. Evidence: benchmark 555555555555." in out
    assert "already so" in call("promote", f"models:/{model}/2", "--actor", "Bo", "--reason", "again")[1]
    status, out, _ = call("registry", model, "--json")
    found = json.loads(out)[model]
    assert (status, found["champion"]) == (0, "2")
    assert [(one["version"], one["aliases"], one["verdict"]) for one in found["versions"]] == [
        ("2", ["challenger", "champion"], "promote"),
        ("1", [], "hold"),
    ]
    assert [(one["version"], one["previous"], one["evidence"]) for one in found["records"]] == [
        ("1", "", {}),
        ("2", "1", {"benchmark_sha256": "5" * 64}),
    ]
    status, out, _ = call("rollback", model, "--actor", "Bo", "--reason", "worse on shoes")
    assert (status, "champion is version 1 (rollback by Bo: worse on shoes)" in out) == (0, True)
    table = call("registry", model)[1]
    assert "Bo" in table
    assert "worse" in table
    assert model in json.loads(call("registry", "--json")[1])


def test_faults_end_with_one_and_move_nothing(model: str, call, monkeypatch: pytest.MonkeyPatch) -> None:
    word = ["--actor", "Ada", "--reason", "better"]
    for arguments, told in (
        (("promote", f"{model}/9", *word), f"{model} has 1, 2"),
        (("promote", "no-such/1", *word), "the registry has no model no-such"),
        (("promote", model, *word), "not a model's address"),
        (("promote", f"{model}/2", *word, "--replaces", "1"), "is no version by now, not version 1"),
        (("rollback", model, *word), "no champion before no version"),
        (("registry", "no-such"), "no such model"),
    ):
        status, _, said = call(*arguments)
        assert (status, told in said) == (1, True), said
    monkeypatch.delenv(VERIFY_KEY)
    status, _, said = call("promote", f"{model}/2", *word)
    assert (status, f"{VERIFY_KEY} is not set" in said) == (1, True)
    assert registry.find_version(f"models:/{model}@champion") is None


def test_without_a_key_nothing_is_registered(model: str, tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch) -> None:
    with complete_folder(tmp_path / "three") as folder:
        (folder / "weights.safetensors").write_text("three")
    run_id = tracking.client().get_model_version(model, "1").run_id
    monkeypatch.delenv(SIGNING_KEY)
    with pytest.raises(EditLoopError, match=f"{SIGNING_KEY} is not set"):
        registry.register_model(model, tmp_path / "three", run_id, {})
    assert [one["version"] for one in json.loads(call("registry", model, "--json")[1])[model]["versions"]] == ["2", "1"]

"""Finished steps whose files were damaged are forgotten, and the run that they belong to goes on at them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl
from kfp.local.cache import LocalCache

from editloop.content import complete_folder, sha256_file, write_json
from editloop.lineage import tracking
from pipelines.damaged_steps import forget_damaged_steps, reopen_damaged_runs
from pipelines.reconcile import LAST_STAGE, has_finished_run

CODE = "0123456789abcdef"
"""Name of kfp's cache for one state of the code."""


def finish(root: Path) -> Path:
    """A finished step in kfp's own cache, with a folder and a file. Returns the folder of both."""
    out = root / "steps" / "run" / "benchmark"
    with complete_folder(out / "output", {"a": 1}) as folder:
        write_json(folder / "gate.json", {"verdict": "promote"})
        write_json(folder / "benchmark.json", {"accuracy": 0.5})
    write_json(out / "version", {"tag": "t"})
    (out / "page").write_text("<p>")
    artifacts = {
        name: dsl.Artifact(name=name, uri=str(path), metadata={"sha256": tracking.digest(path)})
        for name, path in (("output", out / "output"), ("version", out / "version"))
    }
    outputs = artifacts | {"page": dsl.Artifact(name="page", uri=str(out / "page"), metadata={}), "number": 3}
    LocalCache(str(root / "cache" / CODE)).put("key", outputs)
    return out


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut short": ("output/gate.json", cut),
    "a list": ("output/gate.json", lambda path: path.write_text("[]")),
    "a manifest cut short": ("output/manifest.json", cut),
    "a manifest of a list": ("output/manifest.json", lambda path: path.write_text("[]")),
    "a manifest of a number": ("output/manifest.json", lambda path: path.write_text("17")),
    "a nested manifest": (
        "output/manifest.json",
        lambda path: path.write_text('{"sha256": {"a": [1]}, "files": 3, "facts": []}'),
    ),
    "a manifest that is gone": ("output/manifest.json", Path.unlink),
    "a file that is gone": ("output/benchmark.json", Path.unlink),
    "a file more": ("output/more.json", lambda path: path.write_text("{}")),
    "a single file": ("version", lambda path: path.write_text("17")),
    "a single file that is gone": ("version", Path.unlink),
}


def test_whole_steps_stay(tmp_path: Path) -> None:
    finish(tmp_path)
    assert forget_damaged_steps(tmp_path / "cache" / CODE) == []
    assert LocalCache(str(tmp_path / "cache" / CODE)).get("key") is not None
    assert forget_damaged_steps(tmp_path / "none") == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_step_is_forgotten_and_named(damage: str, tmp_path: Path) -> None:
    name, spoil = DAMAGES[damage]
    out = finish(tmp_path)
    spoil(out / name)
    (output,) = forget_damaged_steps(tmp_path / "cache" / CODE)
    assert output.path == str(out / name.split("/")[0])
    assert output.path in output.fault
    assert len(output.fault.splitlines()) == 1
    assert LocalCache(str(tmp_path / "cache" / CODE)).get("key") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "17", '{"output": {"uri": 3, "metadata": []}}', '{"output": {"__kfp_artifact']
)
def test_a_damaged_entry_of_the_cache_is_removed(text: str, tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "cache" / CODE / "key.json").write_text(text)
    assert forget_damaged_steps(tmp_path / "cache" / CODE) == []
    assert not list((tmp_path / "cache" / CODE).iterdir())


def test_a_finished_run_with_a_damaged_output_is_to_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    out = finish(tmp_path)
    api = tracking.client()
    experiment = tracking.require_experiment(api, tracking.EXPERIMENT)
    for key, uri in (("damaged", out / "output"), ("whole", tmp_path / "elsewhere")):
        for stage in ("benchmark", LAST_STAGE["train-reward"]):
            tags = {"editloop.stage": stage, "editloop.pipeline_run": key, "editloop.uri.output": str(uri)}
            api.set_terminated(api.create_run(experiment, tags=tags).info.run_id)
    assert reopen_damaged_runs(tmp_path, LAST_STAGE.values()) == []
    assert has_finished_run("train-reward", "damaged")
    cut(out / "output" / "gate.json")
    (output,) = reopen_damaged_runs(tmp_path, LAST_STAGE.values())
    assert "changed since it was written: gate.json" in output.fault
    assert not has_finished_run("train-reward", "damaged")
    assert has_finished_run("train-reward", "whole")
    assert reopen_damaged_runs(tmp_path, LAST_STAGE.values()) == []


def test_what_no_run_refers_to_any_more_runs_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracking.require_experiment(tracking.client(), tracking.EXPERIMENT)
    cut(finish(tmp_path) / "output" / "gate.json")
    assert reopen_damaged_runs(tmp_path, LAST_STAGE.values()) == []


def test_a_folder_in_object_storage_is_left_to_it(tmp_path: Path) -> None:
    """Its file here is a pointer, whose digest is not the folder's."""
    out = finish(tmp_path)
    pointer = {"address": f"s3://bucket/x/{'a' * 64}", "sha256": tracking.digest(out / "output")}
    (entry,) = (tmp_path / "cache" / CODE).iterdir()
    outputs = json.loads(entry.read_text())
    write_json(out / "pointer", pointer)
    outputs["output"]["uri"] = str(out / "pointer")
    entry.write_text(json.dumps(outputs))
    assert forget_damaged_steps(tmp_path / "cache" / CODE) == []
    assert sha256_file(out / "pointer") != pointer["sha256"]

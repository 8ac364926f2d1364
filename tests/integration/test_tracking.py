"""MLflow: a retried step is one run, the same model is one version, and what is fetched is what was registered."""

from pathlib import Path

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking


@pytest.fixture
def model(tmp_path: Path, mlflow_environment, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    with complete_folder(tmp_path / "model", {"campaign_key": "k"}) as folder:
        (folder / "weights.safetensors").write_bytes(b"1234")
        (folder / "part").mkdir()
        (folder / "part" / "config.json").write_text("{}")
    return tmp_path / "model"


def step(model: Path, run: str = "run", seed: int = 0, fail: bool = False) -> tuple[str, str]:
    """A step that registers the model; returns (MLflow run, version)."""
    with tracking.stage_run("reward", "train-reward", run, {"dataset": model}, {"seed": seed}) as begun:
        version = registry.register_model(f"model-{run}", model, begun.run_id, {})
        if fail:
            raise RuntimeError("lost power")
        begun.finish({"accuracy": 0.5}, {"output": model}, files=[model / "part" / "config.json"])
    return begun.run_id, version


def test_a_step_that_failed_and_is_retried_is_one_run_and_one_version(model: Path) -> None:
    with pytest.raises(RuntimeError):
        step(model, "retried", fail=True)
    assert [run.info.status for run in tracking.find_runs(pipeline_run="retried", stage="reward")] == ["FAILED"]
    run_id, version = step(model, "retried")
    assert version == "1"
    (run,) = tracking.find_runs(pipeline_run="retried", stage="reward")
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    sha256 = read_manifest(model)["sha256"]
    assert run.data.tags["editloop.input.dataset"] == run.data.tags["editloop.output.output"] == sha256
    assert run.data.tags["editloop.campaign_key"] == "k"
    assert run.data.metrics["accuracy"] == 0.5
    assert tracking.find_producer_run("reward", sha256) in {
        one.info.run_id for one in tracking.find_runs(stage="reward")
    }


def test_other_parameters_are_another_step_of_the_same_parent(model: Path) -> None:
    first, _ = step(model, "two", seed=1)
    second, _ = step(model, "two", seed=2)
    assert first != second
    runs = tracking.find_runs(pipeline_run="two", stage="reward")
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 1


def test_an_alias_leads_to_the_registered_bytes(model: Path) -> None:
    _, version = step(model, "alias")
    assert registry.resolve_model("models:/model-alias@champion") is None
    assert registry.resolve_model("models:/no-such@champion") is None
    registry.set_alias("model-alias", "champion", version)
    fetched = registry.resolve_model("models:/model-alias@champion")
    assert fetched is not None
    assert read_manifest(fetched, check=True)["files"] == read_manifest(model)["files"]
    assert registry.resolve_model("models:/model-alias/1") == fetched


def test_changed_bytes_are_refused_in_the_store_and_fetched_again_in_the_cache(
    model: Path, mlflow_environment, tmp_path
) -> None:
    run_id, version = step(model, "changed")
    registry.set_alias("model-changed", "champion", version)
    (kept,) = (mlflow_environment.home / "mlflow").glob(f"artifacts/*/{run_id}/artifacts/model-*/weights.safetensors")
    kept.write_bytes(b"6666")
    with pytest.raises(EditLoopError, match=r"weights\.safetensors"):
        registry.resolve_model("models:/model-changed@champion")
    kept.write_bytes(b"1234")
    fetched = registry.resolve_model("models:/model-changed@champion")
    assert fetched is not None
    for damage in (lambda path: path.write_bytes(b"6666"), Path.unlink):
        damage(fetched / "weights.safetensors")
        assert registry.resolve_model("models:/model-changed@champion") == fetched
        assert (fetched / "weights.safetensors").read_bytes() == b"1234"
    (fetched / "manifest.json").write_text("[]")
    assert registry.resolve_model("models:/model-changed@champion") == fetched
    kept.write_bytes(b"6666")
    (fetched / "weights.safetensors").write_bytes(b"6666")
    with pytest.raises(EditLoopError, match=r"weights\.safetensors"):
        registry.resolve_model("models:/model-changed@champion")


@pytest.mark.parametrize("address", ["edit-reward", "models:/x", "models:/@champion", "models:/x/latest", "models:/x@"])
def test_what_is_no_models_address_is_said(address: str) -> None:
    with pytest.raises(EditLoopError, match="models:/NAME@ALIAS"):
        registry.parse_model(address)

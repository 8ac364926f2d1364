"""The editor_rl stage with a real registry and MLflow: who may teach, and what a person sees of a training."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from components.editor_rl.declaration import EditorRlParameters
from components.editor_rl.stage import run_editor_rl
from editloop.content import complete_folder, read_manifest, write_manifest
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.signing import VERIFY_KEY, SignatureError, make_keys
from editloop.lineage.step import run_step
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.reward_source import champion_reward_source
from infra.services import Services
from pipelines.catalogue import STAGES

pytestmark = pytest.mark.usefixtures("forked_ranks")
NAME = "stage-reward"
REWARD = f"models:/{NAME}@champion"


SHIPPED = Path(str(files("editloop.models.edit_reward"))) / "weights" / "tiny-reward"


@pytest.fixture
def champion(mlflow_environment: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shipped reward model, registered and signed; its sha256."""
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    registry.set_alias(NAME, "champion", register(NAME))
    return str(read_manifest(SHIPPED)["sha256"])


def register(name: str, folder: Path = SHIPPED) -> str:
    """Register a reward model, by default the shipped one, under a name; its version."""
    with tracking.stage_run("reward", "train-reward", name, {}, {}) as run:
        version = registry.register_model(name, folder, run.run_id, {})
        run.finish({}, {"output": folder})
    return version


def test_the_cache_tells_versions_of_the_same_files_apart_by_their_facts(champion: str, tmp_path: Path) -> None:
    repeated = tmp_path / "repeated"
    shutil.copytree(SHIPPED, repeated)
    assert write_manifest(repeated, {"preset": "elsewhere/preset.yaml"}) == champion, "the same files"
    version = register("repeated-training", repeated)
    first, second = (registry.require_model(model) for model in (REWARD, f"models:/repeated-training/{version}"))
    assert read_manifest(second)["facts"] == {"preset": "elsewhere/preset.yaml"} != read_manifest(first)["facts"]
    write_manifest(second, {"preset": "changed by hand"})
    assert read_manifest(registry.require_model(f"models:/repeated-training/{version}")) == read_manifest(repeated)


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    write_edits(tmp_path / "edits", 16, 3)
    return tmp_path / "edits"


def test_a_training_is_in_mlflow_while_and_after_it_runs(champion: str, edits: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    figures = run_step(
        STAGES["editor_rl"],
        pipeline_run="stage",
        inputs={"edits": edits},
        outputs={"output": output},
        parameters={"reward": REWARD, "preset": "smallest", "watch": "oracle", "processes": 1, "seed": 1},
    )
    assert figures["iterations"] == 3
    assert figures["stopped"] == 0
    assert {"reward_first", "reward_last", "oracle_last", "right_last", "kl", "missing", "best"} <= set(figures)
    manifest = read_manifest(output, check=True)
    assert (manifest["facts"]["reward_sha256"], manifest["facts"]["watch"]) == (champion, ["oracle"])
    assert (output / "editor" / "model_index.json").is_file()
    seen = json.loads((output / "evaluations.json").read_text())
    assert [one["step"] for one in seen] == [0, 2, 3]
    api, run = tracking.client(), tracking.find_producer_run("editor_rl", str(manifest["sha256"]))
    for name in ("curve_reward", "curve_kl", "curve_validation_oracle", "curve_validation_preservation_low"):
        history = api.get_metric_history(run, name)
        assert sorted(one.step for one in history) == ([1, 2, 3] if "validation" not in name else [0, 2, 3]), name
    sheets = {Path(one.path).name for one in api.list_artifacts(run, "sheets")}
    assert sheets == {"000000.png", "000002.png", "000003.png"}
    assert {"page.html", "best.png", "worst.png", "evaluations.json"} <= {one.path for one in api.list_artifacts(run)}
    assert not list((tmp_path / ".unfinished").iterdir())


def test_who_is_no_champion_or_not_signed_does_not_teach(
    champion: str, edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(reward: str, **told: str) -> str:
        with pytest.raises(EditLoopError) as error:
            run_editor_rl(edits, tmp_path / "output", EditorRlParameters(reward=reward, preset="smallest", **told))
        assert not (tmp_path / ".unfinished").exists()
        return str(error.value)

    assert "there is no champion. Train and promote" in refused("models:/no-such@champion")
    assert "only a registered champion may teach" in refused(f"models:/never-champion/{register('never-champion')}")
    assert champion_reward_source(f"models:/{NAME}/1").sha256 == champion, "a run goes on with what it began with"
    assert "it is the judge that teaches" in refused(REWARD, watch=f"models:/{NAME}/1")
    with monkeypatch.context() as strange:
        strange.setenv(VERIFY_KEY, str(make_keys(tmp_path / "stranger").public))
        with pytest.raises(SignatureError, match="holds"):
            run_editor_rl(edits, tmp_path / "output", EditorRlParameters(reward=REWARD, preset="smallest"))
    (cached,) = (tmp_path / "cache" / "models").iterdir()
    weights = cached / "heads.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1] + b"\x01")
    assert champion_reward_source(REWARD).sha256 == champion
    assert weights.read_bytes() == intact, "a copy that was damaged in the cache is fetched again"
    with complete_folder(tmp_path / "unsigned") as folder:
        (folder / "weights.safetensors").write_text("no signature")
    api = tracking.client()
    with tracking.stage_run("reward", "train-reward", "unsigned", {}, {}) as run:
        api.log_artifacts(run.run_id, str(tmp_path / "unsigned"), "model")
        source = f"{api.get_run(run.run_id).info.artifact_uri}/model"
        run.finish({}, {"output": tmp_path / "unsigned"})
    sha256 = str(read_manifest(tmp_path / "unsigned")["sha256"])
    api.create_registered_model("unsigned")
    api.create_model_version("unsigned", source, run.run_id, tags={"editloop.sha256": sha256})
    api.set_registered_model_alias("unsigned", "champion", "1")
    assert "sign" in refused("models:/unsigned@champion")

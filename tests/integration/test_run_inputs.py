"""What a run's first step finds in a real MLflow: models by number, editors by name, and the run's key."""

from uuid import uuid4

import pytest

from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.run_key import find_run_key, record_run_key
from editloop.training.editor_rl.reward_source import champion_reward_source
from infra.services import Services
from pipelines.run_inputs import pin_models, present_champion


def test_a_champion_is_pinned_and_an_editor_has_a_name(mlflow_environment: Services) -> None:
    api, name = tracking.client(), f"kitchens-{uuid4().hex[:6]}"
    api.create_registered_model(name)
    for _ in range(2):
        api.create_model_version(name, "s3://nowhere/model")
    registry.set_alias(name, registry.CHAMPION, "2")
    address = f"models:/{name}@champion"
    assert pin_models("editor_rl", {"editor": name, "reward": address, "watch": f"oracle {address}"}) == {
        "editor": f"models:/{name}/2",
        "reward": f"models:/{name}/2",
        "watch": f"oracle models:/{name}/2",
    }
    assert (present_champion(name), present_champion("none")) == (f"models:/{name}/2", "")
    assert pin_models("reward", {"base": "tiny-reward"}) == {"base": "tiny-reward"}
    assert pin_models("editor_eval", {"base": "tiny-editor"}) == {"base": "tiny-editor"}
    with pytest.raises(EditLoopError, match=rf"base: no editor '{name[:-1]}'; .*Did you mean {name}"):
        pin_models("editor_eval", {"base": name[:-1]})
    with pytest.raises(EditLoopError, match=r"reward: models:/none@champion: the registry has no such version"):
        pin_models("editor_rl", {"reward": "models:/none@champion"})
    with pytest.raises(EditLoopError, match="only a registered champion may teach"):
        champion_reward_source(f"models:/{name}/1")


def test_a_run_s_key_is_found_by_its_id(mlflow_environment: Services) -> None:
    key, first, second = (uuid4().hex for _ in range(3))
    assert find_run_key(first) == first, "a run without a key"
    for run_id in (first, second):  # a second try of the same key
        record_run_key("improve-editor", key, run_id)
    assert [find_run_key(run_id) for run_id in (first, second)] == [key, key]
    with tracking.stage_run("editor_rl", "improve-editor", key, {}, {}) as run:
        run.finish({}, {})
    (parent,) = tracking.find_runs(pipeline="improve-editor", pipeline_run=key)
    assert tracking.client().get_run(run.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id

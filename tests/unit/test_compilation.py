"""Compilation: the committed files whatever the shell's environment, another image only where it is asked for."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from editloop.errors import EditLoopError
from infra.settings import DEFAULT_IMAGE
from pipelines.backend import BackendSettings, make_starter, submit
from pipelines.catalogue import PIPELINES
from pipelines.compilation import COMPILED, compile_pipeline
from tests.unit.test_environment import CLASSES, WORDS

IMAGE = "registry.example/editloop:2.1"
COMPILE = "import sys; from pathlib import Path; from pipelines.compilation import compile_pipelines; "
COMPILE += "compile_pipelines(Path(sys.argv[1]))"


def test_no_variable_of_the_shell_changes_what_is_compiled(tmp_path: Path) -> None:
    hostile = {kind.variable(field): WORDS for kind in CLASSES for field in kind.model_fields}
    hostile |= {"KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT": "true", "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu"}
    hostile |= {"PIP_INDEX_URL": "http://127.0.0.1:9", "LC_ALL": "C", "MLFLOW_TRACKING_URI": WORDS}
    subprocess.run([sys.executable, "-c", COMPILE, str(tmp_path)], env=os.environ | hostile, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in COMPILED.glob("*.yaml")
    }


def containers(path: Path) -> list[dict[str, Any]]:
    spec = next(yaml.safe_load_all(path.read_text()))
    return [step["container"] for step in spec["deploymentSpec"]["executors"].values() if "container" in step]


@pytest.mark.parametrize("name", PIPELINES)
def test_an_image_reaches_every_step_and_the_trainjobs_that_it_starts(name: str, tmp_path: Path) -> None:
    path = compile_pipeline(name, tmp_path / "ours.yaml", IMAGE)
    assert len(containers(path)) >= 2
    for container in containers(path):
        assert container["image"] == IMAGE
        assert container["env"] == [{"name": "EDITLOOP_IMAGE", "value": IMAGE}]
    assert path.read_text().startswith(f"# PIPELINE DEFINITION\n# Name: {name}\n")
    assert {container["image"] for container in containers(COMPILED / f"{name}.yaml")} == {DEFAULT_IMAGE}


class Server:
    """A Kubeflow Pipelines server as far as a submission needs it: keeps the images of what it is given."""

    def __init__(self, host: str | None):
        self.host = host

    def list_runs(self, filter: str) -> Any:
        return type("Reply", (), {"runs": []})()

    def create_run_from_pipeline_package(self, package: str, **more: Any) -> None:
        submitted.append({container["image"] for container in containers(Path(package))})


submitted: list[set[str]] = []


def test_a_submission_carries_the_image_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfp.client.Client", Server)
    monkeypatch.setenv("EDITLOOP_IMAGE", WORDS)
    submitted.clear()
    settings = BackendSettings(kfp_endpoint="http://127.0.0.1:9")
    for image in (None, IMAGE):
        submit("improve-editor", {"prompts_uri": "/p", "heldout_uri": "/h"}, settings, image)
    assert submitted == [{DEFAULT_IMAGE}, {IMAGE}]


def test_an_image_for_a_run_on_this_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITLOOP_KFP_ENDPOINT", raising=False)
    with pytest.raises(EditLoopError, match=f"--image {IMAGE}: pipelines run on this machine"):
        make_starter(tmp_path, IMAGE)
    monkeypatch.setenv("EDITLOOP_KFP_ENDPOINT", "http://127.0.0.1:9")
    assert callable(make_starter(tmp_path, IMAGE))

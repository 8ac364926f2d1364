"""Fixtures that every kind of test may use: real services, one start a session, and a small folder of candidates."""

import os
import socketserver
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import hypothesis
import numpy as np
import pytest
from PIL import Image

from editloop.content import complete_folder, write_file
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from editloop.studies.world.scenes import random_edit
from infra.services import Services, start_services, stop_services
from tests import shape_checks
from tests.s3_server import s3_server
from tests.tiers import pytest_addoption, pytest_collection_modifyitems, pytest_configure

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]
"""Hooks of tests/tiers.py, which pytest finds here."""

shape_checks.install()
hypothesis.settings.register_profile("any-load", deadline=None)
hypothesis.settings.load_profile("any-load")
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith(("GIT_", "DVC_"))]:
    del os.environ[name]  # of a git hook that runs the tests, say
os.environ |= {  # the tests' own git and DVC do not read the user's settings
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "DVC_GLOBAL_CONFIG_DIR": "/nonexistent",
    "DVC_SYSTEM_CONFIG_DIR": "/nonexistent",
    "DVC_NO_ANALYTICS": "true",
    "XDG_CONFIG_HOME": "/nonexistent",
}
os.environ |= {  # webhooks of the tests' services reach this machine, which both forbid elsewhere
    "SSRF_PROTECTION_ENABLED": "false",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # which webhooks there are: else remembered for a minute
}

EDITORS = ("careful-editor", "hasty-editor", "copying-editor", "noisy-editor")


@pytest.fixture(scope="session", autouse=True)
def quiet_servers() -> Iterator[None]:
    """A client that leaves early gives no traceback of a test's server on stderr, where another test would read it."""
    with patch.object(socketserver.BaseServer, "handle_error", lambda *_: None):
        yield


@pytest.fixture(scope="module", autouse=True)
def torchs_own_linear() -> Iterator[None]:
    """Give torch its linear layer back after a file of tests that spreads weights.

    DeepSpeed replaces it for good then, and by its own autograd keeps other tensors.
    """
    yield
    zero = sys.modules.get("deepspeed.runtime.zero.partition_parameters")
    replaced = getattr(getattr(zero, "InsertPostInitMethodToModuleSubClasses", None), "linear_bk", None)
    if replaced is not None:
        sys.modules["torch"].nn.functional.linear = replaced


@pytest.fixture(scope="session")
def service_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of this session's services; whatever runs for it in the end is stopped."""
    home = tmp_path_factory.mktemp("services")
    try:
        yield home
    finally:
        stop_services(home)


@pytest.fixture(scope="session")
def services(service_home: Path) -> Services:
    """Label Studio and an MLflow server, started for this session."""
    return start_services(service_home)


@pytest.fixture(scope="session")
def mlflow_alone(service_home: Path) -> Services:
    """The session's MLflow server, for tests that need no Label Studio."""
    return start_services(service_home, label_studio=False)


@pytest.fixture(scope="session")
def s3_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an S3 server, started for this session; a test uses a prefix of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def s3_environment(s3_storage: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The running S3 server, with the environment that it is found through."""
    for name, value in s3_storage.items():
        monkeypatch.setenv(name, value)
    return s3_storage


@pytest.fixture
def service_environment(services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """The running services, with the environment that stages find them through."""
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)
    return services


@pytest.fixture
def mlflow_environment(mlflow_alone: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """The running MLflow, with the environment that stages find it through."""
    for name, value in mlflow_alone.environment.items():
        monkeypatch.setenv(name, value)
    return mlflow_alone


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """KFP without its look at the call stack for each setting of a task, which names the setting in an error.

    It goes through all modules that are imported: in this process thousands, 0.1 s a setting.
    """
    from kfp.dsl.pipeline_task import PipelineTask

    def check(task: PipelineTask) -> None:
        assert task.container_spec is not None

    with patch.object(PipelineTask, "_ensure_container_spec_exists", check):
        yield


@pytest.fixture
def make_candidates(tmp_path: Path) -> Callable[..., Path]:
    """make(count, seed=0, candidates=4) -> a candidates folder of drawn scenes with edits of very different quality."""

    def make(count: int, *, seed: int = 0, candidates: int = 4) -> Path:
        rng = np.random.default_rng(seed)
        target = tmp_path / f"candidates-{count}-{seed}-{candidates}"
        with complete_folder(target) as folder:
            rows = [_task(folder, rng, index, candidates) for index in range(count)]
            write_file(folder / "tasks.jsonl", "".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
        return target

    return make


def _task(folder: Path, rng: np.random.Generator, index: int, candidates: int) -> EditTask:
    edit = random_edit(rng)
    source, target = _put(folder, edit.source), _put(folder, edit.target)
    task = task_id(source, edit.instruction)
    made = []
    for place in range(candidates):
        part = rng.uniform(0, 1)
        picture = (
            edit.source
            + part * (edit.target.astype(float) - edit.source)
            + rng.normal(0, 20 * (1 - part), edit.source.shape)
        )
        image = _put(folder, np.clip(picture, 0, 255).astype(np.uint8))
        made.append(
            Candidate(candidate_id=candidate_id(task, image), image=image, editor=EDITORS[place % len(EDITORS)])
        )
    return EditTask(
        task_id=task,
        name=f"scene-{index}",
        task_type=edit.operation,
        instruction=edit.instruction,
        source=source,
        target=target,
        candidates=tuple(made),
    )


def _put(folder: Path, picture: np.ndarray) -> str:
    return store_png(Image.fromarray(picture), folder / "images")

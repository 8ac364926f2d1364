"""EDITLOOP_ variables: one reader for every class of settings, one line for a value that cannot be used."""

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings

from editloop.environment import PREFIX, EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.lineage.tracking import TrackingSettings
from infra.launch import LaunchSettings
from infra.trainjob import trainjob

TOP = Path(__file__).parents[2]
ROOMS = ("editloop", "infra", "annotation", "components", "pipelines")
SOURCES = [path for room in ROOMS for path in sorted((TOP / room).rglob("*.py"))]
TEXT = (str, Path, SecretStr)
"""Types that take any text."""
WORDS = "no such value"
"""Text that is no number, no choice, and no JSON."""


def _module(path: Path) -> str:
    return ".".join(path.relative_to(TOP).with_suffix("").parts)


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def settings_classes() -> list[type[EnvironmentSettings]]:
    """Every class of the project that reads the environment, found by what its module mentions."""
    for path in SOURCES:
        if "BaseSettings" in (text := path.read_text()) or "EnvironmentSettings" in text:
            import_module(_module(path))
    own = {kind for kind in _subclasses(BaseSettings) if kind.__module__.partition(".")[0] in ROOMS}
    return sorted(own, key=lambda kind: kind.__qualname__)


CLASSES = settings_classes()
FIELDS = [(kind, field) for kind in CLASSES for field in kind.model_fields]


def _name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, field in FIELDS:
        monkeypatch.delenv(kind.variable(field), raising=False)


def test_every_settings_class_reads_the_environment_by_the_one_reader() -> None:
    assert len(CLASSES) >= 12
    assert [kind for kind in CLASSES if not issubclass(kind, EnvironmentSettings)] == []
    for kind in CLASSES:
        assert kind.model_config["env_ignore_empty"], kind
        assert kind.model_config["env_prefix"].startswith(PREFIX), kind


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=_name)
def test_a_value_that_cannot_be_used_is_one_line_with_variable_value_and_rule(
    kind: type[EnvironmentSettings], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kind.variable(field), WORDS)
    annotation = str(kind.model_fields[field].annotation)
    is_text = any(text.__name__ in annotation for text in TEXT) and not re.search("dict|tuple", annotation)
    if is_text and not kind.model_fields[field].metadata:  # a pattern, say
        value = getattr(kind(), field)
        assert (value.get_secret_value() if isinstance(value, SecretStr) else str(value)) == WORDS
        return
    with pytest.raises(EditLoopError) as raised:
        kind()
    message = str(raised.value)
    assert message.startswith(f"{kind.variable(field)}={WORDS}: ")
    assert message.endswith("Correct the variable, or unset it to take the default.")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=_name)
def test_an_empty_variable_is_an_unset_one(
    kind: type[EnvironmentSettings], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = kind()
    monkeypatch.setenv(kind.variable(field), "")
    assert kind() == default


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("EDITLOOP_TRAINJOB_POLL_SECONDS", "-1", "EDITLOOP_TRAINJOB_POLL_SECONDS=-1: Input should be greater than 0"),
        (
            "EDITLOOP_TRAINJOB_POLL_SECONDS",
            "nan",
            "POLL_SECONDS=nan: Input should be a finite number",
        ),
        ("EDITLOOP_LAUNCHER", "slurm", "EDITLOOP_LAUNCHER=slurm: Input should be 'local' or 'trainjob'"),
        ("EDITLOOP_LAUNCHER", "a\nb", r"EDITLOOP_LAUNCHER='a\\nb': "),
        ("EDITLOOP_LAUNCHER", "x" * 200, r"EDITLOOP_LAUNCHER=x{77}\.\.\.: "),
    ],
)
def test_a_bad_launcher_setting_names_the_rule(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EditLoopError, match=words) as raised:
        LaunchSettings()
    assert len(str(raised.value).splitlines()) == 1


def test_a_part_of_a_structured_value_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nested(EnvironmentSettings):
        counts: dict[str, int] | None = None

    monkeypatch.setenv("EDITLOOP_COUNTS", json.dumps({"passes": "x"}))
    with pytest.raises(EditLoopError, match=r"EDITLOOP_COUNTS\[passes\]=x: Input should be a valid integer"):
        Nested()


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from editloop.scoring.server_client import JudgeClientSettings

    with pytest.raises(EditLoopError, match=r"^EDITLOOP_JUDGE_TOKEN: Input should be a valid string") as raised:
        JudgeClientSettings(token=12345)
    assert "12345" not in str(raised.value)


def test_a_rule_of_several_variables_is_one_line_too() -> None:
    class Pair(EnvironmentSettings):
        low: int = 2
        high: int = 1

        @model_validator(mode="after")
        def _ordered(self) -> "Pair":
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    with pytest.raises(EditLoopError, match=r"^Pair: Value error, low is above high\. Correct"):
        Pair()


def test_several_faults_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLOOP_LAUNCHER", "x")
    monkeypatch.setenv("EDITLOOP_TRAINJOB_POLL_SECONDS", "y")
    with pytest.raises(EditLoopError, match=r"EDITLOOP_TRAINJOB_POLL_SECONDS=y: .*; EDITLOOP_LAUNCHER=x: "):
        LaunchSettings()


def test_models_are_never_cached_in_the_working_folder_and_no_trainjob_is_without_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("EDITLOOP_CACHE", "EDITLOOP_IMAGE", "EDITLOOP_STAGE_RUN"):
        monkeypatch.setenv(variable, "")
    assert TrackingSettings().cache == Path.home() / ".cache" / "editloop"
    assert TrackingSettings().stage_run is None
    assert trainjob("s3://b/o/1", 1, LaunchSettings()).to_dict()["spec"]["trainer"]["image"] == "editloop:latest"


def _environment_reads(path: Path) -> Iterator[str]:
    """Reads of an EDITLOOP_ variable that go past the settings classes: by its name, or by a constant that holds it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        is_get = isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv", "environ.get")
        is_item = (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Load)
            and ast.unparse(node.value).endswith("environ")
        )
        if is_get or is_item:
            key = node.args[0] if isinstance(node, ast.Call) else node.slice
            if PREFIX in ast.unparse(key) or ast.unparse(key).endswith("STAGE_RUN"):
                yield f"{path.relative_to(TOP)}:{node.lineno}"


def test_no_source_reads_an_editloop_variable_on_its_own() -> None:
    assert [read for path in SOURCES for read in _environment_reads(path)] == []

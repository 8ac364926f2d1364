"""Secrets in addresses reach no message, log, tag, parameter, manifest, record or compiled file."""

import logging
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.addresses import has_secrets, without_secrets
from editloop.content import complete_folder
from editloop.datasets.repository import fetch_dataset
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.chain import Gap
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line
from editloop.lineage.step_page import page_links
from editloop.logs import log_to_stderr
from infra.doctor import Check
from infra.profile import Profile, read_profile
from infra.settings import ServiceSettings
from tests.command_line import command_line
from tests.dataset_repositories import commit_text, run_git

SECRET = "pl4nted-s3cret"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://user:{SECRET}@host/repo.git", "https://***@host/repo.git"),
        (f"https://{SECRET}@github.com/a/b", "https://***@github.com/a/b"),
        (f"https://user:{SECRET}@{SECRET}@host:1/a@b", "https://***@host:1/a@b"),
        (f"ssh://git:{SECRET}@host/repo", "ssh://***@host/repo"),
        (f"postgresql+psycopg2://mlflow:{SECRET}@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        (f"s3://{SECRET}:{SECRET}@bucket/x", "s3://***@bucket/x"),
        (f"http://h/x?task=1&token={SECRET}", "http://h/x?task=1&token=***"),
        (f"http://h/x?X-Amz-Signature={SECRET}&X-Amz-Date=1", "http://h/x?X-Amz-Signature=***&X-Amz-Date=1"),
        (f"http://h/x?AWSAccessKeyId={SECRET}", "http://h/x?AWSAccessKeyId=***"),
        (f"http://h/x?sv=2&sig={SECRET}", "http://h/x?sv=2&sig=***"),
        (f"http://h/x#access_token={SECRET}", "http://h/x#access_token=***"),
        (
            f"connection to host=db user=mlflow password={SECRET} failed",
            "connection to host=db user=mlflow password=*** failed",
        ),
        (
            f"fatal: Authentication failed for 'https://u:{SECRET}@h/r.git/'",
            "fatal: Authentication failed for 'https://***@h/r.git/'",
        ),
    ],
)
def test_a_secret_of_any_form_is_hidden_and_the_rest_stays(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert has_secrets(address)
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8420",
        "models:/edit-reward@champion",
        "git@github.com:team/data.git",
        "ssh://git@host/repo.git",
        "s3://bucket/a@b?versionId=3",
        "http://h/projects/3/data?task=5&labeling=1#key",
        "loss.key=3: Input should be a list",
        "openai:http://host:8000/v1#RewardModel@v2",
    ],
)
def test_an_address_without_secrets_stays_as_it_is(address: str) -> None:
    assert without_secrets(address) == address


@given(
    st.text("abcXYZ019-._~!$&()*+,;=:%", min_size=1, max_size=20),
    st.sampled_from(["http", "https", "postgresql", "s3"]),
)
def test_no_part_of_a_password_is_left(password: str, scheme: str) -> None:
    assert without_secrets(f"x {scheme}://user:{password}@host/y z") == f"x {scheme}://***@host/y z"


@pytest.fixture
def no_service(monkeypatch: pytest.MonkeyPatch) -> str:
    """HOST:PORT where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_messages_and_logs_hide_what_they_quote(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"https://user:{SECRET}@host/x?token={SECRET}"
    log_to_stderr(with_time=True)
    log = logging.getLogger("editloop.test")
    log.warning("%s is away", address)
    try:
        raise OSError(f"cannot open {address}")
    except OSError:
        log.exception("failed")
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert shown.count("https://***@host/x?token=***") == 2
    for error in (EditLoopError(address), Gap(address), Check("x", False, address)):
        assert SECRET not in str(error)


SCORE = ("score", "--input", "edits.jsonl", "--out", "scores.parquet", "--model")


@pytest.mark.parametrize(
    "arguments",
    [
        (*SCORE, "http://user:{secret}@{host}"),
        (*SCORE, "http://{host}?token={secret}"),
        (*SCORE, "openai:http://user:{secret}@{host}/v1#model"),
        (*SCORE, "s3://user:{secret}@bucket/model"),
        ("benchmark", "--suite", "editreward-bench", "--data", ".", "--model", "https://{secret}@{host}"),
        ("serve", "--model", "http://user:{secret}@{host}", "--port", "0"),
        ("verify", "models:/edit-reward@champion"),
        ("trace", "annotator", "someone"),
        ("registry", "edit-reward"),
        ("campaign", "list"),
        ("campaign", "status", "x"),
        ("reconcile", "--once"),
        ("run", "improve-editor"),
        ("cluster", "status"),
        ("dataset", "withdraw", "--annotator", "x", "--reason", "asked", "--actor", "y"),
        ("doctor",),
        ("status",),
        ("stage", "curate", "--output", "out"),
        ("judge", "add", "editreward", "--weights", "https://user:{secret}@{host}/w"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("settings", ["services", "repository", "links"])
def test_no_command_shows_or_writes_a_secret_of_an_address(
    arguments: tuple[str, ...],
    settings: str,
    no_service: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All addresses of the environment hold a secret, and where they may, nothing answers there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edits.jsonl").write_text("")
    secret_address = f"http://user:{SECRET}@{no_service}"
    variables = {
        "MLFLOW_TRACKING_URI": secret_address,
        "EDITLOOP_MLFLOW_PATIENCE": "0",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    if settings != "services":
        variables |= {
            "EDITLOOP_DATASET_REPO": f"{secret_address}/repo.git",
            "EDITLOOP_LABEL_STUDIO_URL": f"http://{no_service}",
        }
    if settings == "links":
        names = (
            "LABEL_STUDIO_URL",
            "LABEL_STUDIO_PUBLIC_URL",
            "DATASET_REMOTE",
            "KFP_ENDPOINT",
            "HINT_URL",
            "CHECKPOINTS",
        )
        variables |= {f"EDITLOOP_{name}": f"{secret_address}?token={SECRET}" for name in names}
    words = [word.format(secret=SECRET, host=no_service) for word in arguments]
    ended = command_line(capfd, monkeypatch)(*words, **variables)
    assert SECRET not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_judges_address_may_hold_none(no_service: str) -> None:
    from editloop.scoring.opening import open_judge

    with pytest.raises(EditLoopError, match=r"http://\*\*\*@.*EDITLOOP_JUDGE_TOKEN"):
        open_judge(f"http://user:{SECRET}@{no_service}")


@pytest.mark.parametrize("field", ["label_studio_url", "label_studio_public_url", "pictures"])
def test_an_address_that_people_read_may_hold_none(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ServiceSettings.variable(field), f"http://user:{SECRET}@host")
    with pytest.raises(EditLoopError, match=r"http://\*\*\*@host.*a variable of its own") as caught:
        ServiceSettings()
    assert SECRET not in str(caught.value)


def test_a_profile_holds_none_so_compiled_files_do_not() -> None:
    values = read_profile("example").model_dump(mode="json")
    values["variables"] |= {"EDITLOOP_DATASET_REPO": f"https://{SECRET}@github.com/a/b"}
    with pytest.raises(ValueError, match="a password in an address"):
        Profile.model_validate(values)


def test_manifests_hide_secrets_of_their_facts(tmp_path: Path) -> None:
    with complete_folder(tmp_path / "out", {"base": f"http://u:{SECRET}@h", "more": [{f"http://h?token={SECRET}": 1}]}):
        pass
    assert SECRET not in (tmp_path / "out" / "manifest.json").read_text()


def test_mlflow_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real store: what was written is read from its database's bytes."""
    from mlflow.entities import Param, RunTag

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    address = f"https://user:{SECRET}@host/x?X-Amz-Signature={SECRET}"
    api = tracking.client()
    run = api.create_run("0", tags={"a": address}).info.run_id
    api.set_tag(run, "b", address)
    api.log_batch(run, params=[Param("c", address)], tags=[RunTag("d", address)])
    api.create_registered_model("m")
    api.create_model_version("m", f"file://{tmp_path}", tags={"e": address})
    api.set_model_version_tag("m", "1", "f", address)
    shown = "https://***@host/x?X-Amz-Signature=***"
    data = api.get_run(run).data
    assert {data.tags["a"], data.tags["b"], data.tags["d"], data.params["c"]} == {shown}
    assert api.get_model_version("m", "1").tags == {"e": shown, "f": shown}
    assert SECRET.encode() not in (tmp_path / "mlflow.db").read_bytes()


def test_mlflows_own_errors_hide_the_log_in(no_service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{SECRET}@{no_service}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(EditLoopError) as caught, mlflow_errors_in_one_line():
        tracking.client().search_registered_models()
    assert SECRET not in str(caught.value)


def test_links_to_mlflow_leave_the_log_in_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://user:{SECRET}@mlflow.example")
    (link,) = page_links(tmp_path, "run", "3")
    assert link.address == "https://mlflow.example/#/experiments/3/runs/run"


def test_a_version_is_recorded_without_the_log_in_and_fetched_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / f"shared.git?token={SECRET}"
    bare.mkdir()
    run_git(bare, "init", "--bare", "--quiet", "--initial-branch", "main")
    address = f"file://{bare}"
    version = commit_text(tmp_path, "rows", address)
    assert version["repo"] == f"file://{tmp_path}/shared.git?token=***"
    with pytest.raises(EditLoopError) as caught:
        fetch_dataset(version, tmp_path / "without")
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", address)
    fetch_dataset(version, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "rows.parquet").read_text() == "rows"


def test_gits_words_hide_the_log_in(no_service: str) -> None:
    from editloop.datasets.checkout import checkout

    with pytest.raises(EditLoopError, match=r"\*\*\*@") as caught, checkout(f"http://user:{SECRET}@{no_service}/x.git"):
        pass
    assert SECRET not in str(caught.value)

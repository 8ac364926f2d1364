"""A dataset's versions in a real S3 bucket."""

import multiprocessing
import shutil

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.datasets.repository import commit_dataset, fetch_dataset
from editloop.errors import EditLoopError
from tests.s3_server import BUCKET


@pytest.fixture
def dataset(s3_environment, tmp_path):
    with complete_folder(tmp_path / "data") as folder:
        (folder / "rows.parquet").write_bytes(b"rows" * 1000)
    return tmp_path / "data"


def test_a_version_in_a_bucket_can_be_had_again_without_the_cache(dataset, tmp_path):
    place = {"repo": str(tmp_path / "repo"), "remote": f"s3://{BUCKET}/team-a"}
    version = commit_dataset(dataset, message="rows", **place)
    shutil.rmtree(tmp_path / "repo" / ".dvc" / "cache")
    shutil.rmtree(tmp_path / "repo" / "preferences")
    fetch_dataset(version, tmp_path / "back")
    assert read_manifest(tmp_path / "back", check=True)["sha256"] == version["sha256"]
    assert commit_dataset(dataset, message="rows", **place) == version


def test_a_bucket_that_is_not_there_leaves_no_version(dataset, tmp_path):
    place = {"repo": str(tmp_path / "repo"), "remote": "s3://no-such-bucket/team-a"}
    with pytest.raises(EditLoopError, match="push"):
        commit_dataset(dataset, message="rows", **place)
    place["remote"] = f"s3://{BUCKET}/team-b"
    fetch_dataset(commit_dataset(dataset, message="rows", **place), tmp_path / "back")


def test_a_wrong_key_is_told_without_the_secret(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(EditLoopError, match="push") as error:
        commit_dataset(dataset, message="rows", repo=str(tmp_path / "repo"), remote=f"s3://{BUCKET}/team-c")
    assert "not-the-secret" not in str(error.value)


def test_credentials_that_change_between_two_calls_count(dataset, tmp_path, monkeypatch, s3_environment):
    """In one process, as where a session's token is renewed while `reconcile` runs."""
    place = {"repo": str(tmp_path / "repo"), "remote": f"s3://{BUCKET}/team-d"}
    version = commit_dataset(dataset, message="rows", **place)
    shutil.rmtree(tmp_path / "repo" / ".dvc" / "cache")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, wrong in (("AWS_SECRET_ACCESS_KEY", "not-the-secret"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(EditLoopError, match="get"):
            fetch_dataset(version, tmp_path / "back")
        monkeypatch.setenv(name, s3_environment[name])
    fetch_dataset(version, tmp_path / "back")


def test_a_process_that_was_forked_after_a_push_can_push_too(dataset, tmp_path):
    """DVC and S3 keep threads and connections, which a child does not have."""
    place = {"remote": f"s3://{BUCKET}/team-e", "message": "rows"}
    commit_dataset(dataset, repo=str(tmp_path / "parent"), **place)
    child = multiprocessing.get_context("fork").Process(
        target=commit_dataset, args=(dataset,), kwargs={"repo": str(tmp_path / "child"), **place}
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0

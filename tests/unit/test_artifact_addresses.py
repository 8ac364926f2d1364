"""A version or run whose artifacts lie on a stranger's host: nothing is asked there, and no log-in is sent."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import mlflow
import pytest

from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking

SCHEMES = ("b2", "dbfs", "ftp", "hdfs", "http", "https", "mlflow-artifacts", "r2", "sftp", "viewfs")


class Stranger:
    """A server that writes down who asks, and with what log-in."""

    def __init__(self) -> None:
        asked: list[tuple[str, str | None]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("Authorization")))
                self.send_error(404)

            do_PUT = do_GET  # noqa: N815 - the name is the library's

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.asked, self.server = asked, HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    host = Stranger()
    thread = Thread(target=host.server.serve_forever)
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry whose users have a log-in."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-password")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_version_that_names_a_foreign_host_is_refused_without_asking_it(stranger: Stranger, store: str) -> None:
    api = tracking.client()
    api.create_registered_model("m")
    for scheme in SCHEMES:
        source = f"{scheme}://{stranger.host}/model"
        version = api.create_model_version("m", source, tags={"editloop.sha256": "0" * 64})
        with pytest.raises(EditLoopError, match="another host would get the log-in"):
            registry.fetch_version(version)
    assert stranger.asked == []


@pytest.mark.parametrize("scheme", ["http", "mlflow-artifacts"])
def test_a_runs_files_are_neither_read_from_nor_written_to_a_foreign_host(
    scheme: str, stranger: Stranger, store: str, tmp_path: Path
) -> None:
    """Somebody made the experiment first, with a place of their own."""
    api = tracking.client()
    experiment = api.create_experiment("editloop", artifact_location=f"{scheme}://{stranger.host}/x")
    run = api.create_run(experiment).info.run_id
    (tmp_path / "secret.txt").write_text("ratings")
    for call in (
        lambda: api.log_artifact(run, str(tmp_path / "secret.txt")),
        lambda: api.download_artifacts(run, "page.html", str(tmp_path)),
        lambda: mlflow.artifacts.download_artifacts(run_id=run, artifact_path="page.html"),
    ):
        with pytest.raises(EditLoopError, match="another host would get the log-in"):
            call()
    assert stranger.asked == []


def test_the_servers_own_host_is_asked_with_or_without_its_name(
    stranger: Stranger, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.client()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{stranger.host}")
    for address in (f"mlflow-artifacts://{stranger.host}/1/page.html", "mlflow-artifacts:/1/page.html"):
        with pytest.raises(Exception, match="404"):
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(tmp_path))
    assert len(stranger.asked) >= 2
    assert all(login for _, login in stranger.asked)

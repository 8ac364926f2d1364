"""Databases are made once, copied, and moved into place when whole. Real services: tests/integration."""

import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from editloop.content import complete_folder
from editloop.errors import EditLoopError
from infra.service_databases import main, make_template, provide_databases, template_root
from infra.service_programs import DATABASES, Service, program_version
from infra.settings import LocalServiceSettings
from tests.stub_service import marked, write_label_studio

COUNTS = "migrate()\nwith open({!r}, 'a') as counter: counter.write('x')"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The templates' folder; Label Studio is a program of version 9.9 that counts its migrations."""
    folder = tmp_path / "templates"
    monkeypatch.setenv("EDITLOOP_SERVICE_TEMPLATES", str(folder))
    environment = tmp_path / "environment"
    installed = environment / "lib" / "python3.11" / "site-packages" / "label_studio-9.9.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: label-studio\nVersion: 9.9\n")
    program = environment / "bin" / "label-studio"
    write_label_studio(program, "", version=COUNTS.format(str(tmp_path / "migrations")))
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_COMMAND", str(program))
    return folder


@pytest.fixture
def service(tmp_path):
    """Makes a service with a home of its own."""

    def make(name="label-studio", home="home"):
        (tmp_path / home).mkdir(exist_ok=True)
        return Service(name, tmp_path / home, 1, "user", "password", "secret")

    return make


def migrations(tmp_path):
    path = tmp_path / "migrations"
    return len(path.read_text()) if path.exists() else 0


def tables(database):
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def dump(database):
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def execute(database, *statements):
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_two_folders_share_one_migration_and_no_key(root, service, tmp_path):
    for home in ("first", "second"):
        ours = service(home=home)
        provide_databases(ours, LocalServiceSettings())
        assert tables(ours.data / "label_studio.sqlite3") == {"project"}
        assert [path.name for path in ours.data.iterdir()] == ["label_studio.sqlite3"]
    assert migrations(tmp_path) == 1
    assert {path.name for path in (root / "label-studio-9.9").iterdir()} == {"label_studio.sqlite3", "manifest.json"}


def test_two_makers_at_once_make_it_once(root, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(make_template, "label-studio", LocalServiceSettings()) for _ in range(2)]
    assert {future.result() for future in made} == {root / "label-studio-9.9"}
    assert migrations(tmp_path) == 1


def test_a_maker_that_was_killed_leaves_nothing_that_is_used(root, tmp_path, monkeypatch):
    program = tmp_path / "environment" / "bin" / "label-studio"
    good = program.read_text()
    write_label_studio(program, "", version="migrate()\ntime.sleep(60)")
    call = "from infra.service_databases import main; main()"
    with subprocess.Popen([sys.executable, "-c", call]) as maker:
        while not list(root.glob(".label-studio-9.9.*/work/label_studio.sqlite3")):
            assert maker.poll() is None
            time.sleep(0.02)
        maker.kill()
    (orphan,) = marked(root)
    program.write_text(good)
    template = make_template("label-studio", LocalServiceSettings())
    assert not orphan.is_running()
    assert tables(template / "label_studio.sqlite3") == {"project"}
    assert {path.name for path in root.iterdir()} == {"label-studio-9.9", "label-studio.log", "lock"}


def test_a_damaged_template_is_made_again(root, service, tmp_path):
    template = make_template("label-studio", LocalServiceSettings())
    (template / "label_studio.sqlite3").write_bytes(b"SQLite format 3")
    provide_databases(service(), LocalServiceSettings())
    assert tables(service().data / "label_studio.sqlite3") == {"project"}
    assert migrations(tmp_path) == 2


def test_without_a_place_for_templates_a_folder_makes_its_own(root, service, tmp_path, monkeypatch, capsys):
    root.write_text("a file")
    provide_databases(service(), LocalServiceSettings())
    assert tables(service().data / "label_studio.sqlite3") == {"project"}
    assert [path.name for path in service().data.iterdir()] == ["label_studio.sqlite3"]
    assert main() == 0
    lines = capsys.readouterr().err.splitlines()
    assert ["EDITLOOP_SERVICE_TEMPLATES" in line for line in lines] == [True, True]


def test_a_failing_migration_is_told_in_a_line_and_leaves_no_database(root, service, tmp_path, capsys):
    program = tmp_path / "environment" / "bin" / "label-studio"
    write_label_studio(program, "", version="migrate()\nsys.exit('no such function')")
    with pytest.raises(EditLoopError, match=r"label-studio could not make its databases: no such function") as error:
        provide_databases(service(), LocalServiceSettings())
    assert "\n" not in str(error.value)
    assert not service().data.exists()
    assert not list(root.glob("label-studio-*"))
    assert main() == 1
    assert "Traceback" not in capsys.readouterr().err


def mlflow_template(root):
    """An MLflow template of two tables, so that MLflow's own migrations need not run."""
    with complete_folder(root / f"mlflow-{program_version('mlflow', LocalServiceSettings())}") as folder:
        execute(folder / "mlflow.db", "CREATE TABLE runs (run_uuid, lifecycle_stage)")
        execute(folder / "auth.db", "CREATE TABLE users (id)")


def test_a_half_migrated_database_of_a_first_start_is_made_anew(root, service):
    mlflow_template(root)
    ours = service("mlflow")
    execute(ours.data / "mlflow.db", "CREATE TABLE runs (run_uuid)", "CREATE TABLE _alembic_tmp_runs (run_uuid)")
    provide_databases(ours, LocalServiceSettings())
    assert tables(ours.data / "mlflow.db") == {"runs"}
    assert {path.name for path in ours.data.iterdir()} == set(DATABASES["mlflow"])


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE runs (run_uuid)", "INSERT INTO runs VALUES ('a')"),
        ("CREATE TABLE registered_models (name)", "INSERT INTO registered_models VALUES ('editor')"),
        ("CREATE TABLE experiments (experiment_id)", "INSERT INTO experiments VALUES (0), (1)"),
    ],
)
def test_work_is_kept_though_no_start_was_seen_to_its_end(root, service, statements):
    mlflow_template(root)
    ours = service("mlflow")
    execute(ours.data / "mlflow.db", *statements)
    before = dump(ours.data / "mlflow.db")
    provide_databases(ours, LocalServiceSettings())
    assert dump(ours.data / "mlflow.db") == before


def test_a_service_that_has_answered_keeps_its_databases(root, service, tmp_path):
    ours = service()
    execute(ours.data / "label_studio.sqlite3", "CREATE TABLE project (id)", "CREATE TABLE theirs (id)")
    ours.ready.touch()
    provide_databases(ours, LocalServiceSettings())
    assert tables(ours.data / "label_studio.sqlite3") == {"project", "theirs"}
    assert migrations(tmp_path) == 0


def test_an_account_that_went_with_its_database_is_not_taken_for_made(root, service):
    ours = service()
    ours.ready.touch()
    provide_databases(ours, LocalServiceSettings())
    assert not ours.ready.exists()


def test_a_database_that_cannot_be_read_is_named_with_the_way_out(root, service):
    ours = service()
    ours.data.mkdir()
    (ours.data / "label_studio.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(EditLoopError, match=r"label_studio.sqlite3: label-studio's database cannot be read: .*move"):
        provide_databases(ours, LocalServiceSettings())
    assert (ours.data / "label_studio.sqlite3").read_bytes().startswith(b"no database")


def test_templates_lie_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("EDITLOOP_SERVICE_TEMPLATES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert template_root(LocalServiceSettings()) == tmp_path / "xdg" / "editloop" / "services"
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert template_root(LocalServiceSettings()) == tmp_path / ".cache" / "editloop" / "services"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITLOOP_SERVICE_TEMPLATES", "here")
    assert template_root(LocalServiceSettings()) == tmp_path / "here"


def test_the_installed_label_studio_has_a_version():
    assert os.environ.get("EDITLOOP_LABEL_STUDIO_COMMAND") is None
    assert program_version("label-studio", LocalServiceSettings()).count(".") == 2

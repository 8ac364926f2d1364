"""Pictures through the real Label Studio, from a folder and a real S3 server: for those who are logged in alone."""

import os
import re
import time

import pytest
import requests

from annotation.campaigns.campaign import connect
from annotation.campaigns.labelling import labelling_config
from annotation.campaigns.pictures import file_name, picture_store
from editloop.data.picture_file import picture_sha256, read_picture
from editloop.errors import EditLoopError
from infra.services import start_services, stop_services
from infra.settings import service_settings
from tests.s3_server import BUCKET

PREFIX, CAMPAIGN = "pictures", "0123456789abcdef"


@pytest.fixture(scope="module")
def beside_s3(s3_storage, tmp_path_factory):
    """A Label Studio that was started where the S3 server is known; the whole environment."""
    home = tmp_path_factory.mktemp("beside-s3")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_storage.items():
            patch.setenv(name, value)
        try:
            yield (
                s3_storage
                | start_services(home, mlflow=False).environment
                | {"EDITLOOP_PICTURES": f"s3://{BUCKET}/{PREFIX}"}
            )
        finally:
            stop_services(home)


@pytest.fixture(params=["folder", "bucket"])
def store(request, monkeypatch):
    folder = request.param == "folder"
    environment = request.getfixturevalue("services").environment if folder else request.getfixturevalue("beside_s3")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return picture_store(service_settings())


def project_with_a_task(client, store, pictures):
    project = client.projects.create(title="pictures", label_config=labelling_config(2, tiny=True)).id
    store.put(CAMPAIGN, pictures)
    for _ in range(2):
        store.attach(client, project, CAMPAIGN)
    names = ("original", "image_1", "image_2")
    addresses = {name: store.address(CAMPAIGN, file_name(one)) for name, one in zip(names, pictures, strict=True)}
    data = {"key": "k", "instruction": "make it blue", **addresses}
    client.projects.import_tasks(project, request=[{"data": data}])
    (task,) = client.tasks.list(project=project)
    return project, task.id


def test_pictures_arrive_whole_for_members_and_not_at_all_for_others(store, make_candidates):
    settings = service_settings()
    client = connect(settings)
    folder = make_candidates(1, candidates=2) / "images"
    pictures = {path.stem: path for path in sorted(folder.glob("*.png"))[:3]}
    _, task = project_with_a_task(client, store, pictures)
    logged_in = requests.Session()
    logged_in.headers["Authorization"] = f"Token {settings.require('label_studio_token')}"
    data = logged_in.get(f"{settings.label_studio_url}/api/tasks/{task}/", timeout=60).json()["data"]
    for name, digest in zip(("original", "image_1", "image_2"), pictures, strict=True):
        address = data[name] if data[name].startswith("http") else f"{settings.label_studio_url}{data[name]}"
        seen = logged_in.get(address, timeout=60)
        assert seen.status_code == 200
        assert picture_sha256(read_picture(seen.content, name)) == digest
        assert not re.search("(?i)signature|secret|accesskey", seen.url), "no signed link"
        stranger = requests.get(address, timeout=60, allow_redirects=False)
        assert stranger.status_code in (302, 401, 403)
        assert seen.content not in stranger.content


def test_a_bucket_gives_nothing_to_strangers(s3_environment, make_candidates):
    store = picture_store(service_settings().model_copy(update={"pictures": f"s3://{BUCKET}/{PREFIX}"}))
    path = next((make_candidates(1) / "images").iterdir())
    store.put(CAMPAIGN, {path.stem: path})
    direct = f"{s3_environment['AWS_ENDPOINT_URL']}/{BUCKET}/{PREFIX}/{CAMPAIGN}/{path.name}"
    assert requests.get(direct, timeout=60).status_code == 403


def test_a_storage_is_attached_once_and_its_sync_makes_no_tasks(store, make_candidates):
    client = connect(service_settings())
    folder = make_candidates(1, candidates=2) / "images"
    project, _ = project_with_a_task(client, store, {path.stem: path for path in sorted(folder.glob("*.png"))[:3]})
    attached = [
        (kind, storage.id)
        for kind in (client.import_storage.local, client.import_storage.s3)
        for storage in kind.list(project=project)
    ]
    ((kind, storage),) = attached
    kind.sync(id=storage)
    deadline = time.monotonic() + 60
    while (state := kind.get(id=storage)).status not in ("completed", "failed") and time.monotonic() < deadline:
        time.sleep(0.5)
    assert state.status == "completed", state
    assert client.projects.get(project).task_number == 1


def test_a_bucket_that_is_not_there_is_told(s3_environment, service_environment, make_candidates):
    path = next((make_candidates(1) / "images").iterdir())
    store = picture_store(service_settings().model_copy(update={"pictures": "s3://no-such-bucket/x"}))
    with pytest.raises(EditLoopError, match=r"EDITLOOP_PICTURES: s3://no-such-bucket/x/.*: cannot be read") as error:
        store.put(CAMPAIGN, {path.stem: path})
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in str(error.value)
    client, project = connect(service_settings()), project_without_tasks()
    with pytest.raises(EditLoopError, match=r"cannot reach the pictures in s3://no-such-bucket/x") as error:
        store.attach(client, project, CAMPAIGN)
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def project_without_tasks():
    return connect(service_settings()).projects.create(title="no pictures").id


def test_a_folder_that_label_studio_does_not_serve_is_told(service_environment, tmp_path):
    store = picture_store(service_settings().model_copy(update={"pictures": str(tmp_path)}))
    os.makedirs(tmp_path / CAMPAIGN)
    client, project = connect(service_settings()), project_without_tasks()
    with pytest.raises(EditLoopError, match=r"cannot serve the pictures.*LOCAL_FILES_DOCUMENT_ROOT"):
        store.attach(client, project, CAMPAIGN)

import os

import pytest

from annotation.campaigns.pictures import BucketStore, FolderStore, picture_store
from editloop.content import sha256_bytes
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings


@pytest.fixture
def pictures(tmp_path):
    """Three files that stand for pictures, {sha256: path}."""
    found = {}
    for place in range(3):
        data = f"picture {place}".encode()
        found[sha256_bytes(data)] = tmp_path / f"{sha256_bytes(data)}.png"
        found[sha256_bytes(data)].write_bytes(data)
    return found


def kept(store, campaign):
    return {path.stem: sha256_bytes(path.read_bytes()) for path in (store.root / campaign).iterdir()}


def test_a_folder_keeps_each_picture_once_under_its_digest(pictures, tmp_path):
    store = FolderStore(tmp_path / "root")
    first = dict(list(pictures.items())[:1])
    store.put("campaign", first)
    before = {path.name: path.stat() for path in (store.root / "campaign").iterdir()}
    store.put("campaign", pictures)
    assert kept(store, "campaign") == {digest: digest for digest in pictures}
    after = {path.name: path.stat() for path in (store.root / "campaign").iterdir()}
    assert all(after[name].st_ino == stat.st_ino for name, stat in before.items())
    assert all(path.samefile(store.root / "campaign" / path.name) for path in pictures.values()), (
        "no second copy on disk"
    )


def test_another_disk_gets_a_copy(pictures, tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    store = FolderStore(tmp_path / "root")
    store.put("campaign", pictures)
    assert kept(store, "campaign") == {digest: digest for digest in pictures}, "whole, and no part left behind"


def test_a_picture_that_was_changed_is_told(pictures, tmp_path):
    digest, path = next(iter(pictures.items()))
    path.write_bytes(b"another picture")
    store = FolderStore(tmp_path / "root")
    with pytest.raises(EditLoopError, match=f"is not the picture {digest}.*was changed"):
        store.put("campaign", pictures)
    assert digest not in kept(store, "campaign")


def test_the_setting_names_a_folder_or_a_bucket(tmp_path):
    assert picture_store(ServiceSettings(pictures=str(tmp_path))) == FolderStore(tmp_path)
    assert picture_store(ServiceSettings(pictures="s3://team/edits/2026/")) == BucketStore("team", "edits/2026")
    assert picture_store(ServiceSettings(pictures="s3://team")) == BucketStore("team", "")
    with pytest.raises(EditLoopError, match="EDITLOOP_PICTURES is not set"):
        picture_store(ServiceSettings(pictures=None))
    with pytest.raises(EditLoopError, match="names no bucket"):
        picture_store(ServiceSettings(pictures="s3://"))


def test_an_address_tells_the_digest_alone(tmp_path):
    assert FolderStore(tmp_path).address("c", "abc") == "/data/local-files/?d=c/abc.png"
    assert BucketStore("team", "edits").address("c", "abc") == "s3://team/edits/c/abc.png"
    assert BucketStore("team", "").address("c", "abc") == "s3://team/c/abc.png"

import os

import pytest
from PIL import Image

from annotation.campaigns.labelling import ShownPicture
from annotation.campaigns.pictures import (
    DISPLAY_SIDE,
    BucketStore,
    FolderStore,
    picture_store,
)
from editloop.data.picture_file import file_picture_sha256, store_png
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings


@pytest.fixture
def pictures(tmp_path):
    """Three small pictures, {identity: path}."""
    digests = [store_png(Image.new("RGB", (16, 16), (place, 0, 0)), tmp_path) for place in range(3)]
    return {digest: tmp_path / f"{digest}.png" for digest in digests}


def kept(store, campaign):
    return {path.stem: file_picture_sha256(path) for path in (store.root / campaign).iterdir()}


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
    Image.new("RGB", (16, 16), "white").save(path)
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
    assert FolderStore(tmp_path).address("c", "abc.png") == "/data/local-files/?d=c/abc.png"
    assert BucketStore("team", "edits").address("c", "abc.png") == "s3://team/edits/c/abc.png"
    assert BucketStore("team", "").address("c", "abc.png") == "s3://team/c/abc.png"


def test_a_picture_larger_than_a_screen_gets_a_display_copy_once(tmp_path):
    sizes = [(DISPLAY_SIDE, 16), (2 * DISPLAY_SIDE, DISPLAY_SIDE)]
    pictures = {}
    for size in sizes:
        path = tmp_path / f"{size[0]}.png"
        Image.new("RGB", size, (200, 40, 40)).save(path)
        pictures[file_picture_sha256(path)] = path
    small, big = pictures
    name = f"{big}.{2 * DISPLAY_SIDE}x{DISPLAY_SIDE}.webp"
    store = FolderStore(tmp_path / "root")
    store.put("campaign", pictures)
    names = {path.name for path in (store.root / "campaign").iterdir()}
    assert names == {f"{small}.png", f"{big}.png", name}
    copy = store.root / "campaign" / name
    with Image.open(copy) as picture:
        assert picture.size == (DISPLAY_SIDE, DISPLAY_SIDE // 2)
    before = copy.stat().st_mtime_ns
    store.put("campaign", pictures)
    assert copy.stat().st_mtime_ns == before

    shown, at = store.shown("campaign"), "/data/local-files/?d=campaign"
    assert shown(small) == ShownPicture(f"{at}/{small}.png")
    assert shown(big) == ShownPicture(f"{at}/{name}", f"{at}/{big}.png", sizes[1])

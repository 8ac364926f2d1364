"""Folders by content address in a real S3 server, through a proxy that spoils its answers."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from editloop import object_storage
from editloop.content import MANIFEST, complete_folder, file_digests, read_manifest
from editloop.errors import EditLoopError
from editloop.object_folders import fetch_folder, folder_digest, put_folder
from editloop.object_storage import ObjectFolder, StorageError
from tests.fault_proxy import Fault, FaultKind, FaultProxy, fault_proxy
from tests.s3_server import BUCKET


@pytest.fixture
def proxy(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The way to the storage."""
    with fault_proxy(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def address(proxy: FaultProxy, tmp_path: Path) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with complete_folder(tmp_path / "model", {"base": "tiny"}) as folder:
        (folder / "shards").mkdir()
        (folder / "shards" / "train-0").write_bytes(b"train" * 1000)
        (folder / "shards" / "test-0").write_bytes(b"test" * 1000)
    return tmp_path / "model"


def test_a_folder_comes_back_whole_and_is_sent_once(folder: Path, address: str, proxy: FaultProxy) -> None:
    stored = put_folder(folder, address)
    assert stored.startswith(f"{address}/")
    fetch_folder(stored, folder.with_name("back"))
    assert read_manifest(folder.with_name("back"), check=True) == read_manifest(folder)
    assert folder_digest(stored) == read_manifest(folder)["sha256"]
    assert put_folder(folder, f"{address}/") == stored
    assert len(proxy.statuses("PUT", "")) == 3


def test_other_facts_are_another_folder(folder: Path, address: str) -> None:
    with complete_folder(folder.with_name("twin"), {"base": "large"}) as twin:
        (twin / "shards").mkdir()
        for path in (folder / "shards").iterdir():
            (twin / "shards" / path.name).write_bytes(path.read_bytes())
    assert put_folder(folder.with_name("twin"), address) != put_folder(folder, address)


def test_a_folder_without_a_manifest_comes_back_without_one(folder: Path, address: str) -> None:
    (folder / MANIFEST).unlink()
    stored = put_folder(folder, address)
    fetch_folder(stored, folder.with_name("back"))
    assert file_digests(folder.with_name("back")) == file_digests(folder)
    assert not (folder.with_name("back") / MANIFEST).exists()
    (folder / "shards" / "train-0").write_bytes(b"other")
    assert put_folder(folder, address) != stored


def test_only_the_files_that_are_read_are_fetched(folder: Path, address: str, proxy: FaultProxy) -> None:
    stored = put_folder(folder, address)
    fetch_folder(stored, folder.with_name("part"), ["shards/train-0"])
    assert file_digests(folder.with_name("part")).keys() == {"shards/train-0"}
    assert not proxy.statuses("GET", "test-0")
    assert put_folder(folder.with_name("part"), address) == stored, "the whole is there already"
    fetch_folder(stored, folder.with_name("other"), skip=["*/train-*"])
    assert file_digests(folder.with_name("other")).keys() == {"shards/test-0"}
    with pytest.raises(EditLoopError, match=r"has no shards/train-1\. Give names of its manifest\.$"):
        fetch_folder(stored, folder.with_name("none"), ["shards/train-1"])


def test_a_file_that_changed_since_it_was_written_is_not_stored(folder: Path, address: str, proxy: FaultProxy) -> None:
    (folder / "shards" / "train-0").write_bytes(b"changed")
    with pytest.raises(EditLoopError, match="changed since it was written"):
        put_folder(folder, address)
    assert not proxy.statuses("PUT", "")


def test_a_fetch_gets_over_every_fault(folder: Path, address: str, proxy: FaultProxy) -> None:
    fetched: tuple[FaultKind, ...] = ("drop", "error 500", "slow", "truncate", "change")
    stored = put_folder(a_file_for_each(fetched, folder), address)
    proxy.faults = [Fault("GET", kind, kind) for kind in fetched]
    proxy.faults += [Fault("GET", MANIFEST, kind) for kind in ("change", "drop", "truncate")]
    fetch_folder(stored, folder.with_name("back"))
    assert not any(fault.times for fault in proxy.faults)
    assert read_manifest(folder.with_name("back"), check=True)["files"].keys() == set(fetched)


def test_a_store_gets_over_every_fault(folder: Path, address: str, proxy: FaultProxy) -> None:
    """A changed upload is refused by the storage, because it comes with a checksum."""
    stored: tuple[FaultKind, ...] = ("drop", "error 500", "slow", "change upload")
    proxy.faults = [Fault("PUT", kind, kind) for kind in stored]
    proxy.faults += [Fault("PUT", MANIFEST, kind) for kind in ("change upload", "drop")]
    fetch_folder(put_folder(a_file_for_each(stored, folder), address), folder.with_name("back"))
    assert not any(fault.times for fault in proxy.faults)
    assert read_manifest(folder.with_name("back"), check=True)["files"].keys() == set(stored)


def a_file_for_each(kinds: Sequence[str], target: Path) -> Path:
    with complete_folder(target) as made:
        for kind in kinds:
            (made / kind).write_text(kind * 1000)
    return target


def test_an_answer_that_does_not_come_is_asked_for_again(
    folder: Path, address: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put_folder(folder, address)
    monkeypatch.setattr(object_storage, "READ_SECONDS", 0.5)
    proxy.faults = [Fault("GET", "train-0", "slow", seconds=60)]
    began = time.monotonic()
    fetch_folder(stored, folder.with_name("back"))
    assert time.monotonic() - began < 30


def test_a_file_that_stays_damaged_is_refused_in_one_line(folder: Path, address: str, proxy: FaultProxy) -> None:
    stored = put_folder(folder, address)
    ObjectFolder(stored).write("shards/train-0", b"other")
    with pytest.raises(StorageError, match=r"train-0: is not what was stored, 3 times\. Delete the folder") as error:
        fetch_folder(stored, folder.with_name("back"))
    assert "\n" not in str(error.value)
    assert len(proxy.statuses("GET", "train-0")) == 3
    ObjectFolder(stored).write(MANIFEST, b"{}")
    with pytest.raises(StorageError, match=r"manifest\.json: is not what was stored"):
        fetch_folder(stored, folder.with_name("back"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left behind"


def test_a_store_that_was_cut_off_leaves_no_folder(
    folder: Path, address: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.faults = [Fault("PUT", "train-0", "drop")]
    with pytest.raises(StorageError, match=r"cannot be written .*AWS credentials\.$"):
        put_folder(folder, address)
    assert not [name for name in ObjectFolder(address).names() if name.endswith(MANIFEST)]
    fetch_folder(put_folder(folder, address), folder.with_name("back"))


def test_two_writers_of_one_address_leave_one_whole_folder(folder: Path, address: str, proxy: FaultProxy) -> None:
    proxy.faults = [Fault("PUT", "test-0", "slow", times=2)]  # until then the other has begun too
    stored: list[str] = []
    writers = [threading.Thread(target=lambda: stored.append(put_folder(folder, address))) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert stored[0] == stored[1]
    assert sorted(proxy.statuses("PUT", MANIFEST)) == [200, 412]
    fetch_folder(stored[0], folder.with_name("back"))
    assert read_manifest(folder.with_name("back"), check=True) == read_manifest(folder)


def test_a_large_file_goes_in_parts(address: str, proxy: FaultProxy, tmp_path: Path) -> None:
    with complete_folder(tmp_path / "weights") as made:
        (made / "model.safetensors").write_bytes(bytes(range(256)) * (17 * 4096))
    proxy.faults = [Fault("PUT", "model.safetensors", "drop"), Fault("GET", "model.safetensors", "truncate")]
    fetch_folder(put_folder(tmp_path / "weights", address), tmp_path / "back")
    assert len(proxy.statuses("PUT", "model.safetensors")) == 3, "parts of 8 MiB"
    assert read_manifest(tmp_path / "back", check=True) == read_manifest(tmp_path / "weights")


def test_what_cannot_be_reached_is_one_line(
    folder: Path, address: str, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"{address}/{'0' * 64}"
    with pytest.raises(EditLoopError, match="nothing is stored there"):
        fetch_folder(missing, folder.with_name("back"))
    with pytest.raises(EditLoopError, match="no content address"):
        fetch_folder(f"{address}/..", folder.with_name("back"))
    for wrong in ("s3://", "/data/objects"):
        with pytest.raises(EditLoopError, match=r"Write it as s3://BUCKET/PREFIX\.$"):
            put_folder(folder, wrong)
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/.* cannot be"):
        put_folder(folder, "s3://no-such-bucket/objects")
    for name, value in (
        ("AWS_SECRET_ACCESS_KEY", "not-the-key"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ENDPOINT_URL", "minio"),
    ):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv(name, value)
        with pytest.raises(StorageError, match=r"cannot be read \(.*AWS credentials\.$") as error:
            put_folder(folder, address)
        assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def test_a_name_that_leads_out_of_its_folder_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match="leads out of its folder"):
        ObjectFolder(address).download(["../outside"], tmp_path / "back")


def test_objects_are_listed_and_deleted(folder: Path, address: str) -> None:
    put_folder(folder, address)
    remote = ObjectFolder(address)
    assert len(remote.names()) == 3
    remote.delete(remote.names())
    assert remote.names() == set()

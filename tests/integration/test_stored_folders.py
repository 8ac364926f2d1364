"""What steps hand on through object storage: an address in KFP's artifact, and a bounded cache on each node."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from editloop.content import MANIFEST, complete_folder, file_digests, read_manifest
from editloop.datasets.splits import SPLITS
from editloop.errors import EditLoopError
from editloop.lineage.stored_folders import (
    StoredFolderSettings,
    opened_inputs,
    read_pointer,
    recorded_folder,
    replace_by_pointer,
    store_outputs,
    stored_addresses,
)
from editloop.object_storage import ObjectFolder
from pipelines.catalogue import STAGES
from tests.fault_proxy import fault_proxy
from tests.s3_server import BUCKET

SHARDS = [f"{kind}-{split}-00000.parquet" for kind in ("candidates", "pairs") for split in SPLITS]


@dataclass
class KfpArtifact:
    """What a component gets of KFP."""

    path: str
    uri: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def objects(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A node with an empty cache, whose steps hand on through object storage."""
    address = f"s3://{BUCKET}/{tmp_path.name}"
    monkeypatch.setenv("EDITLOOP_OBJECTS", address)
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    return address


def dataset(target: Path, text: str = "rows") -> Path:
    with complete_folder(target) as folder:
        for name in [*SHARDS, "judgements.jsonl"]:
            (folder / name).write_text(text * 100)
    return target


def handed_on(folder: Path) -> KfpArtifact:
    """A folder as the next step gets it."""
    artifact = KfpArtifact(str(folder))
    replace_by_pointer(folder, store_outputs({"output": artifact})["output"])
    return artifact


def fetched(artifact: KfpArtifact, stage: str = "dataset", argument: str = "judgements") -> Path:
    with opened_inputs(STAGES[stage], {argument: artifact}) as sources:
        return sources[argument]


def test_a_step_hands_on_an_address(objects: str, tmp_path: Path) -> None:
    manifest = read_manifest(dataset(tmp_path / "out"))
    artifact = handed_on(tmp_path / "out")
    pointer = read_pointer(tmp_path / "out")
    assert pointer is not None
    assert pointer.sha256 == manifest["sha256"]
    assert stored_addresses({"dataset": artifact, "edits": tmp_path}) == {"dataset": pointer.address}
    assert pointer.address.startswith(objects)
    assert read_manifest(fetched(artifact), check=True) == manifest
    recorded = recorded_folder({"editloop.object.output": pointer.address, "editloop.uri.output": "/gone"}, "output")
    assert recorded is not None
    assert read_manifest(recorded, check=True) == manifest


def test_a_node_fetches_a_folder_once_and_again_where_it_was_damaged(
    objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_environment: dict[str, str]
) -> None:
    artifact = handed_on(dataset(tmp_path / "out"))
    with fault_proxy(s3_environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        folder = fetched(artifact)
        answers = len(proxy.answers)
        assert fetched(artifact) == folder
        assert len(proxy.answers) == answers
        (folder / SHARDS[0]).write_text("damaged")
        fetched(artifact)
        assert read_manifest(folder, check=True)["files"]


def test_a_stage_fetches_the_shards_that_it_reads(objects: str, tmp_path: Path) -> None:
    artifact = handed_on(dataset(tmp_path / "out"))
    for stage, splits in {"reward": {"train", "validation"}, "benchmark": {"test"}, "promote": set()}.items():
        folder = fetched(artifact, stage, "dataset")
        names = {"judgements.jsonl", *(name for name in SHARDS if name.split("-")[1] in splits)}
        assert file_digests(folder).keys() == names


def test_the_cache_keeps_what_is_in_use_and_what_was_used_last(
    objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (handed_on(dataset(tmp_path / name, name)) for name in ("first", "second", "third"))
    folders = [fetched(artifact) for artifact in (first, second)]
    monkeypatch.setenv("EDITLOOP_OBJECT_CACHE", "3kB")
    with opened_inputs(STAGES["dataset"], {"judgements": first}):
        fetched(third)
        assert [folder.is_dir() for folder in folders] == [True, False]
    fetched(second)
    assert [folder.is_dir() for folder in folders] == [False, True]


def test_without_the_setting_nothing_is_stored(objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = KfpArtifact(str(dataset(tmp_path / "out")))
    assert store_outputs({"output": tmp_path / "out"}) == {}, "a path of a command's"
    monkeypatch.delenv("EDITLOOP_OBJECTS")
    assert store_outputs({"output": artifact}) == {}
    assert fetched(artifact) == tmp_path / "out"
    monkeypatch.setenv("EDITLOOP_OBJECTS", "/data/objects")
    with pytest.raises(EditLoopError, match=r"^EDITLOOP_OBJECTS=/data/objects: .*Correct the variable"):
        StoredFolderSettings()


def test_files_that_are_no_pointers_stay_what_they_are(objects: str, tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text(json.dumps({"sha256": "0", "tag": "v1"}))
    artifact = KfpArtifact(str(tmp_path / "version.json"))
    assert store_outputs({"version": artifact}) == {}
    with opened_inputs(STAGES["promote"], {"version": artifact}) as sources:
        assert sources["version"] == tmp_path / "version.json"


def test_edits_of_somebody_are_fetched_where_kfp_leaves_them(objects: str, tmp_path: Path) -> None:
    remote, content = ObjectFolder(f"{objects}/ours"), {"edits.jsonl": b"{}\n", "images/one.png": b"png"}
    for name, data in content.items():
        remote.write(name, data)
    artifact = KfpArtifact("/s3/nowhere", uri=remote.address)
    with opened_inputs(STAGES["candidates"], {"edits": artifact}) as sources:
        assert {name: (sources["edits"] / name).read_bytes() for name in content} == content
    remote.upload({MANIFEST: dataset(tmp_path / "another") / MANIFEST})
    with pytest.raises(EditLoopError, match="changed since it was written"):
        fetched(artifact, "candidates", "edits")

"""A pipeline's first step: all faults of a form at once, and what it finds for the steps."""

from pathlib import Path
from typing import Any

import pytest

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder
from pipelines.catalogue import PIPELINES
from pipelines.preflight import find_edits, plan_run, preflight_fields, preflight_outputs


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    with complete_folder(tmp_path / "edits", {}) as folder:
        (folder / "edits.jsonl").write_text("{}")
    return tmp_path / "edits"


def form(edits: Path, **more: Any) -> dict[str, Any]:
    return {"edits_to_practise": str(edits), "edits_held_out": str(edits), **more}


def test_the_form_and_its_settings_reach_each_stage(edits: Path) -> None:
    settings = "{seed: 7, run_key: k, editor_rl: {iterations: 3, learning_rate: 0.5}, editor_eval: {samples: 2}}"
    plan = plan_run("improve-editor", form(edits, image_editor="mine", preset="smallest", settings=settings))
    rl, evaluation = plan.parameters["editor_rl"], plan.parameters["editor_eval"]
    assert (rl["editor"], rl["preset"], rl["iterations"], rl["learning_rate"], rl["seed"]) == (
        "mine",
        "smallest",
        3,
        0.5,
        7,
    )
    assert (evaluation["base"], evaluation["samples"], evaluation["seed"]) == ("mine", 2, 7)
    assert plan.run_key == "k"
    assert {source.sha256 for source in plan.sources.values()} == {read_manifest(edits)["sha256"]}


def test_outputs_come_in_the_order_of_their_names(edits: Path) -> None:
    fields = preflight_fields(PIPELINES["improve-editor"])
    outputs = preflight_outputs("improve-editor", form(edits))
    assert [type(value) for value in outputs] == list(fields.values())
    named = dict(zip(fields, outputs, strict=True))
    assert named["prompts_uri"] == named["heldout_uri"] == str(edits)
    assert named["editor_eval"]["gate"] == "editor"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    """Also those of the last stage, which would come up after hours of training."""
    settings = "{editor_rl: {iteration: 3}, editor_eval: {samples: 0}, rewad: {}, seed: 1}"
    values = form(tmp_path / "gone", gate="rewrd", settings=settings)
    with pytest.raises(EditLoopError) as refused:
        plan_run("improve-editor", values | {"edits_held_out": "/nowhere"})
    first, *faults = str(refused.value).splitlines()
    assert first == "improve-editor: 5 faults, nothing was started."
    for fault in ("'rewad'", "did you mean iterations", "samples=0", f"{tmp_path / 'gone'} does not exist", "/nowhere"):
        assert [line for line in faults if fault in line], fault


@pytest.mark.parametrize(("stage", "values"), [("editor_eval", {"gate": "rewrd"}), ("editor_rl", {"preset": "tny"})])
def test_a_gate_or_preset_that_is_none_is_told_before_anything_runs(
    edits: Path, stage: str, values: dict[str, str]
) -> None:
    with pytest.raises(EditLoopError, match=f"{stage}: (gate 'rewrd'|preset 'tny'): no such file or name"):
        plan_run("improve-editor", form(edits, **values))


@pytest.mark.parametrize("settings", ["[1]", "seed", "{a: ", "{editor_rl: 3}"])
def test_settings_that_are_no_mapping_are_refused(edits: Path, settings: str) -> None:
    with pytest.raises(EditLoopError, match=r"settings"):
        plan_run("improve-editor", form(edits, settings=settings))


@pytest.mark.slow("starts an S3 server")
def test_a_folder_in_a_bucket_has_the_digest_of_its_content(
    edits: Path, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = ObjectFolder("s3://editloop/edits")
    remote.upload({f"whole/{name}": edits / name for name in ("manifest.json", "edits.jsonl")})
    remote.write("plain/edits.jsonl", b"{}")
    assert find_edits("edits", "s3://editloop/edits/whole/").sha256 == find_edits("edits", str(edits)).sha256
    before = find_edits("edits", "s3://editloop/edits/plain").sha256
    remote.write("plain/edits.jsonl", b"{ }")
    assert find_edits("edits", "s3://editloop/edits/plain").sha256 != before
    with pytest.raises(EditLoopError, match=r"edits: s3://editloop/edits/none has no edits\.jsonl"):
        find_edits("edits", "s3://editloop/edits/none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(EditLoopError, match="edits: s3://editloop/edits/plain: cannot be read"):
        find_edits("edits", "s3://editloop/edits/plain")

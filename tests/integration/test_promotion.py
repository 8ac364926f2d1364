"""Who is champion: one at a time, on evidence, on record; and what those get who come second, die or go round."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from editloop.content import complete_folder, read_manifest, write_json
from editloop.errors import EditLoopError
from editloop.lineage import promotion_lock as promotion_claims
from editloop.lineage import registration, registry, tracking
from editloop.lineage.promotion import (
    alias_version,
    champion_history,
    promote_version,
    rollback_champion,
    sync_registry_state,
)
from editloop.lineage.promotion_lock import OvertakenError, promotion_lock
from editloop.processes import process_identity

SHA256 = "5" * 64

Register = Callable[..., str]


@pytest.fixture
def register(tmp_path: Path, mlflow_environment, monkeypatch: pytest.MonkeyPatch) -> Register:
    """register(name, text, verdict) -> the version of a tiny signed model with that content."""
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))

    def make(name: str, text: str, verdict: str = "promote") -> str:
        with complete_folder(tmp_path / text) as folder:
            (folder / "weights.safetensors").write_text(text)
        with tracking.stage_run("reward", "train-reward", name, {}, {"text": text}) as run:
            evidence = {"editloop.verdict": verdict, "editloop.benchmark_sha256": SHA256}
            version = registry.register_model(name, tmp_path / text, run.run_id, {}, evidence)
            run.finish({}, {"output": tmp_path / text})
        return version

    return make


def move(name: str, version: str, previous: str, actor: str = "Ada") -> registry.PromotionRequest:
    """What a caller means to do that dies before its record."""
    return registry.PromotionRequest(
        action="promote",
        model=name,
        version=version,
        actor=actor,
        reason="because",
        previous=previous,
        verdict="promote",
        evidence={"benchmark_sha256": "6"},
    )


def test_a_promotion_is_recorded_and_shows_in_mlflow(register: Register) -> None:
    first, second = register("shown", "one"), register("shown", "two")
    promote_version(f"models:/shown/{first}", actor="Ada", reason="the first")
    record = promote_version(f"models:/shown/{second}", actor="Bo | [x](y)", reason="better\non aurora")
    assert (record.number, record.action, record.version, record.previous) == (2, "promote", second, first)
    assert (record.actor, record.reason, record.verdict) == ("Bo | [x](y)", "better\non aurora", "promote")
    assert record.evidence == {"benchmark_sha256": SHA256}
    assert registry.promotions("shown")[-1] == record
    api = tracking.client()
    assert alias_version(api, "shown", "champion") == second
    model = api.get_registered_model("shown")
    newest, older = [line for line in model.description.splitlines() if line.startswith("| ")][1:]
    assert r"Bo \| \[x\](y) | better on aurora" in newest
    assert older.split(" | ")[3:5] == [first, "none"]
    assert "promote by Bo" in api.get_model_version("shown", second).tags["editloop.promotion"]
    assert api.get_model_version("shown", first).tags["editloop.promotion"].startswith("no longer champion")
    run = api.get_run(record.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "shown 2: champion is version 2")


def test_what_people_wrote_on_the_models_page_stays(register: Register) -> None:
    register("written", "one"), register("written", "two")
    tracking.client().update_registered_model("written", "Ask Ada before you use it.")
    for version in "12":
        promote_version(f"models:/written/{version}", actor="Ada", reason="x" * 1000)
    description = tracking.client().get_registered_model("written").description
    assert description.startswith("Ask Ada before you use it.\n\n## Promotions\n")
    assert description.count("## Promotions") == 1
    assert len(description) <= 5000


def test_without_the_gates_word_nothing_moves_unless_one_insists(register: Register) -> None:
    held = register("held", "one", "hold")
    with pytest.raises(EditLoopError, match=r"its gate said hold.*--without-evidence"):
        promote_version(f"models:/held/{held}", actor="Ada", reason="I like it")
    assert sync_registry_state("held").champion == ""
    assert registry.promotions("held") == []
    record = promote_version(f"models:/held/{held}", actor="Ada", reason="I like it", without_evidence=True)
    assert (record.verdict, record.evidence) == ("hold", {})
    assert sync_registry_state("held").champion == held


def test_the_challenger_needs_no_verdict(register: Register) -> None:
    register("tried", "one", "hold")
    record = promote_version("models:/tried/1", actor="Ada", reason="to try", alias="challenger")
    assert (record.alias, record.version) == ("challenger", "1")
    assert sync_registry_state("tried").champion == ""


def test_what_a_challenger_replaces_is_the_challenger(register: Register) -> None:
    for content in ("one", "two", "three"):
        register("rivals", content)
    promote_version("models:/rivals/1", actor="Ada", reason="best")
    promote_version("models:/rivals/2", actor="Ada", reason="to try", alias="challenger")
    with pytest.raises(OvertakenError, match="rivals@challenger is version 2 by now, not version 1"):
        promote_version("models:/rivals/3", actor="Bo", reason="to try", alias="challenger", replaces="1")
    promote_version("models:/rivals/3", actor="Bo", reason="to try", alias="challenger", replaces="2")


def test_a_run_replaces_no_champion_that_its_model_was_not_compared_with(register: Register, tmp_path: Path) -> None:
    """Two runs are under way at a time: each compares with the champion of its beginning."""
    for content in ("one", "two", "three"):
        register("two-runs", content)
    promote_version("models:/two-runs/1", actor="Ada", reason="the first")
    evidence = tmp_path / "evidence"
    with complete_folder(evidence) as folder:
        write_json(folder / "benchmark.json", {})
        write_json(folder / "gate.json", {"verdict": "promote", "reasons": ["better"], "against": "models:/two-runs/1"})

    def finish(content: str) -> dict[str, Any]:
        place = {"stage": "reward", "pipeline_run": content, "tags": {}, "chain": []}
        return registration.register("two-runs", tmp_path / content, evidence, **place)

    assert finish("two")["alias"] == "champion"
    assert finish("two")["alias"] == "champion", "a step that is tried again"
    with pytest.raises(OvertakenError, match="two-runs@champion is version 2 by now, not version 1"):
        finish("three")
    assert [record.version for record in registry.promotions("two-runs")] == ["1", "2"]


def test_what_is_champion_stays_so_without_a_second_record(register: Register) -> None:
    register("same", "one")
    first = promote_version("models:/same/1", actor="Ada", reason="once")
    assert promote_version("models:/same/1", actor="Bo", reason="twice") == first
    assert len(registry.promotions("same")) == 1


def test_a_new_measurement_of_the_same_content_is_the_versions_evidence(register: Register) -> None:
    assert register("measured", "one", "hold") == register("measured", "one", "promote") == "1"
    assert promote_version("models:/measured/1", actor="Ada", reason="measured again").verdict == "promote"


@pytest.mark.parametrize("broken", ["weights.safetensors", "manifest.json"])
def test_a_tampered_model_is_not_promoted(register: Register, mlflow_environment, broken: str) -> None:
    name = f"tampered-{broken}"
    version = register(name, "one")
    run_id = tracking.client().get_model_version(name, version).run_id
    (kept,) = (mlflow_environment.home / "mlflow").glob(f"artifacts/*/{run_id}/artifacts/model-*/{broken}")
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(EditLoopError, match=r"weights|signature"):
        promote_version(f"models:/{name}/{version}", actor="Ada", reason="x")
    assert sync_registry_state(name).champion == ""
    assert registry.promotions(name) == []


def test_what_the_registry_has_not_is_said(register: Register) -> None:
    register("known", "one")
    with pytest.raises(EditLoopError, match=r"no model unknown; it has .*known"):
        promote_version("models:/unknown/1", actor="Ada", reason="x")
    with pytest.raises(EditLoopError, match="no such version; known has 1"):
        promote_version("models:/known/7", actor="Ada", reason="x")
    with pytest.raises(EditLoopError, match="no such version; known has 1"):
        promote_version("models:/known@challenger", actor="Ada", reason="x")
    with pytest.raises(EditLoopError, match="no such model"):
        rollback_champion("unknown", actor="Ada", reason="x")
    for fault in ({"actor": " ", "reason": "x"}, {"actor": "Ada", "reason": "x" * 1001}):
        with pytest.raises(EditLoopError, match="stays on record"):
            promote_version("models:/known/1", **fault)


def test_rolling_back_goes_one_further_each_time(register: Register) -> None:
    for version in ("1", "2", "3"):
        assert register("rolled", f"text {version}") == version
        promote_version(f"models:/rolled/{version}", actor="Ada", reason="better")
    record = rollback_champion("rolled", actor="Bo", reason="worse on hats")
    assert (record.action, record.version, record.previous, record.actor) == ("rollback", "2", "3", "Bo")
    assert record.evidence == {"benchmark_sha256": SHA256}
    assert rollback_champion("rolled", actor="Bo", reason="worse on shoes").version == "1"
    with pytest.raises(EditLoopError, match="no champion before version 1"):
        rollback_champion("rolled", actor="Bo", reason="worse")
    promote_version("models:/rolled/3", actor="Ada", reason="mended")
    assert rollback_champion("rolled", actor="Bo", reason="not mended").version == "1"
    assert sync_registry_state("rolled").champion == "1"
    assert [one.number for one in registry.promotions("rolled")] == [1, 2, 3, 4, 5, 6, 7]
    assert champion_history(registry.promotions("rolled")) == ["1"]


def test_an_alias_set_by_hand_works_and_is_on_record_without_evidence(register: Register) -> None:
    register("hand", "one"), register("hand", "two")
    promote_version("models:/hand/1", actor="Ada", reason="better")
    registry.set_alias("hand", "champion", "2")
    assert registry.resolve_model("models:/hand@champion") is not None
    record = sync_registry_state("hand").records[-1]
    assert (record.action, record.version, record.previous, record.evidence) == ("by hand", "2", "1", {})
    assert len(sync_registry_state("hand").records) == 2
    assert rollback_champion("hand", actor="Ada", reason="by whom?").version == "1"
    tracking.client().delete_registered_model_alias("hand", "champion")
    standing = sync_registry_state("hand")
    assert (standing.champion, standing.records[-1].version, standing.records[-1].previous) == ("", "", "1")
    assert promote_version("models:/hand/2", actor="Ada", reason="back").previous == ""


def test_who_meant_to_replace_another_is_told(register: Register) -> None:
    register("meant", "one"), register("meant", "two")
    promote_version("models:/meant/1", actor="Ada", reason="better", replaces="")
    with pytest.raises(OvertakenError, match="is version 1 by now, not no version: Ada moved champion to version 1"):
        promote_version("models:/meant/2", actor="Bo", reason="better", replaces="")
    assert sync_registry_state("meant").champion == "1"


def test_a_move_under_way_keeps_others_off(register: Register) -> None:
    register("under", "one"), register("under", "two")
    api = tracking.client()
    with promotion_lock(api, move("under", "1", ""), 1):
        with pytest.raises(OvertakenError, match="Ada began to move under@champion to version 1"):
            promote_version("models:/under/2", actor="Bo", reason="better")
        registry.set_alias("under", "champion", "1")
        assert sync_registry_state("under").records == [], "the move explains the alias"
    assert promote_version("models:/under/2", actor="Bo", reason="better").number == 2, (
        "what was set is on record by hand"
    )


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_caller_that_died_is_settled_by_the_next(
    register: Register, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    name = f"died-{carried_out}"
    register(name, "one"), register(name, "two")
    api = tracking.client()
    held = promotion_lock(api, move(name, "1", "", "the late Ada"), 1)
    held.__enter__()
    if carried_out:
        registry.set_alias(name, "champion", "1")
    time.sleep(0.2)
    monkeypatch.setattr(promotion_claims, "LOCK_EXPIRY_SECONDS", 0.1)
    record = promote_version(f"models:/{name}/2", actor="Bo", reason="better")
    records = registry.promotions(name)
    assert records[-1] == record
    assert [(one.actor, one.version, one.previous) for one in records] == (
        [("the late Ada", "1", ""), ("Bo", "2", "1")] if carried_out else [("Bo", "2", "")]
    )
    visible = {one.name for one in api.search_experiments()}
    assert not {one for one in visible if one.startswith(f"editloop-registry/{name}/")}
    held.__exit__(None, None, None)


def test_a_caller_of_this_machine_that_died_is_not_waited_for(register: Register) -> None:
    register("gone", "one")
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = process_identity(process.pid)
        with patch.object(promotion_claims, "process_identity", lambda: identity):
            held = promotion_lock(tracking.client(), move("gone", "1", "", "the late Ada"), 1)
            held.__enter__()
        with pytest.raises(OvertakenError, match="the late Ada began to move"):
            promote_version("models:/gone/1", actor="Bo", reason="better")
        process.kill()
    assert promote_version("models:/gone/1", actor="Bo", reason="better").number == 1
    held.__exit__(None, None, None)


@pytest.mark.parametrize("rounds", [4, pytest.param(50, marks=pytest.mark.extended("a race, repeated 50 times"))])
def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(register: Register, rounds: int) -> None:
    """Rounds of two callers that both mean to replace the same champion."""
    name = f"raced-{rounds}"
    for text in ("one", "two", "three"):
        register(name, text)
    promote_version(f"models:/{name}/1", actor="Ada", reason="the first")
    won: list[str] = []
    lost: list[str] = []

    def race(version: str, champion: str, ready: threading.Barrier) -> None:
        ready.wait()
        try:
            won.append(
                promote_version(f"models:/{name}/{version}", actor=version, reason="race", replaces=champion).version
            )
        except OvertakenError as error:
            lost.append(str(error))

    champion = "1"
    for round_ in range(rounds):
        ready = threading.Barrier(2)
        rivals = [version for version in "123" if version != champion]
        threads = [threading.Thread(target=race, args=(version, champion, ready)) for version in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (round_ + 1, round_ + 1)
        standing = sync_registry_state(name)
        assert standing.champion == won[-1]
        assert (len(standing.records), standing.records[-1].version) == (round_ + 2, won[-1])
        assert won[-1] in lost[-1], "the loser is told by whom"
        champion = standing.champion


def test_content_and_manifest_are_what_was_registered(register: Register, tmp_path: Path) -> None:
    register("fetched", "one")
    fetched = registry.resolve_model("models:/fetched/1")
    assert fetched is not None
    assert read_manifest(fetched) == read_manifest(tmp_path / "one")

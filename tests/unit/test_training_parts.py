"""Parts of the training loop: batches made ahead, curves that wait for MLflow, adapters that leave no trace."""

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel

from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.models.backbones.checkpoints import load_backbone
from editloop.models.lora import add_adapter
from editloop.models.lora_settings import LoraSettings
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.training import metric_log as curves
from editloop.training.distributed import import_muon_uncompiled
from editloop.training.engine import put_state
from editloop.training.metric_log import MetricLog, send_metrics
from editloop.training.prefetch import Prefetch, loader_threads
from editloop.training.trained_backbone import PREFIX, write_trained_backbone

pytestmark = pytest.mark.floats


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_and_waiting_is_counted(threads: int) -> None:
    def slowly(value: int) -> int:
        time.sleep(0.05 if value % 2 else 0.1)
        return value

    with Prefetch((partial(slowly, value) for value in range(6)), threads=threads, ahead=4) as batches:
        assert list(batches) == [0, 1, 2, 3, 4, 5]
        assert batches.waited_seconds > 0.1
    with Prefetch([lambda: 1] * 3, threads=threads, ahead=3) as ready:
        time.sleep(0.1)
        assert list(ready) == [1, 1, 1]
    assert ready.waited_seconds < batches.waited_seconds, "on a busy machine, too"


def test_calls_run_at_the_same_time() -> None:
    meet = threading.Barrier(3)
    with Prefetch([lambda: meet.wait(30)] * 3, threads=3, ahead=3) as batches:
        assert sorted(batches) == [0, 1, 2]


def test_no_more_is_made_ahead_than_was_asked_for() -> None:
    begun: list[int] = []
    with Prefetch((partial(begun.append, value) for value in range(20)), threads=2, ahead=4) as batches:
        stream = iter(batches)
        for _ in range(3):
            next(stream)
        time.sleep(0.05)
    assert len(begun) <= 3 + 4


def test_threads_are_the_ranks_share_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)))
    assert [loader_threads(ranks) for ranks in (1, 4, 6, 16)] == [4, 3, 2, 1]


def test_an_optimizer_that_nobody_uses_is_imported_without_its_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.runtime import compiler

    muon = "deepspeed.runtime.zero.muon.original_muon"
    monkeypatch.delitem(sys.modules, muon, raising=False)
    before = compiler.compile
    import_muon_uncompiled()
    assert not hasattr(sys.modules[muon].zeropower_via_newtonschulz5, "_torchdynamo_orig_callable")
    assert compiler.compile is before


def test_an_error_is_raised_where_its_batch_would_have_come() -> None:
    with Prefetch([lambda: 1, lambda: 1 // 0, lambda: 3], threads=2, ahead=3) as prefetch:
        batches = iter(prefetch)
        assert next(batches) == 1
        with pytest.raises(ZeroDivisionError):
            next(batches)


def test_an_interrupted_reader_leaves_no_thread() -> None:
    batches = Prefetch((lambda: 1 for _ in iter(int, 1)), threads=2, ahead=3)

    def read() -> None:
        with batches:
            assert next(iter(batches)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert not any(thread.is_alive() for thread in batches._pool._threads)


class Server:
    """MLflow's client as far as curves need it; `away` raises like one that nobody answers."""

    def __init__(self) -> None:
        self.away, self.metrics, self.params = True, [], {}  # type: ignore[var-annotated]

    def log_batch(self, run: str, metrics: list[Any], params: list[Any]) -> None:
        if self.away:
            raise ConnectionError("nobody answers")
        self.metrics += [(run, one.key, one.step, one.value) for one in metrics]
        self.params |= {one.key: one.value for one in params}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    monkeypatch.setattr(tracking, "client", lambda: found)
    monkeypatch.setattr(curves, "SEND_INTERVAL_SECONDS", 0.02)
    monkeypatch.setenv(tracking.STAGE_RUN, "run-1")
    return found


def test_curves_wait_for_a_server_that_is_away_and_arrive_once(server: Server, tmp_path: Path) -> None:
    kept = MetricLog(tmp_path, 0, {"batch": 8, "adapter": {"rank": 4}}, {"dataset_sha256": "d"})
    for step in range(1, 4):
        kept.add(step, {"loss": 1.0 / step})
    time.sleep(0.1)
    kept.close()
    assert server.metrics == []
    server.away = False
    send_metrics(tmp_path)
    send_metrics(tmp_path)
    assert server.metrics == [("run-1", "curve_loss", step, 1.0 / step) for step in range(1, 4)]
    assert server.params == {"training.batch": "8", "training.adapter.rank": "4", "model.dataset_sha256": "d"}


def test_a_resumed_trainings_curves_have_every_step_once(server: Server, tmp_path: Path) -> None:
    """Killed after step 5 with a checkpoint of step 3: steps 4 and 5 come again, with the same figures."""
    server.away = False
    for through, steps in ((0, range(1, 6)), (3, range(4, 8))):
        part = MetricLog(tmp_path, through, {}, {})
        for step in steps:
            part.add(step, {"loss": float(step)})
        part.close()
    assert [step for _, _, step, _ in server.metrics] == list(range(1, 8))
    with (tmp_path / curves.LINES_FILE).open("a") as file:
        file.write(json.dumps({"step": 8, "time": 0, "figures": {"loss": 8.0}})[:-5])  # a kill in the middle of a line
    send_metrics(tmp_path)
    assert len(server.metrics) == 7


def test_without_a_run_there_is_nobody_to_send_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracking.STAGE_RUN, raising=False)
    kept = MetricLog(tmp_path, 0, {}, {})
    kept.add(1, {"loss": 1.0})
    kept.close()
    send_metrics(tmp_path)


@pytest.mark.parametrize("generates", [False, True], ids=["encoder", "generator"])
def test_a_merged_adapter_computes_the_same_in_a_plain_model(tmp_path: Path, generates: bool) -> None:
    torch.manual_seed(0)
    config = tiny_config("qwen2.5-vl", byte_tokenizer())
    model = (Qwen2_5_VLForConditionalGeneration if generates else Qwen2_5_VLModel)(config).eval()
    model.save_pretrained(tmp_path / "base")
    names, tokens = [name for name, _ in model.named_parameters()], torch.arange(12)[None] + 8
    adapter = LoraSettings(rank=4, alpha=8)
    add_adapter(model, adapter)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all("language_model" in name for name in trained)
    state = {name: torch.randn_like(one) * 0.1 for name, one in trained.items()}
    put_state(model, state)
    save_file({PREFIX + name: one for name, one in state.items()}, tmp_path / "state.safetensors")
    write_trained_backbone(
        tmp_path / "base",
        tmp_path / "state.safetensors",
        tmp_path / "trained",
        torch.float32,
        generates=generates,
        adapter=adapter,
    )
    plain = load_backbone(tmp_path / "trained", torch.float32, generates=generates)
    assert [name for name, _ in plain.named_parameters()] == names
    with torch.no_grad():
        adapted, merged = (one(input_ids=tokens)[0] for one in (model, plain))
    torch.testing.assert_close(merged, adapted, atol=2e-5, rtol=1e-4)


def test_a_state_of_another_model_is_refused() -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(EditLoopError, match=r"weight .* does not fit"):
        put_state(model, {"weight": torch.zeros(2, 3)})
    with pytest.raises(EditLoopError, match="no such parameter"):
        put_state(model, {"scale": torch.zeros(1)})

"""The rows of docs/gpu.md at tiny sizes on the CPU, and that whatever befalls a row is a row."""

import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from torch.utils.flop_counter import FlopCounterMode

from editloop.models.judge_protocol import REFERENCE_NOTE, note_on_references
from editloop.training.memory_plan import trained_weights
from tests.gpu.child import outcome_of, reason_of
from tests.gpu.conditions import Conditions, OutOfBoundsError, checked
from tests.gpu.flops import forward_flops, row_work, tree_work
from tests.gpu.machine import machine_facts, peak_tflops
from tests.gpu.page import LABELS, PAGE, page, read_figures
from tests.gpu.plain_reward import PlainReward
from tests.gpu.rows import ROWS, Row
from tests.gpu.run import outcome_of_call, run_rows
from tests.gpu.vision_language import TINY, qwen_config, random_reward, reward_preset, scale
from tests.measured_training import Drawn

EDITOR = {
    "weights_billions",
    "edits_per_second",
    "sampling_seconds",
    "updating_seconds",
    "mfu",
    "ratio_deviation",
    "peak_gib",
    "planned_gib",
}
REWARD_TRAINING = {
    "ratio",
    "edits_per_second",
    "plain_edits_per_second",
    "tokens_per_second",
    "token_ratio",
    "mfu",
    "waiting",
    "peak_gib",
    "plain_peak_gib",
    "planned_gib",
    "planned_whole_gib",
    "hidden_apart",
}
REWARD_SCORING = {
    "ratio",
    "edits_per_second",
    "plain_edits_per_second",
    "tokens_per_second",
    "mfu",
    "peak_gib",
    "hidden_apart",
}
FIGURES = {
    "precision": {"hidden_apart", "scores_apart", "loss", "loss_apart", "gradient_norm", "norm_apart"},
    "reward-training": REWARD_TRAINING,
    "reward-scoring": REWARD_SCORING,
    "reward-training-qwen3": REWARD_TRAINING,
    "reward-scoring-qwen3": REWARD_SCORING,
    "vision-attention": {"ratio", "pictures_per_second", "plain_pictures_per_second", "features_apart"},
    "loader": {"ratio", "pairs_per_second", "plain_pairs_per_second", "loader_threads"},
    "score-average": {
        "ratio",
        "returned_ratio",
        "edits_per_second",
        "plain_edits_per_second",
        "tokens_per_second",
        "answer_tokens",
        "prompt_tokens",
        "peak_gib",
        "logits_apart",
    },
    "rl-qwen-image-edit": EDITOR,
    "rl-kontext": EDITOR,
    "rl-omnigen2": EDITOR,
    "rl-klein": EDITOR,
    "offload": {f"zero{stage}_{name}" for stage in (2, 3) for name in ("edits_per_second", "peak_gib", "planned_gib")}
    | {"loss_apart"},
    "resume": {"steps", "loss", "loss_apart", "same_bits"},
}
NOT_KNOWN = {"mfu"} if not torch.cuda.is_available() else set()
MEASURED: dict[str, Any] = {"status": "ok", "reason": "", "figures": {}}


@pytest.fixture(scope="module")
def job() -> Iterator[None]:
    """The job of one process that rows join is left again."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            environment.setenv(name, "")
        threads = torch.get_num_threads()
        yield
        torch.set_num_threads(threads)
        if distributed.is_initialized():
            distributed.destroy_process_group()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_measures_what_the_page_shows(row: Row, job: None, tmp_path: Path) -> None:
    outcome = outcome_of(row, Conditions(True, tmp_path))
    assert (outcome["status"], outcome["reason"]) == ("ok", "")
    figures = outcome["figures"]
    assert figures.keys() == FIGURES[row.name] <= LABELS.keys()
    for name, value in figures.items():
        if name not in NOT_KNOWN | {"same_bits"}:
            assert math.isfinite(value), name
    if row.name == "resume":
        assert (figures["steps"], figures["same_bits"]) == (4.0, "yes")
    if row.name.startswith("reward-training"):
        assert figures["planned_whole_gib"] > figures["planned_gib"] > 0
        assert figures["token_ratio"] > 1


def test_whatever_a_row_raises_is_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Row("lost", "", "no_such_module:nothing", 1, 1)
    outcome = outcome_of(lost, Conditions(True, tmp_path))
    assert (outcome["status"], outcome["reason"]) == (
        "failed",
        "not available: No module named 'tests.gpu.no_such_module'",
    )
    memory = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB. GPU 0 has 80 GiB. More words.")
    assert reason_of(memory) == "out of memory: Tried to allocate 90 GiB"
    assert reason_of(ValueError("first\nsecond")) == "ValueError: first"

    def coarse(row: Row, conditions: Conditions) -> Any:
        return checked({"loss_apart": 0.5, "loss": 1.0}, {"loss_apart": 0.01})

    monkeypatch.setattr("tests.gpu.child.run_here", coarse)
    outcome = outcome_of(lost, Conditions(True, tmp_path))
    assert outcome["status"] == "out of bounds"
    assert outcome["reason"] == "loss_apart is 0.5, more than 0.01"
    assert outcome["figures"]["loss"] == 1.0
    with pytest.raises(OutOfBoundsError):
        checked({"loss_apart": math.nan}, {"loss_apart": 0.01})


@pytest.mark.parametrize(
    ("program", "seconds", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, f"ended by {signal.Signals.SIGSEGV.name}"),
        ("raise SystemExit(3)", 60, "ended with status 3"),
        ("import time; time.sleep(600)", 0.5, "not done after 0 s"),
    ],
)
def test_a_process_that_leaves_nothing_is_a_row(tmp_path: Path, program: str, seconds: float, reason: str) -> None:
    outcome = outcome_of_call([sys.executable, "-S", "-c", program], tmp_path / "outcome.json", seconds, {})
    assert (outcome["status"], outcome["figures"]) == ("failed", {})
    assert reason in outcome["reason"]


def test_rows_share_a_time_and_editors_that_are_smaller_than_one_that_fits_are_left_out() -> None:
    rows = [
        Row("large", "", "", 1, 100),
        Row("largest", "", "", 1, 7),
        Row("small", "", "", 1, 1, unless=("large",)),
        Row("middle", "", "", 1, 1, unless=("largest",)),
        Row("long", "", "", 1000, 1000),
    ]
    limits, reports = {}, []

    def measure(row: Row, seconds: float) -> dict[str, Any]:
        limits[row.name] = seconds
        return MEASURED if row.name != "largest" else MEASURED | {"status": "failed"}

    outcomes = run_rows(rows, measure, deadline=time.monotonic() + 60, report=lambda done: reports.append(len(done)))
    assert [outcome["status"] for outcome in outcomes] == ["ok", "failed", "skipped", "ok", "skipped"]
    assert outcomes[2]["reason"] == "a larger editor was measured (large)"
    assert "s were left of the time that all rows share; it needs about 1000" in outcomes[4]["reason"]
    assert limits["largest"] == 7
    assert 40 < limits["large"] <= 55
    assert reports == [1, 2, 3, 4, 5]


def test_the_page_is_that_of_the_figures_there_are() -> None:
    assert PAGE.read_text() == page(read_figures())


def test_a_page_has_every_row_with_its_reason_and_the_card() -> None:
    rows = [
        {
            "name": "a",
            "title": "First",
            "status": "ok",
            "reason": "",
            "seconds": 12.4,
            "figures": {"ratio": 1.5, "mfu": None},
        },
        {"name": "b", "title": "Second", "status": "failed", "reason": "out | of", "seconds": 3.0, "figures": {}},
    ]
    facts = machine_facts() | {
        "card": "NVIDIA H100 80GB HBM3",
        "memory_gib": 79.6,
        "driver": "1.2",
        "peak_tflops": 989.0,
    }
    text = page({"machine": facts, "size": "real", "seconds": 20.0, "rows": rows})
    assert "## Figures: NVIDIA H100 80GB HBM3" in text
    assert "79.6 GiB, driver 1.2" in text
    assert (
        "| **First** | ok (12 s) |\n| as fast as the plain way | 1.50x |\n| model FLOPs utilisation | not known |"
        in text
    )
    assert "| **Second** | failed: out / of (3 s) |" in text


def test_a_cards_peak_is_its_own() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA H100 PCIe") == 756
    assert peak_tflops("NVIDIA A100-SXM4-80GB") == 312
    assert peak_tflops("Radeon") is None


def test_operations_are_those_that_torch_counts() -> None:
    """Plain passes: all products with weights; attention's by its definition, torch counts it on some machines only."""
    model = random_reward(scale(True), torch.device("cpu"), torch.float32).eval()
    plain = PlainReward(model)
    group = Drawn(1, 2, 32)[0]
    batch = plain.collate([group])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain.states(batch)
    work = plain.work(batch)
    products = {"mm", "addmm", "convolution"}
    counts = counter.get_flop_counts()["Global"]
    linear = sum(count for name, count in counts.items() if name.__name__.split(".")[0] in products)
    pictures = len(work.grids) * 64 * 64
    attention = 4 * TINY.language.layers * 64 * work.pairs + 4 * TINY.vision.layers * 64 * pictures
    assert len(work.grids) == 8
    assert forward_flops(TINY, work) - attention == pytest.approx(linear, rel=0.03)
    shared = tree_work(model.collate([group]))
    lengths = model.collate([group])["nodes"][:, 1].tolist()
    assert shared.tokens == sum(lengths) < work.tokens
    assert sorted(shared.grids) == [64, 64, 64]
    alone = row_work(torch.zeros(1, 5), torch.ones(1, 3, dtype=torch.long))
    assert (alone.tokens, alone.pairs) == (5, 15)


def test_real_sizes_are_those_of_the_preset() -> None:
    """The backbone of 7 billion weights, without memory for them; the plan's tokens are those of the rubrics."""
    from transformers import Qwen2_5_VLModel

    from editloop.studies.tiny_models.backbone import byte_tokenizer
    from editloop.training.memory_plan import pass_tokens

    size = scale(False)
    with torch.device("meta"):
        backbone = Qwen2_5_VLModel._from_config(qwen_config(size.architecture, byte_tokenizer()))
    assert sum(weight.numel() for weight in backbone.parameters()) == size.architecture.weights
    small = scale(True)
    model = random_reward(small, torch.device("cpu"), torch.bfloat16)
    preset = reward_preset(small, steps=1, batch=2)
    assert sum(weight.numel() for weight in model.parameters()) == trained_weights(preset, preset.training)[0]
    planned = pass_tokens(preset, 1).language
    group = Drawn(1, 2, 32)[0]
    assert model.collate([group])["input_ids"].numel() == pytest.approx(planned, abs=12)
    more = preset.model_copy(update={"load": preset.load.model_copy(update={"references": 2})})
    sources = replace(group, references=[group.source, group.edits[0]])
    note = len(byte_tokenizer()(note_on_references(REFERENCE_NOTE, 2)).input_ids)
    texts = len(model.settings.rubrics) * len(group.edits) * note if model.settings.order == "official" else note
    found = model.collate([sources])["input_ids"].numel() - texts
    assert found == pytest.approx(pass_tokens(more, 1).language, abs=16)
    assert pass_tokens(more, 1).language > planned + 16

"""The plain way's update is the trainer's: what is compared in speed is two ways to the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from editloop.data.edits_file import EditRow, read_edits
from editloop.models.editors.opening import open_editor
from editloop.models.lora_settings import LoraSettings
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl import loop
from editloop.training.editor_rl.scoring import OracleJudge, RewardJudges
from editloop.training.editor_rl.settings import RlJob, RlSettings
from editloop.training.editor_rl.train import open_prompts, open_rl_editor
from tests.performance.plain_flow_factory import PlainFlowFactory, PlainNft, PublishedKontext
from tests.performance.rl_evaluations import Evaluations, calls_of
from tests.performance.rl_trainer import iterations
from tests.toy_editing import PlainEngine, one_rank

TASKS, MEMBERS, STEPS, LEVELS = 3, 4, 3, 2
EDITS = TASKS * MEMBERS


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[EditRow]:
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder, TASKS, 0)
    return list(read_edits(folder))


@pytest.fixture(autouse=True)
def _rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loop, "start_engine", PlainEngine)
    with one_rank():
        yield


def settings_of(algorithm: dict[str, Any], **more: Any) -> RlSettings:
    sizes = {"tasks": TASKS, "members": MEMBERS, "micro_batch": TASKS, "sampling_steps": STEPS}
    return RlSettings(
        algorithm=algorithm,
        adapter=LoraSettings(rank=4, alpha=8),
        precision="fp32",
        gradient_clip=1e9,
        learning_rate=0.5,
        **sizes,
        **more,
    )


def plain_trainer(rows: list[EditRow], settings: RlSettings) -> PlainFlowFactory:
    opened = open_editor("tiny-editor")
    kind = PlainNft if settings.algorithm.name == "nft" else PlainFlowFactory
    torch.manual_seed(settings.seed)
    return kind(PublishedKontext(opened.pipeline, opened.settings), rows, OracleJudge(rows), settings)


def trained_plainly(rows: list[EditRow], settings: RlSettings, iterations: int) -> list[Tensor]:
    plain = plain_trainer(rows, settings)
    plain.updates = 1  # type: ignore[misc]  # as many as the trainer makes, for this test
    plain.optimiser = torch.optim.SGD(plain.trained, lr=settings.learning_rate)
    for number in range(iterations):
        plain.iteration(number)
    return [one.detach() for one in plain.trained]


def trained_here(rows: list[EditRow], settings: RlSettings, count: int, folder: Path) -> list[Tensor]:
    job = RlJob(
        edits=folder,
        output=folder,
        editor="tiny-editor",
        rewards={"oracle": 1.0},
        settings=settings,
        checkpoints=folder / "checkpoints",
    )
    editor, trained = open_rl_editor("tiny-editor", settings)
    prompts = open_prompts(job, rows, editor)
    judges = RewardJudges({"oracle": OracleJudge(rows)}, patience=0.0)
    training = loop.Training(job, editor, trained, prompts, judges)
    iterate = iterations(training)
    for number in range(count):
        iterate.run(number, set(), measured=False)
        training.algorithm.end_iteration(number + 1)
    judges.close()
    return [one.detach() for one in trained]


CASES: dict[str, RlSettings] = {
    "flow-grpo": settings_of({"name": "flow-grpo", "window": 1, "window_range": 2}, kl=0.04, advantage_scale="batch"),
    "flow-grpo without a KL term": settings_of({"name": "flow-grpo", "window": 1, "window_range": 2}, kl=0.0),
    "nft": settings_of({"name": "nft", "levels": 1}, kl=0.2),
    "nft without a KL term": settings_of({"name": "nft", "levels": 1}, kl=0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_make_the_same_update(case: str, rows: list[EditRow], tmp_path: Path) -> None:
    settings = CASES[case]
    plain, here = trained_plainly(rows, settings, 2), trained_here(rows, settings, 2, tmp_path)
    start = [one.detach() for one in plain_trainer(rows, settings).trained]
    moved = torch.cat([(one - begun).flatten() for one, begun in zip(here, start, strict=True)])
    apart = torch.cat([(one - other).flatten() for one, other in zip(here, plain, strict=True)])
    assert moved.norm() > 1e-4
    assert apart.norm() < 1e-3 * moved.norm()


@pytest.mark.parametrize(
    ("algorithm", "without", "back"),
    [
        ({"name": "flow-grpo", "window": 2, "window_range": 2}, STEPS + 2, 2),
        ({"name": "nft", "levels": LEVELS}, STEPS + 2 * LEVELS, LEVELS),
    ],
)
def test_the_network_is_asked_as_often_as_by_the_published_code(
    algorithm: dict[str, Any], without: int, back: int, rows: list[EditRow]
) -> None:
    for kl in (0.0, 0.1):
        plain = plain_trainer(rows, settings_of(algorithm, kl=kl))
        steps: list[int] = []
        plain.optimiser.register_step_post_hook(lambda *_, steps=steps: steps.append(1))
        with calls_of(plain.editor, "velocity") as counted, calls_of(plain.editor, "encode") as encoded:
            plain.iteration(0)
        of_the_base = 0 if kl else back
        assert Evaluations.of(counted) == ((without - of_the_base) * EDITS, back * EDITS)
        assert len(steps) == plain.updates == 2
        assert not encoded, "the data set was encoded before"
        assert plain.encodings == TASKS

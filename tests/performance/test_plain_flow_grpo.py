"""What online RL is held against does the work of the published code: no more, so that no claim is too large."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from editloop.data.edits_file import EditRow, read_edits
from editloop.models.editors.opening import open_editor
from editloop.models.judge_protocol import EditGroup, Score
from editloop.models.lora_settings import LoraSettings
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.scoring import OracleJudge
from editloop.training.editor_rl.settings import RlSettings
from tests.performance.plain_flow_grpo import PlainFlowGrpo
from tests.performance.rl_evaluations import Evaluations, calls_of

TASKS, MEMBERS, STEPS = 2, 4, 3
EDITS = TASKS * MEMBERS


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[EditRow]:
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder, TASKS, 0)
    return list(read_edits(folder))


def trainer(rows: list[EditRow], **more: float) -> PlainFlowGrpo:
    settings = RlSettings(
        algorithm=FlowGrpoSettings(window=2, window_range=2),
        tasks=TASKS,
        members=MEMBERS,
        micro_batch=TASKS,
        sampling_steps=STEPS,
        adapter=LoraSettings(rank=4, alpha=4),
        **more,
    )
    return PlainFlowGrpo(open_editor("tiny-editor"), rows, OracleJudge(rows), settings)


def test_an_iteration_encodes_each_edit_and_moves_the_adapter(rows: list[EditRow]) -> None:
    plain = trainer(rows)
    steps = []
    plain.optimiser.register_step_post_hook(lambda *_: steps.append(1))
    before = [one.detach().clone() for one in plain.trained]
    assert 0 < plain.iteration(0) < 1
    assert plain.encodings == EDITS
    assert len(steps) == plain.updates
    moved = [float((now.detach() - then).abs().max()) for now, then in zip(plain.trained, before, strict=True)]
    assert max(moved) == pytest.approx(plain.updates * plain.settings.learning_rate, rel=0.1), "as AdamW begins"
    assert all(torch.isfinite(one).all() for one in plain.trained)


def test_the_network_is_asked_for_each_step_once_and_for_each_trained_step_once_more(rows: list[EditRow]) -> None:
    for kl, of_the_base in ((0.0, 0), (0.1, 2 * EDITS)):
        plain = trainer(rows, kl=kl)
        with calls_of(plain.editor, "velocity") as counted:
            plain.iteration(0)
        assert Evaluations.of(counted) == (STEPS * EDITS + of_the_base, 2 * EDITS)


def test_log_probabilities_are_those_of_sampling(rows: list[EditRow]) -> None:
    plain = trainer(rows)
    trajectories, groups = plain.sample(0, [(task, 0) for task in range(TASKS)])
    assert [len(group.edits) for group in groups] == [1] * TASKS
    for place, step in enumerate(plain.trained_steps(0)):
        now = plain.evaluate(trajectories, place, step)[0].detach()
        torch.testing.assert_close(now, trajectories.log_probs[:, place], atol=1e-4, rtol=1e-4)


class Indifferent(OracleJudge):
    """Thinks all edits of the first task alike."""

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        scores = super().judge(groups)
        first = next(iter(self._targets))
        return [
            [replace(one, reward=0.5) for one in of_group] if group.key == first else of_group
            for group, of_group in zip(groups, scores, strict=True)
        ]


def test_edits_that_teach_nothing_are_not_trained_on(rows: list[EditRow]) -> None:
    plain = trainer(rows, kl=0.0)
    plain.judge = Indifferent(rows)
    with calls_of(plain.editor, "velocity") as counted:
        plain.iteration(0)
    assert Evaluations.of(counted).with_gradient == 2 * MEMBERS

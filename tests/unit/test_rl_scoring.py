"""Judges that teach: away for a while or for good, slow, without a number, another one than before."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from editloop.data.edits_file import EditRow, read_edits
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, EditGroup, JudgeUnavailableError, Score, StaleJudgeError
from editloop.studies.world.scenes import write_edits
from editloop.training.editor_rl import scoring
from editloop.training.editor_rl.scoring import OracleJudge, PendingRewards, RewardJudges, open_reward_judges

PICTURE = np.zeros((8, 8, 3), np.uint8)
SOON = 20.0
"""Seconds within which what must come has come."""


def told(value: float) -> Score:
    belief = AxisScore(value, 0.1)
    return Score({"one": belief}, belief, value, value)


class StandIn:
    """A judge that does what it is told, call by call: raise, or give these rewards to each group."""

    name = version = "stand-in"
    axes = ("one",)

    def __init__(self, *deeds: Exception | list[Score] | Callable[[], list[Score]]):
        self.deeds = list(deeds)
        self.asked: list[int] = []

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        self.asked.append(len(groups))
        deed = self.deeds.pop(0)
        if isinstance(deed, Exception):
            raise deed
        return [deed if isinstance(deed, list) else deed() for _ in groups]


def groups(count: int = 1) -> list[EditGroup]:
    return [EditGroup("make it blue", PICTURE, [PICTURE, PICTURE], f"task {place}") for place in range(count)]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "FIRST_PAUSE", 0.01)


def asked(judge: StandIn, patience: float = 60.0, count: int = 1) -> PendingRewards:
    found = RewardJudges({"stand-in": judge}, patience=patience).ask(groups(count))
    assert found.wait(SOON)
    return found


def test_a_judge_that_is_away_for_a_while_is_waited_for(pauses: None, caplog: pytest.LogCaptureFixture) -> None:
    away = JudgeUnavailableError("no connection.")
    judge = StandIn(away, away, [told(0.25), told(0.75)])
    answer = asked(judge, count=2).answers()["stand-in"]
    assert answer.rewards.tolist() == [[0.25, 0.75], [0.25, 0.75]]
    assert judge.asked == [2, 2, 2]
    assert caplog.text.count("stand-in: no connection. Asked again in 0 s.") == 2


def test_a_judge_that_stays_away_is_an_error_when_patience_ends(pauses: None) -> None:
    judge = StandIn(*[JudgeUnavailableError("no connection.")] * 1000)
    with pytest.raises(JudgeUnavailableError, match=r"stand-in: no connection\..*judge_patience 0\.1\).*call again"):
        asked(judge, patience=0.1).answers()
    assert len(judge.asked) > 1


def test_who_gives_up_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a pause."""
    monkeypatch.setattr(scoring, "FIRST_PAUSE", 1000.0)
    teachers = RewardJudges({"stand-in": StandIn(*[JudgeUnavailableError("no connection.")] * 9)}, patience=1e6)
    found = teachers.ask(groups())
    assert not found.wait(0.05)
    teachers.give_up()
    assert found.wait(SOON)
    with pytest.raises(JudgeUnavailableError, match="no connection"):
        found.answers()


@pytest.mark.parametrize("error", [StaleJudgeError("another model answers."), EditLoopError("a group of 900 edits.")])
def test_another_model_or_a_refusal_ends_at_once(error: EditLoopError) -> None:
    judge = StandIn(error, [told(0.5), told(0.5)])
    with pytest.raises(type(error), match=str(error)):
        asked(judge).answers()
    assert judge.asked == [1]


def test_what_is_no_number_is_missing_and_its_reason_counted() -> None:
    infinite, silent = told(float("nan")), Score(missing="no JSON in the answer")
    answer = asked(StandIn([infinite, silent, told(0.5), Score({"two": AxisScore(1, 0)})])).answers()["stand-in"]
    assert answer.rewards.isfinite().tolist() == [[False, False, True, False]]
    assert answer.rewards[0, 2] == 0.5
    assert answer.missing == Counter(
        {
            "the judge's score is not a finite number": 1,
            "no JSON in the answer": 1,
            "the judge left out a number; it scores one, fused, overall and reward": 1,
        }
    )


def test_a_slow_judge_holds_nobody_up_until_its_answer_is_wanted() -> None:
    go = threading.Event()

    def slowly() -> list[Score]:
        assert go.wait(SOON)
        return [told(0.5)]

    fast = StandIn([told(0.1)], [told(0.2)])
    teachers = RewardJudges({"slow": StandIn(slowly, [told(0.7)]), "fast": fast}, patience=60)
    first, second = teachers.ask(groups()), teachers.ask(groups())
    assert not first.wait(0.05)
    go.set()
    assert first.wait(SOON)
    assert second.wait(SOON)
    assert {name: answer.rewards.tolist() for name, answer in first.answers().items()} == {
        "slow": [[0.5]],
        "fast": [[pytest.approx(0.1)]],
    }
    assert second.answers()["slow"].rewards.tolist() == [[pytest.approx(0.7)]]
    teachers.close()


@pytest.mark.parametrize(
    ("address", "elsewhere"),
    [("http://host:1", True), ("openai:http://host/v1#m", True), ("models:/reward@champion", False), ("oracle", False)],
)
def test_who_is_elsewhere_is_told_by_the_address(address: str, elsewhere: bool) -> None:
    assert RewardJudges({"oracle": StandIn(), address: StandIn()}, patience=1).elsewhere == elsewhere


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[EditRow]:
    folder = tmp_path_factory.mktemp("edits")
    write_edits(folder, 2, 1)
    return list(read_edits(folder))


def test_the_oracle_likes_the_right_result_best(rows: list[EditRow]) -> None:
    pictures = [[np.asarray(scoring.load_image(path)) for path in (row.source, row.target)] for row in rows]  # type: ignore[arg-type]
    found = OracleJudge(rows).judge(
        [
            EditGroup(row.instruction, source, [source, target], row.id)
            for row, (source, target) in zip(rows, pictures, strict=True)
        ]
    )
    for unchanged, right in found:
        assert right.reward == pytest.approx(1.0)
        assert unchanged.reward is not None
        assert unchanged.reward < 0.9


def test_an_oracle_without_right_results_and_a_reward_of_another_size_are_refused(rows: list[EditRow]) -> None:
    with pytest.raises(EditLoopError, match="not every task has a `target`"):
        open_reward_judges(["oracle"], [replace(rows[0], target=None)], [(32, 32)], patience=1)
    with pytest.raises(EditLoopError, match="the editor makes 64x48"):
        open_reward_judges(["tiny-reward"], rows, [(32, 32), (48, 64)], patience=1)

"""Judges that did not teach an editor: a reward model's preferences, and people's from a file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.evaluation import second_opinion
from editloop.evaluation.gates.settings import IndependentJudge
from editloop.evaluation.second_opinion import HumanOpinion, read_preferences, second_opinions
from editloop.models.judge_protocol import Score


class Brightness:
    """Likes bright edits; does not answer on black ones, and refuses whole calls with white ones."""

    name, version, axes = "brightness", "b" * 64, ("if",)

    def judge(self, groups):
        if any((edit == 255).all() for group in groups for edit in group.edits):
            raise EditLoopError("white")
        return [
            [Score(overall=float(edit.mean())) if edit.any() else Score(missing="black") for edit in group.edits]
            for group in groups
        ]


@pytest.fixture
def rows(tmp_path: Path) -> list[EditRow]:
    found = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((16, 16, 3), number // 2, np.uint8)).save(path)
        found.append(EditRow(f"row {number}", "recolour", "brighter", path))
    return found


def pictures(*levels) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), level, np.uint8) for level in levels])


def test_a_reward_model_prefers_what_it_scores_higher_and_its_silence_is_missing(rows, monkeypatch):
    monkeypatch.setattr(second_opinion, "open_judge", lambda address: Brightness())
    (opinion,) = second_opinions([IndependentJudge(judge="models:/x@champion", tasks=4)], rows, "c" * 64)
    opinion.observe(0, rows[:3], pictures(1, 1, 1), pictures(10, 20, 30), pictures(20, 10, 30))
    opinion.observe(3, rows[3:], pictures(1, 1), pictures(0, 5), pictures(7, 9))
    said = opinion.agreement()
    assert said.preferences[:3].tolist() == [1, -1, 0]
    assert np.isnan(said.preferences[3])
    assert len(said.preferences) == 4  # the fifth task is beyond what it is asked
    assert said.clusters[0] == said.clusters[1] != said.clusters[2]  # rows 0 and 1 are edits of one picture
    assert not said.trained_it
    (opinion,) = second_opinions([IndependentJudge(judge="models:/x@champion")], rows, "c" * 64)
    opinion.observe(0, rows[:3], pictures(1, 1, 1), pictures(10, 255, 30), pictures(20, 10, 20))
    assert opinion.agreement().preferences[:3].tolist() == pytest.approx([1, np.nan, -1], nan_ok=True)
    (teacher,) = second_opinions([IndependentJudge(judge="models:/x@champion")], rows, "b" * 64)
    assert teacher.agreement().trained_it


def test_peoples_verdicts_are_read_left_for_the_base_and_right_for_the_tuned(rows, tmp_path):
    file = tmp_path / "people.jsonl"
    lines = [f'{{"key": "row {k}", "verdict": "{v}"}}' for k, v in enumerate(("left", "right", "tie", "both_bad"))]
    file.write_text("\n".join(lines) + "\n")
    (opinion,) = second_opinions([IndependentJudge(judge=f"verdicts:{file}")], rows, "c" * 64)
    assert isinstance(opinion, HumanOpinion)
    assert opinion.agreement().preferences.tolist() == [-1, 1, 0, 0]


def test_faults_of_peoples_verdicts_are_all_told(rows, tmp_path):
    file = tmp_path / "people.jsonl"
    file.write_text(
        '{"key": "row 1", "verdict": "up"}\nno json\n{"key": "a", "verdict": "tie"}\n{"key": "a", "verdict": "tie"}'
    )
    with pytest.raises(EditLoopError) as error:
        read_preferences(file)
    told = str(error.value)
    assert "3 fault(s)" in told
    assert "line 1: verdict 'up'; one of left, right, tie, both_bad" in told
    assert "line 2: not a JSON object" in told
    assert "line 4: key 'a' came before" in told
    file.write_text('{"key": "row 9", "verdict": "tie"}')
    with pytest.raises(EditLoopError, match="'row 9' is no held-out task"):
        second_opinions([IndependentJudge(judge=f"verdicts:{file}")], rows, "c" * 64)
    with pytest.raises(EditLoopError, match="no such file"):
        read_preferences(tmp_path / "none.jsonl")

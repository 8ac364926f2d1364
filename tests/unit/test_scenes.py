"""The drawn world and its oracle: one right result, and scores that fall with what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from editloop.data.edits_file import read_edits
from editloop.data.picture_file import load_image
from editloop.evaluation.oracle import oracle
from editloop.studies.world.scenes import OPERATIONS, WORDS, random_edit, write_edits


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_target_is_right_and_the_source_is_not(operation):
    rng = np.random.default_rng(0)
    for _ in range(50):
        task = random_edit(rng, operation)
        assert set(task.instruction.split()) <= set(WORDS)
        perfect, idle = (oracle(task.source, task.target, edit) for edit in (task.target, task.source))
        assert (perfect.instruction_following, perfect.visual_quality, perfect.right) == (1, 1, True)
        assert idle.instruction_following == pytest.approx(0, abs=1e-6)
        assert not idle.right


def test_scores_fall_with_distance():
    task = random_edit(np.random.default_rng(3), "recolour")
    source, target = task.source.astype(float), task.target.astype(float)
    halves = [
        oracle(task.source, task.target, (target * share + source * (1 - share)).astype(np.uint8))
        for share in (0.2, 0.5, 0.8)
    ]
    following = [float(half.instruction_following) for half in halves]
    assert following == pytest.approx([0.2, 0.5, 0.8], abs=0.03)
    noise = np.random.default_rng(0).normal(0, 1, target.shape)
    qualities = [
        float(oracle(task.source, task.target, np.clip(target + level * noise, 0, 255).astype(np.uint8)).visual_quality)
        for level in (0, 20, 60)
    ]
    assert qualities[0] == 1
    assert qualities[0] > qualities[1] > qualities[2]


def test_a_batch_is_scored_as_its_members():
    rng = np.random.default_rng(5)
    tasks = [random_edit(rng) for _ in range(4)]
    sources, targets = (np.stack([getattr(task, role) for task in tasks]) for role in ("source", "target"))
    edits = gaussian_filter(targets, (0, 1, 1, 0))
    together = oracle(sources, targets, edits)
    for index in range(4):
        alone = oracle(sources[index], targets[index], edits[index])
        assert alone.mean == pytest.approx(together.mean[index], abs=1e-6)


def test_a_drawn_file_is_a_clean_edits_file(tmp_path: Path):
    write_edits(tmp_path / "edits", 700, 0)
    rows = read_edits(tmp_path / "edits")
    assert len(rows) == 700
    assert load_image(rows[0].source).size == (32, 32)

"""What online RL is held against: plain Flow-GRPO opens each edit's task anew, judges each edit alone, and learns."""

import pytest
import torch

from annotation.formats.edits_file import read_edits
from annotation.simulation.scenes import write_edits
from components.editor_rl.scoring import OracleJudge
from components.editor_rl.settings import RlSettings
from components.editors.opening import open_editor
from tests.performance.plain_flow_grpo import UPDATES, PlainFlowGrpo

TASKS, MEMBERS = 2, 4


def test_an_iteration_encodes_each_edit_and_moves_the_adapter(tmp_path):
    write_edits(tmp_path, TASKS, 0)
    rows = list(read_edits(tmp_path))
    settings = RlSettings(
        algorithm="flow-grpo", tasks=TASKS, members=MEMBERS, steps=2, window=2, window_range=2, rank=4, alpha=4
    )
    plain = PlainFlowGrpo(open_editor("tiny-editor"), rows, OracleJudge(rows), settings)
    steps = []
    plain.optimiser.register_step_post_hook(lambda *_: steps.append(1))
    before = [one.detach().clone() for one in plain.trained]
    assert 0 < plain.iteration(0) < 1
    assert plain.encodings == TASKS * MEMBERS
    assert len(steps) == UPDATES
    moved = [float((now.detach() - then).abs().max()) for now, then in zip(plain.trained, before, strict=True)]
    assert max(moved) == pytest.approx(UPDATES * settings.learning_rate, rel=0.1), "as AdamW begins"
    assert all(torch.isfinite(one).all() for one in plain.trained)

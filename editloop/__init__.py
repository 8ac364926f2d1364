"""EditLoop: reward models that learn experts' preferences between image edits, and editors that learn from them.

    import editloop

    judge = editloop.open_judge("models/EditReward-MiMo-VL-7B")
    group = editloop.EditGroup("make the hat red", source, [edit_a, edit_b])    # uint8 arrays (height, width, 3)
    scores = judge.judge([group])[0]                                            # one score an edit

Names below are imported when they are first used, so that `import editloop` costs nothing.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editloop.errors import EditLoopError
    from editloop.evaluation.gates.decision import SuiteMeasurement, decide
    from editloop.evaluation.gates.settings import read_gate
    from editloop.evaluation.suites.answers import judge_suite
    from editloop.evaluation.suites.evaluation import evaluate
    from editloop.evaluation.suites.opening import open_suite
    from editloop.lineage.verify import verify_lineage
    from editloop.models.editors.opening import open_editor
    from editloop.models.editors.sampling import edit
    from editloop.models.judge_protocol import EditGroup, Judge, Score
    from editloop.scoring.opening import open_judge
    from editloop.scoring.score_file import ScoringSettings, score_edits
    from editloop.training.reward_models import train_reward_model

__all__ = [
    "EditGroup",
    "EditLoopError",
    "Judge",
    "Score",
    "ScoringSettings",
    "SuiteMeasurement",
    "decide",
    "edit",
    "evaluate",
    "judge_suite",
    "open_editor",
    "open_judge",
    "open_suite",
    "read_gate",
    "score_edits",
    "train_reward_model",
    "verify_lineage",
]

_MODULES = {
    "EditGroup": "editloop.models.judge_protocol",
    "EditLoopError": "editloop.errors",
    "Judge": "editloop.models.judge_protocol",
    "Score": "editloop.models.judge_protocol",
    "ScoringSettings": "editloop.scoring.score_file",
    "SuiteMeasurement": "editloop.evaluation.gates.decision",
    "decide": "editloop.evaluation.gates.decision",
    "edit": "editloop.models.editors.sampling",
    "evaluate": "editloop.evaluation.suites.evaluation",
    "judge_suite": "editloop.evaluation.suites.answers",
    "open_editor": "editloop.models.editors.opening",
    "open_judge": "editloop.scoring.opening",
    "open_suite": "editloop.evaluation.suites.opening",
    "read_gate": "editloop.evaluation.gates.settings",
    "score_edits": "editloop.scoring.score_file",
    "train_reward_model": "editloop.training.reward_models",
    "verify_lineage": "editloop.lineage.verify",
}

logging.getLogger("editloop").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'editloop' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__

"""The summary of one turn of the loop, from MLflow's runs and the stages' files: DIR/summary.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editloop.content import RESTORE, read_manifest
from editloop.datasets.repository import read_version
from editloop.errors import EditLoopError
from editloop.json_file import read_json_object
from editloop.lineage import tracking
from editloop.lineage.chain import Chain
from editloop.lineage.stored_folders import recorded_folder
from pipelines.catalogue import STAGES
from pipelines.inputs import Inputs
from pipelines.reconcile import EDITOR_CHAMPION, LAST_STAGE, REWARD_CHAMPION
from pipelines.settings import LoopSettings

TURN_STAGES = tuple(name for name, stage in STAGES.items() if stage.pipelines[0] in LAST_STAGE)
"""Stages of a turn: those of the pipelines that start one after the other."""
ANNOTATION_KEYS = (
    "tasks",
    "pages",
    "judgements",
    "annotators",
    "cannot",
    "conflicts",
    "decisions",
    "gates",
    "accepted",
    "answers_sha256",
)
"""Facts of the campaign that summary.json copies from collect's summary."""


CHAMPIONS = {"reward": REWARD_CHAMPION, "editor": EDITOR_CHAMPION}
"""Addresses of the models that a turn makes."""


@dataclass
class Turn:
    """The stages that finished: their outputs, how they ended, and their duration."""

    outputs: dict[str, Path] = field(default_factory=dict)
    """Output folder by stage."""
    versions: dict[str, Path] = field(default_factory=dict)
    """Version file by stage, for stages that write one."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Row of summary.json by stage: {"name", "pipeline", "status", "seconds", "run_id"}."""

    def read(self, key: str) -> None:
        """Add the finished stages of a pipeline run. Of several tries of a stage, the last finished one counts.

        Args:
            key: Key of the pipeline run.
        """
        for run in reversed(tracking.find_runs(pipeline_run=key, finished=True)):
            stage, tags = run.data.tags.get("editloop.stage"), run.data.tags
            if stage not in STAGES:
                continue
            if output := recorded_folder(tags, "output"):
                self.outputs[stage] = output
            if version := recorded_folder(tags, "version"):
                self.versions[stage] = version
            self.stages[stage] = {
                "name": stage,
                "pipeline": STAGES[stage].pipelines[0],
                "status": "done",
                "seconds": run.data.metrics["seconds"],
                "run_id": run.info.run_id,
            }

    def file(self, stage: str, name: str) -> dict[str, Any]:
        """Return the object in a JSON file of a stage's output; empty where the stage did not run or has no such file.

        Args:
            stage: The stage.
            name: Name of the file.

        Raises:
            EditLoopError: The file is damaged.
        """
        path = self.outputs[stage] / name if stage in self.outputs else None
        return read_json_object(path, RESTORE) if path and path.is_file() else {}


def summarise(
    turn: Turn, loop: LoopSettings, inputs: Inputs, chains: dict[str, Chain], experts: str, seconds: float
) -> dict[str, Any]:
    """Return the content of summary.json.

    A stage that did not run has the status "not run". Its figures are missing or null.

    Args:
        turn: The stages that finished.
        loop: Settings of the turn.
        inputs: The three edits folders.
        chains: Lineage of the champions, by `reward` and `editor`.
        experts: `simulated` or `human`.
        seconds: Duration of the whole call.

    Raises:
        EditLoopError: Stage collect, dataset or promote has not finished.
    """
    for needed in ("collect", "dataset", "promote"):
        if needed not in turn.outputs:
            raise EditLoopError(f"MLflow knows no finished run of stage {needed}; run the demo again.")
    collected, agreement = turn.file("collect", "summary.json"), turn.file("collect", "agreement.json")
    facts = read_manifest(turn.outputs["dataset"])
    version = read_version(turn.versions["dataset"])
    evaluation = turn.file("editor_eval", "evaluation.json")
    waiting = {"status": "not run", "seconds": 0.0}
    return {
        "seed": loop.seed,
        "experts": experts,
        "settings": loop.model_dump(mode="json", exclude_unset=True),
        "inputs": {name: read_manifest(getattr(inputs, name))["sha256"] for name in ("judged", "prompts", "heldout")},
        "stages": [
            turn.stages.get(stage, {"name": stage, "pipeline": STAGES[stage].pipelines[0]} | waiting)
            for stage in TURN_STAGES
        ],
        "annotation": {
            **{key: collected[key] for key in ANNOTATION_KEYS},
            "alpha": {axis: agreement[axis]["alpha"] for axis in ("if", "vq")},
        },
        "dataset": {
            "pairs": facts["facts"]["pairs"],
            "groups": facts["facts"]["groups"],
            "sha256": facts["sha256"],
            "dvc_rev": version["dvc_rev"],
            "tag": version["tag"],
        },
        "reward": {
            **turn.file("benchmark", "benchmark.json"),
            "model_version": turn.file("promote", "promotion.json")["version"],
            "train_pairs": facts["facts"]["splits"]["train"]["pairs"],
        },
        "gate": {
            "reward": turn.file("benchmark", "gate.json"),
            "editor": turn.file("editor_eval", "gate.json") or {"verdict": "not run", "reasons": ["no new champion"]},
        },
        "training": _training(turn.file("editor_rl", "training.json")),
        "editor": evaluation or None,
        "verify": {name: {"model": chain.model} | chain.summary() for name, chain in chains.items()},
        "seconds": seconds,
    }


def _training(training: dict[str, Any]) -> dict[str, Any] | None:
    """Summarise the editor's RL: iterations, reason of an early stop, and the first and the last evaluation."""
    if not training:
        return None
    first, last = training["evaluations"][0], training["evaluations"][-1]
    return {"iterations": len(training["steps"]), "stopped": training["reason"], "first": first, "last": last}

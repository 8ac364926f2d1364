"""The editor_rl stage: online RL of the editor. The champion reward model gives the reward; other judges may watch."""

import json
import shutil
from pathlib import Path
from typing import Any

from components.editor_rl.declaration import EditorRlParameters
from editloop.content import complete_folder, sha256_json
from editloop.data.edits_file import read_edits
from editloop.lineage.tracking import digest
from editloop.training.job import HISTORY_FILE, RESULT_FOLDER, launch_job, remove_when_delivered, work_folder
from infra.launch import launch


def run_editor_rl(edits: Path, output: Path, parameters: EditorRlParameters) -> dict[str, float]:
    """Improve `editor` on the tasks of an edits folder, by a preset.

    A call that was stopped resumes at its last checkpoint.

    Args:
        edits: Edits folder of the tasks to practise.
        output: Folder to write: `editor/` (a complete pipeline folder, with the adapter merged), `training.json` and
            `evaluations.json` (curves), `sheets/` and `page.html`.
        parameters: The stage's parameters.

    Returns:
        Figures of the first and of the last evaluation (`..._first`, `..._last`), `kl` and `missing` where the training
        has them, `iterations`, `best` (iteration) and `stopped` (1 if the training was stopped early).

    Raises:
        EditLoopError: There is no champion, or the settings cannot work (`check_job`). No process of the training has
            started then.
    """
    from editloop.evaluation.editors import split_held_out
    from editloop.models.editors.opening import find_editor
    from editloop.training.editor_rl.preflight import check_job
    from editloop.training.editor_rl.reward_source import champion_reward_source
    from editloop.training.editor_rl.settings import RlJob, read_rl_preset

    overrides = parameters.model_dump(include={"iterations", "tasks", "members", "learning_rate"})
    overrides = {name: value for name, value in overrides.items() if value} | {"seed": parameters.seed}
    settings = read_rl_preset(parameters.preset, **overrides)
    rows = read_edits(edits)
    reward_source, start = champion_reward_source(parameters.reward), find_editor(parameters.editor)
    watching = parameters.watch.split()
    practised, held_out = split_held_out(rows, settings.evaluation_tasks, settings.seed)
    check_job(practised, held_out, start, reward_source, settings, watching, parameters.processes)
    facts: dict[str, Any] = {
        "editor": parameters.editor,
        "judge": reward_source.name,
        "reward_sha256": reward_source.sha256,
        "preset": parameters.preset,
        "training": settings.model_dump(mode="json"),
        "watch": watching,
        "seed": parameters.seed,
        "base_sha256": digest(start),
    }
    content = [facts, digest(edits)]
    folder = work_folder(output, "editor-rl", content)
    result_folder = folder / RESULT_FOLDER
    job = RlJob(
        edits=edits.absolute(),
        output=result_folder,
        editor=str(start.absolute()),
        rewards={reward_source.address: 1.0},
        watch=watching,
        settings=settings,
        checkpoints=folder,
        facts={"what": sha256_json(content)},
    )
    launch_job("editloop.training.editor_rl.train", job, processes=parameters.processes, launch=launch)
    curves, evaluations = (
        json.loads((result_folder / name).read_text()) for name in (HISTORY_FILE, "evaluations.json")
    )
    with complete_folder(output, facts) as out:
        shutil.copytree(result_folder, out, dirs_exist_ok=True)
    remove_when_delivered(folder)
    return _figures(curves, evaluations)


def _figures(curves: dict[str, Any], evaluations: list[dict[str, Any]]) -> dict[str, float]:
    """Return the stage's metrics, from the first and the last evaluation and the end of the training."""
    first, last = evaluations[0], evaluations[-1]
    names = ("reward", "oracle", "right", "preservation", "diversity")
    measured: dict[str, dict[str, float]] = {"first": first["figures"], "last": last["figures"]}
    training: dict[str, float] = last["training"]
    figures = {f"{name}_{when}": values[name] for name in names for when, values in measured.items() if name in values}
    figures |= {name: value for name, value in training.items() if name in ("kl", "missing")}
    return figures | {
        "iterations": float(len(curves["steps"])),
        "stopped": float(bool(last["stopped"])),
        "best": float(last["best_iteration"]),
    }

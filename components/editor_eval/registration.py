"""A tuned editor into the registry, with the reward model that it learnt from."""

import json
import shutil
import tempfile
from pathlib import Path

from components.promote.stage import register
from infra import tracking
from infra.content import MANIFEST, complete_folder, read_manifest, write_json
from infra.errors import EditLoopError


def register_editor(
    evaluation: Path, tuned: Path, promotion: Path, pipeline_run: str, *, name: str = "editor"
) -> dict[str, float]:
    """Register `tuned`/editor as its gate says, and write `promotion` (JSON, as the promote stage's promotion.json).

    Raises EditLoopError when the run that tuned it does not tell which registered reward version it used.
    """
    gate = json.loads((evaluation / "gate.json").read_text())
    run = tracking.client().get_run(tracking.run_that_made("editor_rl", tracking.digest(tuned / "editor")))
    reward_version = run.data.tags.get("editloop.reward_version")
    if not reward_version:
        raise EditLoopError(f"Run {run.info.run_id} names no registered reward model; tune with a champion of MLflow.")
    tags = {
        "editloop.reward_version": reward_version,
        "editloop.evaluation_sha256": str(read_manifest(evaluation)["sha256"]),
    }
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "editor"
        with complete_folder(model) as folder:
            shutil.copytree(
                tuned / "editor", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json")
            )
        promoted = register(name, model, gate, stage="editor_rl", pipeline_run=pipeline_run, tags=tags)
    write_json(promotion, promoted)
    return {"model_version": float(promoted["version"]), "promoted": float(promoted["alias"] == tracking.CHAMPION)}

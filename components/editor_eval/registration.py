"""A tuned editor into the registry, with the reward model that it learnt from."""

import shutil
import tempfile
from pathlib import Path

from components.promote.card import Link
from components.promote.registration import register
from infra import registry
from infra.content import complete_folder, read_manifest, write_json
from infra.errors import EditLoopError


def register_editor(
    evaluation: Path,
    tuned: Path,
    promotion: Path,
    pipeline_run: str,
    *,
    name: str = "editor",
    reward: str = "edit-reward",
) -> dict[str, float]:
    """Register `tuned`/editor as its gate says, and write `promotion` (JSON, as the promote stage's promotion.json).

    Raises EditLoopError when the reward model that it learnt from is no version of `reward` in the registry.
    """
    facts = read_manifest(tuned)["facts"]
    teacher = str(facts["reward_sha256"])
    version = registry.version_of_content(reward, teacher)
    if version is None:
        raise EditLoopError(
            f"{tuned}: learnt from {teacher}, which is no version of {reward}; use a registered champion."
        )
    taught_by = Link(
        "reward model",
        f"{reward} version {version.version}, {teacher}",
        f"#/models/{reward}/versions/{version.version}",
    )
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "editor"
        with complete_folder(model, facts) as folder:
            shutil.copytree(
                tuned / "editor", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json")
            )
        promoted = register(
            name,
            model,
            evaluation,
            stage="editor_rl",
            pipeline_run=pipeline_run,
            tags={"editloop.reward": f"models:/{reward}/{version.version}"},
            chain=[taught_by],
        )
    write_json(promotion, promoted)
    return {"model_version": float(promoted["version"]), "promoted": float(promoted["alias"] == registry.CHAMPION)}

"""Registration of a tuned editor, linked to the reward model that taught it or that chose its training edits."""

import shutil
import tempfile
from pathlib import Path

from editloop.content import complete_folder, read_manifest, write_json
from editloop.errors import EditLoopError
from editloop.lineage import registry
from editloop.lineage.model_card import Link
from editloop.lineage.registration import dataset_tags, dataset_version_links, output_link, register


def register_editor(
    evaluation: Path, tuned: Path, promotion: Path, pipeline_run: str, *, name: str
) -> dict[str, float]:
    """Register the editor in `tuned`/editor and write the result to a file.

    Args:
        evaluation: Folder of the editor's evaluation. Its gate.json decides whether it becomes the champion.
        tuned: Output folder of stage editor_sft or editor_rl.
        promotion: JSON file to write, with the content of the promote stage's promotion.json.
        pipeline_run: Name of the pipeline run.
        name: Name in the registry.

    Returns:
        {"model_version": the version's number, "promoted": 1.0 where it became the champion, else 0.0}.

    Raises:
        EditLoopError: The reward model is no version in the registry, or registration fails.
    """
    facts = read_manifest(tuned)["facts"]
    reward_sha256, reward, curated = str(facts["reward_sha256"]), str(facts["judge"]), facts.get("curated")
    version = registry.find_version_by_sha256(reward, reward_sha256)
    if version is None:
        raise EditLoopError(
            f"{tuned}: learnt from {reward_sha256}, which is no version of {reward}; use a registered champion."
        )
    tags = {"editloop.reward": f"models:/{reward}/{version.version}"}
    number, address = version.version, f"#/models/{reward}/versions/{version.version}"
    chain = [Link("reward model", f"{reward} version {number}, {reward_sha256}", address)]
    if curated:
        tags |= dataset_tags(curated)
        curate_run = output_link("curate run", "curate", curated["sha256"])
        chain = [curate_run, *dataset_version_links("curated edits", curated), *chain]
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "editor"
        with complete_folder(model, facts) as folder:
            shutil.copytree(
                tuned / "editor", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json")
            )
        stage = "editor_sft" if curated else "editor_rl"
        promoted = register(name, model, evaluation, stage=stage, pipeline_run=pipeline_run, tags=tags, chain=chain)
    write_json(promotion, promoted)
    return {"model_version": float(promoted["version"]), "promoted": float(promoted["alias"] == registry.CHAMPION)}

"""Registration of a tuned editor, linked to what taught it: a reward model, edits that one chose, or experts' pairs."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from editloop.content import complete_folder, read_manifest, write_json
from editloop.errors import EditLoopError
from editloop.lineage import registry
from editloop.lineage.model_card import Link
from editloop.lineage.registration import dataset_tags, dataset_version_links, output_link, register

PAIRS, CURATED = "dataset", "curated"
"""Facts of a tuned editor with the version of the data that it learnt from: experts' pairs, or curated edits."""


class EditorOrigin(NamedTuple):
    """What a tuned editor learnt from, for the registry."""

    stage: str
    """The stage that trained it."""
    tags: dict[str, str]
    """Tags of its version."""
    chain: list[Link]
    """Links of its card."""


def register_editor(
    evaluation: Path, tuned: Path, promotion: Path, pipeline_run: str, *, name: str
) -> dict[str, float]:
    """Register the editor in `tuned`/editor and write the result to a file.

    Args:
        evaluation: Folder of the editor's evaluation. Its gate.json decides whether it becomes the champion.
        tuned: Output folder of stage editor_sft, editor_dpo or editor_rl.
        promotion: JSON file to write, with the content of the promote stage's promotion.json.
        pipeline_run: Name of the pipeline run.
        name: Name in the registry.

    Returns:
        {"model_version": the version's number, "promoted": 1.0 where it became the champion, else 0.0}.

    Raises:
        EditLoopError: The reward model is no version in the registry, or registration fails.
    """
    facts = read_manifest(tuned)["facts"]
    origin = _pairs_origin(facts) if PAIRS in facts else _reward_origin(tuned, facts)
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "editor"
        with complete_folder(model, facts) as folder:
            shutil.copytree(
                tuned / "editor", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json")
            )
        promoted = register(name, model, evaluation, pipeline_run=pipeline_run, **origin._asdict())
    write_json(promotion, promoted)
    return {"model_version": float(promoted["version"]), "promoted": float(promoted["alias"] == registry.CHAMPION)}


def _reward_origin(tuned: Path, facts: dict[str, Any]) -> EditorOrigin:
    """Return the origin of an editor that a reward model taught, by RL or by the edits that it chose."""
    reward_sha256, reward, curated = str(facts["reward_sha256"]), str(facts["judge"]), facts.get(CURATED)
    version = registry.find_version_by_sha256(reward, reward_sha256)
    if version is None:
        raise EditLoopError(
            f"{tuned}: learnt from {reward_sha256}, which is no version of {reward}; use a registered champion."
        )
    tags = {"editloop.reward": f"models:/{reward}/{version.version}"}
    number, address = version.version, f"#/models/{reward}/versions/{version.version}"
    reward_link = Link("reward model", f"{reward} version {number}, {reward_sha256}", address)
    if not curated:
        return EditorOrigin("editor_rl", tags, [reward_link])
    curate_run = output_link("curate run", "curate", curated["sha256"])
    chain = [curate_run, *dataset_version_links("curated edits", curated), reward_link]
    return EditorOrigin("editor_sft", tags | dataset_tags(curated), chain)


def _pairs_origin(facts: dict[str, Any]) -> EditorOrigin:
    """Return the origin of an editor that experts' pairs taught."""
    version = facts[PAIRS]
    dataset_run = output_link("dataset run", "dataset", version["sha256"])
    chain = [dataset_run, *dataset_version_links("dataset", version), Link("preference pairs", str(facts["pairs"]))]
    return EditorOrigin("editor_dpo", dataset_tags(version), chain)

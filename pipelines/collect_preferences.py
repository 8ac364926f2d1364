"""collect-preferences: from source images and instructions to an open campaign. It does not wait for the experts."""

from typing import NamedTuple

from kfp import dsl

from components.annotate.component import annotate
from components.candidates.component import candidates


class Opened(NamedTuple):
    candidates: dsl.Dataset
    campaign: dsl.Artifact


@dsl.pipeline(name="collect-preferences", description="Make candidate edits and open a campaign for them.")
def collect_preferences(
    edits_uri: str,
    campaign: str,
    annotators: list,
    edits_sha256: str = "",
    editor: str = "tiny-editor",
    per_task: int = 4,
    steps: int = 8,
    overlap: int = 2,
    seed: int = 0,
    follow_up: str = "{}",
    run_key: str = "",
) -> Opened:
    """Make candidate edits of a team's images and ask experts about them in Label Studio.

    Args:
        edits_uri: Folder with edits.jsonl and its pictures (a path here, s3:// on a cluster).
        campaign: Name of the campaign in Label Studio.
        annotators: Account names of the experts.
        edits_sha256: The folder's content address, so that changed content is seen as such.
        editor: Who makes the edits, a diffusers folder, a shipped name or models:/editor@champion.
        per_task: Edits a task.
        steps: Denoising steps.
        overlap: Experts a task.
        seed: Seed of noise and order.
        follow_up: Arguments of what starts when the campaign is complete, by pipeline, as JSON:
            {"train-reward": {"epochs": 8}, "improve-editor": {"prompts_uri": "s3://...", "heldout_uri": "s3://..."}};
            improve-editor starts only if it is named.
        run_key: Runs of one key are one piece of work; empty for a run of its own.
    """
    edits = dsl.importer(artifact_uri=edits_uri, artifact_class=dsl.Dataset, metadata={"sha256": edits_sha256})
    edits.set_display_name("edits")
    made = candidates(
        edits=edits.output,
        editor=editor,
        per_task=per_task,
        steps=steps,
        seed=seed,
        run_key=run_key,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    opened = annotate(
        candidates=made.outputs["candidates"],
        name=campaign,
        annotators=annotators,
        overlap=overlap,
        seed=seed,
        follow_up=follow_up,
        run_key=run_key,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    return Opened(candidates=made.outputs["candidates"], campaign=opened.outputs["campaign"])

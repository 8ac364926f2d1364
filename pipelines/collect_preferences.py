"""collect-preferences: from source images and instructions to an open campaign. It does not wait for the experts."""

from typing import NamedTuple

from kfp import dsl

from components.annotate.component import annotate
from components.candidates.component import candidates


class CollectPreferencesOutputs(NamedTuple):
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
    lead: str = "",
    candidates_per_task: int = 0,
    gold_share: float = 0.0,
    repeat_share: float = 0.0,
    guidelines: str = "",
    alpha_if: float = 0.0,
    alpha_vq: float = 0.0,
    seed: int = 0,
    follow_up: str = "{}",
    run_key: str = "",
) -> CollectPreferencesOutputs:
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
        lead: Account name of who decides tasks in conflict, empty for nobody.
        candidates_per_task: Candidates on a page, 2 to 7, 0 for all.
        gold_share: Pages with a known answer for each task, 0 to 0.5, made where tasks have a target.
        repeat_share: Pages asked a second time for each task, 0 to 0.5.
        guidelines: What annotators read first, Markdown, empty for the usual guidelines.
        alpha_if: Lowest agreement (Krippendorff's alpha) on instruction following to close at, 0 for no gate.
        alpha_vq: Lowest agreement on visual quality to close at, 0 for no gate.
        seed: Seed of noise and order.
        follow_up: Arguments of what starts when the campaign is complete, by pipeline, as JSON:
            {"train-reward": {"epochs": 8}, "improve-editor": {"prompts_uri": "s3://...", "heldout_uri": "s3://..."}};
            improve-editor starts only if it is named.
        run_key: Runs of one key are one piece of work; empty for a run of its own.
    """
    edits = dsl.importer(artifact_uri=edits_uri, artifact_class=dsl.Dataset, metadata={"sha256": edits_sha256})
    edits.set_display_name("edits")
    candidates_task = candidates(
        edits=edits.output,
        editor=editor,
        per_task=per_task,
        steps=steps,
        seed=seed,
        run_key=run_key,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    annotate_task = annotate(
        candidates=candidates_task.outputs["candidates"],
        name=campaign,
        annotators=annotators,
        overlap=overlap,
        lead=lead,
        candidates_per_task=candidates_per_task,
        gold_share=gold_share,
        repeat_share=repeat_share,
        guidelines=guidelines,
        alpha_if=alpha_if,
        alpha_vq=alpha_vq,
        seed=seed,
        follow_up=follow_up,
        run_key=run_key,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    return CollectPreferencesOutputs(
        candidates=candidates_task.outputs["candidates"], campaign=annotate_task.outputs["campaign"]
    )

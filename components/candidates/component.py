"""The KFP face of the candidates stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def candidates(
    edits: dsl.Input[dsl.Dataset],
    candidates: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    per_task: int = 4,
    steps: int = 8,
    seed: int = 0,
) -> None:
    """Make K edits of each source image and instruction, beside those that the input brings along.

    Args:
        edits: Folder with edits.jsonl and its pictures.
        candidates: Tasks and candidate edits.
        metrics: Figures for the UI.
        editor: Editor: a diffusers folder, a shipped name or models:/editor@champion.
        per_task: Edits a task.
        steps: Denoising steps.
        seed: Seed of the noise.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "candidates",
        pipeline_run=run_key or job_id,
        inputs={"edits": edits},
        outputs={"output": candidates},
        parameters={"editor": editor, "per_task": per_task, "steps": steps, "seed": seed},
        metrics=metrics,
    )

"""The KFP face of the editor_sft stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_sft(
    curated: dsl.Input[dsl.Dataset],
    version: dsl.Input[dsl.Artifact],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    preset: str = "tiny",
    steps: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Fine-tune the editor on curated edits by flow matching.

    Args:
        curated: The edits to learn, a row each, with its target.
        version: Where the dataset repository has them.
        tuned: The tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        editor: The editor to start from.
        preset: How it is trained: a shipped preset, or a YAML file.
        steps: Updates of the editor, 0 for the preset's.
        learning_rate: Peak learning rate, 0 for the preset's.
        processes: Processes (GPUs) to train on.
        seed: Seed of batches and noise.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "editor_sft",
        pipeline_run=run_key or job_id,
        inputs={"edits": curated, "version": version},
        outputs={"output": tuned},
        parameters={
            "editor": editor,
            "preset": preset,
            "steps": steps,
            "learning_rate": learning_rate,
            "processes": processes,
            "seed": seed,
        },
        metrics=metrics,
        page=page,
    )

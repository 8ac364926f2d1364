"""The KFP face of the curate stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def curate(
    noisy: dsl.Input[dsl.Dataset],
    curated: dsl.Output[dsl.Dataset],
    version: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    judge: str = "models:/edit-reward@champion",
    order: str = "best",
    best: int = 0,
    threshold: float = 0.0,
    uncertainty: float = 0.0,
    most_missing: float = 0.1,
    seed: int = 0,
) -> None:
    """Of a set of noisy edits keep those that a registered reward model scores best, as a version to learn from.

    Args:
        noisy: Edits folder; its candidates are chosen from, or its targets where no row has candidates.
        curated: The kept edits, a row each, as its target.
        version: Where the dataset repository has them.
        metrics: Figures for the UI.
        page: Page for the UI.
        judge: The reward model that chooses, a registered one or the address of a server that serves it.
        order: best, or random (the control that shows what scores are worth).
        best: How many edits to keep, 0 for all.
        threshold: The lowest score to keep, 0 for none.
        uncertainty: How many standard deviations are taken off each score.
        most_missing: The largest share of scores that may be missing.
        seed: Seed of the random order.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "curate",
        pipeline_run=run_key or job_id,
        inputs={"edits": noisy},
        outputs={"output": curated, "version": version},
        parameters={
            "judge": judge,
            "order": order,
            "best": best,
            "threshold": threshold,
            "uncertainty": uncertainty,
            "most_missing": most_missing,
            "seed": seed,
        },
        metrics=metrics,
        page=page,
    )

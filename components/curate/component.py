"""KFP component of stage curate. Generated from declaration.py by `make generate`; do not edit."""

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
    """Keep the edits that a registered reward model scores best, as a dataset version to fine-tune on.

    Args:
        noisy: Noisy edits: an edits folder's candidates, or its targets where no row has any.
        curated: The kept edits, each as the target of a row.
        version: The version in the dataset repository, a JSON file.
        metrics: Figures for the UI.
        page: Page for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        judge: The reward model that chooses: a registered one, or the address of a server that serves it.
        order: best: the edits with the highest scores; random: the control that shows how much the scores are worth.
        best: Number of edits to keep, at most one per task; 0 for all.
        threshold: Lowest score to keep, on the scale of the judge's `overall`; 0 for no limit.
        uncertainty: Number of standard deviations to subtract from each score.
        most_missing: Largest share of the edits that may have no score, 0 to 1.
        seed: Seed of the random order.
    """
    arguments = dict(locals())
    from components.curate.declaration import CURATE
    from editloop.lineage.step import run_component

    run_component(CURATE, arguments)

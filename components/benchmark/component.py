"""The KFP face of the benchmark stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def benchmark(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    benchmark: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    champion: str = "",
    gate: str = "reward",
    seed: int = 0,
) -> None:
    """Measure the model on held-out pairs and decide against the champion.

    Args:
        dataset: Preference pairs, versioned.
        model: The trained reward model.
        benchmark: Held-out accuracy and the gate's verdict.
        metrics: Figures for the UI.
        page: Page for the UI.
        champion: The model to beat; empty for the champion of the model's own kind.
        gate: What is asked before a model is promoted, a shipped gate or a YAML file.
        seed: Seed of the bootstrap.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "benchmark",
        pipeline_run=run_key or job_id,
        inputs={"dataset": dataset, "model": model},
        outputs={"output": benchmark},
        parameters={"champion": champion, "gate": gate, "seed": seed},
        metrics=metrics,
        page=page,
    )

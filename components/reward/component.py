"""The KFP face of the reward stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def reward(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    run_key: str,
    job_id: str,
    preset: str = "editreward-tiny",
    base: str = "",
    epochs: int = 0,
    learning_rate: float = 0.0,
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Train the reward model on the preferences.

    Args:
        dataset: Preference pairs, versioned.
        model: The trained reward model.
        metrics: Figures for the UI.
        preset: Model and training: a shipped name, or a YAML file.
        base: Model to start from, a folder or a shipped name; empty for the preset's.
        epochs: Passes over the pairs; 0 for the preset's.
        learning_rate: Peak learning rate; 0 for the preset's.
        processes: Processes (GPUs) to train on.
        seed: Seed of the order and of new weights.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "reward",
        pipeline_run=run_key or job_id,
        inputs={"dataset": dataset},
        outputs={"output": model},
        parameters={
            "preset": preset,
            "base": base,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "processes": processes,
            "seed": seed,
        },
        metrics=metrics,
    )

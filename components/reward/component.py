"""KFP component of stage reward. Generated from declaration.py by `make generate`; do not edit."""

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
        dataset: Preference pairs that stage dataset wrote, or `editloop teacher import`.
        model: The trained reward model.
        metrics: Figures for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        preset: Preset of model and training: a shipped name (`editloop plan` lists them), or the path of a YAML file.
        base: Model to start from, a folder or a shipped name; empty for the preset's.
        epochs: Passes over the training pairs; 0 for the preset's. The state that is best on the validation pairs is kept.
        learning_rate: Peak learning rate; 0 for the preset's.
        processes: Processes (GPUs) that share the training.
        seed: Seed of the order and of new weights.
    """
    arguments = dict(locals())
    from components.reward.declaration import REWARD
    from editloop.lineage.step import run_component

    run_component(REWARD, arguments)

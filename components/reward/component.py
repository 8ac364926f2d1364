"""KFP component of stage reward. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def reward(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Train the reward model on the preferences.

    Args:
        dataset: Preference pairs that stage dataset wrote, or `editloop teacher import`.
        model: The trained reward model.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: preset, base, epochs, learning_rate, processes, seed.
    """
    arguments = dict(locals())
    from components.reward.declaration import REWARD
    from editloop.lineage.step import run_component

    run_component(REWARD, arguments)

"""KFP component of stage editor_rl. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_rl(
    prompts: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Improve the editor by online RL with the champion reward model.

    Args:
        prompts: Edits folder of the tasks to practise on.
        tuned: The tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: editor, reward, preset, iterations, tasks, members, learning_rate, watch, processes, seed.
    """
    arguments = dict(locals())
    from components.editor_rl.declaration import EDITOR_RL
    from editloop.lineage.step import run_component

    run_component(EDITOR_RL, arguments)

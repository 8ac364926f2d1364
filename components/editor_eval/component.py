"""KFP component of stage editor_eval. Generated from declaration.py by `make generate`; do not edit."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_eval(
    heldout: dsl.Input[dsl.Dataset],
    tuned: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    pipeline: str,
    parameters: dict,
) -> None:
    """Compare the tuned editor with its base on held-out tasks, and register it as its gate says.

    Args:
        heldout: Edits folder of held-out tasks, which the editor never saw.
        tuned: The tuned editor, as stage editor_sft, editor_dpo or editor_rl wrote it.
        evaluation: Base against tuned editor, and the gate's verdict.
        promotion: What the registry did, a JSON file.
        metrics: Figures for the UI.
        page: Page for the UI.
        pipeline: The pipeline that this is a step of.
        parameters: The stage's parameters: base, samples, steps, gate, name, seed.
    """
    arguments = dict(locals())
    from components.editor_eval.declaration import EDITOR_EVAL
    from editloop.lineage.step import run_component

    run_component(EDITOR_EVAL, arguments)

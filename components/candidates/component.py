"""KFP component of stage candidates. Generated from declaration.py by `make generate`; do not edit."""

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
    """Make several edits of each source image and instruction, beside those that the input brings along.

    Args:
        edits: An edits.jsonl, or a folder of them, with the images.
        candidates: Tasks and candidate edits.
        metrics: Figures for the UI.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
        editor: The editor: a diffusers folder, a shipped name, or models:/editor@champion.
        per_task: Edits per task. They are compared with each other, so the number of pairs grows with the square.
        steps: Denoising steps of an edit.
        seed: Seed of the noise.
    """
    arguments = dict(locals())
    from components.candidates.declaration import CANDIDATES
    from editloop.lineage.step import run_component

    run_component(CANDIDATES, arguments)

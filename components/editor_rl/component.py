"""The KFP face of the editor_rl stage."""

from kfp import dsl

from infra.settings import DEFAULT_IMAGE


@dsl.component(base_image=DEFAULT_IMAGE, install_kfp_package=False)
def editor_rl(
    prompts: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    reward: str = "models:/edit-reward@champion",
    preset: str = "tiny",
    iterations: int = 0,
    tasks: int = 0,
    members: int = 0,
    learning_rate: float = 0.0,
    watch: str = "",
    processes: int = 2,
    seed: int = 0,
) -> None:
    """Tune the editor by online RL with the champion reward model.

    Args:
        prompts: Edits folder of the instructions to learn on.
        tuned: The tuned editor and its curves.
        metrics: Figures for the UI.
        page: Page for the UI.
        editor: The editor to start from.
        reward: The reward model that teaches: a champion, or the address of a server that serves it.
        preset: How it is trained: a shipped preset, or a YAML file.
        iterations: Updates of the editor, 0 for the preset's.
        tasks: Tasks an update, 0 for the preset's.
        members: Edits a task, compared with each other; 0 for the preset's.
        learning_rate: Learning rate, 0 for the preset's.
        watch: Judges that do not teach, with spaces between; the training is stopped when they fall while the reward
            rises.
        processes: Processes (GPUs) to train on.
        seed: Seed of prompts and noise.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from editloop.lineage.step import run_step

    run_step(
        "editor_rl",
        pipeline_run=run_key or job_id,
        inputs={"edits": prompts},
        outputs={"output": tuned},
        parameters={
            "editor": editor,
            "reward": reward,
            "preset": preset,
            "iterations": iterations,
            "tasks": tasks,
            "members": members,
            "learning_rate": learning_rate,
            "watch": watch,
            "processes": processes,
            "seed": seed,
        },
        metrics=metrics,
        page=page,
    )

"""The KFP face of the editor_rl stage."""

from kfp import dsl

from infra.settings import service_settings


@dsl.component(base_image=service_settings().image, install_kfp_package=False)
def editor_rl(
    prompts: dsl.Input[dsl.Dataset],
    tuned: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    run_key: str,
    job_id: str,
    editor: str = "tiny-editor",
    reward: str = "models:/edit-reward@champion",
    iterations: int = 200,
    tasks: int = 16,
    members: int = 8,
    algorithm: str = "nft",
    learning_rate: float = 1e-3,
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
        reward: The reward model; only a champion is used.
        iterations: Updates of the editor.
        tasks: Prompts an update.
        members: Edits a prompt, ranked against each other.
        algorithm: flow-grpo, or nft (DiffusionNFT).
        learning_rate: Learning rate of the adapter.
        processes: Processes (GPUs) to train on.
        seed: Seed of prompts and noise.
        run_key: Runs of one key share one MLflow run; without a key the job's id is the key.
        job_id: KFP's id of this run.
    """
    from components.step import run_step

    run_step(
        "editor_rl",
        pipeline_run=run_key or job_id,
        inputs={"edits": prompts},
        outputs={"output": tuned},
        parameters={
            "editor": editor,
            "reward": reward,
            "iterations": iterations,
            "tasks": tasks,
            "members": members,
            "algorithm": algorithm,
            "learning_rate": learning_rate,
            "processes": processes,
            "seed": seed,
        },
        metrics=metrics,
        page=page,
    )

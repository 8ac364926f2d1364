"""The modules under the mutation check, the unit tests that concern each, and the mistakes that must never pass."""

from tests.mutation.mutants import Named

TRAINING = "editloop/training"
RL, REWARD = f"{TRAINING}/editor_rl", f"{TRAINING}/edit_reward"
STATISTICS, DATASETS, EVALUATION = "editloop/statistics", "editloop/datasets", "editloop/evaluation"


def _unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{name}.py" for name in names)


TESTS = {
    f"{RL}/advantages.py": _unit("rl_advantages"),
    f"{TRAINING}/flow_matching.py": _unit("rl_losses"),
    f"{TRAINING}/editor_dpo/pair_loss.py": _unit("editor_dpo"),
    f"{RL}/guards.py": _unit("rl_stopping"),
    f"{RL}/nft.py": _unit("rl_losses"),
    f"{RL}/policy_loss.py": _unit("rl_losses"),
    f"{RL}/reweighting.py": _unit("rl_losses"),
    f"{RL}/sde.py": _unit("rl_steps"),
    f"{RL}/windows.py": _unit("rl_losses"),
    f"{RL}/update_steps.py": _unit("rl_update_steps"),
    "editloop/models/editors/solvers.py": _unit("rl_parity"),
    f"{RL}/trained_weights.py": _unit("rl_updates", "rl_trajectories"),
    f"{RL}/nft_algorithm.py": _unit("rl_trajectories", "rl_rollout"),
    f"{RL}/flow_grpo_algorithm.py": _unit("rl_trajectories", "rl_rollout"),
    f"{RL}/iteration.py": _unit("rl_loop", "rl_trajectories"),
    f"{RL}/loop.py": _unit("rl_loop", "rl_trajectories"),
    f"{RL}/rollout.py": _unit("rl_trajectories"),
    f"{REWARD}/losses.py": _unit("reward_losses"),
    f"{REWARD}/group_loss.py": _unit("reward_losses"),
    "editloop/models/edit_reward/calibration.py": _unit("calibration"),
    f"{TRAINING}/schedule.py": _unit("schedule"),
    f"{TRAINING}/loop.py": _unit("training_loop"),
    f"{TRAINING}/training_run.py": _unit("training_loop", "rl_loop"),
    f"{STATISTICS}/bootstrap.py": _unit("bootstrap"),
    f"{EVALUATION}/gates/decision.py": _unit("gates"),
    f"{EVALUATION}/gates/requirements.py": _unit("gate_requirements"),
    f"{EVALUATION}/within_editor.py": _unit("within_editor"),
    f"{STATISTICS}/holm.py": _unit("annotator_quality", "gates"),
    f"{STATISTICS}/mcnemar.py": _unit("gates"),
    f"{DATASETS}/labels.py": _unit("labels"),
    f"{DATASETS}/splits.py": _unit("splits"),
    f"{STATISTICS}/agreement.py": _unit("agreement"),
    "annotation/quality/conflicts.py": _unit("conflicts"),
    "annotation/formats/preference_order.py": _unit("preference_order"),
    "annotation/formats/rating_scale.py": _unit("rating_scale"),
    f"{STATISTICS}/difficulty.py": _unit("difficulty"),
    f"{STATISTICS}/reliability.py": _unit("reliability"),
    f"{EVALUATION}/suites/ties.py": _unit("suite_figures"),
}
"""Unit test files by module, both below the repository's root."""

NAMED = (
    Named(
        f"{RL}/trained_weights.py",
        "average.lerp_(parameter.detach(), 1 - decay)",
        "average.lerp_(parameter.detach(), decay)",
    ),
    Named(f"{RL}/nft.py", "* (advantage_clip / nft_beta)", "* advantage_clip"),
    Named(f"{EVALUATION}/gates/decision.py", "p > settings.alpha / 2", "p > settings.alpha"),
    Named(f"{TRAINING}/schedule.py", "math.pi * step / steps", "math.pi * (step + 1) / steps"),
    Named(f"{TRAINING}/loop.py", "learning_rate(settings, step, ", "learning_rate(settings, step + 1, "),
    Named(f"{RL}/nft_algorithm.py", "(self.old, decay)", "(self.old, 1 - decay)"),
    Named(f"{RL}/loop.py", "min(settings.ema_decay, step / ", "max(settings.ema_decay, step / "),
    Named(f"{RL}/policy_loss.py", "(ratio > 1 + high)", "(ratio > 1 - high)"),
    Named(f"{RL}/policy_loss.py", "(ratio < 1 - low)", "(ratio < 1 + low)"),
    Named(f"{STATISTICS}/bootstrap.py", "math.sqrt(clusters / (clusters - 1)) * t.ppf", "t.ppf"),
    Named(f"{STATISTICS}/bootstrap.py", "norm.ppf(share) * math.sqrt((clusters - 1) / clusters)", "norm.ppf(share)"),
)

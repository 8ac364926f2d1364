"""The modules under the mutation check, the unit tests that concern each, and the mistakes that must never pass."""

from tests.mutation.mutants import Named

RL, REWARD, GATES, DATASET = "components/editor_rl", "components/reward", "components/gates", "components/dataset"
QUALITY, SUITES = "annotation/quality", "components/suites"


def _unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{name}.py" for name in names)


TESTS = {
    f"{RL}/advantages.py": _unit("rl_advantages"),
    f"{RL}/flow_matching.py": _unit("rl_losses"),
    f"{RL}/guards.py": _unit("rl_stopping"),
    f"{RL}/nft.py": _unit("rl_losses"),
    f"{RL}/policy_loss.py": _unit("rl_losses"),
    f"{RL}/reweighting.py": _unit("rl_losses"),
    f"{RL}/sde.py": _unit("rl_steps"),
    f"{RL}/windows.py": _unit("rl_losses"),
    f"{RL}/updates.py": _unit("rl_updates", "rl_trajectories"),
    f"{RL}/iteration.py": _unit("rl_loop", "rl_trajectories"),
    f"{RL}/loop.py": _unit("rl_loop", "rl_trajectories"),
    f"{RL}/rollout.py": _unit("rl_trajectories"),
    f"{REWARD}/losses.py": _unit("reward_losses"),
    f"{REWARD}/group_loss.py": _unit("reward_losses"),
    f"{REWARD}/calibration.py": _unit("calibration"),
    "components/training/course.py": _unit("course"),
    "components/training/loop.py": _unit("training_loop"),
    f"{GATES}/bootstrap.py": _unit("bootstrap"),
    f"{GATES}/decision.py": _unit("gates"),
    f"{GATES}/mcnemar.py": _unit("gates"),
    f"{DATASET}/labels.py": _unit("labels"),
    f"{DATASET}/splits.py": _unit("splits"),
    f"{QUALITY}/agreement.py": _unit("agreement"),
    f"{QUALITY}/conflicts.py": _unit("conflicts"),
    f"{QUALITY}/reliability.py": _unit("reliability"),
    f"{SUITES}/ties.py": _unit("suite_figures"),
}
"""Unit test files by module, both below the repository's root."""

NAMED = (
    Named(
        f"{RL}/updates.py", "average.lerp_(parameter.detach(), 1 - decay)", "average.lerp_(parameter.detach(), decay)"
    ),
    Named(f"{RL}/nft.py", "* (largest / strength)", "* largest"),
    Named(f"{GATES}/decision.py", "p > settings.alpha / 2", "p > settings.alpha"),
    Named("components/training/course.py", "math.pi * step / steps", "math.pi * (step + 1) / steps"),
    Named("components/training/loop.py", "learning_rate(settings, step, ", "learning_rate(settings, step + 1, "),
    Named(f"{RL}/loop.py", "follow(self.old, settings.old_decay)", "follow(self.old, 1 - settings.old_decay)"),
    Named(f"{RL}/loop.py", "min(settings.average, ", "max(settings.average, "),
    Named(f"{RL}/policy_loss.py", "(ratio > 1 + high)", "(ratio > 1 - high)"),
    Named(f"{RL}/policy_loss.py", "(ratio < 1 - low)", "(ratio < 1 + low)"),
    Named(f"{GATES}/bootstrap.py", "np.sqrt(clusters / (clusters - 1)) * t.ppf", "t.ppf"),
    Named(f"{GATES}/bootstrap.py", "norm.ppf(share) * np.sqrt((clusters - 1) / clusters)", "norm.ppf(share)"),
)

"""Every piece that the claims stand on, with what it takes on one core."""

from components.claims import curation, reinforcement, rewards, scaling, worlds
from components.claims.store import Piece

WORLD = ("tasks", "few_tasks", "prompts", "held_out")
RL = ("rl_preset", "rl_iterations", "steps")
REWARD = ("reward_epochs",)

_PIECES = (
    Piece("world", worlds.world, 60, (), WORLD),
    Piece("reward-full", rewards.reward_of(worlds.FULL), 95, ("world",), REWARD),
    Piece("reward-few", rewards.reward_of(worlds.FEW), 30, ("world",), REWARD),
    Piece("reward-noisy", rewards.reward_of(worlds.NOISY), 100, ("world",), REWARD, beside=True),
    Piece("reward-shared", rewards.reward_of(worlds.FULL, rewards.SHARED), 95, ("world",), REWARD),
    Piece("reward-regression", rewards.reward_of(worlds.FULL, rewards.REGRESSION), 95, ("world",), REWARD),
    Piece("score", rewards.score, 130, ("world",), ("score_epochs", "passes")),
    Piece("base", reinforcement.base, 30, ("world", "reward-full", "reward-few"), ("steps",)),
    Piece("rl-learnt", reinforcement.tuned_by(worlds.FULL), 240, ("world", "reward-full"), RL),
    Piece("rl-few", reinforcement.tuned_by(worlds.FEW), 240, ("world", "reward-few"), RL),
    Piece("rl-noisy", reinforcement.tuned_by(worlds.NOISY), 240, ("world", "reward-noisy"), RL, beside=True),
    Piece("rl-oracle", reinforcement.tuned_by(reinforcement.ORACLE), 220, ("world",), RL),
    Piece("best-of-n", scaling.best_of_n, 90, ("world", "reward-full", "reward-few"),
          ("best_of_tasks", "steps")),
    Piece("triples", curation.triples, 60, ("world", "reward-full"), ("triples",)),
    *(
        Piece(curation.best_name(share), curation.best(share), 40, ("world", "triples"), ("sft_preset", "steps"),
              beside=share not in curation.DECIDING)
        for share in curation.SHARES
    ),
    Piece("sft-random", curation.random(curation.PUBLISHED), 40, ("world", "triples"), ("sft_preset", "steps")),
    Piece("second-world", worlds.second_world, 45, ("rl-learnt",), ("tasks",)),
    Piece("second-reward", rewards.second_reward, 95, ("second-world", "reward-full"), REWARD),
    Piece("rl-second", reinforcement.tuned_again("second-reward"), 240, ("world", "rl-learnt", "second-reward"), RL),
    Piece("rl-again", reinforcement.tuned_again("reward-full"), 240, ("world", "rl-learnt", "reward-full"), RL,
          beside=True),
)  # fmt: skip
PIECES = {piece.name: piece for piece in _PIECES}

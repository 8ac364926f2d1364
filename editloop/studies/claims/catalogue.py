"""All pieces that the claims use, with their planned seconds on one core."""

from functools import partial

from editloop.evaluation.editors import ORACLE
from editloop.studies.claims import curation, pairs, reinforcement, rewards, scaling, worlds
from editloop.studies.claims.reinforcement import rl_again_with_reward, rl_with_reward
from editloop.studies.claims.rewards import REGRESSION, SHARED, train_reward_on
from editloop.studies.claims.store import Piece

WORLD = ("tasks", "few_tasks", "prompts", "held_out")
RL = ("rl_preset", "rl_iterations", "steps")
REWARD = ("reward_epochs",)

_PIECES = (
    Piece("world", worlds.make_world, 60, (), WORLD),
    Piece("reward-full", partial(train_reward_on, dataset=worlds.FULL), 95, ("world",), REWARD),
    Piece("reward-few", partial(train_reward_on, dataset=worlds.FEW), 30, ("world",), REWARD),
    Piece("reward-noisy", partial(train_reward_on, dataset=worlds.NOISY), 100, ("world",), REWARD, optional=True),
    Piece("reward-shared", partial(train_reward_on, dataset=worlds.FULL, variant=SHARED), 95, ("world",), REWARD),
    Piece(
        "reward-regression", partial(train_reward_on, dataset=worlds.FULL, variant=REGRESSION), 95, ("world",), REWARD
    ),
    Piece("score", rewards.measure_edit_score, 130, ("world",), ("score_epochs", "passes")),
    Piece("base", reinforcement.measure_base, 30, ("world", "reward-full", "reward-few"), ("steps",)),
    Piece("rl-learnt", partial(rl_with_reward, reward=worlds.FULL), 240, ("world", "reward-full"), RL),
    Piece("rl-few", partial(rl_with_reward, reward=worlds.FEW), 240, ("world", "reward-few"), RL),
    Piece("rl-noisy", partial(rl_with_reward, reward=worlds.NOISY), 240, ("world", "reward-noisy"), RL, optional=True),
    Piece("rl-oracle", partial(rl_with_reward, reward=ORACLE), 220, ("world",), RL),
    Piece(
        "best-of-n", scaling.measure_best_of_n, 90, ("world", "reward-full", "reward-few"), ("best_of_tasks", "steps")
    ),
    Piece("triples", curation.make_triples, 60, ("world", "reward-full"), ("triples",)),
    *(
        Piece(
            curation.best_name(share),
            partial(curation.sft_on_best, share=share),
            40,
            ("world", "triples"),
            ("sft_preset", "steps"),
            optional=share not in curation.DECIDING,
        )
        for share in curation.SHARES
    ),
    Piece("sft-random", curation.sft_on_random, 40, ("world", "triples"), ("sft_preset", "steps")),
    Piece("dpo-pairs", pairs.dpo_on_pairs, 80, ("world",), ("dpo_preset", "steps")),
    Piece("sft-labelled", pairs.sft_on_best_labelled, 55, ("world",), ("sft_preset", "dpo_preset", "steps")),
    Piece("second-world", worlds.make_second_world, 45, ("rl-learnt",), ("tasks",)),
    Piece("second-reward", rewards.second_reward, 95, ("second-world", "reward-full"), REWARD),
    Piece(
        "rl-second",
        partial(rl_again_with_reward, reward="second-reward"),
        240,
        ("world", "rl-learnt", "second-reward"),
        RL,
    ),
    Piece(
        "rl-again",
        partial(rl_again_with_reward, reward="reward-full"),
        240,
        ("world", "rl-learnt", "reward-full"),
        RL,
        optional=True,
    ),
)
PIECES = {piece.name: piece for piece in _PIECES}

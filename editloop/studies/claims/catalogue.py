"""All pieces that the claims use, with their planned seconds on one core."""

from functools import partial

from editloop.evaluation.editors import ORACLE
from editloop.studies.claims import curation, disagreement, pairs, reinforcement, rewards, rounds, scaling, worlds
from editloop.studies.claims.reinforcement import rl_of_round, rl_with_reward
from editloop.studies.claims.rewards import train_reward_on
from editloop.studies.claims.store import Piece

WORLD = ("tasks", "few_tasks", "prompts", "held_out")
RL = ("rl_preset", "rl_iterations", "steps")
ROUND = ("rl_preset", "round_iterations", "steps")
REWARD = ("reward_epochs",)

_PIECES = (
    Piece("world", worlds.make_world, 60, (), WORLD),
    Piece("reward-full", partial(train_reward_on, dataset=worlds.FULL), 95, ("world",), REWARD),
    Piece("reward-few", partial(train_reward_on, dataset=worlds.FEW), 30, ("world",), REWARD),
    Piece("reward-noisy", partial(train_reward_on, dataset=worlds.NOISY), 100, ("world",), REWARD, optional=True),
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
    Piece(
        "disagreeing-world",
        disagreement.make_disagreeing_world,
        25,
        (),
        ("disagreeing_tasks", "disagreeing_labels", "steps"),
    ),
    *(
        Piece(
            name,
            partial(disagreement.train_on_disagreeing, variant=variant),
            35,
            ("disagreeing-world",),
            ("disagreeing_epochs",),
        )
        for name, variant in (
            ("disagreeing-heads", disagreement.HEAD_PER_AXIS),
            ("disagreeing-shared", disagreement.ONE_HEAD),
            ("disagreeing-regression", disagreement.POINTWISE),
        )
    ),
    Piece("round-0", reinforcement.measure_untuned, 15, ("world",), ("steps",)),
    Piece("round-1-reward", rounds.train_first_reward, 15, ("world",), (*REWARD, "first_labels")),
    Piece("round-1", partial(rl_of_round, reward="round-1-reward"), 60, ("world", "round-1-reward"), ROUND),
    Piece(
        "round-1-again",
        partial(rl_of_round, reward="round-1-reward", editor="round-1"),
        60,
        ("world", "round-1-reward", "round-1"),
        ROUND,
    ),
    Piece(
        "round-2-reward",
        rounds.train_second_reward,
        40,
        ("world", "round-1-reward", "round-1"),
        (*REWARD, "second_labels", "second_pool"),
    ),
    Piece(
        "round-2",
        partial(rl_of_round, reward="round-2-reward", editor="round-1"),
        60,
        ("world", "round-2-reward", "round-1"),
        ROUND,
    ),
    Piece(
        "passive-reward",
        rounds.train_passive_reward,
        40,
        ("world", "round-1-reward"),
        (*REWARD, "second_labels"),
        optional=True,
    ),
    Piece(
        "passive",
        partial(rl_of_round, reward="passive-reward", editor="round-1"),
        60,
        ("world", "passive-reward", "round-1"),
        ROUND,
        optional=True,
    ),
    Piece(
        "round-errors",
        rounds.measure_round_errors,
        40,
        ("world", "round-1-reward", "round-1", "round-2-reward"),
        ("best_of_tasks", "steps"),
        optional=True,
    ),
)
PIECES = {piece.name: piece for piece in _PIECES}

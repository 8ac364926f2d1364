"""Which split a task falls into: shares by a hash, pictures that join tasks, pictures that say nothing."""

import hashlib

from editloop.data.vocabulary import Candidate, EditTask
from editloop.datasets.splits import SPLITS, picture_digests, split_of, splits_of


def test_splits_have_their_shares_and_follow_the_source_and_the_seed() -> None:
    splits = [split_of(f"source-{number}", 0) for number in range(4000)]
    assert {split: round(10 * splits.count(split) / 4000) for split in SPLITS} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert splits != [split_of(f"source-{number}", 1) for number in range(4000)]


def task(name: str, source: str, target: str | None, *candidates: str) -> EditTask:
    made = tuple(Candidate(candidate_id=f"{name}-{image}", image=image, editor="e") for image in candidates)
    return EditTask(task_id=name, name=name, instruction="i", source=source, target=target, candidates=made)


def test_tasks_that_share_a_picture_are_in_one_split() -> None:
    """Chains of three edits, each on the last one's result; every chain ends in a plain white picture."""
    tasks = []
    for chain in range(300):
        pictures = [f"{chain:03d}-{step}" for step in range(3)]
        tasks += [
            task(f"{chain}-{step}", picture, (*pictures, "white")[step + 1], f"edit-{chain}-{step}", "white")
            for step, picture in enumerate(pictures)
        ]
    asked: list[str] = []

    def says_nothing(picture: str) -> bool:
        asked.append(picture)
        return picture == "white"

    splits = splits_of(tasks, 0, says_nothing)
    for chain in range(300):
        assert {splits[f"{chain}-{step}"] for step in range(3)} == {split_of(f"{chain:03d}-0", 0)}
    assert {split: round(10 * list(splits.values()).count(split) / 900) for split in SPLITS} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(asked) == len(set(asked)), "each shared picture is opened once"
    assert set(splits_of(tasks, 0, lambda _: False).values()) == {split_of("000-0", 0)}, "white joins all of them"


def test_a_split_is_the_hundredth_that_the_hash_falls_into() -> None:
    """70 hundredths, then 10, then 20, of the first eight bytes of sha256("SEED:SOURCE")."""
    seen = set()
    for number in range(600):
        digest = hashlib.sha256(f"3:source-{number}".encode()).hexdigest()
        hundredth = int(digest[:16], 16) % 100
        expected = "train" if hundredth < 70 else "validation" if hundredth < 80 else "test"
        assert split_of(f"source-{number}", 3) == expected
        seen.add(hundredth)
    assert {69, 70, 79, 80} <= seen, "both sides of both borders were tried"


def test_a_tasks_pictures_are_its_source_target_and_candidates() -> None:
    assert list(picture_digests(task("t", "source", "target", "one", "two"))) == ["source", "target", "one", "two"]
    assert list(picture_digests(task("t", "source", None, "one"))) == ["source", "one"]


def test_no_split_of_a_few_tasks_is_empty_and_the_others_stay() -> None:
    moved = 0
    for seed in range(60):
        tasks = [task(str(number), f"{seed}-{number}", None) for number in range(6)]
        splits = splits_of(tasks, seed, lambda _: False)
        assert set(splits.values()) == set(SPLITS)
        changed = [one for one in tasks if splits[one.task_id] != split_of(one.source, seed)]
        assert all(split_of(one.source, seed) == "train" for one in changed)
        assert len(changed) == len(set(SPLITS) - {split_of(one.source, seed) for one in tasks})
        moved += len(changed)
    assert moved > 20
    assert set(splits_of([task("0", "one", None)], 0, lambda _: False).values()) == {split_of("one", 0)}

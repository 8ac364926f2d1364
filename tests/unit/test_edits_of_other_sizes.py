"""Edits that differ in size and shape from their source, and from each other, wherever they are compared."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotation.campaigns.opening import _tiny
from annotation.simulated_experts import oracle_scores
from components.candidates.declaration import CandidatesParameters
from components.candidates.stage import run_candidates
from editloop.data.candidates_folder import read_tasks
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.picture_size import resized
from editloop.data.vocabulary import EditTask, Page
from editloop.datasets.preference_groups import PreferenceGroup, read_groups
from editloop.evaluation.oracle import oracle, oracle_of_group, oracle_of_task
from editloop.evaluation.suites.answers import judge_suite
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.within_editor import measure_within_editors
from editloop.models.edit_reward.judge import RewardJudge
from editloop.models.judge_protocol import EditGroup
from editloop.studies.comparison.world import rate_candidates
from editloop.studies.world.scenes import random_edit
from editloop.studies.world.stand_ins import STAND_INS, add_candidates
from editloop.training.editor_rl.scoring import OracleJudge

SIZES = {"pixel": (32, 33), "half": (16, 16), "double": (64, 64), "shape": (20, 51)}
"""(height, width) of edits of a source of 32 x 32."""


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft shapes of random colours: unlike noise, they look alike at every size."""
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def patched(source: np.ndarray) -> np.ndarray:
    """The source with its middle painted over: the right result of an edit."""
    height, width, _ = source.shape
    target = source.copy()
    target[height // 4 : -height // 4, width // 4 : -width // 4] = (250, 20, 30)
    return target


@pytest.fixture
def edit() -> tuple[np.ndarray, np.ndarray]:
    source = smooth(np.random.default_rng(0), 32, 32)
    return source, patched(source)


def means(source: np.ndarray, target: np.ndarray, edits: list[np.ndarray]) -> list[float]:
    return [float(mean) for mean in oracle_of_task(source, target, edits).mean]


def test_a_picture_of_the_size_stays_as_it_is_and_any_other_gets_it(edit: tuple[np.ndarray, np.ndarray]) -> None:
    source, _ = edit
    assert np.array_equal(resized(source, (32, 32)), source)
    for size in SIZES.values():
        other = resized(source, size)
        assert other.shape == (*size, 3)
        assert other.dtype == np.uint8
        back = resized(Image.fromarray(other), (32, 32)).astype(float)
        assert np.abs(back - source)[2:-2, 2:-2].mean() < 8
    assert (resized(np.full((40, 40, 3), 77, np.uint8), (20, 20)) == 77).all()


def test_the_oracle_scores_an_edit_of_any_size_as_it_would_alone(edit: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = edit
    edits = [resized(picture, size) for size in SIZES.values() for picture in (target, source)]
    assert means(source, target, edits) == [means(source, target, [one])[0] for one in edits]
    right = oracle_of_task(source, resized(target, (50, 40)), edits).right
    done = dict(zip(SIZES, zip(right[::2], right[1::2], strict=True), strict=True))
    assert not any(of_source for _, of_source in done.values())
    assert {name for name, (of_target, _) in done.items() if of_target} >= {"pixel", "double"}
    same = [target, source, (target // 2 + source // 2).astype(np.uint8)]
    direct = oracle(*(np.stack([one] * 3) for one in edit), np.stack(same))
    assert means(source, target, same) == pytest.approx(direct.mean.tolist())


def test_a_large_photograph_and_a_small_edit_are_compared() -> None:
    source = smooth(np.random.default_rng(1), 192, 256)
    target = patched(source)
    right, idle, small = means(source, target, [target, source, resized(target, (32, 32))])
    assert right == pytest.approx(1)
    assert idle < small < right


def test_a_group_of_a_dataset_is_scored_whatever_its_sizes(edit: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = edit
    edits = [resized(target, size) for size in SIZES.values()]
    nothing = np.zeros((4, 4, 2), np.float32)
    group = PreferenceGroup("t", "x", "i", tuple(SIZES), ("e",) * 4, source, target, edits, nothing[0], nothing)
    seen = oracle_of_group(group)
    assert seen is not None
    assert seen.mean.tolist() == means(source, target, edits)


def test_online_rl_s_oracle_takes_edits_of_any_size(tmp_path: Path, edit: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = edit
    Image.fromarray(resized(target, (48, 40))).save(tmp_path / "target.png")
    row = EditRow("t", "x", "i", tmp_path / "source.png", tmp_path / "target.png", ())
    group = EditGroup("i", source, [resized(target, SIZES["double"]), resized(source, SIZES["pixel"])], "t")
    [[done, idle]] = OracleJudge([row]).judge([group])
    assert done.reward is not None
    assert idle.reward is not None
    assert done.reward > 0.9 > 0.7 > idle.reward


def test_stand_ins_are_made_where_the_target_has_another_size(tmp_path: Path) -> None:
    scene = random_edit(np.random.default_rng(0))
    for name, picture in {"source": scene.source, "target": resized(scene.target, (33, 31))}.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    line = {"id": "a", "instruction": "x", "source": "source.png", "target": "target.png"}
    (tmp_path / "edits.jsonl").write_text(json.dumps(line))
    add_candidates(tmp_path / "edits.jsonl", tmp_path / "made", seed=0, per_task=len(STAND_INS))
    (row,) = read_edits(tmp_path / "made")
    pictures = [row.target, *(candidate.image for candidate in row.candidates)]
    assert {Image.open(str(path)).size for path in pictures} == {(32, 32)}


def mixed_edits(folder: Path, count: int) -> Path:
    """An edits file of soft pictures of 96 x 72 pixels, their targets a pixel off, with edits of four sizes each."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    lines = []
    for task in range(count):
        source = smooth(rng, 72, 96)
        target = patched(source)
        pictures = {"source": source, "target": resized(target, (72, 97))}
        for place, size in enumerate(((72, 95), (36, 48), (40, 40), (96, 72))):
            share = (place + 1) / 4 if task % 2 else 1 - place / 4
            pictures[str(place)] = resized((source + share * (target.astype(float) - source)).astype(np.uint8), size)
        for name, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{task}-{name}.png")
        lines.append(
            {
                "id": f"photo-{task}",
                "instruction": f"Paint the middle red, number {task}.",
                "source": f"{task}-source.png",
                "target": f"{task}-target.png",
                "candidates": [{"image": f"{task}-{place}.png", "editor": "theirs"} for place in range(4)],
            }
        )
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "edits.jsonl"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A candidates folder of thirty such tasks, each with an edit of the tiny editor beside those that came along."""
    folder = tmp_path_factory.mktemp("mixed")
    run_candidates(mixed_edits(folder / "edits", 30), folder / "candidates", CandidatesParameters(per_task=1, steps=1))
    return folder / "candidates"


def pages(tasks: list[EditTask], most: int) -> list[Page]:
    return [
        Page.model_construct(task_id=task.task_id, images=tuple(one.image for one in task.candidates[:most]))
        for task in tasks
    ]


def test_experts_see_an_edit_alike_whatever_stands_beside_it(imported: Path) -> None:
    tasks = read_tasks(imported)
    few, many = (oracle_scores([imported / "images"], tasks, pages(tasks, most)) for most in (2, 5))
    assert len(many) == 5 * len(tasks)
    assert few.items() <= many.items()


def test_only_a_campaign_without_a_large_edit_is_shown_in_hard_pixels(imported: Path) -> None:
    tasks = read_tasks(imported)[:2]
    assert _tiny(imported / "images", tasks)
    for name, side in (("large", 300), ("small", 100)):
        Image.new("RGB", (side, side)).save(imported / "images" / f"{name}.png")
        added = tasks[0].candidates[0].model_copy(update={"image": name})
        beside = tasks[0].model_copy(update={"candidates": (*tasks[0].candidates, added)})
        assert _tiny(imported / "images", [tasks[1], beside]) == (name == "small")


def test_a_set_of_mixed_sizes_goes_from_import_to_the_benchmark_s_figures(imported: Path, tmp_path: Path) -> None:
    rate_candidates(imported, tmp_path / "dataset", seed=0)
    groups = read_groups(tmp_path / "dataset", "test")
    assert {edit.shape[:2] for edit in groups[0].edits} == {(72, 95), (36, 48), (40, 40), (96, 72), (32, 32)}
    suite, judge = open_suite("scenes", tmp_path / "dataset"), RewardJudge.load("tiny-reward", device="cpu")
    answers = judge_suite(suite, judge, tmp_path / "answers")
    report = evaluate(suite, answers).report
    assert report["counts"]["missing"] == 0
    assert report["counts"]["units"] > len(groups)
    assert measure_within_editors(suite, groups, answers, "oracle", seed=0).groups > 0

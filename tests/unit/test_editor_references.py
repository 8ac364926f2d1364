"""Tasks of several sources on their way to an editor: batches, encodings, trainings, judges, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.editor_dpo.stage import learn_from_pairs
from components.editor_eval.declaration import EditorEvalParameters
from components.editor_eval.stage import run_editor_eval
from components.editor_sft.stage import fine_tune
from editloop import models
from editloop.content import complete_folder, read_manifest, sha256_file, sha256_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.edits_file import EditRow, read_edits
from editloop.data.picture_file import load_image
from editloop.errors import EditLoopError
from editloop.evaluation import second_opinion
from editloop.evaluation.editors import HeldOut, judge_scores
from editloop.evaluation.gates.settings import IndependentJudge
from editloop.models.editors.candidates import noise_seed, write_candidates
from editloop.models.editors.opening import open_editor
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.sampling import edit, working_picture
from editloop.models.editors.sources import SourceSizes, check_references, encode_tasks, group_by_size
from editloop.models.judge_protocol import EditGroup
from editloop.training.editor_dpo.settings import DpoSettings, read_dpo_preset
from editloop.training.editor_dpo.training_task import PairTrainingTask
from editloop.training.editor_rl import iteration as rl_iteration
from editloop.training.editor_rl import preflight
from editloop.training.editor_rl.build_algorithm import build_algorithm
from editloop.training.editor_rl.iteration import Iteration
from editloop.training.editor_rl.preflight import check_job
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.reward_source import RewardSource
from editloop.training.editor_rl.scoring import check_judge_reads, open_reward_judges
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights
from editloop.training.editor_sft.settings import SftSettings, read_sft_preset
from editloop.training.editor_sft.training_task import EditTrainingTask
from editloop.training.encoding_store import GIGABYTE, EncodingStore, encoding_key
from tests.pair_datasets import write_pairs
from tests.pixel_judge import SourcesJudge
from tests.tiny_editors import KINDS, build_tiny_editor, write_tiny_editor

pytestmark = pytest.mark.floats

ONE_SOURCE = ("kontext", "step1x-v1p0", "step1x-v1p1", "step1x-v1p2")
REFERENCES = [(), ((48, 48),), ((64, 32), (32, 64)), ((48, 48),), ((32, 64), (64, 32))]
"""Sizes of the references of each task."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_editor("klein-distilled", tmp_path_factory.mktemp("editor") / "klein")


@pytest.fixture(scope="module")
def editor(folder: Path) -> PipelineEditor:
    torch.set_num_threads(1)
    return open_editor(folder)


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """An edits folder with a row for each of REFERENCES, of one instruction and source size."""
    rng = np.random.default_rng(0)
    lines = []

    with complete_folder(tmp_path / "edits") as out:

        def picture(name: str, size: tuple[int, int]) -> str:
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(out / name)
            return name

        for row, sizes in enumerate(REFERENCES):
            line: dict[str, Any] = {"id": f"row-{row}", "instruction": "make the circle red"}
            line |= {name: picture(f"{name}-{row}.png", (32, 64)) for name in ("source", "target")}
            references = [picture(f"reference-{row}-{place}.png", size) for place, size in enumerate(sizes)]
            lines.append(line | ({"references": references} if references else {}))
        (out / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "edits"


def pictures(count: int, *size: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


class TestBatches:
    def test_tasks_go_together_where_all_their_sizes_are_equal(self) -> None:
        sources = pictures(5, 32, 64)
        references = [[np.zeros((*size, 3), np.uint8) for size in sizes] for sizes in REFERENCES]
        found = group_by_size(sources, references)
        assert list(found.values()) == [[0], [1, 3], [2], [4]]
        assert list(found)[2] == SourceSizes((32, 64), ((64, 32), (32, 64)))
        assert group_by_size(sources) == {SourceSizes((32, 64)): [0, 1, 2, 3, 4]}

    def test_an_edit_is_the_same_alone_and_among_others(self, editor: PipelineEditor) -> None:
        texts, sources = ["make it red"] * 5, pictures(5, 32, 64)
        references = [pictures(1, *size, seed=row)[:1] for row, sizes in enumerate(REFERENCES) for size in sizes[:1]]
        references = [[], *references]
        together = edit(editor, texts, sources, seeds=range(5), references=references, steps=2)
        for row in range(5):
            alone = edit(editor, texts[:1], [sources[row]], seeds=[row], references=[references[row]], steps=2)[0]
            assert np.abs(alone.astype(int) - together[row].astype(int)).max() <= 1
        without = edit(editor, texts[:1], [sources[1]], seeds=[1], steps=2)[0]
        assert not np.array_equal(without, together[1])

    def test_one_source_with_two_references_is_two_tasks(
        self, editor: PipelineEditor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, encoded, encode = pictures(1, 32, 64)[0], [], editor.encode
        first, second = pictures(2, 64, 64, seed=1)

        def counted(texts: Any, sources: Any, references: Any = ()) -> Any:
            encoded.append(len(texts))
            return encode(texts, sources, references)

        monkeypatch.setattr(editor, "encode", counted)
        references = [[first], [second], [first]]
        made = edit(editor, ["do it"] * 3, [source] * 3, seeds=[0, 0, 0], references=references, steps=1)
        assert encoded == [2]
        assert np.array_equal(made[0], made[2])
        assert not np.array_equal(made[0], made[1])


class TestRefusals:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_editor_says_how_many_it_takes(self, kind: str) -> None:
        tiny = build_tiny_editor(kind)
        expected = 0 if kind.startswith(ONE_SOURCE) else 2 if kind.startswith("qwen") else 3
        assert tiny.most_references == expected
        references = [np.stack(pictures(1, 64, 64))] * (expected + 1)
        with pytest.raises(
            EditLoopError, match=rf"a batch: {expected + 1} reference image\(s\), and \w+Pipeline\w* takes"
        ):
            tiny.encode(["make it red"], np.stack(pictures(1, 64, 64)), references)

    def test_settings_may_allow_fewer_but_not_more_than_the_class(self) -> None:
        for kind, most, expected in (("klein-distilled", 1, 1), ("kontext", 2, 0), ("qwen-edit-plus", 3, 3)):
            tiny = build_tiny_editor(kind)
            tiny.settings = tiny.settings.model_copy(update={"most_references": most})
            assert tiny.most_references == expected

    def test_the_message_names_the_task_the_editor_and_the_rule(self, editor: PipelineEditor) -> None:
        check_references(editor, [("a", 3)])
        message = r"b: 4 reference image\(s\), and Flux2KleinPipeline takes 3 besides the source \(`most"
        with pytest.raises(EditLoopError, match=message):
            check_references(editor, [("a", 3), ("b", 4), ("c", 5)])
        with pytest.raises(EditLoopError, match="FluxKontextPipeline takes none"):
            check_references(open_editor("tiny-editor"), [("a", 1)])

    @pytest.fixture
    def refused(self) -> Any:
        return pytest.raises(EditLoopError, match=r"row-1: 1 reference image\(s\), and FluxKontextPipeline takes none")

    def test_candidates(self, edits: Path, tmp_path: Path, refused: Any) -> None:
        with refused:
            write_candidates(edits, tmp_path / "candidates", editor="tiny-editor")
        assert not (tmp_path / "candidates").exists()

    def test_supervised_fine_tuning(self, edits: Path, tmp_path: Path, refused: Any) -> None:
        settings = read_sft_preset("smallest")
        with refused:
            fine_tune(edits, tmp_path / "out", editor="tiny-editor", settings=settings, facts={})

    def test_online_rl(self, edits: Path, refused: Any) -> None:
        rows = read_edits(edits)
        source = RewardSource("", "none", "", Path("none"))
        with refused:
            check_job(rows, rows, Path(open_editor("tiny-editor").pipeline.name_or_path), source, RlSettings(), [], 1)

    def test_the_evaluation(self, edits: Path, tmp_path: Path, refused: Any) -> None:
        with complete_folder(tmp_path / "tuned") as out:
            open_editor("tiny-editor").save(out / "editor")
        with refused:
            run_editor_eval(edits, tmp_path / "tuned", tmp_path / "out", EditorEvalParameters())

    def test_held_out_tasks(self, edits: Path, refused: Any) -> None:
        with refused:
            HeldOut(read_edits(edits), open_editor("tiny-editor"), steps=1, guidance=None, batch=4)

    def test_pairs(self, tmp_path: Path) -> None:
        with pytest.raises(
            EditLoopError, match=r"task train-0: 1 reference image\(s\), and FluxKontextPipeline takes none"
        ):
            learn_from_pairs(
                write_pairs(tmp_path / "pairs", references=pictures(1, 48, 48)),
                tmp_path / "out",
                editor="tiny-editor",
                settings=read_dpo_preset("smallest"),
                facts={},
            )

    @pytest.mark.parametrize("name", ["edit_reward/weights/tiny-reward", "edit_score/weights/tiny-score"])
    def test_a_reward_that_reads_one_source_before_a_training_starts(
        self, name: str, edits: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = Path(models.__file__).parent / name
        source = RewardSource(str(judge), judge.name, str(read_manifest(judge)["sha256"]), judge)
        monkeypatch.setattr(preflight, "check_size", lambda *arguments: None)
        rows = read_edits(edits)
        with pytest.raises(
            EditLoopError, match=f"reward {judge.name}: it reads one source .* task row-1 has 1 reference"
        ):
            check_job(rows, rows, folder, source, RlSettings(), [], 1)
        check_job(rows[:1], rows[:1], folder, source, RlSettings(), [], 1)

    def test_a_judge_that_reads_one_source(self, edits: Path) -> None:
        rows = read_edits(edits)
        with pytest.raises(
            EditLoopError, match=r"reward tiny-reward: it reads one source .* task row-1 has 1 reference"
        ):
            open_reward_judges(["tiny-reward"], rows, [], patience=1.0)
        open_reward_judges(["oracle"], rows, [], patience=1.0).close()
        check_judge_reads("tiny-reward", False, rows[:1])


class TestTrainings:
    def test_encodings_of_rl_are_those_of_all_sources(
        self, editor: PipelineEditor, edits: Path, tmp_path: Path
    ) -> None:
        rows = read_edits(edits)
        store = EncodingStore(tmp_path / "encodings", most_bytes=GIGABYTE)
        prompts = Prompts(rows, editor, store, seed=0)
        assert prompts.source_sizes[2] == SourceSizes((32, 64), ((64, 32), (32, 64)))
        prompts.encode([[0], [1, 3], [2], [4]], 4)
        again = Prompts(rows, editor, EncodingStore(tmp_path / "encodings", most_bytes=0), seed=0)
        again.encode([[0], [1, 3], [2], [4]], 4)
        assert (prompts.encodings, again.encodings) == (5, 0)
        for row, task in zip(rows, again.encoded_tasks(range(5)), strict=True):
            shown = [working_picture(editor, Image.open(path)) for path in row.references]
            assert all(np.array_equal(*pair) for pair in zip(task.references, shown, strict=True))
            expected = encode_tasks(editor, [row.instruction], [task.source], [shown])
            assert (task.condition.size, task.condition.references) == (expected.size, expected.references)
            torch.testing.assert_close(task.condition.parts, expected.parts, atol=1e-5, rtol=1e-5)

    def test_other_references_are_another_encoding(self, editor: PipelineEditor, edits: Path, tmp_path: Path) -> None:
        row, other = read_edits(edits)[1:4:2]
        rows = [row, replace(row, references=other.references), replace(row, references=())]
        rows.append(replace(row, references=row.references * 2))
        prompts = Prompts(rows, editor, EncodingStore(tmp_path / "encodings", most_bytes=GIGABYTE), seed=0)
        assert prompts.source_sizes[0] == prompts.source_sizes[1]
        assert len({prompts._key(at) for at in range(4)}) == 4
        sizes: list[list[tuple[int, int]]] = [[], [(48, 48)], [(32, 32)]]
        assert len({encoding_key("a", (32, 64), [row.source], each) for each in sizes}) == 3
        as_before = sha256_json(["a", (32, 64), sha256_file(row.source)])
        assert encoding_key("a", (32, 64), [row.source]) == as_before

    def test_the_reward_of_rl_is_that_of_all_sources(
        self, editor: PipelineEditor, edits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rl_iteration.distributed, "get_rank", lambda: 0)
        monkeypatch.setattr(rl_iteration.distributed, "get_world_size", lambda: 1)
        settings = RlSettings(members=2, tasks=5, sampling_steps=2, algorithm={"name": "nft"})
        rows = read_edits(edits)
        prompts = Prompts(rows, editor, EncodingStore(tmp_path / "encodings", most_bytes=GIGABYTE), seed=0)
        asked: list[EditGroup] = []

        class Judges:
            elsewhere = False

            def ask(self, groups: list[EditGroup]) -> None:
                asked.extend(groups)

        algorithm = build_algorithm(settings, editor, TrainedWeights([]))
        iteration: Any = Iteration(settings, editor, prompts, Judges(), {}, None, algorithm, None)  # type: ignore[arg-type]
        iteration._sampled(0, np.arange(5), torch.zeros(10, dtype=torch.long))
        assert sorted(group.key for group in asked) == [row.id for row in rows]
        for group in asked:
            row = rows[int(group.key.removeprefix("row-"))]
            shown = [working_picture(editor, Image.open(path)) for path in row.references]
            assert all(np.array_equal(*pair) for pair in zip(group.references, shown, strict=True))
            assert len(group.edits) == 2

    def test_a_batch_of_fine_tuning_holds_tasks_of_several_numbers_of_sources(
        self, editor: PipelineEditor, edits: Path, tmp_path: Path
    ) -> None:
        rows = read_edits(edits)
        settings = SftSettings.model_validate(read_sft_preset("smallest").model_dump())
        store = EncodingStore(tmp_path / "encodings", most_bytes=0)
        task = EditTrainingTask(editor, {"train": rows, "validation": rows}, settings, [], store)
        task.encode({"train": range(5)}, rank=0, ranks=1)
        batch = task.batch("train", range(5))
        parts = task.parts(batch)
        assert [part.units for part in parts] == [[0], [1, 3], [2], [4]]
        assert [part.condition.references for part in parts] == [REFERENCES[part.units[0]] for part in parts]
        with torch.no_grad():
            torch.manual_seed(20_014)
            loss = task.loss(None, batch)
            alone = [task.loss(None, task.batch("train", [unit])) for unit in range(5)]
        assert float(loss) == pytest.approx(float(torch.stack(alone).mean()), rel=1e-4)

    def test_pairs_are_learnt_with_their_references(self, editor: PipelineEditor, tmp_path: Path) -> None:
        dataset = write_pairs(tmp_path / "pairs", shapes=[(32, 64)], references=pictures(1, 48, 48))
        settings = DpoSettings.model_validate({"training": {"steps": 2, "learning_rate": 1e-3}, "beta": 100.0})
        task = PairTrainingTask(editor, dataset, settings, [], EncodingStore(tmp_path / "encodings", most_bytes=0))
        task.encode({"train": range(task.count("train"))}, rank=0, ranks=1)
        group = task.group(task.pairs["train"][0])
        expected = encode_tasks(editor, [group.instruction], [group.source], [group.references])
        found = task.encoded("train", 0).condition
        assert (found.size, found.references) == ((32, 64), ((48, 48),))
        torch.testing.assert_close(found.parts, expected.parts, atol=1e-5, rtol=1e-5)

    def test_candidates_are_edits_of_all_sources(
        self, editor: PipelineEditor, folder: Path, edits: Path, tmp_path: Path
    ) -> None:
        write_candidates(edits, tmp_path / "out", editor=str(folder), per_task=1, steps=1)
        made = {task.name: task for task in read_tasks(tmp_path / "out")}
        for row in read_edits(edits):
            (candidate,) = made[row.id].candidates
            assert candidate.seed is not None
            found = np.asarray(Image.open(tmp_path / "out" / "images" / f"{candidate.image}.png"))
            assert np.abs(found.astype(int) - self.alone(editor, row, candidate.seed).astype(int)).max() <= 1

    def test_an_evaluation_edits_and_judges_all_sources(
        self, editor: PipelineEditor, folder: Path, edits: Path, tmp_path: Path
    ) -> None:
        with complete_folder(tmp_path / "tuned") as out:
            editor.save(out / "editor")
        parameters = EditorEvalParameters(base=str(folder), gate="open", steps=1)
        run_editor_eval(edits, tmp_path / "tuned", tmp_path / "out", parameters)
        for number, row in enumerate(read_edits(edits)):
            expected = self.alone(editor, row, noise_seed(0, sha256_json([row.id]), 0))
            for name in ("base", "tuned"):
                found = np.asarray(Image.open(tmp_path / "out" / "contact-sheet" / f"{number}-{name}.png"))
                assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1, (row.id, name)

    def alone(self, editor: PipelineEditor, row: EditRow, seed: int) -> np.ndarray:
        """The edit of a row by itself."""
        source, *references = (working_picture(editor, Image.open(path)) for path in (row.source, *row.references))
        return edit(editor, [row.instruction], [source], seeds=[seed], references=[references], steps=1)[0]

    def test_a_second_opinion_is_about_all_sources(self, edits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rows, asked = read_edits(edits), list[EditGroup]()

        class Judge(SourcesJudge):
            def judge(self, groups: Any) -> Any:
                asked.extend(groups)
                return super().judge(groups)

        monkeypatch.setattr(second_opinion, "open_judge", lambda address: Judge())
        (opinion,) = second_opinion.second_opinions([IndependentJudge(judge="models:/x@champion")], rows, "c" * 64)
        shown = np.stack(pictures(5, 32, 64))
        opinion.observe(0, rows, shown, shown, shown // 2)
        for group, row in zip(asked, rows, strict=True):
            assert all(
                np.array_equal(one, load_image(path))
                for one, path in zip(group.references, row.references, strict=True)
            )

    def test_held_out_tasks_are_edited_and_judged_with_their_references(
        self, editor: PipelineEditor, edits: Path
    ) -> None:
        rows = read_edits(edits)
        held = HeldOut(rows, editor, steps=2, guidance=None, batch=4)
        made = held.edits(editor)
        for row, edited in zip(rows, made, strict=True):
            alone = HeldOut([row], editor, steps=2, guidance=None, batch=4).edits(editor)[0]
            assert np.abs(edited.astype(int) - alone.astype(int)).max() <= 1
        asked: list[EditGroup] = []

        class Judge(SourcesJudge):
            def judge(self, groups: Any) -> Any:
                asked.extend(groups)
                return super().judge(groups)

        judge_scores(Judge(), held.cases, made)
        assert [[one.shape[:2] for one in group.references] for group in asked] == [list(sizes) for sizes in REFERENCES]

"""Reference images on their way to judges: files, batches, the server and its client, endpoints."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLModel

from editloop.data.edits_file import read_edits
from editloop.data.picture_file import load_image
from editloop.data.png_encoding import encode_png
from editloop.datasets.preference_groups import PreferenceGroups
from editloop.errors import EditLoopError
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import REFERENCE_NOTE, EditGroup, JudgeUnavailableError, note_on_references
from editloop.scoring.best_of import keep_best
from editloop.scoring.chunks import score_in_chunks
from editloop.scoring.endpoint_questions import EndpointQuestions
from editloop.scoring.judge_file import read_judge_file
from editloop.scoring.score_file import ScoringSettings, score_edits
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge
from editloop.scoring.server_messages import ScoreRequest
from editloop.scoring.server_settings import Limits
from editloop.scoring.serving.decoder_pool import Decoder
from editloop.scoring.serving.waiting import QueuedRequest, merge_by_task
from editloop.scoring.serving.worker import ModelFacts, _receive_groups, _send_groups
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.training.edit_reward.train import RewardTrainingTask
from editloop.training.edit_score.training_task import AnswerTrainingTask, read_training_edits
from editloop.training.presets import load_preset
from editloop.training.reward_job import TrainingJob
from tests.chat_endpoint import Body, ChatEndpoint, random_group, shown
from tests.edit_score_models import tiny_score
from tests.pair_datasets import write_pairs
from tests.pixel_judge import FACTS, UNJUDGEABLE, PixelJudge, SourcesJudge, message, picture
from tests.plain_passes import PlainPasses
from tests.unit.test_serving import Asgi, Workers

GROUP = EditGroup("put them together", picture(0), [picture(1), picture(2)], "kitchen-1", [picture(10), picture(20)])


class SourcesWorker(Workers):
    """A worker in this process that reads references."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[EditGroup] = []

    def start(self) -> ModelFacts:
        return FACTS._replace(takes_references=True)

    def judge(self, groups: Sequence[EditGroup]) -> Any:
        self.groups += groups
        return super().judge(groups)


class TestChunks:
    def test_a_judge_that_does_not_say_it_reads_references_is_not_asked(self) -> None:
        judge = PixelJudge()
        scores = score_in_chunks(judge, [replace(GROUP, references=()), GROUP, replace(GROUP, references=())])
        assert [bool(score.missing) for score in scores] == [False, False, True, True, False, False]
        assert "reference images, and pixel-judge 111111111111 reads one source" in scores[2].missing
        assert judge.sizes == [[2, 2]]

    def test_edits_that_are_judged_alone_keep_their_references(self) -> None:
        scores = score_in_chunks(SourcesJudge(), [replace(GROUP, edits=[*GROUP.edits, UNJUDGEABLE])])
        assert [score.overall for score in scores[:2]] == [score.overall for score in SourcesJudge().judge([GROUP])[0]]
        assert scores[2].missing


class TestServer:
    def ask(self, worker: Any, *bodies: dict[str, Any], **settings: Any) -> list[httpx.Response]:
        calls = [("POST", "/v1/score", {"json": body}) for body in bodies]
        return Asgi(worker, token=None, **settings).ask(*calls)

    def body(self, group: EditGroup) -> dict[str, Any]:
        request = ScoreRequest(
            instruction=group.instruction,
            source=encode_png(group.source),
            references=[encode_png(one) for one in group.references],
            edits=[encode_png(edit) for edit in group.edits],
        )
        body: dict[str, Any] = json.loads(request.model_dump_json())
        return body

    def test_requests_without_references_have_no_such_field(self) -> None:
        assert "references" not in self.body(replace(GROUP, references=()))
        assert len(self.body(GROUP)["references"]) == 2

    def test_references_reach_the_judge_in_their_order(self) -> None:
        worker = SourcesWorker()
        (answer,) = self.ask(worker, self.body(GROUP))
        assert answer.status_code == 200
        (group,) = worker.groups
        assert [int(one[0, 0, 0]) for one in (group.source, *group.references, *group.edits)] == [0, 10, 20, 1, 2]

    def test_their_number_and_pixels_are_limited(self) -> None:
        rng = np.random.default_rng(0)
        large = [rng.integers(0, 256, (800, 800, 3), dtype=np.uint8) for _ in range(2)]
        four = self.body(GROUP)
        four["references"] *= 2
        limits = Limits(picture_megapixels=1)
        answers = self.ask(SourcesWorker(), four, self.body(replace(GROUP, references=large)), limits=limits)
        assert [answer.status_code for answer in answers] == [422, 413]
        assert "references" in answers[0].json()["error"]
        unreadable = self.body(GROUP)
        unreadable["references"][1] = "AAAA"
        (answer,) = self.ask(SourcesWorker(), unreadable)
        assert (answer.status_code, "references[1]" in answer.json()["error"]) == (422, True)

    def test_the_model_says_whether_it_reads_them_to_clients_that_ask(self) -> None:
        plain, asked = Asgi(SourcesWorker(), token=None).ask(
            ("GET", "/v1/model", {}), ("GET", "/v1/model?references=true", {})
        )
        assert ("references" in plain.json(), asked.json()["references"]) == (False, True)
        (other,) = Asgi(Workers(), token=None).ask(("GET", "/v1/model?references=true", {}))
        assert other.json()["references"] is False

    def test_one_task_has_one_set_of_references(self) -> None:
        def queued(task: str) -> QueuedRequest:
            return QueuedRequest("red", picture(0), task, [picture(1)], None, [picture(10)])  # type: ignore[arg-type]

        groups = [group for group, _ in merge_by_task([queued("a"), queued("a"), queued("b")])]
        assert [(len(group.edits), len(group.references)) for group in groups] == [(2, 1), (1, 1)]
        worker = SourcesWorker()
        turned = replace(GROUP, references=list(GROUP.references)[::-1])
        self.ask(worker, self.body(GROUP), self.body(turned))
        assert [[int(one[0, 0, 0]) for one in group.references] for group in worker.groups] == [[10, 20], [20, 10]]

    def test_requests_with_other_references_are_other_tasks(self) -> None:
        decoder = Decoder(Limits(), 60.0)
        turned = replace(GROUP, references=list(GROUP.references)[::-1])
        groups = (GROUP, turned, replace(GROUP, references=()))
        try:
            decoded = [decoder.decode(json.dumps(self.body(group)).encode(), threading.Event()) for group in groups]
        finally:
            decoder.stop()
        assert len({request.task for request in decoded}) == 3
        for group, request in zip(groups, decoded, strict=True):
            np.testing.assert_array_equal(request.source, group.source)
            np.testing.assert_array_equal(request.references, np.array(group.references))
            np.testing.assert_array_equal(request.edits, np.array(group.edits))

    def test_references_cross_the_pipe_to_a_worker(self) -> None:
        sending, receiving = Pipe()
        groups = [GROUP, replace(GROUP, references=[]), replace(GROUP, references=[np.zeros((4, 7, 3), np.uint8)])]
        _send_groups(sending, groups)  # type: ignore[arg-type]
        for group, received in zip(groups, _receive_groups(receiving), strict=True):  # type: ignore[arg-type]
            assert (group.instruction, group.key) == (received.instruction, received.key)
            for one, other in zip(
                (group.source, *group.references, *group.edits),
                (received.source, *received.references, *received.edits),
                strict=True,
            ):
                assert np.array_equal(one, other)


class TestClient:
    def served(self, **facts: Any) -> tuple[ServedJudge, list[dict[str, Any]]]:
        bodies: list[dict[str, Any]] = []

        def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/model":
                model = {"model": FACTS.name, "version": FACTS.version, "axes": FACTS.axes}
                return httpx.Response(200, json=model | {"limits": Limits().model_dump()} | facts)
            bodies.append(json.loads(request.content))
            scores = [message(1.0).model_dump()] * len(bodies[-1]["edits"])
            return httpx.Response(200, json={"model": FACTS.name, "version": FACTS.version, "scores": scores})

        settings = JudgeClientSettings(patience=2.0)
        return ServedJudge("http://judge", settings, transport=httpx.MockTransport(handle)), bodies

    def test_references_are_sent_to_a_server_that_reads_them(self) -> None:
        judge, bodies = self.served(references=True)
        assert all(score.overall is not None for score in score_in_chunks(judge, [GROUP]))
        assert len(bodies[0]["references"]) == 2

    def test_an_older_server_is_asked_about_tasks_of_one_source_alone(self) -> None:
        judge, bodies = self.served()
        scores = score_in_chunks(judge, [GROUP, replace(GROUP, references=())])
        assert [bool(score.missing) for score in scores] == [True, True, False, False]
        assert ["references" in body for body in bodies] == [False]


class TestTrainings:
    """Reward models learn from a dataset's groups with their references."""

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        return write_pairs(tmp_path / "pairs", references=[picture(10, 32), picture(20, 32)])

    def test_edit_score_learns_from_rows_of_all_sources(self, dataset: Path) -> None:
        group, _ = read_training_edits(dataset, "train", 25).edit(0, 1)
        assert [int(one[0, 0, 0]) for one in group.references] == [10, 20]
        model = tiny_score()
        task = AnswerTrainingTask(model, {"train": read_training_edits(dataset, "train", 25)})
        tensors = task.batch("train", [0]).tensors
        assert len(tensors["image_grid_thw"]) == 4

    def test_a_training_of_order_paired_is_refused_before_it_begins(self, dataset: Path) -> None:
        tokenizer = byte_tokenizer()
        settings = RewardSettings(order="paired", side=32, rubrics=(), instruction_tokens=32)
        model = RewardModel(Qwen2_5_VLModel(tiny_config("qwen2.5-vl", tokenizer)), tokenizer, settings)
        splits = {split: PreferenceGroups(dataset, split, targets=False) for split in ("train", "validation")}
        job = TrainingJob.model_construct(dataset=dataset)
        with pytest.raises(EditLoopError, match="tasks have reference images; a reward model of order `paired`"):
            RewardTrainingTask(model, splits, job)  # type: ignore[arg-type]

    def test_edit_reward_learns_from_trees_of_all_sources(self, dataset: Path) -> None:
        settings = RewardSettings(rubrics=("{instruction}", "clean {instruction}"), min_pixels=1024, max_pixels=1024)
        tokenizer = byte_tokenizer()
        backbone = Qwen2_5_VLModel(tiny_config("qwen2.5-vl", tokenizer))
        model = RewardModel(backbone, tokenizer, settings).eval()
        job = TrainingJob.model_construct(
            preset=load_preset("editreward-tiny"), training=load_preset("editreward-tiny").training
        )
        splits = {split: PreferenceGroups(dataset, split, targets=False) for split in ("train", "validation")}
        task = RewardTrainingTask(model, splits, job)  # type: ignore[arg-type]
        tensors = task.batch("train", [0]).tensors
        assert len(tensors["image_grid_thw"]) == 1 + 2 + len(splits["train"][0].edits)
        with torch.no_grad():
            plain = PlainPasses(model).hidden(splits["train"][0])
            inputs = {name: value for name, value in tensors.items() if name not in ("ratings", "valid", "weights")}
            assert (model.hidden(inputs) - plain).abs().max() <= 2e-5


class TestScoreFile:
    @pytest.fixture
    def edits(self, tmp_path: Path) -> Path:
        for name, value in {"s": 0, "a": 1, "b": 2, "x": 100, "y": 200}.items():
            Image.fromarray(picture(value)).save(tmp_path / f"{name}.png")
        made = [{"image": f"{name}.png", "editor": name} for name in "ab"]
        line = {"id": "t", "instruction": "do", "source": "s.png", "candidates": made}
        lines = [line, line | {"id": "u", "references": ["x.png", "y.png"]}]
        (tmp_path / "edits.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        return tmp_path / "edits.jsonl"

    def overall(self, edits: Path, output: Path) -> list[float | None]:
        score_edits(SourcesJudge(), edits, output, ScoringSettings(most_missing=1.0, part_tasks=1))
        values: list[float | None] = parquet.read_table(output)["overall"].to_pylist()
        return values

    def test_rows_are_scored_with_their_references(self, edits: Path, tmp_path: Path) -> None:
        scores = self.overall(edits, tmp_path / "scores.parquet")
        groups = [
            EditGroup("do", picture(0), [picture(1), picture(2)], "", references)
            for references in ((), (picture(100), picture(200)))
        ]
        assert scores == [score.overall for scores in SourcesJudge().judge(groups) for score in scores]
        keep_best(edits, tmp_path / "scores.parquet", 2, tmp_path / "best")
        kept = read_edits(tmp_path / "best")
        assert [[np.asarray(load_image(one))[0, 0, 0] for one in row.references] for row in kept] == [[], [100, 200]]

    def test_a_reference_that_cannot_be_read_costs_its_task_alone(self, edits: Path, tmp_path: Path) -> None:
        (tmp_path / "y.png").write_bytes(b"no picture")
        scores = self.overall(edits, tmp_path / "scores.parquet")
        assert [score is None for score in scores] == [False, False, True, True]
        reasons = parquet.read_table(tmp_path / "scores.parquet")["missing"].to_pylist()
        assert reasons[2] is not None
        assert reasons[2].startswith("references[1]: ")

    def test_a_reference_that_is_gone_is_noticed_when_a_call_goes_on(self, edits: Path, tmp_path: Path) -> None:
        lines = edits.read_text().splitlines()
        edits.write_text("\n".join(lines[::-1]) + "\n")
        with pytest.raises(JudgeUnavailableError):
            score_edits(self.stops(), edits, tmp_path / "scores.parquet", ScoringSettings(part_tasks=1))
        (tmp_path / "y.png").unlink()
        assert [score is None for score in self.overall(edits, tmp_path / "scores.parquet")] == [
            True,
            True,
            False,
            False,
        ]

    def stops(self) -> SourcesJudge:
        """A judge that is away when it is asked about a task of one source."""

        class Stops(SourcesJudge):
            def judge(self, groups: Sequence[EditGroup]) -> Any:
                if not groups[0].references:
                    raise JudgeUnavailableError("http://judge: 503, no worker")
                return super().judge(groups)

        return Stops()

    def test_a_reference_that_was_changed_is_scored_again(self, edits: Path, tmp_path: Path) -> None:
        lines = edits.read_text().splitlines()
        edits.write_text("\n".join(lines[::-1]) + "\n")
        with pytest.raises(JudgeUnavailableError):
            score_edits(self.stops(), edits, tmp_path / "scores.parquet", ScoringSettings(part_tasks=1))
        before = SourcesJudge().judge([EditGroup("do", picture(0), [picture(1)], "", (picture(100), picture(200)))])
        time.sleep(0.05)
        Image.fromarray(picture(250)).save(tmp_path / "y.png")
        after = SourcesJudge().judge([EditGroup("do", picture(0), [picture(1)], "", (picture(100), picture(250)))])
        found = self.overall(edits, tmp_path / "scores.parquet")[0]
        assert (found, found == before[0][0].overall) == (after[0][0].overall, False)


@pytest.fixture(scope="module")
def running() -> Iterator[ChatEndpoint]:
    endpoint = ChatEndpoint()
    yield endpoint
    endpoint.stop()


class TestEndpoint:
    @pytest.fixture
    def endpoint(self, running: ChatEndpoint) -> ChatEndpoint:
        running.reset()
        return running

    def questions(self, folder: Path, **values: Any) -> EndpointQuestions:
        (folder / "judge.yaml").write_text(json.dumps(values))
        return read_judge_file(folder / "judge.yaml")

    def contents(self, endpoint: ChatEndpoint, questions: EndpointQuestions) -> list[list[str]]:
        group = replace(random_group(1), references=[picture(10, 32), picture(20, 32)])
        endpoint.judge(questions).judge([group])
        names = {group.source.tobytes(): "<source>", group.edits[0].tobytes(): "<edit>"}
        names |= {one.tobytes(): f"<reference {place}>" for place, one in enumerate(group.references, start=2)}

        def content(body: Body) -> list[str]:
            pictures = iter(shown(body))
            parts = body["messages"][-1]["content"]
            return [part["text"] if part["type"] == "text" else names[next(pictures).tobytes()] for part in parts]

        return sorted((content(body) for body in endpoint.bodies), key=len, reverse=True)

    def test_edit_score_shows_all_sources_to_sc_alone(self, endpoint: ChatEndpoint, tmp_path: Path) -> None:
        wording = {"sc": "Done: {instruction}?", "pq": "Clean?", "closing": "", "picture_mark": "[{n}]"}
        sc, pq = self.contents(endpoint, self.questions(tmp_path, **wording, passes=1))
        note = note_on_references(REFERENCE_NOTE, 2)
        pictures = ["[1]", "<source>", "[2]", "<reference 2>", "[3]", "<reference 3>", "[4]", "<edit>"]
        assert sc == [*pictures, f"{note}Done: make it red?"]
        assert pq == ["[1]", "<edit>", "Clean?"]

    @pytest.mark.parametrize(
        ("text", "content"),
        [
            (
                "A {source} B {edit} C {instruction}",
                ["A ", "<source>", 2, "<reference 2>", 3, "<reference 3>", " B ", "<edit>", " C make it red"],
            ),
            (
                "{instruction}?",
                [
                    "<source>",
                    2,
                    "<reference 2>",
                    3,
                    "<reference 3>",
                    "<edit>",
                    note_on_references(REFERENCE_NOTE, 2),
                    "make it red?",
                ],
            ),
            ("{edit}{instruction}?", ["<edit>", "make it red?"]),
        ],
    )
    @pytest.mark.parametrize(
        "kind",
        [
            {"kind": "tokens", "values": {"yes": 1, "no": 0}},
            {"kind": "lines"},
            {"kind": "aspects", "aspects": {"a": "A"}},
        ],
    )
    def test_one_question_shows_references_after_the_source_with_their_numbers(
        self, kind: dict[str, Any], text: str, content: list[Any], endpoint: ChatEndpoint, tmp_path: Path
    ) -> None:
        (found,) = self.contents(endpoint, self.questions(tmp_path, **kind, text=text))
        labels = {number: f"Image {number}, a reference of which the instruction may speak:" for number in (2, 3)}
        assert found == [labels.get(part, part) for part in content]

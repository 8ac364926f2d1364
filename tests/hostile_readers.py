"""The readers of files from outside, one list for all tests that give them what no honest file is."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any, NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import Campaign, load_pages
from annotation.campaigns.campaign_settings import read_campaign_settings
from annotation.campaigns.closing import parse_digests
from annotation.campaigns.gold import read_gold_answers
from annotation.formats.editreward_pairs import read_pairs
from annotation.formats.import_folders import ImportReport
from annotation.formats.label_studio_import import import_label_studio
from annotation.formats.label_studio_mapping import read_mapping
from annotation.formats.ratings_table import judgements_of_table, read_table
from annotation.formats.team_table import import_team_table
from editloop.content import read_manifest, sha256_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.edits_file import read_edits
from editloop.data.published_edits import import_published_edits
from editloop.data.vocabulary import EditTask
from editloop.datasets.repository import read_version
from editloop.datasets.shards import rows_of_tasks
from editloop.datasets.votes import read_votes
from editloop.errors import EditLoopError
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from editloop.evaluation.editor_suites.result import read_result
from editloop.evaluation.gates.settings import read_gate
from editloop.evaluation.second_opinion import read_preferences
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.saved_answers import read_scores, read_verdicts
from editloop.evaluation.suites.suite import Suite, pair_item
from editloop.json_file import read_json_record
from editloop.lineage.gate_decision import read_decision
from editloop.lineage.stored_folders import read_pointer
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.editors.settings import read_own_settings
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.edit_score_questions import EditScoreQuestions
from editloop.scoring.judge_file import read_judge_file
from editloop.scoring.openai_judge import OpenAIJudge, OpenAISettings
from editloop.scoring.score_table import read_facts
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge
from editloop.scoring.server_settings import Limits
from editloop.scoring.serving.decoding import RequestError, parse_request
from editloop.settings_file import read_yaml
from editloop.training.edit_score.distillation import import_distillation_rows, read_distillation_rows
from editloop.training.edit_score.published_conversations import import_conversations
from editloop.training.editor_dpo.settings import read_dpo_preset
from editloop.training.editor_rl.settings import read_rl_preset
from editloop.training.editor_sft.settings import read_sft_preset
from editloop.training.presets import load_preset
from infra.profile import read_profile
from infra.settings import ServiceSettings
from pipelines.reconcile_settings import read_policy
from pipelines.settings import PARAMS, read_params
from tests.fuzz.targets import ROOT, weight_file
from tests.label_studio_projects import EXPORTS, write_mapping, write_pictures

IMAGENHUB = "results/ImagenHub_Text-Guided_IE"
SUITE = Suite("editscore-bench", "strict", "0" * 64, (pair_item("k", "left", "x"),))
SUITES = ROOT / "tests" / "parity" / "suites"
SHIPPED = ROOT / "editloop" / "models"
DIGEST = "0" * 64
TIME = "2026-03-02T10:00:00Z"


WHOLE_IMPORTS = 10
"""Examples of a property where a reader writes folders, or builds an editor."""


class Reader(NamedTuple):
    """A reader of one file."""

    file: str
    """Name of the file, below a folder."""
    read: Callable[[Path], Any]
    valid: Any = None
    """What an honest file holds: a value of JSON, `Lines` of them, or bytes; None where no test needs it."""
    beside: Callable[[Path], object] = lambda folder: None
    """Writes what belongs beside the file, in its folder."""
    lacks: str = ""
    """What an honest file is refused for, because what belongs to it is not there; "" where it is read."""
    examples: int = 30
    """Examples of a property."""


class Lines(list[Any]):
    """Values of JSON, one on a line."""


def file_content(value: Any) -> bytes:
    """Return the bytes of a file.

    Args:
        value: As for `Reader.valid`.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, Lines):
        return b"".join(json.dumps(line).encode() + b"\n" for line in value)
    return json.dumps(value).encode()


def pictures(folder: Path) -> None:
    """Write small pictures a.png to d.png."""
    for number, name in enumerate("abcd"):
        pixels = np.random.default_rng(number).integers(0, 256, (17, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def shipped(path: str) -> Any:
    return json.loads((SHIPPED / path).read_bytes())


def preset(path: str) -> Any:
    return read_yaml(ROOT / path)


def tiny_editor(folder: Path) -> None:
    """Copy the editor that ships."""
    copytree(SHIPPED / "editors" / "weights" / "tiny-editor", folder, dirs_exist_ok=True)


def published_pairs(path: Path) -> None:
    """Read pairs, whose faults come one by one."""
    for _, pair in read_pairs(path):
        if isinstance(pair, str):
            raise EditLoopError(pair)


def adapter(path: Path) -> Any:
    from editloop.models.edit_score.adapters import read_adapter

    return read_adapter(path.parent)


def score_settings(path: Path) -> Any:
    from editloop.models.edit_score.checkpoints import read_settings

    return read_settings(path.parent)


def base_of_adapter(path: Path) -> Any:
    from editloop.models.edit_score.checkpoints import resolve_base

    return resolve_base(path.parent, None)


def backbone(path: Path) -> Any:
    from editloop.models.backbones.config_values import check_config_values

    check_config_values(path)


def backbone_config(path: Path) -> Any:
    from editloop.models.backbones.checkpoints import read_config

    return read_config(path.parent)


def generation(path: Path) -> Any:
    from editloop.models.backbones.checkpoints import generation_values

    return generation_values(path.parent)


def weights(path: Path) -> Any:
    from editloop.models.backbones.weight_files import survey_weights

    return survey_weights(path.parent)


def image_processor(path: Path) -> Any:
    from editloop.models.backbones.image_processor import read_image_processor

    if read_image_processor(path.parent) is None:
        raise EditLoopError(f"{path}: not there")


def editor(path: Path) -> Any:
    from editloop.models.editors.opening import outline_editor

    return outline_editor(path.parent)


def editor_settings(path: Path) -> Any:
    if read_own_settings(path.parent) is None:
        raise EditLoopError(f"{path}: not there")


def reward_wording(path: Path) -> Any:
    from editloop.models.edit_reward.wording import read_wording

    return read_wording(path)


def score_wording(path: Path) -> Any:
    from editloop.models.edit_score.wording import read_score_wording

    return read_score_wording(path)


def score_request(path: Path) -> Any:
    """Read a request to the reward server, whose refusals have a status."""
    limits = Limits()
    try:
        return parse_request(path.read_bytes(), limits)
    except RequestError as error:
        raise EditLoopError(str(error)) from None


def answering(path: Path, first: bytes | None = None) -> httpx.MockTransport:
    """A server that answers with a file's bytes; the first request with others, where they are given."""
    answers = [] if first is None else [first]
    return httpx.MockTransport(lambda _: httpx.Response(200, content=answers.pop() if answers else path.read_bytes()))


def server_facts(path: Path) -> Any:
    return ServedJudge("http://judge", JudgeClientSettings(patience=0), transport=answering(path))


def server_scores(path: Path) -> Any:
    facts = json.dumps(SERVER_FACTS).encode()
    return ServedJudge("http://judge", JudgeClientSettings(patience=0), transport=answering(path, facts)).judge([GROUP])


def endpoint_models(path: Path) -> Any:
    return OpenAIJudge("http://judge/v1", "m", OpenAISettings(patience=0), transport=answering(path))


def endpoint_reply(path: Path) -> Any:
    models, questions = b'{"data": [{"id": "m"}]}', EditScoreQuestions(EditScoreSettings(passes=1))
    settings = OpenAISettings(patience=0)
    return OpenAIJudge("http://judge/v1", "m", settings, questions, answering(path, models)).judge([GROUP])


def refusal(path: Path) -> Any:
    """Read the reason of a server's refusal."""
    transport = httpx.MockTransport(lambda _: httpx.Response(422, content=path.read_bytes()))
    return ServedJudge("http://judge", JudgeClientSettings(patience=0), transport=transport)


def dataset_rows(path: Path) -> Any:
    return list(rows_of_tasks(path.parent, "train"))


def gold_answers(path: Path) -> Any:
    return read_gold_answers(path.read_bytes().decode(errors="replace"), [EditTask.model_validate(TASK)])


def label_studio_export(path: Path) -> ImportReport:
    out = path.parent.parent
    return import_label_studio(path, path.parent / "mapping.yaml", out / "candidates", out / "judgements")


def label_studio_project(folder: Path) -> None:
    write_pictures(folder)
    write_mapping(folder / "mapping.yaml", "words")


def pointer(path: Path) -> None:
    """Read a pointer to a stored folder: for what is none, None comes back."""
    if read_pointer(path) is None:
        raise EditLoopError("no pointer")


def written_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


EDIT = {
    "id": "kitchen-1",
    "instruction": "Make the kettle red.",
    "source": "a.png",
    "task": "recolour",
    "references": ["d.png"],
    "target": "c.png",
    "candidates": [{"image": "b.png", "editor": "x"}],
}
TASK = {
    "task_id": "t",
    "name": "scene-1",
    "task_type": "move",
    "instruction": "Move it.",
    "source": DIGEST,
    "target": None,
    "candidates": [
        {"candidate_id": "c", "image": DIGEST, "editor": "x"},
        {"candidate_id": "d", "image": "1", "editor": "y"},
    ],
}
CAMPAIGN = {
    **dict.fromkeys(("key", "name", "config_sha256", "candidates_sha256", "pages_sha256"), "k"),
    **dict.fromkeys(("project_id", "seed", "pages", "wanted", "tasks", "places", "overlap"), 2),
    **{"url": "http://studio/projects/2", "tiny": True, "gates": {"if": 0.4}, "lead": "lee", "annotators": ["ada"]},
}
PAGE = {
    **{"key": "p", "kind": "gold", "task_id": "t", "instruction": "x", "source": DIGEST, "overlap": 2},
    **{"candidates": ["a", "b"], "images": ["1", "2"], "expected": {"a": {"if": [3, 4]}}},
}
JUDGEMENT = {
    **{"task_id": "t", "candidate_id": "c", "annotator": "ada", "if": 3, "vq": 4, "position": 0, "seconds": 2.5},
    **{"annotation_id": 1, "created_at": TIME, "kind": "task"},
}
DECISION = {
    **{"verdict": "promote", "reasons": ["better."], "gate": "reward", "alpha": 0.05, "against": "the champion"},
    "data": {"dataset_sha256": DIGEST, "suites": [{"suite": "heldout", "sha256": DIGEST, "units": 24}]},
    "independent": [{"judge": "clip", "verdict": "hold", "counts": False}],
}
MANIFEST = {"sha256": sha256_json({"a": DIGEST}), "files": {"a": DIGEST}, "facts": {"rows": 3}}
TAUGHT = {
    **{
        "key": "k",
        "instruction": "x",
        "source": "a.png",
        "edit": "b.png",
        "editor": "e",
        "sc": [2, 25],
        "pq": [9.5, 20],
    },
    **{"reasoning": {"sc": "seen", "pq": "sharp"}},
}
CONVERSATION = {
    "conversations": [
        {"from": "human", "value": "<image>\nHow natural is it?"},
        {"from": "gpt", "value": '{"reasoning": "sharp", "score": [9, 20]}'},
    ],
    "images": ["b.png"],
}
PAIR = {
    **{"prompt": "x", "path_src": "a.png", "path1": "b.png", "path2": "c.png", "model1": "m", "model2": "n"},
    **{"model1_dim1_score": 3, "model1_dim2_score": 3, "model2_dim1_score": 2, "model2_dim2_score": 1},
}
REQUEST = {"instruction": "make it red", "source": "iVBORw0KGgo=", "edits": ["iVBORw0KGgo="], "references": []}
TABLE = b"task,candidate,source,instruction,image,annotator,if,vq,seconds\nt,c,a.png,Make it red.,b.png,ada,3,4,2.5\n"
RATINGS = b"item,rater,if,vq,task,seconds,created_at\nt/c,anna,4,3,t,2.5,2026-03-02T10:00:00Z\nt/d,anna,,,t,,\n"
MAPPING = {
    **{"source": "source", "instruction": "instruction", "images": {"one": "first", "two": "second"}},
    **{"editors": {"one": "model_1"}, "scale": "1..5", "words": {"Poor": 1, "Good": 5}, "annotators": {"2": "anna"}},
    "ratings": {"one": {"if": "follow_1", "vq": "quality_1"}, "two": {"if": "follow_2", "vq": "quality_2"}},
}
INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}
SERVER_FACTS = {
    **{"model": "m", "version": DIGEST, "axes": ["if", "vq"], "limits": Limits().model_dump()},
    **{"wording": {"sha256": DIGEST, "is_substitute": False}, "references": False},
}
BELIEF = {"mean": 1.0, "sigma": 0.5}
SERVER_SCORES = {
    **{"model": "m", "version": DIGEST},
    "scores": [{"axes": {"if": BELIEF, "vq": BELIEF}, "fused": BELIEF, "overall": 1.0, "reward": 0.5}],
}
COMPLETION = {
    "model": "m",
    "choices": [
        {
            "message": {"content": '{"reasoning": "x", "score": [9, 20]}'},
            "finish_reason": "stop",
            "logprobs": {"content": [{"top_logprobs": [{"token": "a", "logprob": -0.5}]}]},
        }
    ],
}
BLACK = np.zeros((16, 16, 3), np.uint8)
GROUP = EditGroup("make it red", BLACK, [BLACK])

READERS: dict[str, Reader] = {
    "an edits file": Reader("edits.jsonl", read_edits, Lines([EDIT]), pictures),
    "a folder of edits": Reader("edits.jsonl", lambda path: read_edits(path.parent)),
    "a manifest": Reader("manifest.json", lambda path: read_manifest(path.parent, check=False), MANIFEST),
    "a candidates folder": Reader("tasks.jsonl", lambda path: read_tasks(path.parent), Lines([TASK, TASK])),
    "YAML": Reader("x.yaml", read_yaml, {"a": [1, {"b": None}]}),
    "a campaign": Reader(
        "campaign.yaml",
        read_campaign_settings,
        {"name": "kitchen", "annotators": ["ada", "bo"], "overlap": 2},
        lacks="candidates: name the folder",
    ),
    "a judge file": Reader(
        "judge.yaml",
        read_judge_file,
        {"kind": "lines", "scores": 2, "text": "Was {instruction} done?", "tasks": {"add": "Was {instruction} added?"}},
    ),
    "a suite in JSON lines": Reader("pairs.jsonl", lambda path: open_suite("genai-bench", path.parent)),
    "a suite in JSON": Reader(
        "edit.json",
        lambda path: open_suite("mmrb2-edit", path.parent),
        json.loads((SUITES / "mmrb2-edit/edit.json").read_bytes()),
        lambda folder: [copytree(SUITES / "mmrb2-edit" / name, folder / name) for name in ("images", "input_images")],
    ),
    "a suite in parquet": Reader("test.parquet", lambda path: open_suite("genai-bench", path.parent)),
    "a suite in arrow": Reader("data-00000-of-00001.arrow", lambda path: open_suite("genai-bench", path.parent)),
    "labels": Reader("labels.jsonl", lambda path: open_suite("genai-bench", None, path)),
    "a lookup": Reader(
        f"{IMAGENHUB}/dataset_lookup.json",
        lambda path: open_suite("imagenhub", path.parents[2]),
        {"a.jpg": {"instruction": "x", "uid": "1"}},
        lacks="no rater's .tsv file",
    ),
    "a benchmark of editors": Reader(
        "basic_edit.json",
        lambda path: open_editor_suite("imgedit-bench", path.parent),
        json.loads((SUITES / "imgedit/basic_edit.json").read_bytes()),
        lacks="no such file",
    ),
    "a result": Reader("report.json", lambda path: read_result(path.parent)),
    "scores in CSV": Reader(
        "scores.csv", lambda path: read_scores(path, SUITE), b"key,candidate,score\nk,left,1\nk,right,\n"
    ),
    "scores in JSON lines": Reader(
        "scores.jsonl",
        lambda path: read_scores(path, SUITE),
        Lines([{"key": "k", "candidate": side, "score": 1} for side in ("left", "right")]),
    ),
    "scores in parquet": Reader(
        "scores.parquet",
        lambda path: read_scores(path, SUITE),
        written_parquet([{"key": "k", "candidate": side, "score": 1.5} for side in ("left", "right")]),
    ),
    "verdicts": Reader(
        "verdicts.jsonl", lambda path: read_verdicts(path, SUITE), Lines([{"key": "k", "verdict": "tie"}])
    ),
    "predictions": Reader("predictions.json", lambda path: read_verdicts(path, SUITE)),
    "a gate's verdicts": Reader("verdicts.jsonl", read_preferences, Lines([{"key": "k", "verdict": "right"}])),
    "a table of scores": Reader("scores.parquet", read_facts),
    "ratings in CSV": Reader("ratings.csv", read_table, RATINGS),
    "ratings in parquet": Reader(
        "ratings.parquet", read_table, written_parquet([{"item": "t/c", "rater": "anna", "if": 3, "vq": 4.0}])
    ),
    "published pairs": Reader("pairs.json", published_pairs, [PAIR], pictures),
    "a teacher's rows": Reader(
        "rows.jsonl",
        lambda path: import_distillation_rows(path, path.parent / "out", top=25),
        Lines([TAUGHT, {**TAUGHT, "edit": "c.png", "sc": [20, 20]}]),
        pictures,
    ),
    "an adapter": Reader(
        "adapter_config.json",
        adapter,
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"},
        lacks="no weights",
    ),
    "an EditScore model": Reader("editscore.json", score_settings, EditScoreSettings().model_dump(mode="json")),
    "an adapter's base": Reader(
        "base.json", base_of_adapter, {"base": "tiny-score", "sha256": DIGEST}, lacks="Give the base"
    ),
    "a configuration": Reader("config.json", backbone, shipped("edit_reward/weights/tiny-reward/backbone/config.json")),
    "an index of weights": Reader("model.safetensors.index.json", weights, INDEX, lacks="model-1.safetensors missing"),
    "weights": Reader(
        "model.safetensors",
        weights,
        weight_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    ),
    "an image processor": Reader(
        "preprocessor_config.json", image_processor, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {}}
    ),
    "an editor": Reader(
        "model_index.json",
        editor,
        shipped("editors/weights/tiny-editor/model_index.json"),
        tiny_editor,
        examples=WHOLE_IMPORTS,
    ),
}
"""Those that the contents of tests/unit/test_hostile_files.py are for: pipes, devices and bombs."""

FURTHER_READERS: dict[str, Reader] = {
    "a backbone's configuration": Reader(
        "config.json", backbone_config, shipped("edit_reward/weights/tiny-reward/backbone/config.json")
    ),
    "generation settings": Reader("generation_config.json", generation, {"repetition_penalty": 1.05, "top_k": 2}),
    "an editor's settings": Reader("editor.json", editor_settings, shipped("editors/weights/tiny-editor/editor.json")),
    "a reward model's settings": Reader(
        "reward.json",
        lambda path: read_json_record(path, RewardSettings, "Restore the file."),
        shipped("edit_reward/weights/tiny-reward/reward.json"),
    ),
    "a wording of EditReward": Reader(
        "wording.yaml",
        reward_wording,
        {"rubrics": {"if": "Is {instruction} done?", "vq": "Is it sharp after {instruction}?"}},
    ),
    "a wording of EditScore": Reader("wording.yaml", score_wording, {"sc": "{instruction}", "pq": "x"}),
    "a campaign's folder": Reader(
        "campaign.json", lambda path: read_json_record(path, Campaign, "Restore it."), CAMPAIGN
    ),
    "a campaign's pages": Reader("pages.jsonl", lambda path: load_pages(path.parent), Lines([PAGE])),
    "accounts": Reader(
        "accounts.json",
        lambda path: read_accounts(ServiceSettings(annotators_file=path)),
        {"ada": {"name": "ada", "email": "a@b.org", "password": "x", "token": "y"}},
    ),
    "known answers": Reader("gold.csv", gold_answers, b"task,candidate,if,vq\nt,1,4,3-4\nscene-1,d,,2\n"),
    "judgements": Reader("judgements.jsonl", lambda path: read_votes(path.parent), Lines([JUDGEMENT])),
    "judgements of a table": Reader(
        "ratings.csv", lambda path: judgements_of_table(path, [EditTask.model_validate(TASK)]), RATINGS
    ),
    "a team's table": Reader(
        "table.csv",
        lambda path: import_team_table(path, path.parent / "candidates", path.parent / "judgements"),
        TABLE,
        pictures,
        examples=WHOLE_IMPORTS,
    ),
    "a Label Studio export": Reader(
        "input/words.json",
        label_studio_export,
        json.loads((EXPORTS / "words.json").read_bytes()),
        label_studio_project,
        examples=WHOLE_IMPORTS,
    ),
    "a Label Studio mapping": Reader("mapping.yaml", read_mapping, MAPPING),
    "published edits": Reader(
        "rl.jsonl",
        lambda path: import_published_edits(path, "editscore-rl", path.parent / "edits"),
        Lines([{"task_type": "add", "instruction": "x", "input_images": ["a.png"], "meta_data": "{}"}]),
        pictures,
        examples=WHOLE_IMPORTS,
    ),
    "published conversations": Reader(
        "reward.json",
        lambda path: import_conversations(path, path.parent / "taught"),
        [CONVERSATION],
        pictures,
        examples=WHOLE_IMPORTS,
    ),
    "taught rows": Reader(
        "taught-train.jsonl", lambda path: read_distillation_rows(path.parent, "train"), Lines([TAUGHT])
    ),
    "a dataset's shard": Reader("candidates-train-00000.parquet", dataset_rows),
    "a dataset's version": Reader(
        "version.json",
        read_version,
        {"repo": "r", "tag": f"preferences-{DIGEST[:12]}", "dvc_rev": DIGEST[:40], "sha256": DIGEST},
    ),
    "a pointer": Reader("pointer", pointer, {"address": "s3://bucket/x", "sha256": DIGEST}),
    "a request to the reward server": Reader("request.json", score_request, REQUEST),
    "a gate": Reader(
        "gate.yaml", lambda path: read_gate(str(path)), preset("editloop/evaluation/gates/presets/reward.yaml")
    ),
    "a gate's decision": Reader("gate.json", read_decision, DECISION),
    "answers of a closing": Reader("answers.json", lambda path: parse_digests(path.read_bytes()), {"7": DIGEST}),
    "a preset of a reward model": Reader(
        "preset.yaml", lambda path: load_preset(str(path)), preset("editloop/training/presets/editreward-tiny.yaml")
    ),
    "a preset of online RL": Reader(
        "preset.yaml",
        lambda path: read_rl_preset(str(path)),
        preset("editloop/training/editor_rl/presets/smallest.yaml"),
    ),
    "a preset of DPO": Reader(
        "preset.yaml",
        lambda path: read_dpo_preset(str(path)),
        preset("editloop/training/editor_dpo/presets/smallest.yaml"),
    ),
    "a preset of supervised training": Reader(
        "preset.yaml",
        lambda path: read_sft_preset(str(path)),
        preset("editloop/training/editor_sft/presets/smallest.yaml"),
    ),
    "a profile": Reader("profile.yaml", lambda path: read_profile(str(path)), preset("infra/profiles/example.yaml")),
    "a policy": Reader("policy.yaml", lambda path: read_policy(str(path)), preset("pipelines/policies/default.yaml")),
    "a reward server's model": Reader("reply.json", server_facts, SERVER_FACTS),
    "a reward server's scores": Reader("reply.json", server_scores, SERVER_SCORES),
    "a server's refusal": Reader("reply.json", refusal, {"error": {"message": "no", "code": 1}}, lacks="422, no"),
    "an endpoint's models": Reader("reply.json", endpoint_models, {"data": [{"id": "m", "root": "r"}]}),
    "an endpoint's answer": Reader("reply.json", endpoint_reply, COMPLETION),
    "parameters": Reader("params.yaml", read_params, read_yaml(PARAMS)),
}
"""Those that only the properties of tests/unit/test_reader_properties.py are for."""

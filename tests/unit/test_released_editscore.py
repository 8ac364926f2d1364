"""Released EditScore weights: their prompts as published, wording from a file or a checkout, folders of both kinds."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, RepetitionPenaltyLogitsProcessor

from editloop.errors import EditLoopError
from editloop.models.backbones.checkpoints import read_config
from editloop.models.backbones.picture_inputs import Patches
from editloop.models.edit_score.generation import generate_answers, next_token_probabilities, penalise_repetition
from editloop.models.edit_score.judge import EditScoreJudge
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.released import ReleaseSettings, add_editscore
from editloop.models.edit_score.rows import RowMaker
from editloop.models.edit_score.scores import average_passes
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.edit_score.wording import read_score_repository, read_score_wording
from editloop.models.judge_protocol import JudgeWording
from tests.edit_score_models import plain_inputs, some_groups, tiny_score
from tests.editreward_releases import release_folder
from tests.editscore_releases import PROMPTS, WORDING, write_release

FAMILIES = ("qwen2.5-vl", "qwen3-vl")
PUBLISHED_PROMPTS = {
    "qwen2.5-vl": "<|im_start|>system\nYou judge edited pictures.<|im_end|>\n<|im_start|>user\n"
    "<img1>: {0}<img2>: {0}{1}<|im_end|>\n<|im_start|>assistant\n",
    "qwen3-vl": "<|im_start|>user\n{0}{0}{1}<|im_end|>\n<|im_start|>assistant\n",
}
"""SC's prompt of a family, as the published code writes it; {0} is a picture, {1} the question."""


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_token_for_token_those_of_the_published_code(family, tmp_path):
    write_release(family, tmp_path)
    add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=WORDING)
    settings = EditScoreSettings.model_validate_json((tmp_path / "model" / "editscore.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(release_folder(family) / "base")
    maker = RowMaker(read_config(release_folder(family) / "base"), tokenizer, settings)
    model = tiny_score(family)
    model.rows = maker
    group = some_groups()[1]  # its instruction spells no control token, which would be read as one in a whole text
    sc, pq = maker.ask(group)[0]
    picture = "<|vision_start|>{}<|vision_end|>"
    pads = [
        picture.format("<|image_pad|>" * part.tokens(maker.marks.merge))
        for part in (*sc.prompt, *pq.prompt)
        if isinstance(part, Patches)
    ]
    written = PUBLISHED_PROMPTS[family]
    sc_text = "Say why.\nTwo pictures,\nfrom 0 to 25.\nWish: 小さく"
    expected = written.replace("{0}", pads[0], 1).replace("{0}", pads[1], 1).replace("{1}", sc_text)
    assert plain_inputs(model, sc)["input_ids"][0].tolist() == tokenizer(expected).input_ids
    second = "<img2>: {0}" if "<img2>" in written else "{0}"
    expected = (
        written.replace(second, "", 1).replace("{0}", pads[2], 1).replace("{1}", "Say why.\nOne picture, 0 to 25.")
    )
    assert plain_inputs(model, pq)["input_ids"][0].tolist() == tokenizer(expected).input_ids


def test_settings_are_those_of_the_release_and_its_base(tmp_path):
    write_release("qwen2.5-vl", tmp_path)
    settings = add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=WORDING)
    assert (settings.temperature, settings.top_p, settings.top_k, settings.max_new_tokens, settings.seed) == (
        *(0.7, 0.9, 20, 512, 42),
    )
    assert (settings.repetition_penalty, settings.passes, settings.top) == (1.05, 4, 25)
    assert (settings.min_pixels, settings.max_pixels) == (3136, 12845056)
    limits = ReleaseSettings(max_pixels=1024, repetition_penalty=1.0)
    limited = add_editscore(
        tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=WORDING, changes=limits
    )
    assert (limited.min_pixels, limited.max_pixels, limited.repetition_penalty) == (1024, 1024, 1)
    with pytest.raises(EditLoopError, match=r"min_pixels 2000 is above max_pixels 1024\. Correct"):
        add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "other", changes=ReleaseSettings(2000, 1024))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_answer_as_their_adapter_does(family, tmp_path):
    write_release(family, tmp_path)
    add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "by-adapter", wording=WORDING)
    by_adapter = EditScoreModel.load(tmp_path / "by-adapter")
    by_adapter.backbone.save_pretrained(tmp_path / "merged")
    add_editscore(tmp_path / "merged", tmp_path / "base", tmp_path / "whole", wording=WORDING)
    whole = EditScoreModel.load(tmp_path / "whole")
    shutil.rmtree(tmp_path / "base")
    rows = [row for questions in whole.rows.ask(some_groups()[0]) for row in questions]
    probabilities = [next_token_probabilities(model, rows, range(256)) for model in (by_adapter, whole)]
    torch.testing.assert_close(*probabilities)
    assert whole.settings == by_adapter.settings


class TestFaults:
    def test_merged_weights_of_another_model(self, tmp_path):
        write_release("qwen2.5-vl", tmp_path)
        tiny_score("qwen3-vl").backbone.save_pretrained(tmp_path / "merged")
        with pytest.raises(EditLoopError, match="surplus"):
            add_editscore(tmp_path / "merged", tmp_path / "base", tmp_path / "model", wording=WORDING)
        with pytest.raises(EditLoopError, match=r"no adapter_config\.json"):
            add_editscore(tmp_path / "merged", tmp_path / "base", tmp_path / "model", base_name="other")

    def test_a_base_without_sizes_or_template(self, tmp_path):
        write_release("qwen2.5-vl", tmp_path)
        (tmp_path / "base" / "chat_template.jinja").unlink()
        with pytest.raises(EditLoopError, match="chat template cannot be rendered"):
            add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=WORDING)
        own = WORDING.model_copy(update={"system": "Judge."})
        add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=own)
        (tmp_path / "base" / "preprocessor_config.json").unlink()
        with pytest.raises(EditLoopError, match=r"--max-pixels"):
            add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model", wording=own)

    def test_a_folder_of_something_else_is_not_replaced(self, tmp_path):
        write_release("qwen2.5-vl", tmp_path)
        with pytest.raises(EditLoopError, match="no EditScore model's folder"):
            add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "base", wording=WORDING)


class TestWording:
    def test_constants_of_a_checkout(self, tmp_path):
        (tmp_path / "editscore").mkdir()
        (tmp_path / "editscore" / "prompts.py").write_text(PROMPTS)
        (tmp_path / "other.py").write_text('_prompts_0shot_tie_rule_SC = "another judge, <instruction>"')
        assert read_score_repository(tmp_path) == WORDING

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (("_prompts_0shot_rule_PQ", "_PQ"), "_prompts_0shot_rule_PQ is in none"),
            (("<instruction>", "it"), "stands 0 times in sc"),
        ],
    )
    def test_another_checkout_is_refused(self, change, match, tmp_path):
        (tmp_path / "prompts.py").write_text(PROMPTS.replace(*change))
        with pytest.raises(EditLoopError, match=match):
            read_score_repository(tmp_path)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ({"sc": "x", "pq": "y"}, "stands 0 times in sc"),
            ({"sc": "<instruction>", "pq": "{instruction}"}, "1 times in pq"),
            ({"sc": "<instruction>"}, "pq: missing"),
        ],
    )
    def test_a_file_with_faults(self, content, match, tmp_path):
        (tmp_path / "wording.json").write_text(json.dumps(content))
        with pytest.raises(EditLoopError, match=match):
            read_score_wording(tmp_path / "wording.json")

    def test_the_digest_follows_every_text(self):
        settings = EditScoreSettings(sc="{instruction}", closing="")
        changed = {"sc": "do {instruction}", "pq": "x", "system": "y", "closing": "z", "picture_mark": "{n}", "top": 10}
        unsigned = settings.model_dump(exclude={"wording_sha256"})
        digests = {EditScoreSettings(**unsigned | {name: text}).wording_sha256 for name, text in changed.items()}
        assert len(digests | {settings.wording_sha256}) == 7
        with pytest.raises(ValueError, match="they were changed"):
            EditScoreSettings(**settings.model_dump() | {"pq": "x"})

    def test_without_it_the_judge_is_marked(self, tmp_path, caplog):
        write_release("qwen3-vl", tmp_path)
        add_editscore(tmp_path / "adapter", tmp_path / "base", tmp_path / "model")
        assert "no wording given" in caplog.text
        caplog.clear()
        judge = EditScoreJudge.load(tmp_path / "model", device="cpu")
        assert judge.wording == JudgeWording(judge.model.settings.wording_sha256, True)
        assert "not the published ones" in caplog.text.replace("\n", " ")


def test_the_worked_example_of_the_published_reduction():
    """SC and PQ of four passes, and the four means that the published code takes of them."""
    sc, pq = [(20, 15), (22, 10), (5, 25), (18, 18)], [(12, 20), (25, 9), (16, 16), (0, 25)]
    score = average_passes([(*a, *b) for a, b in zip(sc, pq, strict=True)], 25, 0.5)
    assert score.overall == pytest.approx(3.1847512755503034, abs=1e-12)
    assert (score.axes["prompt_following"].mean, score.axes["consistency"].mean) == pytest.approx((6.5, 6.8))
    first = average_passes([(*sc[0], *pq[0])], 25, 0.5)
    assert first.overall == pytest.approx(5.366563145999495, abs=1e-12)


def test_repetition_penalty_is_that_of_transformers():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, generator=generator)
    ids = torch.randint(0, 40, (3, 25), generator=generator)
    present = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    expected = RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone())
    torch.testing.assert_close(penalise_repetition(logits, present, 1.3), expected)


def test_penalised_answers_are_those_of_separate_calls():
    model = tiny_score(temperature=0, repetition_penalty=1.4)
    rows = [row for group in some_groups() for questions in model.rows.ask(group) for row in questions]
    free = generate_answers(tiny_score(temperature=0), rows, torch.zeros(len(rows), 1, 12))
    answers = generate_answers(model, rows, torch.zeros(len(rows), 1, 12))
    for row, (answer,) in zip(rows, answers, strict=True):
        made = model.backbone.generate(
            **(inputs := plain_inputs(model, row)),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=model.rows.end,
            pad_token_id=0,
            repetition_penalty=1.4,
        )
        assert answer == made[0, inputs["input_ids"].shape[1] :].tolist()
    assert answers != free

"""The wording of a release comes from a file, or from string constants of a checkout, which is never run."""

import json

import pytest

from editloop.errors import EditLoopError
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_reward.wording import read_reference_repository, read_wording
from tests.editreward_releases import release_folder

IF, VQ = "Was it done?\nWish: {instruction}\nMark: ", "Is it {clean}?\nWish: {instruction}\nMark: "
PROMPTS = """\
import os
raise SystemExit("this file was run")
INSTRUCTION_EDIT_FOLLOWING = '''
Was it done? {{yes}}
Wish: {text_prompt}
'''
INSTRUCTION_EDIT_QUALITY = '''
Is it clean?
Wish: {text_prompt}
'''
INSTRUCTION_EDIT_OVERALL = "unused"
# INSTRUCTION_EDIT_QUALITY = "an older one"
"""
COLLATOR = """\
from there.prompts import INSTRUCTION_EDIT_FOLLOWING
prompt_with_special_token = '''
Mark: <|Reward|>

STOP
'''
"""


@pytest.fixture
def checkout(tmp_path):
    """A made-up repository of the shape of the authors'."""
    (tmp_path / "there" / "dataset").mkdir(parents=True)
    (tmp_path / "there" / "dataset" / "prompts.py").write_text(PROMPTS)
    (tmp_path / "there" / "dataset" / "collator.py").write_text(COLLATOR)
    (tmp_path / "there" / "broken.py").write_text("print 'of another Python'")
    return tmp_path


class TestFile:
    @pytest.mark.parametrize("names", [("if", "vq"), ("head_0", "head_1"), ("head_0 (following)", "head_1 (quality)")])
    @pytest.mark.parametrize("suffix", ["yaml", "json"])
    def test_rubrics_by_axis(self, names, suffix, tmp_path):
        path = tmp_path / f"wording.{suffix}"
        path.write_text(json.dumps({"rubrics": dict(zip(reversed(names), (VQ, IF + "<|Reward|>\nSTOP"), strict=True))}))
        assert read_wording(path) == ((IF, VQ), None)

    def test_the_fixtures_shape(self):
        wording = read_wording(release_folder("qwen3-vl") / "wording.json")
        assert wording.opening == "<|im_start|>user\n"
        assert [rubric[-44:] for rubric in wording.rubrics] == ["sh: {instruction}\n\nYour verdict as a whole: "] * 2

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ("rubrics: {if: '{instruction}'}", "give one of `if`"),
            ("rubrics: {if: '{instruction}', head_0: '{instruction}'}", "give one of `if`"),
            ("rubrics: {if: '{instruction}', vq: '{instruction}', more: '{instruction}'}", "give one of `if`"),
            ("rubrics: {if: '{instruction}', vq: 'Is it clean?'}", "vq: neither {instruction} nor {text_prompt}"),
            ("rubrics: {if: '{instruction}', vq: '<|Reward|> {instruction}'}", "vq: neither"),
            ("rubrics: {if: '{instruction}', vq: '{text_prompt} {size}'}", "vq: has the fields size, text_prompt"),
            ("rubrics: {if: '{instruction}', vq: '{text_prompt'}", "vq: no text for str.format"),
            ("rubric: {}", "rubric: unknown key"),
            ("[", "cannot be read as YAML"),
        ],
    )
    def test_faults(self, content, match, tmp_path):
        (tmp_path / "wording.yaml").write_text(content)
        with pytest.raises(EditLoopError) as refusal:
            read_wording(tmp_path / "wording.yaml")
        assert match in str(refusal.value)
        assert "\n" not in str(refusal.value)


class TestReferenceRepository:
    def test_constants_are_found_and_no_file_is_run(self, checkout):
        following, quality = read_reference_repository(checkout).rubrics
        assert following == "\nWas it done? {yes}\nWish: {instruction}\n\nMark: "
        assert quality == "\nIs it clean?\nWish: {instruction}\n\nMark: "

    def test_the_same_constant_twice_is_no_fault(self, checkout):
        (checkout / "copy.py").write_text(COLLATOR)
        assert read_reference_repository(checkout).rubrics

    @pytest.mark.parametrize(
        ("name", "content", "match"),
        [
            ("there/dataset/prompts.py", "", "INSTRUCTION_EDIT_FOLLOWING is in none"),
            ("more.py", "INSTRUCTION_EDIT_QUALITY = 'another {text_prompt}'", "INSTRUCTION_EDIT_QUALITY has several"),
            ("there/dataset/collator.py", "prompt_with_special_token = 'no mark'", "has no <|Reward|>"),
            ("there/dataset/collator.py", "prompt_with_special_token = 'a' + f'{b}'", "with_special_token is in none"),
        ],
    )
    def test_faults(self, checkout, name, content, match):
        (checkout / name).write_text(content)
        with pytest.raises(EditLoopError) as refusal:
            read_reference_repository(checkout)
        assert match in str(refusal.value)


def test_the_digest_follows_the_wording():
    settings = RewardSettings(rubrics=(IF, VQ))
    assert settings.wording_sha256 == RewardSettings(**settings.model_dump()).wording_sha256
    assert settings.wording_sha256 != RewardSettings(rubrics=(VQ, IF)).wording_sha256
    assert settings.wording_sha256 != RewardSettings(rubrics=(IF, VQ), opening="").wording_sha256
    with pytest.raises(ValueError, match="they were changed"):
        RewardSettings(**settings.model_dump() | {"rubrics": (VQ, IF)})

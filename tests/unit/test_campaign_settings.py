"""A campaign's YAML file: the documented one loads, faults are told all at once, flat parameters say the same."""

import re
from pathlib import Path

import pytest
import yaml

from annotation.campaigns.campaign_settings import (
    CampaignSettings,
    read_campaign_settings,
    settings_of,
    stage_parameters,
)
from components.annotate.declaration import ANNOTATE, AnnotateParameters
from editloop.errors import EditLoopError

DOCS = Path(__file__).parents[2] / "docs"
ANSWERS = "task,candidate,if,vq\nkitchen-1,1,4,3-4\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "tasks.jsonl").touch()
    (tmp_path / "guidelines.md").write_text("# Look closely\n")
    (tmp_path / "gold.csv").write_text(ANSWERS)
    return tmp_path


def write(folder, text):
    path = folder / "campaign.yaml"
    path.write_text(text)
    return path


def example():
    return (DOCS / "campaign.example.yaml").read_text()


def test_the_documented_example_loads_and_has_every_key(folder):
    settings, candidates = read_campaign_settings(write(folder, example()))
    assert candidates == folder / "candidates"
    assert (settings.guidelines, settings.gold.answers) == ("# Look closely\n", ANSWERS)
    assert settings.axes["vq"].levels[3] == "a photograph"
    assert settings.gates.alpha == {"if": 0.6, "vq": 0.4}
    given = yaml.safe_load(example())
    assert set(given) == set(CampaignSettings.model_fields) | {"candidates"}
    told = set(re.findall(r"^\| `([\w.]+)`", (DOCS / "campaign.md").read_text().partition("\n## ")[0], re.MULTILINE))
    assert told == {
        *(given.keys() - {"gold", "repeats", "gates", "training", "norming"}),
        *("gold.share", "gold.pages", "gold.answers", "repeats.share", "repeats.pages", "gates.alpha"),
        *("training.pages", "training.passing", "training.required", "norming.pages"),
    }


def test_the_stages_parameters_say_the_same_as_the_file(folder):
    settings, _ = read_campaign_settings(write(folder, example()))
    assert settings_of(**stage_parameters(settings)) == settings
    least = CampaignSettings(name="least", annotators=("ada", "bo"))
    assert settings_of(**stage_parameters(least)) == least


def test_a_gate_at_zero_is_a_gate(folder):
    settings, _ = read_campaign_settings(write(folder, example().replace("if: 0.6", "if: 0")))
    assert settings.gates.alpha == {"if": 0.0, "vq": 0.4}
    assert settings_of(**stage_parameters(settings)) == settings
    with pytest.raises(EditLoopError, match=r"gates\.alpha\.if=-1: Input should be greater than -1"):
        read_campaign_settings(write(folder, example().replace("if: 0.6", "if: -1")))


def test_the_stages_defaults_are_the_files_defaults():
    least = stage_parameters(CampaignSettings(name="least", annotators=("ada", "bo")))
    stage = AnnotateParameters(name="least", annotators=["ada", "bo"])
    assert stage.model_dump(exclude=set(ANNOTATE.tags)) == least


def test_all_faults_are_told_at_once_in_plain_words(folder):
    text = """
candidates: nowhere
annotators: [ada, bo, ada]
overlap: 0
candidates_per_task: 9
guidelines: missing.md
gold: {share: 0.9, answers: missing.csv, shares: 1}
gates: {alpha: {if: 1.5, clarity: 0.3}}
axes: {if: {name: Following, levels: [no, yes]}}
colour: blue
"""
    with pytest.raises(EditLoopError) as told:
        read_campaign_settings(write(folder, text))
    said = str(told.value)
    for words in (
        "candidates = nowhere: no folder of stage candidates",
        "name: missing",
        "ada named twice",
        "overlap=0: ",
        "candidates_per_task=9: ",
        "guidelines = missing.md: cannot be read",
        "gold.share=0.9: ",
        "answers = missing.csv: cannot be read",
        "gold.shares: unknown key (did you mean share?)",
        "gates.alpha.if=1.5: Input should be less than or equal to 1",
        "clarity",
        "axes.if.levels",
        "colour: unknown key",
        "docs/campaign.md explains every key",
    ):
        assert words in said, said
    assert "http" not in said, "no address of pydantic's documentation"


def test_overlap_needs_that_many_people(folder):
    with pytest.raises(EditLoopError, match="overlap 3 of 2 annotators"):
        read_campaign_settings(write(folder, "name: three\ncandidates: candidates\nannotators: [a, b]\noverlap: 3\n"))


@pytest.mark.parametrize("checks", ["gold", "repeats"])
def test_a_share_and_a_count_at_once_are_refused(folder, checks):
    text = f"name: name\ncandidates: candidates\nannotators: [ada, bo]\n{checks}: {{share: 0.1, pages: 3}}\n"
    with pytest.raises(EditLoopError, match=rf"{checks}: share 0.1 and pages 3 say the same thing"):
        read_campaign_settings(write(folder, text))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "name: \x00"])
def test_what_is_no_campaign_file_is_told(folder, text):
    with pytest.raises(EditLoopError, match=r"campaign\.yaml: "):
        read_campaign_settings(write(folder, text))
    with pytest.raises(EditLoopError, match="cannot be read"):
        read_campaign_settings(folder / "missing.yaml")


NAMES_THAT_BITE = {
    '"x"': "has 1 characters",
    '"  x   "': "has 1 characters",
    "x" * 400: "has 400 characters; a campaign's name has 3 to 150",
    r'"red \e[31m"': "U+001B",
    r'"a\nb"': "U+000A",
    r'"nul \0"': "U+0000",
    r'"right to left \u202e"': "U+202E",
    r'"line \u2028 end"': "U+2028",
    r'''"it's \"both\""''': "both kinds of quotes",
    "2026": "Input should be a valid string",
}


@pytest.mark.parametrize("text", NAMES_THAT_BITE)
def test_a_name_that_bites_is_one_line(folder, text):
    with pytest.raises(EditLoopError) as refused:
        read_campaign_settings(write(folder, f"name: {text}\ncandidates: candidates\nannotators: [ada, bo]\n"))
    (line,) = str(refused.value).splitlines()
    assert NAMES_THAT_BITE[text] in line
    assert len(line) < 350
    assert "\x1b" not in str(refused.value)


def test_a_name_may_hold_what_people_write(folder):
    for name in ("[/red]", "[bold]:art: Küche & Bad / Herbst 2026 — Möbel 🎨👩‍🎨", "日本語の名前", "x" * 150):
        content = {"name": f" {name}", "candidates": "candidates", "annotators": ["ada", "bo"]}
        settings, _ = read_campaign_settings(write(folder, yaml.safe_dump(content)))
        assert settings.name == name
    assert CampaignSettings(name="Ku\u0308che", annotators=("ada", "bo")).name == "K\u00fcche"


@pytest.mark.parametrize("other", ["Ada", '" ada "', "ada@editloop.example", "ADA@EditLoop.Example"])
def test_two_spellings_of_one_person_are_an_error(folder, other):
    with pytest.raises(EditLoopError, match=r"ada named twice \(.* are one account\)"):
        read_campaign_settings(write(folder, f"name: abc\ncandidates: candidates\nannotators: [ada, {other}]\n"))


def test_another_spelling_of_the_list_is_the_same_campaign():
    first = CampaignSettings(name="abc", annotators=("Ann@Team.Example", "bo"), lead="Ann@team.example")
    again = CampaignSettings(
        name="abc", annotators=("bo@editloop.example", "ann@team.example"), lead="ANN@TEAM.EXAMPLE"
    )
    assert first == again
    assert first.lead in first.annotators


@pytest.mark.timeout(20)
def test_files_that_never_end_are_told_at_once(folder):
    texts = "guidelines: /dev/zero\ngold: {answers: /dev/zero}\n"
    with pytest.raises(EditLoopError) as refused:
        read_campaign_settings(write(folder, f"name: abc\ncandidates: candidates\nannotators: [ada, bo]\n{texts}"))
    assert str(refused.value).count("= /dev/zero: a device. Give a text file.") == 2

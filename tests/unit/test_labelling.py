import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.campaigns.guidelines import default_guidelines, guidelines_html
from annotation.campaigns.labelling import (
    FEWEST,
    KEYS,
    MOST,
    REASONS,
    AxisWords,
    ShownPicture,
    check_config,
    faults_of,
    labelling_config,
    note_of,
    ratings_of,
    reason_of,
    result_of,
    task_data,
)
from editloop.data.vocabulary import AXES, Page
from editloop.errors import EditLoopError

PLACES = range(FEWEST, MOST + 1)
RATING = st.fixed_dictionaries({axis: st.integers(1, 4) for axis in AXES})


@pytest.mark.parametrize("decide", [False, True])
@pytest.mark.parametrize("references", [0, 3])
@pytest.mark.parametrize("places", PLACES)
def test_label_studio_takes_the_config_and_our_answers(places, references, decide):
    from label_studio_sdk.label_interface import LabelInterface

    config = labelling_config(places, tiny=True, references=references, decide=decide)
    assert check_config(config, places) == []
    interface = LabelInterface(config)
    result = result_of([{"if": 1 + place % 4, "vq": 4 - place % 4} for place in range(places)])
    assert interface.validate_annotation({"result": result})
    assert all(interface.validate_annotation({"result": result_of([], reason)}) for reason in REASONS)
    result[0]["value"]["choices"] = ["5"]
    assert not interface.validate_annotation({"result": result})


@pytest.mark.parametrize("places", PLACES)
def test_every_control_has_one_picture_of_its_own_and_every_key_one_meaning(places):
    root = ElementTree.fromstring(labelling_config(places, tiny=False))
    pictures = {image.get("name"): image.get("value") for image in root.iter("Image")}
    controls = [(choices.get("name"), choices.get("toName")) for choices in root.iter("Choices")]
    rated = [(f"{axis}_{place}", f"image_{place}") for axis in AXES for place in range(1, places + 1)]
    assert sorted(controls) == sorted([*rated, ("cannot", "original")])
    assert set(pictures) == {on for _, on in controls}
    keys = [choice.get("hotkey") for choice in root.iter("Choice")]
    assert len(keys) == len(set(keys)) == 8 * places + len(REASONS)
    for choice in root.iter("Choice"):
        assert choice.get("hotkey")[-1].upper() in choice.get("html"), "each button shows its key"


def test_references_are_numbered_after_the_source_and_are_not_rated():
    root = ElementTree.fromstring(labelling_config(3, tiny=False, references=2))
    pictures = [(image.get("name"), image.get("value")) for image in root.iter("Image")]
    names = ["original", "reference_2", "reference_3", "image_1", "image_2", "image_3"]
    assert pictures == [(name, f"${name}") for name in names]
    titles = [header.get("value") for header in root.iter("Header") if header.get("size") == "5"]
    shown = [title for title in titles if title.startswith(("Image", "Edit"))]
    assert shown == ["Image 1 (to be edited)", "Image 2", "Image 3", "Edit 1", "Edit 2", "Edit 3"]
    plain = labelling_config(3, tiny=False)
    assert "Source" in plain
    assert "el-reference" not in plain, "a campaign of one image each has the page that it always had"


def test_no_key_of_a_rating_is_that_of_a_reason():
    assert not set("".join(KEYS)) & set(REASONS.values())


@pytest.mark.parametrize("references", [0, 2])
@pytest.mark.parametrize("places", PLACES)
def test_the_page_s_style_survives_label_studio_s_writing_of_it(places, references):
    config = labelling_config(places, tiny=True, references=references)
    style = ElementTree.fromstring(config).find(".//Style").text
    assert not set("<>&") & set(style), "these are written as entities, and the browser drops the rule"
    assert style.count("{") == style.count("}")
    left = [word for word in ("COLUMNS", "AXIS", "FOOT", "REASON", "KEY", "RENDERING") if word in style]
    assert not left, "every measure is filled in"


def test_an_axis_is_worded_as_the_campaign_words_it():
    words = AxisWords(name='Likeness & "mood"', levels=("none", "<some>", "most", "all"))
    config = labelling_config(3, tiny=True, axes={"if": words, "vq": words})
    assert check_config(config, 3) == []
    shown = [header.get("value") for header in ElementTree.fromstring(config).iter("Header")]
    assert 'Likeness & "mood": 1 none · 2 <some> · 3 most · 4 all' in shown
    assert shown.count('Likeness & "mood"') == 6


@pytest.mark.parametrize("places", [FEWEST - 1, MOST + 1])
def test_a_page_that_compares_nothing_or_too_much_is_refused(places):
    with pytest.raises(EditLoopError, match=f"{places} candidates"):
        labelling_config(places, tiny=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name="vq_2" toName="image_2"', 'name="vq_2" toName="image_1,image_2"', "vq_2 is on image_1,image_2, not on"),
        ('name="if_2" toName="image_2"', 'name="if_1" toName="image_2"', "Two controls are named if_1"),
        ('name="if_2" toName="image_2"', 'name="if_1" toName="image_2"', "Control if_2 is missing"),
        ('name="if_2" toName', 'name="if_9" toName', "Control if_9 is none of this page's"),
        ('value="4" hotkey="r"', 'value="5" hotkey="r"', "Control if_2 offers 1, 2, 3, 5, not 1, 2, 3, 4"),
        ('value="other"', 'value="no idea"', "Control cannot offers"),
        ('toName="image_1" choice="single-radio"', 'toName="image_1" choice="multiple"', "several values at once"),
        ("</View>", "", "The config is not XML"),
        ('<Image name="image_2"', '<Image name="picture_2"', "does not take the config"),
    ],
)
def test_a_config_that_would_lose_answers_is_told(old, new, said):
    config = labelling_config(2, tiny=True)
    assert old in config
    found = check_config(config.replace(old, new, 1), 2)
    assert any(said in one for one in found), found


@given(st.lists(RATING, min_size=FEWEST, max_size=MOST))
def test_answers_round_trip(ratings):
    result = result_of(ratings)
    assert ratings_of(result, len(ratings)) == ratings
    assert reason_of(result) is None
    assert faults_of(result, len(ratings)) == []


def test_missing_is_missing_and_two_values_are_none():
    ratings = [{"if": 1, "vq": 4}, {"if": 3, "vq": 2}, {"if": 4, "vq": 1}]
    result = result_of(ratings)
    assert ratings_of(result[1:], 3) == [{}, *ratings[1:]]
    result[2]["value"]["choices"] = ["2", "3"]
    assert ratings_of(result, 3) == [ratings[0], {}, ratings[2]]


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_stands_for_the_whole_page(reason):
    rated = result_of([{"if": 1, "vq": 4}, {"if": 3, "vq": 2}])
    for result in (result_of([], reason), rated + result_of([], reason)):
        assert reason_of(result) == reason
        assert ratings_of(result, 2) == [{}, {}]
        assert faults_of(result, 2) == []


def test_what_the_page_cannot_say_is_named():
    result = result_of([{"if": 1, "vq": 4}, {"if": 3, "vq": 2}])
    result[0]["value"]["choices"] = ["7"]
    result[1]["value"]["choices"] = ["2", "3"]
    result.append({**result[2], "from_name": "if_3"})
    result.append(result[3])
    result += result_of([], "tired")
    faults = faults_of(result, 2)
    for said in (
        "Control if_1 says 7, which is none of 1, 2, 3, 4.",
        "Control vq_1 says 2 values at once (2, 3), not one.",
        "Control if_3 is not on the page.",
        "Control vq_2 is answered twice.",
        "Control cannot says tired, which is none of",
    ):
        assert any(said in fault for fault in faults), faults
    assert len(faults) == 5
    assert reason_of(result) is None


def test_a_note_is_read_back_whole():
    item = {"from_name": "note", "to_name": "original", "type": "textarea", "value": {"text": ["wrong square", " "]}}
    assert note_of([*result_of([], "other"), item]) == "wrong square"
    assert note_of([{**item, "value": {"text": ["  "]}}]) is None
    assert note_of(result_of([], "other")) is None
    assert faults_of([item], 2) == []


def test_a_task_s_data_tells_what_is_shown_and_nothing_else():
    page = Page(
        key="k" * 32,
        kind="gold",
        task_id="secret-task",
        instruction="make the square red",
        source="s",
        candidates=("secret-a", "secret-b"),
        images=("i", "j"),
        overlap=2,
        expected={"secret-a": {"if": (3, 4)}},
    )
    large = {"j": ShownPicture("/at/j.webp", "/at/j.png", (2048, 1365))}
    data = task_data(page, lambda sha256: large.get(sha256, ShownPicture(f"/at/{sha256}.png")))
    pictures = {"original": "/at/s.png", "image_1": "/at/i.png", "image_2": "/at/j.webp"}
    pictures |= {"image_2_full": "/at/j.png", "image_2_size": "2048x1365"}
    assert data == {"key": page.key, "instruction": page.instruction, **pictures}
    assert "secret" not in json.dumps(data)
    assert "gold" not in json.dumps(data)


def test_a_task_s_data_has_a_value_for_each_place_of_a_reference():
    images = {"source": "s", "candidates": ("a", "b"), "images": ("i", "j"), "overlap": 1}
    for references in ((), ("r",), ("r", "q")):
        page = Page(key="k", kind="task", task_id="t", instruction="x", references=references, **images)
        data = task_data(page, lambda sha256: ShownPicture(f"/at/{sha256}.png"), references=2)
        addresses = [f"/at/{one}.png" for one in references]
        assert [data["reference_2"], data["reference_3"]] == [*addresses, "", ""][:2]
        assert (data["original"], data["image_1"]) == ("/at/s.png", "/at/i.png")
        assert "reference_4" not in data


def test_guidelines_are_markdown_and_run_no_script():
    html = guidelines_html("# Rate\n\n| level | means |\n|---|---|\n| 1 | bad |\n\n<script>alert(1)</script> *now*")
    assert "<h1>Rate</h1>" in html
    assert "<td>bad</td>" in html
    assert "<em>now</em>" in html
    assert "<script" not in html
    assert "javascript:" not in guidelines_html("[x](javascript:alert(1))").replace("[x](javascript:alert(1))", "")


def test_the_usual_guidelines_say_the_scale_and_the_keys():
    text = default_guidelines()
    for said in ("1 2 3 4", "Q W E R", "Shift", "Ctrl Enter", "cannot be judged", "same ratings"):
        assert said in text
    assert "image 2" not in text
    several = default_guidelines(references=True)
    assert several.startswith(text)
    assert "Image 1 is the one that is edited" in several

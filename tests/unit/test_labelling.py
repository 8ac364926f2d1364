import base64
import json
from xml.etree import ElementTree

import pytest

from annotation.campaign import read_tasks
from annotation.labelling import FEWEST, MOST, data_uri, labelling_config, ratings_of, result_of, shown, task_data
from infra.errors import EditLoopError

COUNTS = range(FEWEST, MOST + 1)


@pytest.mark.parametrize("candidates", COUNTS)
def test_label_studio_takes_the_config_and_our_answers(candidates):
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(labelling_config(candidates, tiny=True))
    interface.validate()
    result = result_of([{"if": 1 + place % 4, "vq": 4 - place % 4} for place in range(candidates)])
    assert interface.validate_annotation({"result": result})
    result[0]["value"]["choices"] = ["5"]
    assert not interface.validate_annotation({"result": result})


@pytest.mark.parametrize("candidates", COUNTS)
def test_every_control_has_one_picture_of_its_own_and_every_key_one_meaning(candidates):
    root = ElementTree.fromstring(labelling_config(candidates, tiny=False))
    pictures = {image.get("name"): image.get("value") for image in root.iter("Image")}
    controls = [(choices.get("name"), choices.get("toName")) for choices in root.iter("Choices")]
    assert sorted(controls) == sorted(
        (f"{axis}_{place}", f"image_{place}") for axis in ("if", "vq") for place in range(1, candidates + 1)
    )
    assert set(pictures) == {"original", *(to for _, to in controls)}
    keys = [choice.get("hotkey") for choice in root.iter("Choice")]
    assert len(keys) == len(set(keys)) == 8 * candidates


@pytest.mark.parametrize("candidates", [FEWEST - 1, MOST + 1])
def test_a_page_that_compares_nothing_or_too_much_is_refused(candidates):
    with pytest.raises(EditLoopError, match=f"{candidates} candidates"):
        labelling_config(candidates, tiny=True)


def test_answers_round_trip_and_missing_is_missing():
    ratings = [{"if": 1, "vq": 4}, {"if": 3, "vq": 2}, {"if": 4, "vq": 1}]
    result = result_of(ratings)
    assert ratings_of(result, 3) == ratings
    assert ratings_of(result[1:], 3) == [{}, *ratings[1:]]
    result[2]["value"]["choices"] = ["2", "3"]
    assert ratings_of(result, 3) == [ratings[0], {}, ratings[2]]


def test_the_page_is_blind_and_shows_the_bytes_that_are_judged(make_candidates):
    folder = make_candidates(3)
    for task in read_tasks(folder):
        data = task_data(task, folder / "images", 4, 0, "<View/>")
        assert not any(one.editor in json.dumps(data) for one in task.candidates)
        images = {one.candidate_id: one.image for one in task.candidates}
        for place, candidate in enumerate(data["candidates"], 1):
            shown_bytes = base64.b64decode(data[f"image_{place}"].removeprefix("data:image/png;base64,"))
            assert shown_bytes == (folder / "images" / f"{images[candidate]}.png").read_bytes()


def test_the_order_is_drawn_from_seed_and_task(make_candidates):
    tasks = read_tasks(make_candidates(24))
    orders = {seed: [[task.candidates.index(one) for one in shown(task, 4, seed)] for task in tasks] for seed in (0, 1)}
    assert orders[0] == [[task.candidates.index(one) for one in shown(task, 4, 0)] for task in reversed(tasks)][::-1]
    assert orders[0] != orders[1]
    first = [order[0] for order in orders[0]]
    assert set(first) == {0, 1, 2, 3}, "no editor always stands first"
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders[0])


def test_a_task_with_fewer_candidates_shows_the_first_ones_again(make_candidates):
    (task,) = read_tasks(make_candidates(1, candidates=2))
    page = shown(task, 5, 0)
    assert page == (*page[:2], *page[:2], page[0])
    assert page[0] != page[1]


def test_a_large_picture_is_shown_smaller(tmp_path):
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    address = data_uri(tmp_path / "large.png")
    assert address.startswith("data:image/jpeg;base64,")
    (tmp_path / "shown.jpg").write_bytes(base64.b64decode(address.split(",")[1]))
    assert Image.open(tmp_path / "shown.jpg").size == (1024, 768)

"""The labelling page of tasks with several source images, as an expert uses it: read, enlarge, zoom, rate."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.campaign import Campaign, read_campaign
from annotation.campaigns.labelling import ratings_of
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from editloop.content import complete_folder, write_file
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from infra.settings import service_settings

SOURCE, REFERENCES = (768, 512), ((600, 400), (300, 500), (800, 800))
"""Sizes: the references have other shapes than the source."""
EDITS = 4
RATE = ("3", "Shift+2", "q", "Shift+R", "a", "Shift+F", "c", "Shift+C")
RATED = [{"if": 3, "vq": 2}, {"if": 1, "vq": 4}, {"if": 1, "vq": 4}, {"if": 3, "vq": 3}]


def draw(seed: int, size: tuple[int, int]) -> Image.Image:
    colours = np.random.default_rng(seed).integers(40, 200, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def make_tasks(folder: Path, counts: tuple[int, ...]) -> Path:
    """A candidates folder with a task for each number of references."""
    with complete_folder(folder) as out:
        lines = []
        for index, count in enumerate(counts):
            source = store_png(draw(100 * index, SOURCE), out / "images")
            references = [
                store_png(draw(100 * index + place, size), out / "images")
                for place, size in enumerate(REFERENCES[:count], 1)
            ]
            instruction = f"Task {count}: put the dog of image {count + 1} into image 1."
            key = task_id(source, instruction, references)
            images = [store_png(draw(100 * index + 10 + edit, SOURCE), out / "images") for edit in range(EDITS)]
            task = EditTask(
                task_id=key,
                name=f"task-{count}",
                instruction=instruction,
                source=source,
                references=tuple(references),
                candidates=tuple(
                    Candidate(candidate_id=candidate_id(key, image), image=image, editor="e") for image in images
                ),
            )
            lines.append(task.model_dump_json(by_alias=True) + "\n")
        write_file(out / "tasks.jsonl", "".join(lines))
    return folder


@pytest.fixture
def begin(open_page: Callable[..., Any], join: Callable[[Any], str], tmp_path: Path) -> Callable[..., Any]:
    """begin(counts, width, height) -> (page, campaign): the first page of a campaign of such tasks."""

    def make(counts: tuple[int, ...], width: int = 1366, height: int = 768, has_script: bool = True) -> Any:
        page = open_page(width, height)
        if not has_script:
            page.route("**/editloop/labelling.js*", lambda route: route.abort())
        who = join(page)
        parameters = AnnotateParameters(name=f"several of {who}", annotators=[who], overlap=1)
        run_annotate(make_tasks(tmp_path / "candidates", counts), tmp_path / "campaign", parameters)
        campaign = read_campaign(tmp_path / "campaign")
        page.goto(campaign.url)
        page.get_by_text("How to rate").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("How to rate").wait_for(state="hidden")
        if has_script:
            page.wait_for_selector(".el-page[data-shown]")
        return page, campaign

    return make


def viewers(page: Any) -> dict[str, dict[str, float]]:
    """Boxes of the pictures' frames by their names."""
    found = page.locator(".el-viewer:visible")
    names = [found.nth(index).get_attribute("aria-label") for index in range(found.count())]
    return {name.removesuffix(", large"): found.nth(index).bounding_box() for index, name in enumerate(names)}


def area(box: dict[str, float]) -> float:
    return box["width"] * box["height"]


def shown_count(page: Any) -> int:
    """Number of references of the page's task."""
    return int(page.locator(".el-instruction h2").inner_text().split(":")[0].removeprefix("Task "))


def scale(page: Any, name: str) -> str:
    tile = page.locator(".el-tile", has=page.locator(f".el-viewer[aria-label='{name}, large']"))
    return str(tile.locator(".el-scale").inner_text().split(" of ")[0])


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1920, 1080)])
def test_images_are_numbered_as_the_instruction_speaks_of_them(
    begin: Callable[..., Any], screenshot: Callable[..., None], width: int, height: int
) -> None:
    page, campaign = begin((0, 1, 2, 3), width, height)
    answered = {}
    for left in (3, 2, 1, 0):
        count = shown_count(page)
        screenshot(page, f"{count}-references-{width}x{height}")
        expected = ["Source", *(f"Image {number}" for number in range(2, count + 2))]
        boxes = viewers(page)
        assert list(boxes) == [*expected, *(f"Edit {number}" for number in range(1, EDITS + 1))]
        assert page.locator(".el-source h4").first.inner_text() == "Image 1 (to be edited)"
        for name, box in boxes.items():
            assert min(box["width"], box["height"]) >= 130, name
            assert box["x"] >= 0, name
            assert box["x"] + box["width"] <= width, name
            assert box["y"] + box["height"] < page.locator("button[name=submit]").bounding_box()["y"], name
        sizes = {(round(box["width"]), round(box["height"])) for name, box in boxes.items() if "Image" not in name}
        assert len(sizes) == 1, "source and edits at one size"
        for key in RATE:
            page.keyboard.press(key)
        before = page.locator(".el-instruction h2").inner_text()
        with page.expect_response(lambda reply: "/annotations" in reply.url and reply.request.method == "POST"):
            page.keyboard.press("Control+Enter")
        answered[before] = count
        if left:
            changed = "before => document.querySelector('.el-instruction h2')?.innerText != before"
            page.wait_for_function(changed, arg=before)
            page.wait_for_selector(".el-page[data-shown]")
    assert sorted(answered.values()) == [0, 1, 2, 3]
    check_answers(campaign)


def check_answers(campaign: Campaign) -> None:
    tasks = export_answers(service_settings(), campaign).tasks
    assert len(tasks) == 4
    for task in tasks:
        (annotation,) = task.annotations
        assert ratings_of(annotation["result"], EDITS) == RATED


def test_references_stay_beside_a_large_edit_and_have_a_view_of_their_own(begin: Callable[..., Any]) -> None:
    page, _ = begin((2,))
    small = viewers(page)
    page.keyboard.press(".")
    large = viewers(page)
    assert area(large["Edit 1"]) > 2 * area(small["Edit 1"])
    assert large["Source"]["x"] < large["Edit 1"]["x"]
    for name in ("Image 2", "Image 3"):
        assert large[name]["y"] > large["Source"]["y"] + large["Source"]["height"], "below the source"
        assert large[name]["x"] + large[name]["width"] < large["Edit 1"]["x"]
        assert page.locator(".el-reference").first.evaluate("tile => getComputedStyle(tile).opacity") == "1"
    fitting = scale(page, "Image 2")
    page.keyboard.press("y")
    assert (scale(page, "Edit 1"), scale(page, "Source"), scale(page, "Image 2")) == ("100 %", "100 %", fitting)
    page.keyboard.press("Escape")
    page.keyboard.press(",")
    page.keyboard.press("Escape")

    page.locator(".el-viewer[aria-label='Image 3, large']").click()
    large = viewers(page)
    assert area(large["Image 3"]) > 2 * area(small["Image 3"]), "a click enlarges a reference"
    page.keyboard.press("y")
    assert (scale(page, "Image 3"), scale(page, "Source") == "100 %") == ("100 %", False)
    page.keyboard.press("Escape")
    assert viewers(page) == small

    page.keyboard.press("5")
    filters = page.locator(".el-frame").evaluate_all("frames => frames.map(frame => getComputedStyle(frame).filter)")
    assert filters == ["none"] * 3 + ["brightness(4)"] * EDITS, "a difference is one of the edits alone"
    bases = page.locator(".el-reference .el-base")
    assert bases.count() == 0


def test_without_the_script_a_page_shows_its_own_references_alone(
    begin: Callable[..., Any], screenshot: Callable[..., None]
) -> None:
    page, _ = begin((1, 3), has_script=False)
    page.wait_for_function("[...document.querySelectorAll('.el-picture img')].length >= 6")
    count = shown_count(page)
    page.wait_for_function("count => document.querySelectorAll('.el-picture img').length == count", arg=5 + count)
    screenshot(page, "references-without-script")
    visible = page.locator(".el-reference:visible")
    assert visible.count() == count
    texts = [visible.nth(index).locator("h4").inner_text() for index in range(count)]
    assert texts == [f"Image {number}" for number in range(2, count + 2)]


def test_a_reference_that_does_not_load_is_named(begin: Callable[..., Any]) -> None:
    page, _ = begin((1,))
    address = page.locator(".el-reference .el-edit").get_attribute("src")
    page.route(f"**{address[address.index('/data/') :]}", lambda route: route.abort())
    page.reload()
    page.get_by_text("Image 2: does not load").wait_for()
    page.keyboard.press("3")
    assert page.locator(".ant-radio-checked").count() == 0, "ratings do not count without it"


def test_references_are_there_for_screen_readers_and_fingers(begin: Callable[..., Any]) -> None:
    page, _ = begin((2,), 820, 1180)
    picture = Image.open(io.BytesIO(page.locator(".el-references").screenshot()))
    assert len(picture.getcolors(1 << 20) or []) > 100, "the references are drawn"
    assert page.locator(".el-reference .el-edit").evaluate_all("images => images.map(image => image.alt)") == [
        "Image 2",
        "Image 3",
    ]
    boxes = viewers(page)
    assert all(box["x"] + box["width"] <= 820 for box in boxes.values())
    for key in ("3", "."):
        page.keyboard.press(key)
        found = Axe().run(page, context=".el-page").response["violations"]
        assert [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")] == []

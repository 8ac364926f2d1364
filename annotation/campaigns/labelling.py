"""The labelling config of a page in Label Studio, and the encoding of its answers.

A page shows the source and K candidates side by side, at the same size, below the instruction. Reference images, of
which the instruction speaks as image 2 and so on, stand between source and candidates, below each other. Each candidate
has two controls, one per axis; a page that cannot be judged gets a reason instead. A task's data holds the page's key,
the instruction and the addresses of the images. It does not reveal the editor, the order, or whether the answer is
known.

The config works by itself. Where Label Studio also serves `labelling.js` (infra/label_studio), the script fills the
empty views `el-tools` and `el-viewer`: real pixels, comparison with the source, progress.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from pydantic import Field

from editloop.content import sha256_bytes
from editloop.data.vocabulary import AXES, AXIS_NAMES, HIGHEST_RATING, LOWEST_RATING, Axis, Page, Record
from editloop.errors import EditLoopError

FEWEST, MOST = 2, 7
"""Candidates on a page: one alone cannot be compared, and more than seven do not fit a screen or a keyboard."""
KEYS = ("1234", "qwer", "asdf", "zxcv", "7890", "uiop", "hjkl")
"""A row of keys per candidate: plain for the first axis, with shift for the second."""
OTHER = "other"
"""The reason that is told in words."""
REASONS = {"source broken": "b", "instruction unclear": "t", "pictures do not load": "n", OTHER: "m"}
"""Reasons why a page cannot be judged, each with its key."""
TINY = 128
"""Pixels. Images with no side longer than this are enlarged without smoothing, which would hide their flaws."""
LEVELS = tuple(range(LOWEST_RATING, HIGHEST_RATING + 1))
CANNOT, NOTE = "cannot", "note"
"""Controls of the whole page: the reason why it cannot be judged, and words: what the reason is, if it is OTHER, and on
the lead's pages the reason for a decision."""


SEVERAL_TITLE = "Image 1 (to be edited)"
"""Title of the source on pages with reference images, of which the instruction speaks by number."""


class ShownPicture(NamedTuple):
    """How a page shows a picture."""

    address: str
    full: str | None = None
    """Address of the picture itself where `address` is that of its display copy."""
    size: tuple[int, int] = (0, 0)
    """Width and height of `full`."""


class AxisWords(Record):
    """Words that a page uses for an axis."""

    name: str = Field(min_length=1, max_length=40)
    levels: tuple[str, str, str, str]
    """Meaning of ratings 1 to 4, a few words each."""


AXIS_WORDS: dict[Axis, AxisWords] = {
    "if": AxisWords(name=AXIS_NAMES["if"], levels=("not done", "partly", "with a slip", "exactly, nothing else")),
    "vq": AxisWords(name=AXIS_NAMES["vq"], levels=("broken", "clear flaws", "small flaws", "clean")),
}


def labelling_config(
    places: int,
    *,
    tiny: bool,
    references: int = 0,
    axes: Mapping[Axis, AxisWords] = AXIS_WORDS,
    decide: bool = False,
) -> str:
    """Return the labelling config, Label Studio's XML, of a campaign's pages.

    Data keys are instruction, original, reference_2 .. and image_1 .. image_K. Controls are if_1, vq_1, .. on the
    objects image_1, .. and `cannot` on `original`.

    Args:
        places: Candidates on a page, K.
        tiny: Whether to enlarge the images without smoothing.
        references: Most reference images of a page, 0..MOST_REFERENCES. A page with fewer hides the places of the
            others.
        axes: Words for every axis.
        decide: Whether the pages are the lead's: they always have the `note` on `original`, other pages for the reason
            OTHER.

    Raises:
        EditLoopError: `places` is below FEWEST or above MOST.
    """
    if not FEWEST <= places <= MOST:
        raise EditLoopError(f"{places} candidates a task: a page shows {FEWEST} to {MOST}.")
    rows = 1 if places <= 4 else 2
    columns = places + 1 + (references > 0)
    styles = ["labelling.css", *(["labelling_references.css"] if references else [])]
    style = "".join(files("annotation.campaigns").joinpath(name).read_text() for name in styles)
    style = style.replace("COLUMNS", str(-(-columns // rows)))
    style = style.replace("RENDERING", "pixelated" if tiny else "auto")
    legend = "".join(_header(_legend(axes[axis])) for axis in AXES)
    lines = [
        f'<View className="el-page el-scripted{" el-two-rows" if rows == 2 else ""}">',
        f"<Style>{style}</Style>",
        f'<View className="el-instruction"><Header value="$instruction" size="3"/>'
        f'<View className="el-legend">{legend}</View><View className="el-tools"/></View>',
        f'<View className="el-pictures"><View className="el-tile el-source">'
        f"{_header(SEVERAL_TITLE if references else 'Source')}{_picture('original')}{_cannot()}</View>",
        *([_reference_tiles(references)] if references else []),
        *(_tile(number, axes) for number in range(1, places + 1)),
        "</View>",
        _note(decide),
        "</View>",
    ]
    return "\n".join(lines)


def config_sha256(config: str) -> str:
    """Return the content address of a labelling config.

    Args:
        config: The config's XML.
    """
    return sha256_bytes(config.encode())


def check_config(config: str, places: int) -> list[str]:
    """Return the faults of a labelling config that would lose answers.

    Args:
        config: The config's XML.
        places: Candidates on a page.

    Returns:
        One sentence per fault; empty for a good config.
    """
    from label_studio_sdk.label_interface import LabelInterface

    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        return [f"The config is not XML: {error}."]
    faults = []
    controls: dict[str, ElementTree.Element] = {}
    for control in root.iter():
        name = control.get("name", "")
        if control.get("toName") is None:
            continue
        if name in controls:
            faults.append(f"Two controls are named {name}: answers to one overwrite the other's.")
        controls[name] = control
    expected = _controls(places)
    faults += [
        f"Control {name} is none of this page's: its answers would not be read."
        for name in controls
        if name not in {*expected, NOTE}
    ]
    for name, on in expected.items():
        if name not in controls:
            faults.append(f"Control {name} is missing, so nothing is asked there.")
            continue
        control = controls[name]
        if control.get("toName") != on:
            faults.append(
                f"Control {name} is on {control.get('toName')}, not on {on} alone: its answers would be lost."
            )
        allowed = list(REASONS) if name == CANNOT else [str(level) for level in LEVELS]
        offered = [choice.get("value") for choice in control.iter("Choice")]
        if offered != allowed:
            faults.append(f"Control {name} offers {', '.join(map(str, offered))}, not {', '.join(allowed)}.")
        if control.get("choice") not in ("single", "single-radio"):
            faults.append(f"Control {name} takes several values at once (choice={control.get('choice')}).")
    try:
        LabelInterface(config).validate()
    except Exception as error:  # the SDK raises many kinds
        faults.append(f"Label Studio does not take the config: {' '.join(str(error).split())[:300]}")
    return faults


def task_data(page: Page, shown: Callable[[str], ShownPicture], references: int = 0) -> dict[str, str]:
    """Return a page's task data for Label Studio.

    An image's address is under its object's name. Where that is a display copy's, the image itself is under
    `NAME_full` and its "WIDTHxHEIGHT" under `NAME_size`, for `labelling.js`.

    Args:
        page: The page.
        shown: Returns how to show an image, from its sha256.
        references: Reference images for which the labelling config has places. Label Studio takes no task without a
            value for each: those beyond the page's own are empty.
    """
    data = {"key": page.key, "instruction": page.instruction}
    data |= {_reference_name(number): "" for number in range(len(page.references), references)}
    images = {
        "original": page.source,
        **{_reference_name(number): image for number, image in enumerate(page.references)},
        **{f"image_{number}": image for number, image in enumerate(page.images, 1)},
    }
    for name, image in images.items():
        picture = shown(image)
        data[name] = picture.address
        if picture.full:
            data |= {f"{name}_full": picture.full, f"{name}_size": "{}x{}".format(*picture.size)}
    return data


def result_of(ratings: Sequence[dict[Axis, int]], reason: str | None = None) -> list[dict[str, Any]]:
    """Encode an answer as Label Studio's annotation result.

    Args:
        ratings: Ratings of each candidate, {axis: 1..4}, in the order of the page. An axis that is missing stays open.
        reason: Why the page cannot be judged, one of REASONS; then `ratings` are ignored.
    """
    if reason is not None:
        return [_chosen(CANNOT, "original", reason)]
    return [
        _chosen(f"{axis}_{number}", f"image_{number}", str(rating[axis]))
        for number, rating in enumerate(ratings, 1)
        for axis in AXES
        if axis in rating
    ]


def ratings_of(result: Sequence[dict[str, Any]], places: int) -> list[dict[Axis, int]]:
    """Decode the ratings from an annotation result; the inverse of `result_of`.

    Args:
        result: Label Studio's annotation result.
        places: Candidates on the page.

    Returns:
        Ratings of each candidate, {axis: 1..4}, in the order of the page. A candidate that is not rated on both axes
        has an empty dict, and so has every candidate of a page that cannot be judged.
    """
    choices = _choices_by_control(result)
    levels = {str(level) for level in LEVELS}
    ratings: list[dict[Axis, int]] = []
    for number in range(1, places + 1):
        chosen = {axis: choices.get(f"{axis}_{number}", []) for axis in AXES}
        complete = reason_of(result) is None and all(
            len(choice) == 1 and choice[0] in levels for choice in chosen.values()
        )
        ratings.append({axis: int(choice[0]) for axis, choice in chosen.items()} if complete else {})
    return ratings


def reason_of(result: Sequence[dict[str, Any]]) -> str | None:
    """Return why the page cannot be judged, one of REASONS; None if the result gives no such reason.

    Args:
        result: Label Studio's annotation result.
    """
    reasons = _choices_by_control(result).get(CANNOT, [])
    return reasons[0] if len(reasons) == 1 and reasons[0] in REASONS else None


def note_of(result: Sequence[dict[str, Any]]) -> str | None:
    """Return the note: the lead's reason for a decision, or what the reason OTHER is; None without one.

    Args:
        result: Label Studio's annotation result.
    """
    lines = [line.strip() for item in result if item.get("from_name") == NOTE for line in item["value"].get("text", [])]
    return "\n".join(line for line in lines if line) or None


def faults_of(result: Sequence[dict[str, Any]], places: int) -> list[str]:
    """Return the parts of an annotation result that cannot come from the page.

    These are values that a control does not offer, no or several values on one control, a note without a text, a
    control that is answered twice, and controls that the page does not have.

    Args:
        result: Label Studio's annotation result.
        places: Candidates on the page.

    Returns:
        One sentence per fault; empty without faults.
    """
    faults, answered = [], set()
    controls = _controls(places)
    for item in result:
        name = str(item.get("from_name"))
        if name == NOTE:
            faults += [] if "text" in item["value"] else [f"Control {NOTE} has no text."]
            continue
        if name not in controls:
            faults.append(f"Control {name} is not on the page.")
            continue
        values = item.get("value", {}).get("choices", [])
        allowed = list(REASONS) if name == CANNOT else [str(level) for level in LEVELS]
        faults += [
            f"Control {name} says {choice}, which is none of {', '.join(allowed)}."
            for choice in values
            if choice not in allowed
        ]
        if len(values) != 1:
            faults.append(f"Control {name} says {len(values)} values at once ({', '.join(map(str, values))}), not one.")
        if name in answered:
            faults.append(f"Control {name} is answered twice.")
        answered.add(name)
    return faults


def _controls(places: int) -> dict[str, str]:
    """Return the name of the object that each choice control of the page is on, by the control's name."""
    return {
        **{f"{axis}_{number}": f"image_{number}" for number in range(1, places + 1) for axis in AXES},
        CANNOT: "original",
    }


def _choices_by_control(result: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    return {item["from_name"]: item["value"].get("choices", []) for item in result if item.get("type") == "choices"}


def _chosen(control: str, on: str, value: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": on, "type": "choices", "value": {"choices": [value]}}


def _legend(words: AxisWords) -> str:
    return f"{words.name}: " + " · ".join(f"{level} {text}" for level, text in zip(LEVELS, words.levels, strict=True))


def _header(text: str) -> str:
    return f'<Header value={quoteattr(text)} size="5"/>'


def _tile(number: int, axes: Mapping[Axis, AxisWords]) -> str:
    controls = "".join(_choices(axis, axes[axis].name, number) for axis in AXES)
    return (
        f'<View className="el-tile">{_header(f"Edit {number}")}{_picture(f"image_{number}")}'
        f'<View className="el-axes">{controls}</View></View>'
    )


def _reference_name(number: int) -> str:
    """Return the name of a reference's object, from its index: `reference_2` is the first, as image 1 is the source."""
    return f"reference_{number + 2}"


def _reference_tiles(references: int) -> str:
    tiles = (
        f'<View className="el-tile el-reference">{_header(f"Image {number + 2}")}{_picture(_reference_name(number))}'
        "</View>"
        for number in range(references)
    )
    return f'<View className="el-references">{"".join(tiles)}</View>'


def _picture(name: str) -> str:
    return (
        '<View className="el-picture">'
        f'<Image name="{name}" value="${name}" zoom="false" zoomControl="false" selectionControl="false"/>'
        '<View className="el-zoom"><Collapse><Panel value="Zoom"><View/></Panel></Collapse></View>'
        '<View className="el-viewer"/></View>'
    )


def _choices(axis: Axis, name: str, number: int) -> str:
    shift = "" if axis == AXES[0] else "shift+"
    choices = "".join(
        _choice(str(level), f"<b>{level}</b>", shift + key) for level, key in zip(LEVELS, KEYS[number - 1], strict=True)
    )
    missing = quoteattr(f"{name} of edit {number} is not rated yet.")
    return (
        f'<View className="el-axis el-{axis}">{_header(name)}'
        f'<Choices name="{axis}_{number}" toName="image_{number}" choice="single-radio" showInline="true" '
        f'visibleWhen="choice-unselected" whenTagName="{CANNOT}" whenChoiceValue="{",".join(REASONS)}" '
        f'required="true" requiredMessage={missing}>{choices}</Choices></View>'
    )


def _choice(value: str, text: str, key: str) -> str:
    """Return the XML of a choice that shows its key; `text` is HTML."""
    label = f"{text}<kbd>{key.upper().replace('SHIFT+', '⇧ ')}</kbd>"
    return f'<Choice value="{value}" hotkey="{key}" html={quoteattr(label)}/>'


def _cannot() -> str:
    choices = "".join(_choice(reason, f"<i>{reason}</i>", key) for reason, key in REASONS.items())
    return (
        f'<View className="el-cannot">{_header("Cannot judge")}'
        f'<Choices name="{CANNOT}" toName="original" choice="single" showInline="true">{choices}</Choices></View>'
    )


def _note(decide: bool) -> str:
    """Return the XML of the note: of the lead's pages, or of those where OTHER is the reason."""
    if decide:
        shown, title, missing = "", "Why do you decide so? It is kept beside the votes.", "Write why you decide so"
    else:
        shown = f' visibleWhen="choice-selected" whenTagName="{CANNOT}" whenChoiceValue="{OTHER}"'
        title, missing = "Why can this page not be judged?", "Write why this page cannot be judged"
    return (
        f'<View className="el-note"{shown}>{_header(title)}'
        f'<TextArea name="{NOTE}" toName="original" required="true" rows="2" maxSubmissions="1" '
        f'showSubmitButton="false" placeholder="Shift Enter keeps it, then Ctrl Enter submits" '
        f'requiredMessage="{missing}, then Shift Enter."/></View>'
    )

"""The mapping file of a Label Studio project that another team made: which of its names mean what.

Ratings of each picture:

    source: source_image                  # key of a task's data with the path of the source picture
    instruction: prompt
    images: {a: image_a, b: image_b}      # your name of each edit: the key with its path
    editors: {a: model_a, b: model_b}     # optional: the key with the name of its editor
    ratings:                              # from_name of the control of each edit and axis
      a: {if: follow_a, vq: quality_a}
      b: {if: follow_b, vq: quality_b}
    scale: 1..5

Preferences (Pairwise, Choices or Ranker), which are no ratings: `ranks` states what the place in an order counts as.

    source: source_image
    instruction: prompt
    images: {left: image_1, right: image_2}
    preferences: {if: better, vq: better}
    ranks: {1: [3], 2: [4, 2]}
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from annotation.formats.rating_scale import OUR_SCALE, RatingScale, parse_scale
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, MOST_REFERENCES, Axis
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel, read_settings

TIE = "tie"
"""The meaning of a choice that prefers neither picture."""
Name = Annotated[str, Field(min_length=1)]
Rank = Annotated[int, Field(ge=LOWEST_RATING, le=HIGHEST_RATING)]


class ListedEdits(FrozenModel):
    """Edits in a list of a task's data, as the Ranker shows them."""

    key: Name
    """Key of the list."""
    id: Name = "id"
    """Key of an entry's id, which the answers name."""
    image: Name = "image"
    """Key of an entry's path, or of its HTML with one <img>."""
    editor: Name | None = None
    """Key of the name of an entry's editor."""


class LabelStudioMapping(FrozenModel):
    """What the names of a project mean."""

    source: Name
    """Key of a task's data with the path of the source picture."""
    instruction: Name
    """Key of the instruction."""
    references: tuple[Name, ...] = Field(default=(), max_length=MOST_REFERENCES)
    """Keys of the paths of further images that the instruction speaks of; the first is image 2."""
    task: Name | None = None
    """Key of the team's name of the task."""
    type: Name | None = None
    """Key of the kind of edit."""
    images: dict[Name, Name] = Field(default_factory=dict)
    """Key of the path of each edit, by the name that this file gives the edit."""
    items: ListedEdits | None = None
    """The edits, where they stand in a list; in place of `images`."""
    editors: dict[Name, Name] = Field(default_factory=dict)
    """Key of the name of the editor of each edit, by the edit's name."""
    ratings: dict[Name, dict[Axis, Name]] = Field(default_factory=dict)
    """from_name of the control of each edit and axis."""
    words: dict[Name, float] = Field(default_factory=dict)
    """The number on the scale of each choice, where people rate by Choices."""
    scale: str = str(OUR_SCALE)
    """The scale on which people rated, WORST..BEST. Another than 1..4 is mapped linearly onto that, and rounded."""
    preferences: dict[Axis, Name] = Field(default_factory=dict)
    """from_name of the control that says which edit is better on each axis; one control may count for both."""
    choices: dict[Name, Name] = Field(default_factory=dict)
    """The edit that each choice prefers, or `tie`, where people prefer by Choices."""
    others: Literal["equal"] | None = None
    """What a choice of one of three edits or more says of the others: nothing, or that they are equal."""
    buckets: tuple[Name, ...] = ()
    """Buckets of a Ranker, the best first; edits in one bucket are equal. Without, the Ranker's order counts."""
    ranks: dict[int, tuple[Rank, ...]] = Field(default_factory=dict)
    """What an order counts as, by the number of its ranks: the rating of each rank, the best first."""
    annotators: dict[str | int, Name] = Field(default_factory=dict)
    """Account name of each annotator, by the id or address in the export; others keep theirs."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if bool(self.images) == (self.items is not None):
            raise ValueError("give one of images and items: where a task's data has the edits")
        if bool(self.ratings) == bool(self.preferences):
            raise ValueError("give one of ratings and preferences: what people answered")
        if self.ratings and self.items:
            raise ValueError("ratings are of images, each with controls of its own")
        if self.preferences and not self.ranks:
            raise ValueError(
                "preferences are no ratings: ranks states what they count as, such as ranks: {1: [3], 2: [4, 2]}"
            )
        if self.preferences and self.scale != str(OUR_SCALE):
            raise ValueError("scale is for ratings; ranks are ratings of 1 to 4")
        for name, axes in {**self.ratings, **({"preferences": self.preferences} if self.preferences else {})}.items():
            if lacking := [axis for axis in AXES if axis not in axes]:
                raise ValueError(
                    f"{name}: no control for {', '.join(lacking)}; a vote has both axes. Where people judged one "
                    "thing, name its control for both"
                )
        for setting, names in (("ratings", self.ratings), ("editors", self.editors), ("choices", self._chosen)):
            if self.images and (unknown := [name for name in names if name not in self.images]):
                raise ValueError(f"{setting}: no edit {unknown[0]!r}; images names {', '.join(self.images)}")
        for count, levels in self.ranks.items():
            if len(levels) != count or list(levels) != sorted(levels, reverse=True):
                raise ValueError(f"ranks.{count}: {list(levels)}; write {count} ratings, the best first, none rising")
        return self

    @property
    def _chosen(self) -> list[str]:
        return [name for name in self.choices.values() if name != TIE]

    @property
    def data_keys(self) -> dict[str, str]:
        """The keys of a task's data that an import needs, by setting."""
        keys = {"source": self.source, "instruction": self.instruction}
        keys |= {f"references.{number}": key for number, key in enumerate(self.references, start=1)}
        keys |= {f"images.{name}": key for name, key in self.images.items()}
        keys |= {"items.key": self.items.key} if self.items else {}
        keys |= {"task": self.task} if self.task else {}
        keys |= {"type": self.type} if self.type else {}
        return keys | {f"editors.{name}": key for name, key in self.editors.items()}

    @property
    def controls(self) -> dict[str, str]:
        """The from_names of the controls, by setting."""
        rated = {
            f"ratings.{name}.{axis}": control for name, axes in self.ratings.items() for axis, control in axes.items()
        }
        return rated | {f"preferences.{axis}": control for axis, control in self.preferences.items()}

    @property
    def rating_scale(self) -> RatingScale:
        """The scale on which people rated.

        Raises:
            EditLoopError: The setting is none.
        """
        return parse_scale(self.scale, "scale:")

    @property
    def rule(self) -> str:
        """How answers became ratings, in words, for the origin of a dataset."""
        if self.ratings:
            return self.rating_scale.rule
        ranks = "; ".join(f"{count}: {', '.join(map(str, levels))}" for count, levels in sorted(self.ranks.items()))
        equal = ", edits that were not chosen as equal" if self.others else ""
        return f"preferences with ranks as ratings {ranks}{equal}"


def read_mapping(path: Path) -> LabelStudioMapping:
    """Read a mapping file.

    Args:
        path: The YAML file.

    Raises:
        EditLoopError: It cannot be read, or its settings do not fit together.
    """
    mapping = read_settings(LabelStudioMapping, path, "mapping")
    try:
        if mapping.ratings:
            mapping.rating_scale.rating(mapping.rating_scale.best)
            for value in mapping.words.values():
                mapping.rating_scale.rating(value)
    except (ValueError, EditLoopError) as error:
        raise EditLoopError(f"{path}: {error}") from None
    return mapping

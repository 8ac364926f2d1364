"""Read what a checkpoint's image processor says of its pictures: normalisation, and the bounds of their size.

transformers 4 writes `preprocessor_config.json`; transformers 5 writes `processor_config.json`, with the same values
under `image_processor`.
"""

import json
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from editloop.errors import EditLoopError
from editloop.settings_file import validate_settings
from editloop.text_file import file_bytes

FILES = ("preprocessor_config.json", "processor_config.json")
"""Files of an image processor's values, in the order in which they are looked for."""


class ImageProcessor(NamedTuple):
    """How a checkpoint's pictures are normalised and scaled."""

    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    """Mean and standard deviation of each channel, on 0..1."""
    min_pixels: int | None
    max_pixels: int | None
    """Pixels of a picture after scaling, `min_pixels` to `max_pixels`. None where the file does not say."""

    @property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """`image_mean` and `image_std` by their names in a model's settings."""
        return {"image_mean": self.image_mean, "image_std": self.image_std}


class _Size(BaseModel):
    shortest_edge: int | None = Field(None, ge=1)
    longest_edge: int | None = Field(None, ge=1)


class _Values(BaseModel):
    model_config = ConfigDict(extra="ignore")

    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    min_pixels: int | None = Field(None, ge=1)
    max_pixels: int | None = Field(None, ge=1)
    size: _Size = _Size()


class _Processor(BaseModel):
    image_processor: _Values


def read_image_processor(folder: Path) -> ImageProcessor | None:
    """Read the image processor of a checkpoint.

    Args:
        folder: The checkpoint's folder.

    Returns:
        Its values; None where the folder has neither file.

    Raises:
        EditLoopError: The file cannot be read, or lacks a value.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    advice = "It says how pictures are scaled; take the one that the checkpoint was published with."
    try:
        content = json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({error}). {advice}") from None
    source = f"image processor {path}"
    if path.name == FILES[0]:
        values = validate_settings(_Values, content, source, advice)
    else:
        values = validate_settings(_Processor, content, source, advice).image_processor
    return ImageProcessor(
        values.image_mean,
        values.image_std,
        values.min_pixels or values.size.shortest_edge,
        values.max_pixels or values.size.longest_edge,
    )

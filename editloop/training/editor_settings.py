"""Settings that all trainings of an editor have, supervised or online RL. Imports no torch."""

from typing import Literal

from pydantic import Field

from editloop.settings_file import FrozenModel


class EditorTrainingSettings(FrozenModel):
    """What is trained of an editor, and where its frozen parts are."""

    targets: tuple[str, ...] = ()
    """Endings of the names of the layers that get an adapter; empty: the editor's own choice."""
    encoders: Literal["auto", "resident", "on-demand"] = "auto"
    """Where text encoders and codec are. resident: on the device. on-demand: read where they are first used, and on the
    device only while they are used; their weights stay in main memory. auto: on-demand on a GPU, resident on a CPU."""
    encodings_gb: float = Field(4.0, ge=0)
    """Gigabytes of encoded tasks that a process keeps in main memory. All are on disk too, so none is encoded twice."""
    area: int | None = Field(None, ge=64)
    """Pixels of an image in training; null: those of the editor's settings. Evaluations of the editor, and the editor
    that is saved, keep the editor's own."""

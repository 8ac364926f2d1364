"""Pieces of work and where their results are kept: by the content address of what they depend on.

A piece is one measurement of one seed. It has a folder of its own, in which stages go on where they were stopped;
`figures.json`, written last, says that it is done.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from editloop.content import sha256_json, write_json
from editloop.studies.claims.settings import ClaimsSettings

Figures = dict[str, float]
"""What a piece measured, by name; NaN where it could not be."""
FIGURES = "figures.json"


class PieceCost(NamedTuple):
    """What a piece took."""

    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class PieceContext:
    """What a piece is given to work with."""

    folder: Path
    """Its own; what it leaves here is there for the pieces that need it."""
    seed: int
    settings: ClaimsSettings
    needs: Mapping[str, Path]
    """Folders of the finished pieces that it needs, by name."""


@dataclass(frozen=True)
class Piece:
    """One measurement, the same for every seed."""

    name: str
    make: Callable[[PieceContext], Figures]
    seconds: float
    """What it takes on one core with the standard settings, as measured."""
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Names of the settings that its result depends on, beside those of its needs."""
    optional: bool = False
    """No verdict hangs on it: it is made after all that verdicts hang on."""


@dataclass(frozen=True)
class Store:
    """The folder of results of one size of the measurements."""

    output: Path
    settings: ClaimsSettings
    catalogue: str = "editloop.studies.claims.catalogue"
    """The module whose `PIECES` there are."""

    @property
    def pieces(self) -> Mapping[str, Piece]:
        """All pieces by name."""
        catalogue: Mapping[str, Piece] = import_module(self.catalogue).PIECES
        return catalogue

    def address(self, name: str, seed: int) -> str:
        """Content address of a piece: of its name, seed, settings, and the addresses of what it needs."""
        piece = self.pieces[name]
        needs = [self.address(needed, seed) for needed in piece.needs]
        return sha256_json([name, seed, self.settings.of(piece.settings), needs])

    def folder(self, name: str, seed: int) -> Path:
        """Where a piece works, and leaves its results."""
        return self.output / "pieces" / f"{name}-{seed}-{self.address(name, seed)[:12]}"

    def figures(self, name: str, seed: int) -> Figures | None:
        """What a finished piece measured; None while it is not done."""
        path = self.folder(name, seed) / FIGURES
        return dict(json.loads(path.read_text())["figures"]) if path.is_file() else None

    def spent(self, name: str, seed: int) -> PieceCost | None:
        """What a finished piece took; None while it is not done."""
        path = self.folder(name, seed) / FIGURES
        if not path.is_file():
            return None
        record = json.loads(path.read_text())
        return PieceCost(record["seconds"], record["processor_seconds"])

    def keep(self, name: str, seed: int, figures: Figures, spent: PieceCost) -> None:
        """Write what a piece measured: from now on it is done."""
        write_json(self.folder(name, seed) / FIGURES, {"figures": figures, **spent._asdict()})

    def work(self, name: str, seed: int) -> PieceContext:
        """What the piece is given; its folder is there afterwards."""
        folder = self.folder(name, seed).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        needs = {needed: self.folder(needed, seed).absolute() for needed in self.pieces[name].needs}
        return PieceContext(folder, seed, self.settings, needs)

    def ordered(self, names: list[str]) -> list[str]:
        """The pieces of these names and all that they need, each after what it needs."""
        names_in_order: dict[str, None] = {}

        def add(name: str) -> None:
            for needed in self.pieces[name].needs:
                add(needed)
            names_in_order[name] = None

        for name in names:
            add(name)
        return list(names_in_order)

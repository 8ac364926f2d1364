"""Stores the results of pieces, by the content address of all that they depend on.

A piece is one measurement of one seed. It has its own folder, in which trainings resume where they were stopped. The
last file written, `figures.json`, marks it as done.
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
"""Figures that a piece measured, by name. NaN: it cannot be measured."""
FIGURES = "figures.json"


class PieceCost(NamedTuple):
    """Elapsed time and processor time of a piece."""

    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class PieceContext:
    """Inputs of a piece."""

    folder: Path
    """The piece's own folder. Pieces that need it can read what it writes there."""
    seed: int
    settings: ClaimsSettings
    needs: Mapping[str, Path]
    """Folders of the pieces that it needs, by name."""


@dataclass(frozen=True)
class Piece:
    """A measurement, to be made for every seed."""

    name: str
    make: Callable[[PieceContext], Figures]
    seconds: float
    """Planned time: what it took on one core with the standard settings."""
    needs: tuple[str, ...] = ()
    """Names of the pieces that must be done before."""
    settings: tuple[str, ...] = ()
    """Names of the settings that its result depends on, in addition to those of its needs."""
    optional: bool = False
    """Whether no verdict depends on it. Optional pieces run last."""


@dataclass(frozen=True)
class Store:
    """A folder of results, measured with given settings."""

    output: Path
    settings: ClaimsSettings
    catalogue: str = "editloop.studies.claims.catalogue"
    """Module whose `PIECES` are the pieces."""

    @property
    def pieces(self) -> Mapping[str, Piece]:
        """All pieces by name."""
        catalogue: Mapping[str, Piece] = import_module(self.catalogue).PIECES
        return catalogue

    def address(self, name: str, seed: int) -> str:
        """Return a piece's content address: of its name, seed, settings, and the addresses of what it needs.

        Args:
            name: Name of the piece.
            seed: Its seed.
        """
        piece = self.pieces[name]
        needs = [self.address(needed, seed) for needed in piece.needs]
        return sha256_json([name, seed, self.settings.of(piece.settings), needs])

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a piece.

        Args:
            name: Name of the piece.
            seed: Its seed.
        """
        return self.output / "pieces" / f"{name}-{seed}-{self.address(name, seed)[:12]}"

    def figures(self, name: str, seed: int) -> Figures | None:
        """Return the figures of a piece; None while it is not done.

        Args:
            name: Name of the piece.
            seed: Its seed.
        """
        path = self.folder(name, seed) / FIGURES
        return dict(json.loads(path.read_text())["figures"]) if path.is_file() else None

    def spent(self, name: str, seed: int) -> PieceCost | None:
        """Return the cost of a piece; None while it is not done.

        Args:
            name: Name of the piece.
            seed: Its seed.
        """
        path = self.folder(name, seed) / FIGURES
        if not path.is_file():
            return None
        record = json.loads(path.read_text())
        return PieceCost(record["seconds"], record["processor_seconds"])

    def keep(self, name: str, seed: int, figures: Figures, spent: PieceCost) -> None:
        """Write a piece's figures, which marks it as done.

        Args:
            name: Name of the piece.
            seed: Its seed.
            figures: The figures.
            spent: Its cost.
        """
        write_json(self.folder(name, seed) / FIGURES, {"figures": figures, **spent._asdict()})

    def work(self, name: str, seed: int) -> PieceContext:
        """Make a piece's folder, and return the piece's inputs.

        Args:
            name: Name of the piece.
            seed: Its seed.
        """
        folder = self.folder(name, seed).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        needs = {needed: self.folder(needed, seed).absolute() for needed in self.pieces[name].needs}
        return PieceContext(folder, seed, self.settings, needs)

    def ordered(self, names: list[str]) -> list[str]:
        """Return the names of pieces and of all that they need, each after what it needs.

        Args:
            names: Names of the pieces.
        """
        names_in_order: dict[str, None] = {}

        def add(name: str) -> None:
            for needed in self.pieces[name].needs:
                add(needed)
            names_in_order[name] = None

        for name in names:
            add(name)
        return list(names_in_order)

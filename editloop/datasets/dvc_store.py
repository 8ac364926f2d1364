"""DVC's part of the dataset repository, in this process. Import it where it is called: DVC takes a second to load.

DVC reads the repository's own configuration (`.dvc/config`, `.dvc/config.local`), never the user's or the machine's,
and leaves git to `editloop.datasets.git_command`.
"""

import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import colorama
from configobj import ConfigObj
from dvc.config import Config
from dvc.fs import download
from dvc.ignore import init as write_dvcignore
from dvc.repo import Repo

from editloop.content import write_file
from editloop.errors import EditLoopError

CONFIG, REMOTE = ".dvc/config", "store"
INTERNAL = "/config.local\n/tmp\n/cache\n"
"""What DVC keeps to itself in `.dvc`."""
OVERRIDES: dict[str, dict[str, Any]] = {"core": {"no_scm": True}}
"""Of the repository's configuration, for the calls here: they add nothing to git's index and read no ignore rules."""
LOGGERS = ("dvc", "dvc_data", "dvc_objects")


def _quiet() -> None:
    """Undo what importing DVC does to the process: handlers that print, a wrapped standard output, progress bars."""
    colorama.deinit()
    for name in LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = False
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)


_quiet()


class _Config(Config):
    """The configuration of a repository alone, in UTF-8 whatever the locale."""

    LEVELS = Config.REPO_LEVELS

    @staticmethod
    def load_file(path: str, fs: Any = None) -> dict[str, Any]:
        settings: dict[str, Any] = Config.load_file(path, fs=SimpleNamespace(open=partial(open, encoding="utf-8")))
        return settings


class _Repo(Repo):
    """A DVC repository without surroundings: its working files are in a folder of its own, which no other run reads."""

    def __init__(self, root: Path, scratch: Path, overrides: Mapping[str, Any]) -> None:
        self._scratch = scratch
        super().__init__(str(root), config={**OVERRIDES, **overrides})

    @cached_property
    def config(self) -> _Config:
        return _Config(self.dvc_dir, config=self._config)

    @cached_property
    def site_cache_dir(self) -> str:
        return str(self._scratch)


class _LoggedErrors(logging.Handler):
    """Keeps the exceptions that DVC logs while its own says how many there were."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.words.append(f"{record.getMessage()}: {record.exc_info[1]}")


def prepare(folder: Path, remote: str) -> list[str]:
    """Make a git repository a DVC repository with this default remote, as far as it is not.

    Args:
        folder: The repository's working folder.
        remote: A folder, or an address that DVC knows (s3://...).

    Returns:
        The files that git should keep, relative to `folder`.
    """
    with _dvc_words(folder, "init"):
        if not (folder / ".dvc" / ".gitignore").exists():
            write_file(folder / ".dvc" / ".gitignore", INTERNAL)
            write_dvcignore(str(folder))
        url = remote if "://" in remote else str(Path(remote).absolute())
        path, section = folder / CONFIG, f'remote "{REMOTE}"'
        config = ConfigObj(str(path), encoding="utf-8", default_encoding="utf-8", interpolation=False)
        core = config.setdefault("core", {})
        if (core.get("remote"), config.get(section, {}).get("url")) != (REMOTE, url):
            core.setdefault("analytics", "false")
            core["remote"] = REMOTE
            config[section] = {"url": url}
            text = io.BytesIO()
            config.write(text)
            write_file(path, text.getvalue())
    return [name for name in (".dvc/.gitignore", CONFIG, ".dvcignore") if (folder / name).exists()]


def put(folder: Path, name: str) -> str:
    """Take a folder of the repository into DVC's cache and its default remote.

    Returns:
        The text of the pointer to it, NAME.dvc, which git keeps.
    """
    pointer = folder / f"{name}.dvc"
    with _dvc_words(folder, f"add {name}"), _repository(folder) as repository:
        repository.add(str(folder / name))
        with _dvc_words(folder, f"push {name}"):
            repository.push(str(pointer))
    return pointer.read_text(encoding="utf-8")


def get(folder: Path, name: str, pointer: bytes, target: Path) -> None:
    """Fetch what a pointer, NAME.dvc as some commit has it, points to: from the repository's cache, or its remote."""
    with _dvc_words(folder, f"get {name}"), tempfile.TemporaryDirectory(prefix="editloop-dvc-") as temporary:
        config = _Config(str(folder / ".dvc"))
        default = config["core"].get("remote")
        overrides = {
            "core": OVERRIDES["core"] | ({"remote": default} if default else {}),
            "remote": config["remote"],
            "cache": {"dir": str(folder / ".dvc" / "cache"), **config["cache"]},
        }
        write_file(Path(temporary) / CONFIG, "")
        write_file(Path(temporary) / f"{name}.dvc", pointer)
        with _repository(Path(temporary), overrides) as repository:
            download(repository.dvcfs, f"/{name}", str(target))


@contextmanager
def _repository(folder: Path, overrides: Mapping[str, Any] = OVERRIDES) -> Iterator[Repo]:
    with (
        tempfile.TemporaryDirectory(prefix="editloop-dvc-") as scratch,
        _Repo(folder, Path(scratch), overrides) as repo,
    ):
        yield repo


@contextmanager
def _dvc_words(folder: Path, action: str) -> Iterator[None]:
    """Turn whatever DVC raises into an EditLoopError with its words, and with the reasons that it only logs."""
    logged = _LoggedErrors()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(logged)
    try:
        yield
    except EditLoopError:
        raise
    except Exception as error:
        chain = [str(cause) or type(cause).__name__ for cause in _causes(error)]
        words = " ".join(": ".join(dict.fromkeys((*chain, *logged.words[:1]))).split())
        raise EditLoopError(f"dataset repository {folder}: dvc {action}: {words}") from error
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(logged)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it was raised from."""
    yield error
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)

"""DVC's part of the dataset repository, run in this process.

Import this module only where it is called: loading DVC takes a second. DVC reads the repository's configuration
(`.dvc/config`, `.dvc/config.local`) and no other, and leaves git to `editloop.datasets.git_command`.
"""

import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from colorama import initialise
from configobj import ConfigObj
from dvc.config import Config
from dvc.fs import download
from dvc.ignore import init as write_dvcignore
from dvc.repo import Repo
from pydantic import Field, ValidationError

from editloop.content import write_file
from editloop.errors import EditLoopError
from editloop.object_storage import SCHEME
from editloop.settings_file import FrozenModel, parse_yaml

CONFIG, REMOTE, RWLOCK = ".dvc/config", "store", ".dvc/tmp/rwlock"
WRITING_SECONDS = 0.5
"""Time within which DVC has written its list of readers and writers, a few hundred bytes."""
INTERNAL = "/config.local\n/tmp\n/cache\n"
"""DVC's private files in `.dvc`, ignored by git."""
OVERRIDES: dict[str, dict[str, Any]] = {"core": {"no_scm": True}}
"""Overrides of the repository's configuration. With `no_scm` DVC neither adds to git's index nor reads its ignore
rules."""
LOGGERS = ("dvc", "dvc_data", "dvc_objects")
"""Loggers of DVC, which are kept from printing."""


def _quiet() -> None:
    """Undo what importing DVC does to the process: printing log handlers, a wrapped standard output, progress bars.

    colorama's own `deinit` would bring back the output of the time when it was first wrapped, whatever it is now.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is getattr(initialise, f"wrapped_{name}"):
            setattr(sys, name, getattr(initialise, f"orig_{name}"))
    for name in LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = False
    logging.getLogger("dvc.progress").setLevel(logging.CRITICAL)


_quiet()


class PointedOutput(FrozenModel):
    """The content of a folder, as DVC's pointer names it."""

    md5: str = Field(pattern=r"^[0-9a-f]{32}\.dir$")
    path: str
    size: int | None = None
    nfiles: int | None = None
    hash: str | None = None


class PointerFile(FrozenModel):
    """Content of `<name>.dvc`, as far as it is read."""

    outs: tuple[PointedOutput]


class _Config(Config):
    """A configuration read from the repository alone, in UTF-8 whatever the locale."""

    LEVELS = Config.REPO_LEVELS

    @staticmethod
    def load_file(path: str, fs: Any = None) -> dict[str, Any]:
        settings: dict[str, Any] = Config.load_file(path, fs=SimpleNamespace(open=partial(open, encoding="utf-8")))
        return settings


class _Repo(Repo):
    """A DVC repository isolated from the machine: its temporary files lie in a folder that no other run reads."""

    def __init__(self, root: Path, scratch: Path, overrides: Mapping[str, Any]) -> None:
        self._scratch = scratch
        _remove_cut_lock(root)
        super().__init__(str(root), config={**OVERRIDES, **overrides})

    @cached_property
    def config(self) -> _Config:
        return _Config(self.dvc_dir, config=self._config)

    @cached_property
    def site_cache_dir(self) -> str:
        return str(self._scratch)


def _remove_cut_lock(root: Path) -> None:
    """Remove DVC's list of what its processes read and write where it was cut off, as by a power failure: DVC refuses
    to work beside such a list for ever.
    """
    path = root / RWLOCK
    for is_second_look in (False, True):  # another process of DVC may be writing it
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            if is_second_look:
                path.unlink(missing_ok=True)
            else:
                time.sleep(WRITING_SECONDS)
        else:
            return


class _LoggedErrors(logging.Handler):
    """Collects the exceptions that DVC logs. The exception that DVC raises only counts them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.words.append(f"{record.getMessage()}: {record.exc_info[1]}")


def prepare(folder: Path, remote: str) -> list[str]:
    """Set up DVC with a default remote in a git repository, unless that is done.

    Args:
        folder: The repository's working folder.
        remote: A folder, or an address that DVC knows (s3://...).

    Returns:
        The files that git must track, relative to `folder`.

    Raises:
        EditLoopError: DVC refuses; the message quotes it.
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
    """Store a folder of the repository in DVC's cache and its default remote.

    Args:
        folder: The repository's working folder.
        name: The folder to store, relative to it.

    Returns:
        The text of the pointer file `<name>.dvc`, which git tracks.

    Raises:
        EditLoopError: DVC refuses; the message quotes it.
    """
    pointer = folder / f"{name}.dvc"
    with _dvc_words(folder, f"add {name}"), _repository(folder) as repository:
        repository.add(str(folder / name))
        with _dvc_words(folder, f"push {name}"):
            repository.push(str(pointer))
    return pointer.read_text(encoding="utf-8")


def get(folder: Path, name: str, pointer: bytes, target: Path) -> None:
    """Fetch the folder that a pointer file refers to, from the repository's cache or its remote.

    Args:
        folder: The repository's working folder.
        name: The folder's name in the repository.
        pointer: Content of `<name>.dvc` in some commit.
        target: Where to put the folder.

    Raises:
        EditLoopError: A remote is at an address of another kind, the pointer is none, or DVC refuses; the message
            quotes it.
    """
    with _dvc_words(folder, f"get {name}"), tempfile.TemporaryDirectory(prefix="editloop-dvc-") as temporary:
        config = _Config(str(folder / ".dvc"))
        default = config["core"].get("remote")
        _check_remotes(folder, config["remote"])
        _check_pointer(folder, name, pointer)
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
    """Turn any exception of DVC into an EditLoopError with its message and the first reason that it only logs."""
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


def _check_remotes(folder: Path, remotes: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the repository's remotes are folders or in object storage.

    Whoever writes to the repository names them, and DVC would ask any host, with any log-in that this machine has.
    """
    for name, settings in remotes.items():
        url = str(settings.get("url", ""))
        if "://" in url and not url.startswith(SCHEME):
            raise EditLoopError(
                f"dataset repository {folder}: {CONFIG} says that remote {name} is at {url}. A remote is a folder or "
                f"{SCHEME}BUCKET/PREFIX; correct the file."
            )


def _check_pointer(folder: Path, name: str, pointer: bytes) -> None:
    """Check that a pointer file says which content it stands for and nothing else.

    DVC's other pointers import from addresses, which it would ask, or name other folders.
    """
    try:
        output = PointerFile.model_validate(parse_yaml(pointer.decode(), f"{name}.dvc")).outs[0]
        is_own = output.path == name
    except (ValidationError, UnicodeDecodeError, EditLoopError):
        is_own = False
    if not is_own:
        raise EditLoopError(
            f"dataset repository {folder}: {name}.dvc is not a pointer to {name} and its content. Restore the file, or "
            "fetch the version from another clone."
        )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the chain of its causes."""
    yield error
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)

"""Fuzz one target in this process, until its time is up.

    python -m tests.fuzz.one_target NAME FOLDER SCRATCH LIBFUZZER-OPTION...

An exception that is none of the target's refusals is written down with its input, once for each place of the code that
it comes from, and the fuzzing goes on. A crash of the interpreter, an input that takes too long and one that takes too
much memory end the process; libFuzzer writes that input.
"""

import sys
import time
import traceback
from pathlib import Path
from random import Random
from unicodedata import category

import atheris

from tests.fuzz.targets import ROOT, TARGETS

LONGEST_SECONDS = 5.0
"""Seconds of a processor that an input may take. An honest one takes milliseconds."""


class SlowError(Exception):
    """An input takes too long."""


def place_of(error: Exception) -> str:
    """Return what tells a finding from others: the exception and the last line of the project's own code.

    Args:
        error: The exception.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    last = frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).relative_to(ROOT)}:{last.lineno}"


def main(name: str, folder: Path, scratch: Path, options: list[str]) -> None:
    """Fuzz a target. libFuzzer ends the process.

    Args:
        name: The target.
        folder: Folder of the findings.
        scratch: Folder for the inputs, which somebody else removes.
        options: libFuzzer's options and folders of inputs.
    """
    target, places = TARGETS[name], set[str]()
    inputs = scratch / "inputs"
    inputs.mkdir()
    with atheris.instrument_imports(include=list(target.modules)):
        parse, refusals = target.open(inputs)

    def one_input(data: bytes) -> None:
        began = time.process_time()
        try:
            try:
                parse(data)
            finally:
                if (seconds := time.process_time() - began) > LONGEST_SECONDS:
                    raise SlowError(f"{seconds:.1f} s")
        except refusals as error:
            message = str(error)
            assert message, "a refusal without a word"
            assert not {"Cc", "Cs"} & set(map(category, message.replace("\n", ""))), message[:500]
        except Exception as error:
            place = place_of(error)
            if place not in places:
                places.add(place)
                (folder / f"finding-{len(places)}").write_bytes(data)
                (folder / f"finding-{len(places)}.txt").write_text(f"{place}\n\n{traceback.format_exc()}")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        changed = target.mutate(data, chance) if chance.random() < 0.6 else data
        if changed == data or chance.random() < 0.2:
            changed = atheris.Mutate(changed[:most], most)
        return changed[:most]

    atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])

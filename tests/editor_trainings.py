"""One rank that runs several editors' trainings, one after the other: a job's by RL, on target edits and on pairs.

torchrun --nproc-per-node 1 -m tests.editor_trainings jobs.json
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from editloop.training.distributed import end_rank, start_rank
from editloop.training.editor_dpo import page as dpo_page
from editloop.training.editor_dpo import train as dpo
from editloop.training.editor_dpo.settings import DpoJob
from editloop.training.editor_rl import page as rl_page
from editloop.training.editor_rl import train as rl
from editloop.training.editor_rl.settings import RlJob
from editloop.training.editor_sft import page as sft_page
from editloop.training.editor_sft import train as sft
from editloop.training.editor_sft.settings import SftJob


def within_one_rank(module: Any, job: Any) -> None:
    """A training's main in a rank that has started already and stays."""
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    with patch.object(module, "start_rank", nothing), patch.object(module, "end_rank", nothing):
        module.main(job)


@contextmanager
def without_plots() -> Iterator[None]:
    """Leave the plots out of the trainings' pages, which took a third of the time; they depend on no editor."""
    with ExitStack() as patches:
        for page in (rl_page, sft_page, dpo_page):
            patches.enter_context(patch.object(page, "curves", return_value=None))
        yield


if __name__ == "__main__":
    start_rank()
    for number, jobs in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        with without_plots() if number else nullcontext():
            if "rl" in jobs:
                within_one_rank(rl, RlJob.model_validate(jobs["rl"]))
            within_one_rank(sft, SftJob.model_validate(jobs["sft"]))
            if "dpo" in jobs:
                within_one_rank(dpo, DpoJob.model_validate(jobs["dpo"]))
    end_rank()

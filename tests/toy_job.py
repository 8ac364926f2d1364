"""The toy training by a job file, as the stages' trainings run: a rank that reads data, and leaves a result.

torchrun --nproc-per-node 2 -m tests.toy_job job.json
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as distributed

from editloop.content import complete_folder, read_manifest, write_json
from editloop.training.distributed import end_rank, start_rank
from editloop.training.job import HISTORY_FILE
from editloop.training.loop import train
from editloop.training.settings import TrainingSettings
from tests.toy_training import Toy


def main(job: dict[str, Any]) -> None:
    facts = {"data": read_manifest(Path(job["data"]), check=True)["sha256"]}
    start_rank()
    trained = train(
        Toy(slow=job["slow"]), TrainingSettings.model_validate(job["settings"]), Path(job["checkpoints"]), facts=facts
    )
    if distributed.get_rank() == 0:
        with complete_folder(Path(job["output"]), facts) as out:
            write_json(out / HISTORY_FILE, trained.history)
    end_rank()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

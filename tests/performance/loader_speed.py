"""Loading of reward training's pairs in shuffled order, from PNG files of 512 pixels to what the vision tower reads.

    python -m tests.performance.loader_speed          # an epoch on two cores, and the peak of its memory

The plain way is that of EditReward's published loader: one process, and for each side of a pair the source and the edit
are decoded and go through the Hugging Face processor. It gets the encoded images from memory; ours reads shards.
"""

import atexit
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil

from editloop.data.picture_file import png_bytes
from editloop.datasets.preference_groups import PreferenceGroups
from editloop.datasets.shards import ShardWriter
from editloop.models.backbones.picture_inputs import normalised_patches
from editloop.models.edit_reward.inputs import InputMaker
from editloop.models.edit_reward.settings import RewardSettings
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.training.prefetch import Prefetch
from tests.performance.bench import Benchmark, peak_megabytes

SIDE, PATCH, THREADS = 512, 14, 2
PIXELS = 448 * 448
"""What the published preset scales to."""
PAIRS, EPOCH_PAIRS = 24, 400
LONGEST_SECONDS, MOST_MEGABYTES = EPOCH_PAIRS / 40, 850
"""40 pairs a second. Importing takes 490 MB, and a reader that kept the epoch's images would add 540."""
FASTER = 2.5
"""Less work (28 ms of a processor a pair) on two threads. Measured: 2.8 (2.7 to 2.8); hoped for: 3.2."""
Pngs = list[tuple[bytes, bytes, bytes]]
"""Source and both edits of each pair."""


@lru_cache(1)
def pictures() -> list[bytes]:
    """Return PNG files of 0.45 MB, of smooth shapes under a camera's noise."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(3 * PAIRS):
        shapes = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        noisy = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        made.append(png_bytes(Image.fromarray(noisy)))
    return made


def write_pairs(folder: Path, count: int) -> Pngs:
    """Write shards of so many tasks of two candidates. Returns their images."""
    files, pngs = pictures(), Pngs()
    with closing(ShardWriter(folder, "train", 256)) as writer:
        for task in range(count):
            source, *edits = (files[(3 * task + place) % len(files)] for place in range(3))
            pngs.append((source, edits[0], edits[1]))
            common = {"task_id": f"{task:064d}", "instruction": "make it red", "source": source, "target": source}
            names = [f"{task}-{place}" for place in range(2)]
            rows = [
                common | {"candidate_id": name, "image": edit, "editor": "e", "if_mean": 2.0, "vq_mean": 3.0}
                for name, edit in zip(names, edits, strict=True)
            ]
            writer.add(rows, [{"task_id": common["task_id"], "a": names[0], "b": names[1]}])
    return pngs


def read_ours(groups: PreferenceGroups, order: list[int]) -> Iterator[dict[str, Tensor]]:
    """Yield the batch of each pair: its three images as bytes, and its tokens."""
    config = tiny_config("qwen2.5-vl", byte_tokenizer(), patch=PATCH)
    maker = InputMaker(config, byte_tokenizer(), RewardSettings(min_pixels=PIXELS, max_pixels=PIXELS))
    makers = (partial(lambda index: maker.collate([groups[index]]), index) for index in order)
    with Prefetch(makers, threads=THREADS, ahead=1 + THREADS) as batches:
        yield from batches


def normalised(batch: dict[str, Tensor]) -> Tensor:
    """Return what the vision tower reads. In a training this is computed on the model's device."""
    return normalised_patches(batch["pixel_values"], batch["pixel_scale"], 2)


def read_plain(pngs: Pngs, order: list[int]) -> Iterator[Tensor]:
    """Yield what the vision tower reads of each pair: source, first edit, second edit."""
    size = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
    half = [0.5] * 3
    processor: Any = Qwen2VLImageProcessorPil(patch_size=PATCH, size=size, image_mean=half, image_std=half)
    for index in order:
        source, *edits = pngs[index]
        sides = [
            processor([Image.open(BytesIO(png)).convert("RGB") for png in (source, edit)], return_tensors="pt")
            for edit in edits
        ]
        first, second = (side.pixel_values.chunk(2) for side in sides)
        yield torch.cat([*first, second[1]])


def last(tensors: Iterator[Tensor]) -> Tensor:
    *_, end = tensors
    return end


def near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5)


def speed() -> Benchmark:
    torch.set_num_threads(1)
    order = np.random.default_rng(0).permutation(PAIRS).tolist()

    @cache
    def pairs() -> tuple[PreferenceGroups, Pngs]:
        """Written when they are needed: `bench` makes all benchmarks to know their names."""
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        pngs = write_pairs(Path(folder.name), PAIRS)
        return PreferenceGroups(Path(folder.name), "train", targets=False), pngs

    name = f"loader: {PAIRS} shuffled pairs of {SIDE} px PNG, one process against {THREADS} threads"
    return Benchmark(
        name,
        lambda: last(read_plain(pairs()[1], order)),
        lambda: last(map(normalised, read_ours(pairs()[0], order))),
        FASTER,
        same=near,
    )


def loading() -> dict[str, float]:
    """Load an epoch in a process of its own: {"seconds", "megabytes" (its peak)}; writing the shards is not counted."""
    with tempfile.TemporaryDirectory() as place:
        write_pairs(Path(place), EPOCH_PAIRS)
        command = [sys.executable, "-m", "tests.performance.loader_speed", place]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _load(folder: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    groups = PreferenceGroups(folder, "train", targets=False)
    order = np.random.default_rng(0).permutation(EPOCH_PAIRS).tolist()
    began, processor = time.perf_counter(), time.process_time()
    peaks = [peak_megabytes() for _ in read_ours(groups, order)]
    return {
        "seconds": time.perf_counter() - began,
        "megabytes": peaks[-1],
        "megabytes_after_a_quarter": peaks[EPOCH_PAIRS // 4],
        "processor_seconds": time.process_time() - processor,
    }


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (speed,)

if __name__ == "__main__":
    print(json.dumps(_load(Path(sys.argv[1])) if sys.argv[1:] else loading()))

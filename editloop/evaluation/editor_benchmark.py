"""A public benchmark of editors as a suite of the editor's gate: base and tuned editor, from the same noise."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from editloop.evaluation.editor_suites.editing import EditorSampling, make_edits
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from editloop.evaluation.editor_suites.page import write_result
from editloop.evaluation.editor_suites.result import EditorFacts, compare_results, judge_edits, result_outcomes
from editloop.evaluation.editor_suites.tasks import EditorSuite
from editloop.evaluation.gates.decision import SuiteMeasurement
from editloop.evaluation.gates.settings import EditorBenchmark
from editloop.models.editors.protocol import Editor
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import open_judge

LOG = logging.getLogger(__name__)


class VersionedEditor(NamedTuple):
    """An editor with what identifies it."""

    name: str
    version: str
    """Content address."""
    editor: Editor


class GateBenchmark(NamedTuple):
    """A benchmark that a gate names, opened."""

    gate: EditorBenchmark
    """Without a say where its judge trained the editor."""
    suite: EditorSuite
    judge: Judge

    def measure(
        self, editors: Mapping[str, VersionedEditor], work: Path, output: Path, sampling: EditorSampling
    ) -> SuiteMeasurement:
        """Measure both editors, and write the tuned one's result with its changes.

        Args:
            editors: `base` and `tuned`.
            work: Folder in which edits and answers are kept, for a call that goes on.
            output: Folder to write the result to.
            sampling: How the editors are sampled.

        Raises:
            JudgeUnavailableError: The judge cannot be reached.
        """
        results = {}
        for role, (name, version, editor) in editors.items():
            images = work / f"{self.suite.sha256[:12]}-{version[:12]}"
            make_edits(self.suite, editor, version, images, sampling)
            facts = EditorFacts(name=name, version=version, sampling=sampling)
            results[role] = judge_edits(self.suite, facts, images, self.judge, work / self.judge.version[:16])
        changes = compare_results(results["tuned"], results["base"], seed=sampling.seed)
        write_result(results["tuned"], self.suite, images, output, changes=changes, against=editors["base"].name)
        return SuiteMeasurement(self.gate, result_outcomes(results["tuned"]), result_outcomes(results["base"]))


def open_benchmarks(benchmarks: Sequence[EditorBenchmark], reward_sha256: str) -> list[GateBenchmark]:
    """Open the benchmarks that a gate names, with their judges.

    Args:
        benchmarks: The benchmarks.
        reward_sha256: Version of the reward model that trained the editor; a benchmark by this judge has no say.

    Raises:
        EditLoopError: A benchmark is faulty, or a judge cannot be opened.
    """
    opened = []
    for benchmark in benchmarks:
        judge = open_judge(benchmark.judge)
        gate = benchmark
        if judge.version == reward_sha256:
            LOG.warning("%s: %s trained the editor, so it has no say", benchmark.suite, benchmark.judge)
            gate = benchmark.model_copy(update={"required": False})
        opened.append(GateBenchmark(gate, open_editor_suite(benchmark.suite, Path(benchmark.data)), judge))
    return opened

"""Prometheus metrics of a scoring server."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Bucket bounds of the time histograms, in seconds."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Bucket bounds of the size histograms."""


class Meters:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "editloop_score_requests", "Requests, by the answer's HTTP status", ["status"], registry=registry
        )
        self.edits = Counter("editloop_scored_edits", "Edits that were given a score", registry=registry)
        self.missing = Counter("editloop_missing_scores", "Edits whose score is missing", registry=registry)
        seconds = partial(Histogram, buckets=SECONDS, registry=registry)
        self.seconds = seconds("editloop_score_seconds", "From a request's arrival to its answer")
        self.batch_seconds = seconds("editloop_batch_seconds", "What a worker takes for a batch")
        sizes = partial(Histogram, buckets=SIZES, registry=registry)
        self.batch_edits = sizes("editloop_batch_edits", "Edits a batch")
        self.batch_requests = sizes("editloop_batch_requests", "Requests a batch")
        same_task = "Distinct tasks a batch: requests of one task share its source and instruction"
        self.batch_groups = sizes("editloop_batch_groups", same_task)
        self.queued = Gauge("editloop_queued_edits", "Edits that wait for a worker", registry=registry)
        self.ready = Gauge("editloop_ready_workers", "Workers with a loaded model", registry=registry)
        self.deaths = Counter("editloop_worker_deaths", "Workers that ended on their own", registry=registry)
        self.undecoded = Counter(
            "editloop_undecoded_requests", "Requests that could not be decoded, or took too long", registry=registry
        )
        self.model = Gauge("editloop_model", "1 for the model that is served", ["model", "version"], registry=registry)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

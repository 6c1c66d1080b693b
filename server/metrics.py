"""What the server counts and times, in the form that Prometheus reads; the values of every label are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "qwen3_tts"
UNKNOWN = "unknown"
"""Label of a request that was refused before its model or its format was known."""

Outcome = Literal["done", "failed", "stopped", "timed_out", "queue_full", "key_limit", "unavailable", "invalid"]
"""How a speech request ended; `stopped` means that its client left."""

_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STEP_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.5, 1, 2.5, 5)
"""A codec frame is 0.08 s of audio: if it takes longer, one row alone is slower than real time."""
_RTF_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20)
_LOAD_BUCKETS = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)


class EngineLoad(NamedTuple):
    """Numbers of rows that run and of jobs that wait for a row."""

    running: int
    waiting: int


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", about, ("model", *labels), registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", about, ("model",), registry=registry, buckets=buckets)

        self._requests = counter("requests", "Speech requests by how they ended.", "format", "outcome")
        self._key_requests = Counter(
            f"{PREFIX}_key_requests",
            "Speech requests by the label of their API key and how they ended.",
            ("key", "outcome"),
            registry=registry,
        )
        self._answers = Counter(
            f"{PREFIX}_http_answers", "Answers of every kind by their HTTP status.", ("status",), registry=registry
        )
        self._audio = counter("audio_seconds", "Audio made, in seconds.")
        self._ttfa = histogram("ttfa_seconds", "From a request's start to its first audio.", _WAIT_BUCKETS)
        self._rtf = histogram(
            "real_time_factor", "Wall seconds / audio seconds of whole requests; below 1 is fast.", _RTF_BUCKETS
        )
        self.queue = histogram("queue_wait_seconds", "Time that jobs waited for a row.", _WAIT_BUCKETS)
        self.prefill = histogram("prefill_seconds", "Time to prefill a prompt.", _STEP_BUCKETS)
        self.frame = histogram("frame_seconds", "Time to advance all running rows by one codec frame.", _STEP_BUCKETS)
        self.frames = counter("frames", "Codec frames made, of all rows.")
        self.runaways = counter("runaways", "Rows whose codes were judged no speech.")
        self.retries = counter("retries", "Runaway rows that were tried again.")
        self.cancellations = counter("cancellations", "Jobs whose consumer left before their end.")
        self._loads = counter("model_loads", "Attempts to load a model.", "outcome")
        self._load_seconds = histogram("model_load_seconds", "Time to load a model.", _LOAD_BUCKETS)
        self._unloads = counter("model_unloads", "Models that left memory.", "reason")

    def watch(self, engines: Callable[[], Mapping[str, EngineLoad]]) -> None:
        """Ask for the load of the engines in memory, by model, whenever the metrics are read."""
        self._registry.register(_EngineGauges(engines))

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def request(self, model: str, audio_format: str, outcome: Outcome, key: str | None) -> None:
        """Count a speech request that has ended; `key` is the label of its key, None where no key is needed."""
        self._requests.labels(model, audio_format, outcome).inc()
        if key is not None:
            self._key_requests.labels(key, outcome).inc()

    def answered(self, status: int) -> None:
        """Count an answer to any request."""
        self._answers.labels(status).inc()

    def speech(self, model: str, *, audio_seconds: float, ttfa_seconds: float | None, rtf: float | None) -> None:
        """Count the audio of a request that reached an engine; `rtf` is None if the speech did not reach its end."""
        self._audio.labels(model).inc(audio_seconds)
        if ttfa_seconds is not None:
            self._ttfa.labels(model).observe(ttfa_seconds)
        if rtf is not None:
            self._rtf.labels(model).observe(rtf)

    def model_loaded(self, model: str, seconds: float) -> None:
        """Count a loading that succeeded."""
        self._loads.labels(model, "loaded").inc()
        self._load_seconds.labels(model).observe(seconds)

    def model_load_failed(self, model: str) -> None:
        """Count a loading that failed."""
        self._loads.labels(model, "failed").inc()

    def model_unloaded(self, model: str, reason: Literal["idle", "memory", "died"]) -> None:
        """Count a model that left memory."""
        self._unloads.labels(model, reason).inc()


class EngineEvents:
    """What the engine of one model reports; every method returns at once and may be called from any thread."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._queue = metrics.queue.labels(model)
        self._prefill = metrics.prefill.labels(model)
        self._frame = metrics.frame.labels(model)
        self._frames = metrics.frames.labels(model)
        self._runaways = metrics.runaways.labels(model)
        self._retries = metrics.retries.labels(model)
        self._cancellations = metrics.cancellations.labels(model)

    def queued(self, seconds: float) -> None:
        """Note that a job got a row after waiting for so long."""
        self._queue.observe(seconds)

    def prefilled(self, seconds: float) -> None:
        """Note that a job's prompt has been prefilled."""
        self._prefill.observe(seconds)

    def frame_made(self, seconds: float, rows: int) -> None:
        """Note that `rows` rows have advanced by one codec frame."""
        self._frame.observe(seconds)
        self._frames.inc(rows)

    def runaway(self) -> None:
        """Note that a row's codes were judged not to be speech and were thrown away."""
        self._runaways.inc()

    def retried(self) -> None:
        """Note that such a row goes on from its last good frame with another seed."""
        self._retries.inc()

    def cancelled(self) -> None:
        """Note that a job's consumer left before the job's end."""
        self._cancellations.inc()


class NoEvents(EngineEvents):
    """Events of an engine whose metrics nobody reads."""

    def __init__(self) -> None:
        super().__init__(Metrics(), UNKNOWN)


class _EngineGauges(Collector):
    def __init__(self, engines: Callable[[], Mapping[str, EngineLoad]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        engines = self._engines()
        running = GaugeMetricFamily(f"{PREFIX}_rows_running", "Rows under way.", labels=("model",))
        waiting = GaugeMetricFamily(f"{PREFIX}_queue_depth", "Jobs that wait for a row.", labels=("model",))
        for model, engine in engines.items():
            running.add_metric((model,), engine.running)
            waiting.add_metric((model,), engine.waiting)
        yield running
        yield waiting
        yield GaugeMetricFamily(f"{PREFIX}_models_loaded", "Models in memory.", value=len(engines))

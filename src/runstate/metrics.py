"""Metrics for Prometheus, in a registry that belongs to the server instead of the global one."""

from pathlib import Path
from typing import Any, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from runstate import __version__

SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the directory in which the workers of one server share metrics."""

FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
COSTS: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200)

Labels = tuple[str, ...]


class Metrics:
    """The metrics of one process. With a shared directory, each worker exposes the metrics of all workers."""

    def __init__(self, shared: Path | None = None) -> None:
        self.registry = CollectorRegistry()
        self.shared = shared
        if not shared:
            # The figures of these collectors cannot be aggregated over workers.
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self.registry)
        self._of_operations()
        self._of_subscriptions()
        self._of_database()
        self._of_batches()
        self._of_services()
        self._of_prefect()
        # Not the default `livesum`, which would add up the workers.
        build = self._gauge("runstate_build_info", "The version, as a label.", ("version",), "mostrecent")
        build.labels(__version__).set(1)

    def _of_operations(self) -> None:
        self.operations = self._counter(
            "graphql_operations_total",
            "GraphQL operations, by type and outcome: ok, partial, failed or refused.",
            ("type", "outcome"),
        )
        self.duration = self._histogram(
            "graphql_operation_duration_seconds", "Duration of queries and mutations.", FAST, ("type",)
        )
        self.phases = self._histogram(
            "graphql_phase_duration_seconds",
            "Duration of parsing and validation of documents that were not cached.",
            FAST,
            ("phase",),
        )
        self.documents = self._counter(
            "graphql_documents_total", "Lookups of documents in the cache, by result: hit or miss.", ("kept",)
        )
        self.errors = self._counter("graphql_errors_total", "Errors in answers, by code.", ("code",))
        self.cost = self._histogram("graphql_operation_cost", "Cost of operations, as computed for the limit.", COSTS)
        self.fallbacks = self._counter(
            "runstate_plan_fallbacks_total",
            "Parts of operations that graphql-core executed in place of a plan or the fast path, by reason: "
            "input, value, error, or unexpected, which is a bug.",
            ("reason",),
        )

    def _of_subscriptions(self) -> None:
        self.sockets = self._gauge("ws_connections", "Open WebSockets.")
        self.subscriptions = self._gauge("subscriptions_active", "Active subscriptions.")
        self.events = self._counter("subscription_events_total", "Events sent to subscribers.")
        self.lag = self._histogram(
            "subscription_lag_seconds", "Delay from a transition until a subscriber reads it from its buffer.", FAST
        )
        self.slow = self._counter(
            "slow_consumer_closed_total", "Subscriptions ended because the subscriber stayed behind."
        )
        # `livemax`: the worker that is furthest behind counts.
        self.feed_age = self._gauge(
            "feed_age_seconds", "Seconds since the log of transitions was last read to its end.", mode="livemax"
        )

    def _of_database(self) -> None:
        self.statements = self._counter("runstate_database_statements_total", "Executed SQL statements.")
        self.pool_size = self._gauge("runstate_pool_size", "Maximum number of connections of a pool.", ("pool",))
        self.pool_used = self._gauge("runstate_pool_used", "Connections of a pool that are in use.", ("pool",))

    def _of_batches(self) -> None:
        self.batches = self._counter("runstate_batches_total", "Batches of proposals that were answered.")
        self.batch_size = self._histogram("runstate_batch_requests", "Requests in a batch.", SIZES)
        self.verdicts = self._counter(
            "runstate_verdicts_total",
            "Answers to proposals: accept, reject, wait, abort or problem; recorded for states that clients report.",
            ("status",),
        )
        self.waiting = self._gauge("runstate_batcher_waiting", "Requests that wait for the next batch.")
        self.under_way = self._gauge("runstate_batcher_running_batches", "Batches that are being executed.")

    def _of_services(self) -> None:
        self.rounds = self._counter(
            "runstate_service_rounds_total", "Rounds of a background service, by outcome.", ("service", "outcome")
        )
        self.done = self._counter(
            "runstate_service_done_total", "Rows or runs that a background service has changed.", ("service",)
        )
        # Not the default `livesum`, which would add up the workers.
        self.last_round = self._gauge(
            "runstate_service_last_round_timestamp_seconds",
            "Time of the last successful round of a background service.",
            ("service",),
            "mostrecent",
        )

    def _of_prefect(self) -> None:
        self.prefect = self._counter(
            "runstate_prefect_requests_total",
            "Requests of clients of Prefect, by endpoint and status.",
            ("method", "path", "status"),
        )
        self.unserved = self._counter(
            "runstate_prefect_unserved_total",
            "Requests of clients of Prefect to paths that are not served.",
            ("request",),
        )

        self.dropped = self._counter(
            "runstate_prefect_dropped_events_total", "Events of clients of Prefect that were dropped.", ("reason",)
        )

    def _counter(self, name: str, description: str, labels: Labels = ()) -> Counter:
        return Counter(name, description, labels, registry=self.registry)

    def _gauge(self, name: str, description: str, labels: Labels = (), mode: Any = "livesum") -> Gauge:
        return Gauge(name, description, labels, registry=self.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...], labels: Labels = ()) -> Histogram:
        return Histogram(name, description, labels, buckets=buckets, registry=self.registry)

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics of all workers as text, and its media type."""
        return generate_latest(self._registry()), CONTENT_TYPE_LATEST

    def _registry(self) -> CollectorRegistry:
        if not self.shared:
            return self.registry
        together = CollectorRegistry()
        MultiProcessCollector(together, str(self.shared))  # type: ignore[no-untyped-call]
        return together

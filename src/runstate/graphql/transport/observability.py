"""Logs, metrics and, if they are enabled, traces of operations."""

import functools
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self, cast

import structlog
from graphql import (
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    Node,
    StringValueNode,
    Visitor,
    parse,
    print_ast,
    visit,
)
from strawberry.types import ExecutionResult
from typing_extensions import override

from runstate.graphql.context import Context
from runstate.graphql.errors import Code
from runstate.graphql.transport.request import GraphQLRequest
from runstate.graphql.transport.sse import goes_away
from runstate.metrics import Metrics
from runstate.tracing import Tracing

OK: Final = "ok"
PARTIAL: Final = "partial"
FAILED: Final = "failed"
REFUSED: Final = "refused"
NO_CODES: Final[Mapping[str, int]] = {}
"""The codes of an operation without errors. Most have none, and a counter for each takes time."""

LONGEST_NAME: Final = 200
"""Largest number of characters of an operation's name in a log line or a span."""


class Observer:
    """Records operations in the log, in metrics and in traces."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self.metrics = metrics
        self.tracing = tracing
        self.log = structlog.get_logger(__name__).bind()
        self.ended = functools.lru_cache(maxsize=None)(metrics.operations.labels)
        self.took = functools.lru_cache(maxsize=None)(metrics.duration.labels)
        """Cached, since finding an instrument by its labels takes longer than using it."""
        self.is_detailed = self.log.is_enabled_for(logging.DEBUG)

    def operation(self, asked: GraphQLRequest, context: Context, headers: Mapping[str, str]) -> "Observation":
        """Return the context manager that observes an operation."""
        return Observation(self, asked, context) if self.tracing is None else Traced(self, asked, context, headers)

    def refused(self, code: Code, status: int, message: str, request_id: str) -> None:
        """Record a request that is not a valid GraphQL request."""
        self.metrics.errors.labels(code.value).inc()
        self.log.info("request_refused", code=code.value, status=status, message=message, request_id=request_id)

    async def stream(
        self, results: AsyncGenerator[Any, None], asked: GraphQLRequest, context: Context, headers: Mapping[str, str]
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Yield the results of an operation, and observe it until they end."""
        with self.operation(asked, context, headers) as seen:
            try:
                async with aclosing(results):
                    async for result in results:
                        # A stop of the server is no failure of the operation.
                        if not goes_away(result):
                            seen.result(result)
                        yield result
                        del result  # the next one may come late
            finally:
                seen.gone()


class Observation:
    """An operation in flight; a context manager."""

    __slots__ = ("asked", "began", "codes", "context", "events", "observer", "outcome")

    def __init__(self, observer: Observer, asked: GraphQLRequest, context: Context) -> None:
        self.observer = observer
        self.asked = asked
        self.context = context
        self.began = 0.0
        self.outcome = OK
        self.codes: Mapping[str, int] = NO_CODES
        """Numbers of errors by code: a subscription can last for weeks, with errors in each event."""
        self.events = 0

    def __enter__(self) -> Self:
        self.began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A cancellation is no rejection: the client has gone, or the server stops.
        if isinstance(error, Exception):
            self.outcome = REFUSED
        self._record(time.perf_counter() - self.began)

    @property
    def name(self) -> str | None:
        """The start of the name of the operation; None if the request has none."""
        # A client can choose a name of any length.
        return self.asked.operation_name and self.asked.operation_name[:LONGEST_NAME]

    def answered(self, result: ExecutionResult) -> None:
        """Record the errors of a result."""
        if result.errors:
            self._failed(result.errors, PARTIAL if result.data is not None else FAILED)

    def result(self, result: ExecutionResult) -> None:
        """Record a result of an operation that may have several."""
        if self.context.kind == "subscription" and result.data is not None:
            # Counted with the first event: a subscription that is rejected has none.
            if not self.events:
                self.observer.metrics.subscriptions.inc()
            self.events += 1
            self.observer.metrics.events.inc()
        self.answered(result)

    def gone(self) -> None:
        """Record the end of the results."""
        if self.events:
            self.observer.metrics.subscriptions.dec()

    def _failed(self, errors: Sequence[GraphQLError], outcome: str) -> None:
        self.outcome = outcome
        codes = [str((error.extensions or {}).get("code")) for error in errors]
        self.codes = Counter(self.codes) + Counter(codes)

    def _record(self, seconds: float) -> None:
        kind, metrics = self.context.kind, self.observer.metrics
        # Labels need few values, so they do not contain the name of the operation, which a client chooses.
        self.observer.ended(kind, self.outcome).inc()
        # The duration of a subscription is decided by the client.
        if kind != "subscription":
            self.observer.took(kind).observe(seconds)
        if self.context.cost is not None:
            metrics.cost.observe(self.context.cost)
        for code, number in self.codes.items():
            metrics.errors.labels(code).inc(number)
            if code == Code.SLOW_CONSUMER.value:
                metrics.slow.inc(number)
        if self.outcome != OK or self.observer.is_detailed:
            self._log(seconds)

    def _log(self, seconds: float) -> None:
        """Write one log line. It has the name of the operation, but no other text of the client."""
        self.observer.log.log(
            logging.DEBUG if self.outcome == OK else logging.INFO,
            "operation_answered",
            type=self.context.kind,
            operation=self.name,
            # The text of a document can contain secrets.
            document=sha256(self.asked.query.encode()).hexdigest()[:16],
            outcome=self.outcome,
            codes=list(self.codes),
            cost=self.context.cost,
            statements=self.context.statements,
            events=self.events or None,
            milliseconds=round(seconds * 1000, 1),
            request_id=self.context.request_id,
        )


class Traced(Observation):
    """An operation in flight with a span."""

    __slots__ = ("headers", "span", "tracing")

    def __init__(self, observer: Observer, asked: GraphQLRequest, context: Context, headers: Mapping[str, str]) -> None:
        super().__init__(observer, asked, context)
        self.headers = headers

    @override
    def __enter__(self) -> Self:
        self.tracing = cast("Tracing", self.observer.tracing)
        self.span = self.tracing.start(self.headers)
        return super().__enter__()

    @override
    def _record(self, seconds: float) -> None:
        super()._record(seconds)
        document = redacted(self.asked.query) if self.tracing.documents else None
        code = None if self.outcome == OK else next(iter(self.codes), Code.BAD_REQUEST.value)
        self.tracing.end(self.span, self.context.kind, self.name, document, code)


class Redaction(Visitor):
    """Replaces the values in a document."""

    def enter(self, node: Node, *_: Any) -> StringValueNode | None:
        """Return the replacement of a node; None keeps the node."""
        return BLANK if isinstance(node, IntValueNode | FloatValueNode | StringValueNode) else None


BLANK: Final = StringValueNode(value="…")


def redacted(document: str) -> str | None:
    """Return a document without the values in it; None if it cannot be parsed."""
    try:
        return print_ast(visit(parse(document), Redaction()))
    except GraphQLError:
        return None

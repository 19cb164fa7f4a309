"""Operations: first checked, then executed in one of three ways."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from traceback import clear_frames
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import strawberry
from graphql import ExecutionResult as CoreResult
from graphql import GraphQLError, create_source_event_stream
from strawberry.exceptions import MissingQueryError
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType
from typing_extensions import override

from runstate.core.access.credentials import UNRESTRICTED
from runstate.database.budget import Room
from runstate.documents import exact_json
from runstate.errors import LimitExceeded
from runstate.graphql.errors import log_errors, original_exception, to_client_error
from runstate.graphql.execution.answer_size import UNKNOWN, AnswerSize, as_json
from runstate.graphql.execution.events import SMALL_EVENT_BYTES, EventAnswer, EventExecution, Events, written
from runstate.graphql.execution.executor import Executor
from runstate.graphql.execution.fast_path import FastPath, Outcome, fast_path_of
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.validation import scopes
from runstate.graphql.validation.concurrency import InFlight
from runstate.graphql.validation.document_cache import Document, DocumentCache, Operation

T = TypeVar("T")


class ExecutionRequest(NamedTuple):
    """The arguments of `execute` and `stream`."""

    query: str | None
    name: str | None
    root: Any
    context: Any
    variables: Mapping[str, Any]
    extensions: dict[str, Any] | None
    allowed: Iterable[OperationType]


class AcceptedOperation(NamedTuple):
    """An operation that passed all checks. Only its execution can still fail."""

    request: ExecutionRequest
    document: Document
    operation: Operation
    cost: int


class RefusedOperation(Exception):
    """The operation is not executed. Raised with the errors of its document."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__(errors)
        self.errors = errors


class Schema(strawberry.Schema):
    """Strawberry's schema with limits, plans and a fast path."""

    documents: DocumentCache
    in_flight: InFlight
    events: Events
    room: Room
    """Room for large answers."""
    plan_cache: PlanCache
    fast_paths: WeakKeyDictionary[Operation, FastPath | None]
    """Fast paths of mutations that were executed once; None for those that need the executor."""

    @override
    async def execute(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any = None,
        root_value: Any = None,
        operation_name: str | None = None,
        allowed_operation_types: Iterable[OperationType] | None = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """Return the result of a query or a mutation."""
        request = ExecutionRequest(
            query,
            operation_name,
            root_value,
            context_value,
            variable_values or {},
            operation_extensions,
            allowed_operation_types or tuple(OperationType),
        )
        try:
            return await self._result(self._accepted(request))
        # The transports answer these with statuses of their own.
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
            raise
        except Exception as error:  # noqa: BLE001 every exception becomes an error of the result
            return self._refused(request, error)

    @override
    async def stream(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any = None,
        root_value: Any = None,
        operation_name: str | None = None,
        operation_extensions: dict[str, Any] | None = None,
        allowed_operation_types: Iterable[OperationType] | None = None,
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Return the results of an operation of any kind."""
        return self._results(
            ExecutionRequest(
                query,
                operation_name,
                root_value,
                context_value,
                variable_values or {},
                operation_extensions,
                allowed_operation_types or tuple(OperationType),
            )
        )

    async def _results(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionResult, None]:
        refused: ExecutionResult | None = None
        try:
            accepted = self._accepted(request)
            if accepted.operation.kind is not OperationType.SUBSCRIPTION:
                yield await self._result(accepted)
                return
            # As text: it is a part of the key by which equal subscriptions share answers, and tells their size.
            variables = exact_json.dumps(request.variables)
            # Variables are kept as long as the subscription, declared or not.
            with self.in_flight.subscription(), self.room.holding(len(variables), SMALL_EVENT_BYTES):
                # Without `aclosing`, an abandoned generator would end only when it is collected.
                async with aclosing(self._events(accepted, variables)) as events:
                    async for event in events:
                        yield event
                        del event  # the next one may come late
        except Exception as error:  # noqa: BLE001 every exception becomes an error of the result
            refused = self._refused(request, error)
        if refused:
            # Outside of the `except`: the client may take it late, and the frames of the error hold what was read.
            yield refused

    def _accepted(self, request: ExecutionRequest) -> AcceptedOperation:
        """Check everything that can be checked before execution. Raise if the operation is rejected."""
        if not request.query:
            raise MissingQueryError
        document = self.documents.get(request.query)
        operation = document.operation(request.name)
        if operation is None:
            raise CannotGetOperationTypeError(request.name)
        # Set before the checks, so that rejected operations are observed with their type.
        if request.context is not None:
            request.context.kind = operation.kind_name
        if operation.kind not in request.allowed:
            raise InvalidOperationTypeError(operation.kind)
        if errors := document.errors_for(request.name):
            raise RefusedOperation(errors)
        scopes.check(operation.scopes, getattr(request.context, "principal", UNRESTRICTED))
        self.documents.check_list_sizes(operation, request.variables)
        cost = self.documents.cost(operation, request.variables)
        if request.context is not None:
            request.context.cost = cost
            request.context.answer_bytes = self.documents.limits.answer_bytes
            request.context.room = self.room
        return AcceptedOperation(request, document, operation, cost)

    async def _result(self, accepted: AcceptedOperation) -> ExecutionResult:
        try:
            with self.in_flight.operation():
                return await self._executed(accepted)
        except (TimeoutError, LimitExceeded) as error:
            # Not a rejection: the operation was executed in part, and its writes may have been applied.
            return ExecutionResult(
                None, self._presented(accepted.request, [as_graphql(error)]), self._extensions(accepted)
            )
        finally:
            _forget(accepted.request)

    async def _executed(self, accepted: AcceptedOperation) -> ExecutionResult:
        outcome = None
        if fast_path := self.fast_paths.get(accepted.operation):
            arguments = self._attempt(accepted, partial(fast_path.arguments, accepted.request.variables))
            if arguments is not None:
                async with asyncio.timeout(self.documents.limits.operation_seconds):
                    outcome = await fast_path.outcome(accepted.request.context, arguments)
                data = self._attempt(accepted, partial(fast_path.answer, outcome))
                if data is not None:
                    data = as_json(data, self.documents.limits.answer_bytes)
                    return ExecutionResult(data, None, self._extensions(accepted))
        # With the outcome, since a mutation must not be called twice.
        return await self._executed_by_executor(accepted, outcome)

    def _attempt(self, accepted: AcceptedOperation, attempt: Callable[[], T]) -> T | None:
        """Return the result of a part of the fast path; None if it falls back."""
        try:
            return attempt()
        except Exception as error:  # noqa: BLE001 the executor executes it again and reports the error
            self.plan_cache.fallbacks.record(error, accepted.operation)
            return None

    async def _executed_by_executor(self, accepted: AcceptedOperation, outcome: Outcome | None) -> ExecutionResult:
        """Execute an operation by plans and by graphql-core; the outcome of its root field may be known."""
        executor = self._executor(accepted)
        if outcome and isinstance(executor, Executor):
            executor.root_outcome = outcome.get
        result: Any = executor.execute_operation()
        if optimized_is_awaitable(result):
            async with asyncio.timeout(self.documents.limits.operation_seconds):
                result = await result
        if isinstance(executor, Executor) and accepted.operation not in self.fast_paths:
            # Made at the first execution, which has collected the fields; most documents are executed often.
            self.fast_paths[accepted.operation] = fast_path_of(executor)
        self._size_of(executor).check(result.data, self.documents.limits.answer_bytes)
        errors = self._presented(accepted.request, result.errors)
        return ExecutionResult(result.data, errors, self._extensions(accepted))

    def _size_of(self, executor: Any) -> AnswerSize:
        return executor.size if isinstance(executor, Executor) else UNKNOWN

    def _executor(self, accepted: AcceptedOperation) -> StrawberryGraphQLCoreExecutionContext:
        request = accepted.request
        executor = cast("Any", self.execution_context_class).build(
            self._schema,
            accepted.document.node,
            request.root,
            request.context,
            request.variables,
            accepted.operation.name,
            max_coercion_errors=self.documents.limits.errors,
            is_awaitable=optimized_is_awaitable,
            hide_suggestions=not self.documents.limits.suggestions,
            operation_extensions=request.extensions,
        )
        # graphql-core returns a list of errors if the variables do not match their types.
        if not isinstance(executor, StrawberryGraphQLCoreExecutionContext):
            raise RefusedOperation(executor)
        return executor

    async def _events(self, accepted: AcceptedOperation, variables: bytes) -> AsyncGenerator[ExecutionResult, None]:
        executor = self._executor(accepted)
        async with asyncio.timeout(self.documents.limits.operation_seconds):
            # The timeout bounds the start only: a subscription lasts as long as its client wants.
            source: Any = create_source_event_stream(executor)
            source = await source if optimized_is_awaitable(source) else source
        # graphql-core returns a result with errors if the resolver failed.
        if isinstance(source, CoreResult):
            raise RefusedOperation(source.errors or ())
        base = accepted.request.query, accepted.request.name, variables
        key: Hashable | None = None
        try:
            async with aclosing(source):
                async for payload in source:
                    await _until_taken(accepted.request)
                    shared = getattr(payload, "shared", None)
                    # Subscribers with the same document and variables get the same answer to the same event, made once.
                    key = None if shared is None else (*base, shared)
                    event = await self._event(accepted, executor, payload, key)
                    yield ExecutionResult(cast("Any", event.data), self._presented(accepted.request, event.errors))
                    del event, payload  # the next event may come late
        finally:
            # The execution of a shared event may go on for other subscribers; it forgets by itself.
            if key is None:
                _forget(accepted.request)

    async def _event(
        self, accepted: AcceptedOperation, executor: Any, payload: Any, key: Hashable | None
    ) -> EventAnswer:
        """Return the answer to an event of a subscription."""
        each = executor.build_per_event_executor(payload)

        def write(result: Any) -> EventAnswer:
            self._size_of(each).check(result.data, self.documents.limits.answer_bytes)
            return written(result, self.room)

        execution = EventExecution(
            accepted.operation,
            partial(each.execute_operation, serially=False),
            write,
            partial(_forget, accepted.request),
        )
        return await self.events.answer(key, execution)

    def _refused(self, request: ExecutionRequest, error: Exception) -> ExecutionResult:
        errors = error.errors if isinstance(error, RefusedOperation) else [as_graphql(error)]
        return PreExecutionError(None, self._presented(request, errors))

    def _presented(self, request: ExecutionRequest, errors: Sequence[GraphQLError] | None) -> list[GraphQLError] | None:
        """Log errors, and return them as a client sees them."""
        if not errors:
            return None
        request_id = str(getattr(request.context, "request_id", ""))
        log_errors(errors, request_id)
        for error in errors:
            # Errors and their frames refer to each other, so the garbage collector would free what was read, and late.
            clear_frames((original_exception(error) or error).__traceback__)
        return [to_client_error(error, request_id) for error in errors]

    def _extensions(self, accepted: AcceptedOperation) -> dict[str, Any] | None:
        """Return the cost if the client requested it, or if it is above half of the limit."""
        limit = self.documents.limits.cost
        if 2 * accepted.cost > limit or getattr(accepted.request.context, "reports_cost", False):
            return {"cost": {"requested": accepted.cost, "limit": limit}}
        return None


def _forget(request: ExecutionRequest) -> None:
    """Drop what was read, and release its room."""
    # Loaders refer to their context: without this, both are freed only by the garbage collector.
    if request.context is not None:
        request.context.forget()


async def _until_taken(request: ExecutionRequest) -> None:
    """Wait until the client has taken earlier messages: an event that nobody takes would fill the memory."""
    until_taken = getattr(request.context, "until_taken", None)
    if until_taken is not None:
        await until_taken()


def as_graphql(error: Exception) -> GraphQLError:
    """Return an exception as an error of GraphQL."""
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)

"""The schema: the families merged. A family is a module with a class `Query`, `Mutation` or `Subscription`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, cast

import strawberry
from graphql import (
    ExecutionResult as CoreResult,
)
from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    create_source_event_stream,
    lexicographic_sort_schema,
    map_source_to_response_event,
    print_schema,
)
from strawberry.exceptions import MissingQueryError
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.tools import merge_types
from strawberry.types.execution import ExecutionResult, PreExecutionError
from strawberry.types.graphql import OperationType
from typing_extensions import override

from runstate.core.access.credentials import UNRESTRICTED
from runstate.graphql.errors import log_errors, to_client_error
from runstate.graphql.execution.executor import Executor, executing
from runstate.graphql.execution.fast_path import FastPath, fast_path_of
from runstate.graphql.execution.plans import Plans
from runstate.graphql.families.discovery import families
from runstate.graphql.types.derive import implementing
from runstate.graphql.types.registry import REGISTRY
from runstate.graphql.types.scalars import SCALARS
from runstate.graphql.validation import scopes
from runstate.graphql.validation.concurrency import InFlight
from runstate.graphql.validation.document_cache import Documents, Known, Operation
from runstate.graphql.validation.limits import RequestLimits
from runstate.rows import Row


class ExecutionRequest(NamedTuple):
    """What is request of a schema."""

    query: str | None
    name: str | None
    root: Any
    context: Any
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


class Schema(strawberry.Schema):
    """Strawberry's schema, with limits, our log and a shorter way to an answer."""

    documents: Documents
    in_flight: InFlight

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
        """The answer to an operation that is no subscription."""
        request = ExecutionRequest(
            query, operation_name, root_value, context_value, variable_values, operation_extensions
        )
        try:
            known, operation = self._resolve_operation(request, allowed_operation_types or tuple(OperationType))
            return await self._answer(request, known, operation)
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, it is presented as an error
            return self._refused(request, [as_graphql(error)])

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
        """The answers to an operation of any kind, as they come."""
        request = ExecutionRequest(
            query, operation_name, root_value, context_value, variable_values, operation_extensions
        )
        return self._answers(request, allowed_operation_types or tuple(OperationType))

    async def _answers(
        self, request: ExecutionRequest, allowed: Iterable[OperationType]
    ) -> AsyncGenerator[ExecutionResult, None]:
        try:
            known, operation = self._resolve_operation(request, allowed)
            if operation.kind is not OperationType.SUBSCRIPTION:
                yield await self._answer(request, known, operation)
                return
            with self.in_flight.subscription():
                async with aclosing(self._events(request, known, operation)) as events:
                    async for event in events:
                        yield event
        except Exception as error:  # noqa: BLE001 whatever it is, it is presented as an error
            yield self._refused(request, [as_graphql(error)])

    def _resolve_operation(
        self, request: ExecutionRequest, allowed: Iterable[OperationType]
    ) -> tuple[Known, Operation]:
        """The document, and which of its operations is request for."""
        if not request.query:
            raise MissingQueryError
        known = self.documents.known(request.query)
        operation = known.meant(request.name)
        if operation is None:
            raise CannotGetOperationTypeError(request.name)
        _annotate_context(request, kind=operation.kind.value)
        if operation.kind not in allowed:
            raise InvalidOperationTypeError(operation.kind)
        return known, operation

    def _executor(self, request: ExecutionRequest, known: Known, operation: Operation) -> Any:
        """What executes the operation; a list of errors: it is not executed."""
        if errors := known.refused(request.name):
            return errors
        self._check(request, operation)
        return cast("Any", self.execution_context_class).build(
            self._schema,
            known.document,
            request.root,
            request.context,
            request.variables,
            operation.name,
            max_coercion_errors=self.documents.limits.errors,
            is_awaitable=optimized_is_awaitable,
            hide_suggestions=not self.documents.limits.suggestions,
            operation_extensions=request.extensions,
        )

    async def _answer(self, request: ExecutionRequest, known: Known, operation: Operation) -> ExecutionResult:
        try:
            return await self._answer_operation(request, known, operation)
        finally:
            if request.context is not None:
                request.context.forget()  # loaders hold their context: let go here, or only as garbage

    async def _answer_operation(self, request: ExecutionRequest, known: Known, operation: Operation) -> ExecutionResult:
        given = operation.fast_path.arguments(request.variables) if operation.fast_path else None
        if given is not None:
            return await self._answer_directly(request, known, operation, given)
        executor = self._executor(request, known, operation)
        if not isinstance(executor, StrawberryGraphQLCoreExecutionContext):
            return self._refused(request, executor)
        cost = self.documents.cost(operation, executor.variable_values.coerced)
        _annotate_context(request, cost=cost)
        with self.in_flight.operation():
            result = await self._executed(executor)
        if operation.fast_path is None:
            operation.fast_path = (isinstance(executor, Executor) and fast_path_of(executor)) or False
        return ExecutionResult(result.data, self._presented(request, result.errors), self._noted(cost))

    async def _executed(self, executor: StrawberryGraphQLCoreExecutionContext) -> Any:
        result: Any = executor.execute_operation()
        if not optimized_is_awaitable(result):
            return result
        async with asyncio.timeout(self.documents.limits.operation_seconds):
            return await result

    async def _answer_directly(
        self, request: ExecutionRequest, known: Known, operation: Operation, given: dict[str, Any]
    ) -> ExecutionResult:
        """The answer to an operation that was made ready."""
        self._check(request, operation)
        cost = self.documents.cost(operation, request.variables or {})
        _annotate_context(request, cost=cost)
        fast_path: FastPath = operation.fast_path
        with self.in_flight.operation():
            async with asyncio.timeout(self.documents.limits.operation_seconds):
                outcome = await fast_path.outcome(request.context, given)
            data = fast_path.answer(outcome)
            if data is not None:
                return ExecutionResult(data, None, self._noted(cost))
            executor = self._executor(request, known, operation)
            executor.known = outcome.get
            result = await self._executed(executor)
        return ExecutionResult(result.data, self._presented(request, result.errors), self._noted(cost))

    def _check(self, request: ExecutionRequest, operation: Operation) -> None:
        """Forbidden or LimitExceeded: the operation is not executed."""
        scopes.check(operation.needs, getattr(request.context, "principal", UNRESTRICTED))
        self.documents.within(operation, request.variables)

    async def _events(
        self, request: ExecutionRequest, known: Known, operation: Operation
    ) -> AsyncGenerator[ExecutionResult, None]:
        executor = self._executor(request, known, operation)
        if not isinstance(executor, StrawberryGraphQLCoreExecutionContext):
            yield self._refused(request, executor)
            return
        _annotate_context(request, cost=self.documents.cost(operation, executor.variable_values.coerced))
        async with asyncio.timeout(self.documents.limits.operation_seconds):
            source: Any = create_source_event_stream(executor)
            source = await source if optimized_is_awaitable(source) else source
        if isinstance(source, CoreResult):
            yield self._refused(request, source.errors or ())
            return
        async with aclosing(map_source_to_response_event(executor, source)) as events:
            async for event in events:
                yield ExecutionResult(event.data, self._presented(request, event.errors))

    def _refused(self, request: ExecutionRequest, errors: Sequence[GraphQLError]) -> ExecutionResult:
        return PreExecutionError(None, self._presented(request, errors))

    def _presented(self, request: ExecutionRequest, errors: Sequence[GraphQLError] | None) -> list[GraphQLError] | None:
        """Errors as a client sees them; they are logged first."""
        if not errors:
            return None
        request_id = str(getattr(request.context, "request_id", ""))
        log_errors(errors, request_id)
        return [to_client_error(error, request_id) for error in errors]

    def _noted(self, cost: int) -> dict[str, Any]:
        return {"cost": {"requested": cost, "limit": self.documents.limits.cost}}


def _annotate_context(request: ExecutionRequest, **found: Any) -> None:
    """Tell whoever watches the operation what was found out of it."""
    if request.context is not None:
        vars(request.context).update(found)


def as_graphql(error: Exception) -> GraphQLError:
    """An exception as an error of GraphQL."""
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)


def build_schema(
    executor: type[StrawberryGraphQLCoreExecutionContext] | None = None,
    kind: type[Schema] = Schema,
    limits: RequestLimits | None = None,
) -> Schema:
    """The schema that clients see; with an executor of its own, that has plans, unless another one is given."""
    limits = limits or RequestLimits()
    query = _merged("Query", "What can be request.")
    mutation = _merged("Mutation", "What can be done.")
    subscription = _merged("Subscription", "What can be listened to.")
    REGISTRY.close()
    schema = kind(
        query=query,
        mutation=mutation,
        subscription=subscription,
        types=implementing(Row),
        execution_context_class=executor or executing(Plans()),
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    for known in schema._schema.type_map.values():  # noqa: SLF001
        if isinstance(known, GraphQLInputObjectType):
            known.is_one_of = known.extensions["strawberry-definition"].is_one_of
    schema.documents = Documents(schema._schema, limits)  # noqa: SLF001
    schema.in_flight = InFlight(limits.operations, limits.subscriptions)
    return schema


def _merged(name: str, description: str) -> Any:
    classes = tuple(getattr(family, name) for family in families() if getattr(family, name, None))
    if not classes:
        return None
    merged = merge_types(name, classes)
    merged.__strawberry_definition__.description = description  # type: ignore[attr-defined]
    return merged


def sdl(schema: strawberry.Schema) -> str:
    """The schema as text, sorted."""
    return print_schema(lexicographic_sort_schema(schema._schema)) + "\n"  # noqa: SLF001

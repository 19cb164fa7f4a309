"""The schema: the families merged. A family is a module with a class `Query`, `Mutation` or `Subscription`."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple, cast

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

from runstate.core.keyring import EVERYBODY
from runstate.graphql import (
    changing,
    counting,
    creating,
    csrf,
    faults,
    flows,
    graph,
    limits,
    nodes,
    proposals,
    runs,
    scopes,
    slots,
    transitions,
)
from runstate.graphql.bounds import Bounds
from runstate.graphql.derive import implementing
from runstate.graphql.direct import Direct, direct
from runstate.graphql.documents import Documents, Known, Operation
from runstate.graphql.execution import Executor, executing
from runstate.graphql.load import Load
from runstate.graphql.plans import Plans
from runstate.graphql.scalars import SCALARS
from runstate.rows import Row

FAMILIES: Final[tuple[Any, ...]] = (
    nodes,
    flows,
    runs,
    graph,
    counting,
    limits,
    proposals,
    creating,
    changing,
    slots,
    csrf,
    transitions,
)
"""Modules that have a class `Query`, `Mutation` or `Subscription`."""


class Asked(NamedTuple):
    """What is asked of a schema."""

    query: str | None
    name: str | None
    root: Any
    context: Any
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


class Schema(strawberry.Schema):
    """Strawberry's schema, with limits, our log and a shorter way to an answer."""

    documents: Documents
    load: Load

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
        asked = Asked(query, operation_name, root_value, context_value, variable_values, operation_extensions)
        try:
            known, operation = self._meant(asked, allowed_operation_types or tuple(OperationType))
            return await self._answer(asked, known, operation)
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, it is presented as an error
            return self._refused(asked, [as_graphql(error)])

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
        asked = Asked(query, operation_name, root_value, context_value, variable_values, operation_extensions)
        return self._answers(asked, allowed_operation_types or tuple(OperationType))

    async def _answers(self, asked: Asked, allowed: Iterable[OperationType]) -> AsyncGenerator[ExecutionResult, None]:
        try:
            known, operation = self._meant(asked, allowed)
            if operation.kind is not OperationType.SUBSCRIPTION:
                yield await self._answer(asked, known, operation)
                return
            with self.load.subscription():
                async with aclosing(self._events(asked, known, operation)) as events:
                    async for event in events:
                        yield event
        except Exception as error:  # noqa: BLE001 whatever it is, it is presented as an error
            yield self._refused(asked, [as_graphql(error)])

    def _meant(self, asked: Asked, allowed: Iterable[OperationType]) -> tuple[Known, Operation]:
        """The document, and which of its operations is asked for."""
        if not asked.query:
            raise MissingQueryError
        known = self.documents.known(asked.query)
        operation = known.meant(asked.name)
        if operation is None:
            raise CannotGetOperationTypeError(asked.name)
        _note(asked, kind=operation.kind.value)
        if operation.kind not in allowed:
            raise InvalidOperationTypeError(operation.kind)
        return known, operation

    def _executor(self, asked: Asked, known: Known, operation: Operation) -> Any:
        """What executes the operation; a list of errors: it is not executed."""
        if errors := known.refused(asked.name):
            return errors
        self._check(asked, operation)
        return cast("Any", self.execution_context_class).build(
            self._schema,
            known.document,
            asked.root,
            asked.context,
            asked.variables,
            operation.name,
            max_coercion_errors=self.documents.bounds.errors,
            is_awaitable=optimized_is_awaitable,
            hide_suggestions=not self.documents.bounds.suggestions,
            operation_extensions=asked.extensions,
        )

    async def _answer(self, asked: Asked, known: Known, operation: Operation) -> ExecutionResult:
        try:
            return await self._answer_anyhow(asked, known, operation)
        finally:
            if asked.context is not None:
                asked.context.forget()  # loaders hold their context: let go here, or only as garbage

    async def _answer_anyhow(self, asked: Asked, known: Known, operation: Operation) -> ExecutionResult:
        given = operation.shortcut.arguments(asked.variables) if operation.shortcut else None
        if given is not None:
            return await self._answer_directly(asked, known, operation, given)
        executor = self._executor(asked, known, operation)
        if not isinstance(executor, StrawberryGraphQLCoreExecutionContext):
            return self._refused(asked, executor)
        cost = self.documents.cost(operation, executor.variable_values.coerced)
        _note(asked, cost=cost)
        with self.load.operation():
            result = await self._executed(executor)
        if operation.shortcut is None:
            operation.shortcut = (isinstance(executor, Executor) and direct(executor)) or False
        return ExecutionResult(result.data, self._presented(asked, result.errors), self._noted(cost))

    async def _executed(self, executor: StrawberryGraphQLCoreExecutionContext) -> Any:
        result: Any = executor.execute_operation()
        if not optimized_is_awaitable(result):
            return result
        async with asyncio.timeout(self.documents.bounds.operation_seconds):
            return await result

    async def _answer_directly(
        self, asked: Asked, known: Known, operation: Operation, given: dict[str, Any]
    ) -> ExecutionResult:
        """The answer to an operation that was made ready."""
        self._check(asked, operation)
        cost = self.documents.cost(operation, asked.variables or {})
        _note(asked, cost=cost)
        shortcut: Direct = operation.shortcut
        with self.load.operation():
            async with asyncio.timeout(self.documents.bounds.operation_seconds):
                outcome = await shortcut.outcome(asked.context, given)
            data = shortcut.answer(outcome)
            if data is not None:
                return ExecutionResult(data, None, self._noted(cost))
            executor = self._executor(asked, known, operation)
            executor.known = outcome.get
            result = await self._executed(executor)
        return ExecutionResult(result.data, self._presented(asked, result.errors), self._noted(cost))

    def _check(self, asked: Asked, operation: Operation) -> None:
        """Forbidden or LimitExceeded: the operation is not executed."""
        scopes.check(operation.needs, getattr(asked.context, "principal", EVERYBODY))
        self.documents.within(operation, asked.variables)

    async def _events(self, asked: Asked, known: Known, operation: Operation) -> AsyncGenerator[ExecutionResult, None]:
        executor = self._executor(asked, known, operation)
        if not isinstance(executor, StrawberryGraphQLCoreExecutionContext):
            yield self._refused(asked, executor)
            return
        _note(asked, cost=self.documents.cost(operation, executor.variable_values.coerced))
        async with asyncio.timeout(self.documents.bounds.operation_seconds):
            source: Any = create_source_event_stream(executor)
            source = await source if optimized_is_awaitable(source) else source
        if isinstance(source, CoreResult):
            yield self._refused(asked, source.errors or ())
            return
        async with aclosing(map_source_to_response_event(executor, source)) as events:
            async for event in events:
                yield ExecutionResult(event.data, self._presented(asked, event.errors))

    def _refused(self, asked: Asked, errors: Sequence[GraphQLError]) -> ExecutionResult:
        return PreExecutionError(None, self._presented(asked, errors))

    def _presented(self, asked: Asked, errors: Sequence[GraphQLError] | None) -> list[GraphQLError] | None:
        """Errors as a client sees them; they are logged first."""
        if not errors:
            return None
        known_as = str(getattr(asked.context, "request_id", ""))
        faults.record(errors, known_as)
        return [faults.presented(error, known_as) for error in errors]

    def _noted(self, cost: int) -> dict[str, Any]:
        return {"cost": {"requested": cost, "limit": self.documents.bounds.cost}}


def _note(asked: Asked, **found: Any) -> None:
    """Tell whoever watches the operation what was found out of it."""
    if asked.context is not None:
        vars(asked.context).update(found)


def as_graphql(error: Exception) -> GraphQLError:
    """An exception as an error of GraphQL."""
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)


def build_schema(
    executor: type[StrawberryGraphQLCoreExecutionContext] | None = None,
    kind: type[Schema] = Schema,
    bounds: Bounds | None = None,
) -> Schema:
    """The schema that clients see; with an executor of its own, that has plans, unless another one is given."""
    bounds = bounds or Bounds()
    schema = kind(
        query=_merged("Query", "What can be asked."),
        mutation=_merged("Mutation", "What can be done."),
        subscription=_merged("Subscription", "What can be listened to."),
        types=implementing(Row),
        execution_context_class=executor or executing(Plans()),
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    for known in schema._schema.type_map.values():  # noqa: SLF001
        if isinstance(known, GraphQLInputObjectType):
            known.is_one_of = known.extensions["strawberry-definition"].is_one_of
    schema.documents = Documents(schema._schema, bounds)  # noqa: SLF001
    schema.load = Load(bounds.operations, bounds.subscriptions)
    return schema


def _merged(name: str, description: str) -> Any:
    classes = tuple(getattr(family, name) for family in FAMILIES if hasattr(family, name))
    if not classes:
        return None
    merged = merge_types(name, classes)
    merged.__strawberry_definition__.description = description  # type: ignore[attr-defined]
    return merged


def sdl(schema: strawberry.Schema) -> str:
    """The schema as text, sorted."""
    return print_schema(lexicographic_sort_schema(schema._schema)) + "\n"  # noqa: SLF001

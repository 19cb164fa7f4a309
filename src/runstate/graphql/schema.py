"""The schema: the families merged. A family is a module with a class `Query`, `Mutation` or `Subscription`."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Final, NamedTuple, cast

import strawberry
from graphql import DocumentNode, GraphQLError, GraphQLInputObjectType, lexicographic_sort_schema, print_schema
from strawberry.exceptions import MissingQueryError
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.tools import merge_types
from strawberry.types.execution import ExecutionContext, ExecutionResult
from strawberry.types.graphql import OperationType
from strawberry.utils.operation import get_first_operation, get_operation_type
from typing_extensions import override

from runstate.graphql import (
    changing,
    counting,
    creating,
    faults,
    flows,
    graph,
    limits,
    nodes,
    proposals,
    runs,
    slots,
    transitions,
)
from runstate.graphql.derive import implementing
from runstate.graphql.documents import Documents, Prepared
from runstate.graphql.execution import Plans, executing
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
    transitions,
)
"""Modules that have a class `Query`, `Mutation` or `Subscription`."""


Answered = tuple[dict[str, Any] | None, list[GraphQLError] | None]


class Operation(NamedTuple):
    """What is asked of a schema."""

    query: str | None
    name: str | None
    root: Any
    context: Any
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


class Schema(strawberry.Schema):
    """Strawberry's schema, with our log and a shorter way to an answer."""

    documents: Documents

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log errors before they are presented."""
        faults.record(errors, faults.request_id(execution_context))

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
        """The answer to an operation that is no subscription: as Strawberry gives it with our extensions.

        Their hooks are the same for every operation here, so what they do is done without the machinery around them.
        """
        asked = Operation(query, operation_name, root_value, context_value, variable_values, operation_extensions)
        try:
            data, errors = await self._answer(asked, allowed_operation_types or tuple(OperationType))
        except (MissingQueryError, CannotGetOperationTypeError, InvalidOperationTypeError):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, it is presented as an error
            data, errors = None, [as_graphql(error)]
        if not errors:
            return ExecutionResult(data, None)
        known_as = str(getattr(context_value, "request_id", ""))
        faults.record(errors, known_as)
        return ExecutionResult(data, [faults.presented(error, known_as) for error in errors])

    async def _answer(self, asked: Operation, allowed: Iterable[OperationType]) -> Answered:
        if not asked.query:
            raise MissingQueryError
        document = self.documents.document(asked.query)
        name = asked.name if asked.name is not None else first_name(document)
        try:
            kind = get_operation_type(document, name)
        except RuntimeError as error:
            raise CannotGetOperationTypeError(name) from error
        if kind not in allowed:
            raise InvalidOperationTypeError(kind)
        errors = self.documents.refused(asked.query, asked.name, self._schema)
        return (None, errors) if errors else await self._execute(asked, document, name)

    async def _execute(self, asked: Operation, document: DocumentNode, name: str | None) -> Answered:
        executor = cast("Any", self.execution_context_class).build(
            self._schema,
            document,
            asked.root,
            asked.context,
            asked.variables,
            name,
            is_awaitable=optimized_is_awaitable,
            operation_extensions=asked.extensions,
        )
        if isinstance(executor, list):
            return None, executor
        result = executor.execute_operation()
        if optimized_is_awaitable(result):
            result = await result
        return result.data, result.errors


def as_graphql(error: Exception) -> GraphQLError:
    """An exception as an error of GraphQL."""
    return error if isinstance(error, GraphQLError) else GraphQLError(str(error), original_error=error)


def first_name(document: DocumentNode) -> str | None:
    """The name of the first operation of a document, if it has one."""
    first = get_first_operation(document)
    return first.name.value if first and first.name else None


def build_schema(
    executor: type[StrawberryGraphQLCoreExecutionContext] | None = None, kind: type[Schema] = Schema
) -> Schema:
    """The schema that clients see; with an executor of its own, that has plans, unless another one is given."""
    documents = Documents()
    schema = kind(
        query=_merged("Query", "What can be asked."),
        mutation=_merged("Mutation", "What can be done."),
        subscription=_merged("Subscription", "What can be listened to."),
        types=implementing(Row),
        execution_context_class=executor or executing(Plans()),
        extensions=[partial(Prepared, documents), faults.Presented],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    schema.documents = documents
    for known in schema._schema.type_map.values():  # noqa: SLF001
        if isinstance(known, GraphQLInputObjectType):
            known.is_one_of = known.extensions["strawberry-definition"].is_one_of
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

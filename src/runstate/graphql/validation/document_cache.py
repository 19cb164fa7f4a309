"""Documents, parsed, measured and checked once however often they come."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OverlappingFieldsCanBeMergedRule,
    ValidationContext,
    parse,
    specified_rules,
    validate,
)
from strawberry.types.graphql import OperationType

from runstate.documents.access import Scope
from runstate.errors import LimitExceeded
from runstate.graphql.validation.cost import Amount, CostVisitor, SelectionCost, VariableValues, evaluated, paged_types
from runstate.graphql.validation.limits import RequestLimits
from runstate.graphql.validation.list_sizes import Lists, Longest
from runstate.graphql.validation.scopes import Fragments, needed, root_fields

KEPT: Final = 512
LONGEST_KEPT: Final = 16_384
MOST_COMPARISONS: Final = 50_000
"""How much is compared to find out whether fields of one name can be one; that is quadratic."""

CHANGING_NOTHING: Final = frozenset({"createCsrfToken", "__typename"})
TOO_MANY_TOKENS: Final = "Document contains more than"
"""How the parser begins to say so."""


class FieldsCanBeMergedRule(OverlappingFieldsCanBeMergedRule):
    """The library's rule, which gives up earlier: it would compare fields for more than a second."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MOST_COMPARISONS


@dataclass(eq=False, slots=True)
class Operation:
    """What is known of an operation before it is asked for."""

    name: str | None
    kind: OperationType
    cost: Amount
    lists: Longest | None
    """How to find the longest list in its variables."""
    needs: Scope
    """What has to be allowed to who asks for it."""
    changes: bool
    """Whether it does anything but to get a token that shows where requests come from."""
    fast_path: Any = None
    """How it is carried out without the library, once it was executed; False: it is not."""


class Known(NamedTuple):
    """What is known of a document."""

    document: DocumentNode
    operations: Mapping[str | None, Operation]
    errors: Sequence[GraphQLError]
    """Why none of its operations is executed."""

    def meant(self, name: str | None) -> Operation | None:
        """The operation of this name; without a name, the first."""
        return next(iter(self.operations.values()), None) if name is None else self.operations.get(name)

    def refused(self, name: str | None) -> Sequence[GraphQLError]:
        """Why an operation is not executed: what is wrong with the document, or that it is not clear which is meant."""
        if not self.errors and name is None and len(self.operations) > 1:
            return [GraphQLError("Say which operation is meant: the document has several.")]
        return self.errors


class Documents:
    """The documents that a schema was asked with, as far as they are kept."""

    def __init__(self, schema: GraphQLSchema, limits: RequestLimits) -> None:
        self.schema = schema
        self.limits = limits
        self.rules = rules(introspection=limits.introspection)
        self.lists = Lists(schema)
        self.paged = paged_types(schema)
        self.timed: Callable[[str, float], None] = lambda _, __: None
        """Called with `parse` or `validate` and how many seconds it took, unless the document was kept."""
        self.kept = functools.lru_cache(KEPT)(self._met)

    def known(self, text: str) -> Known:
        """What is known of a document; GraphQLSyntaxError or LimitExceeded: it is none, or too long."""
        return self.kept(text) if len(text) <= LONGEST_KEPT else self._met(text)

    def find(self, text: str, name: str | None) -> Operation | None:
        """Return an operation of a document; None if it has none of this name, or is no document."""
        try:
            return self.known(text).meant(name)
        except (GraphQLError, LimitExceeded):
            return None

    def changes(self, text: str, name: str | None) -> bool:
        """Whether an operation changes anything, as far as can be said; what is no document changes nothing."""
        operation = self.find(text, name)
        return operation is not None and operation.changes

    def within(self, operation: Operation, variables: Mapping[str, Any] | None) -> None:
        """LimitExceeded unless the lists in the variables of an operation, as a client sent them, are short enough."""
        if operation.lists and variables:
            check("listItems", operation.lists(variables), self.limits.list_items)

    def cost(self, operation: Operation, variables: Mapping[str, Any]) -> int:
        """How many objects an operation answers with at most; LimitExceeded: too many."""
        cost = (
            operation.cost if isinstance(operation.cost, int) else evaluated(operation.cost, VariableValues(variables))
        )
        check("cost", cost, self.limits.cost)
        return cost

    def _met(self, text: str) -> Known:
        with self._timing("parse"):
            document = self._parsed(text)
        with self._timing("validate"):
            return self._measured(document)

    @contextmanager
    def _timing(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.timed(phase, time.perf_counter() - began)

    def _measured(self, document: DocumentNode) -> Known:
        walk = CostVisitor(self.schema, self.paged, document)
        operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
        extents = [walk.operation(each) for each in operations]
        found = [
            self._operation(each, extent, walk.fragments) for each, extent in zip(operations, extents, strict=True)
        ]
        return Known(
            document,
            dict(zip(map(name_of, operations), found, strict=True)),
            self._beyond(extents) or self._wrong(document),
        )

    def _parsed(self, text: str) -> DocumentNode:
        check("characters", len(text), self.limits.characters)
        try:
            return parse(text, max_tokens=self.limits.tokens)
        except GraphQLSyntaxError as error:
            if TOO_MANY_TOKENS in error.message:
                raise LimitExceeded("tokens", self.limits.tokens) from None
            raise

    def _operation(self, definition: OperationDefinitionNode, extent: SelectionCost, fragments: Fragments) -> Operation:
        kind = OperationType(definition.operation.value)
        names = set(root_fields(definition.selection_set, fragments))
        needs = needed(self.schema, definition.operation, names)
        changes = kind is OperationType.MUTATION and not names <= CHANGING_NOTHING
        return Operation(name_of(definition), kind, extent.fixed, self.lists.of_variables(definition), needs, changes)

    def _beyond(self, extents: Sequence[SelectionCost]) -> Sequence[GraphQLError]:
        """Which limit the operations of a document exceed."""
        try:
            for extent in extents:
                check("rootFields", extent.fields, self.limits.root_fields)
                check("depth", extent.depth, self.limits.depth)
                check("aliases", extent.aliases, self.limits.aliases)
                check("directives", extent.directives, self.limits.directives)
                check("listItems", extent.items, self.limits.list_items)
        except LimitExceeded as error:
            return [GraphQLError(str(error), original_error=error)]
        return ()

    def _wrong(self, document: DocumentNode) -> Sequence[GraphQLError]:
        return validate(
            self.schema,
            document,
            self.rules,
            max_errors=self.limits.errors,
            hide_suggestions=not self.limits.suggestions,
        )


def rules(*, introspection: bool) -> tuple[type[ASTValidationRule], ...]:
    """What documents are checked by."""
    checked = tuple(
        FieldsCanBeMergedRule if each is OverlappingFieldsCanBeMergedRule else each for each in specified_rules
    )
    return checked if introspection else (*checked, NoSchemaIntrospectionCustomRule)


def check(limit: str, found: int, allowed: int) -> None:
    """LimitExceeded if there is more than is allowed."""
    if found > allowed:
        raise LimitExceeded(limit, allowed, found)


def name_of(definition: OperationDefinitionNode) -> str | None:
    """The name of an operation, if it has one."""
    return definition.name.value if definition.name else None

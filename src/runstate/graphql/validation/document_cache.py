"""A cache of documents that are parsed, measured and validated."""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    IntValueNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OverlappingFieldsCanBeMergedRule,
    ValidationContext,
    Visitor,
    parse,
    specified_rules,
    validate,
    value_from_ast_untyped,
    visit,
)
from strawberry.types.graphql import OperationType

from runstate.documents.access import Scope
from runstate.documents.exact_json import LONGEST_NUMBER
from runstate.errors import LimitExceeded
from runstate.graphql.pagination.selection import Fragments, selected
from runstate.graphql.validation.cost import Amount, CostVisitor, SelectionCost, VariableValues, evaluated, paged_types
from runstate.graphql.validation.limits import RequestLimits
from runstate.graphql.validation.list_sizes import ListSizes, LongestList
from runstate.graphql.validation.scopes import ROOT_SCOPES, field_scopes

MAX_CHARACTERS: Final = 65_536
"""Largest number of characters in all cached documents together. Each takes about 500 bytes of memory."""
MAX_CACHED_CHARACTERS: Final = 16_384
"""Largest number of characters in a document that is cached."""
MAX_COMPARISONS: Final = 50_000
"""Largest number of comparisons that decide whether fields with one name can be merged; it grows quadratically."""

NOT_CHANGING: Final = frozenset({"createCsrfToken", "__typename"})
"""Fields of `Mutation` that need no CSRF token."""
LONG_NUMBER: Final = re.compile(f"[0-9]{{{LONGEST_NUMBER}}}")
TOO_MANY_TOKENS: Final = "Document contains more than"
"""Start of the parser's message for a document with too many tokens."""


class LongNumbers(Visitor):
    """Rejects integers that Python does not read, because that takes quadratic time."""

    def enter_int_value(self, node: IntValueNode, *_: Any) -> None:
        """Raise GraphQLSyntaxError if the integer is too long."""
        if node.loc and len(node.value) > LONGEST_NUMBER:
            message = f"A number has at most {LONGEST_NUMBER:,} characters."
            raise GraphQLSyntaxError(node.loc.source, node.loc.start, message)


class FieldsCanBeMergedRule(OverlappingFieldsCanBeMergedRule):
    """The rule of graphql-core with a smaller budget. With its own budget it can take more than a second."""

    def __init__(self, context: ValidationContext) -> None:
        super().__init__(context)
        self.rule_context.remaining_complexity_budget = MAX_COMPARISONS


# Compared by identity, since operations are keys of weak dictionaries.
@dataclass(eq=False, slots=True, weakref_slot=True)
class Operation:
    """An operation of a document, with everything that is known without its variables."""

    name: str | None
    kind: OperationType
    kind_name: str
    cost: Amount
    longest_list: LongestList | None
    """Finds the length of the longest list in the variables; None if they hold no list."""
    scopes: frozenset[Scope]
    """Scopes that a client needs."""
    root_fields: int
    changes: bool
    """Whether it needs a CSRF token, if the server requires them."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Default values of its variables, as JSON."""


class Document(NamedTuple):
    """A parsed document, its operations by name, and the errors that prevent the execution of all of them."""

    node: DocumentNode
    operations: Mapping[str | None, Operation]
    errors: Sequence[GraphQLError]

    def operation(self, name: str | None) -> Operation | None:
        """Return the operation of this name; without a name, the first one."""
        return next(iter(self.operations.values()), None) if name is None else self.operations.get(name)

    def errors_for(self, name: str | None) -> Sequence[GraphQLError]:
        """Return the errors that prevent the execution of an operation, including a missing name."""
        if not self.errors and name is None and len(self.operations) > 1:
            return [GraphQLError("The document has several operations: `operationName` must name one of them.")]
        return self.errors


class DocumentCache:
    """The documents of a schema, the most recently used of them cached."""

    def __init__(self, schema: GraphQLSchema, limits: RequestLimits) -> None:
        self.schema = schema
        self.limits = limits
        self.rules = rules(introspection=limits.introspection)
        self.list_sizes = ListSizes(schema)
        self.paged = paged_types(schema)
        self.scopes = field_scopes(schema)
        self.timed: Callable[[str, float], None] = lambda _, __: None
        """Called with `parse` or `validate` and the seconds that it took, for a document that was not cached."""
        self.cached: OrderedDict[str, Document] = OrderedDict()
        """The most recently used documents, oldest first."""
        self.characters = self.hits = self.misses = 0

    def get(self, text: str) -> Document:
        """Return a document. Raise GraphQLSyntaxError if it cannot be parsed, LimitExceeded if it is too long."""
        document = self.cached.get(text)
        if document is None:
            document = self._analyzed(text)
            # One large document must not push out all small ones.
            if len(text) <= MAX_CACHED_CHARACTERS:
                self._put(text, document)
        else:
            self.hits += 1
            # The oldest document is then the one that was not used for the longest time.
            self.cached.move_to_end(text)
        return document

    def _put(self, text: str, document: Document) -> None:
        """Cache a document, and drop the least recently used ones until there is room for it."""
        self.misses += 1
        self.cached[text] = document
        self.characters += len(text)
        while self.characters > MAX_CHARACTERS:
            oldest, _ = self.cached.popitem(last=False)
            self.characters -= len(oldest)

    def find(self, text: str, name: str | None) -> Operation | None:
        """Return an operation of a document; None if it does not exist or the document cannot be parsed."""
        try:
            return self.get(text).operation(name)
        except (GraphQLError, LimitExceeded):
            return None

    def changes(self, text: str, name: str | None) -> bool:
        """Return whether an operation needs a CSRF token; an unknown operation needs none."""
        operation = self.find(text, name)
        return operation is not None and operation.changes

    def check_list_sizes(self, operation: Operation, variables: Mapping[str, Any]) -> None:
        """Raise LimitExceeded if a list in the variables, as a client sent them, is too long."""
        if operation.longest_list and variables:
            check("listItems", operation.longest_list(variables), self.limits.list_items)

    def cost(self, operation: Operation, variables: Mapping[str, Any]) -> int:
        """Return the largest number of objects in the answer. Raise LimitExceeded if it is too large.

        Variables count as a client sent them: the cost is known before they are coerced.
        """
        cost = operation.cost
        if not isinstance(cost, int):
            cost = evaluated(cost, VariableValues({**operation.defaults, **variables}))
        check("cost", cost, self.limits.cost)
        return cost

    def _analyzed(self, text: str) -> Document:
        with self._timing("parse"):
            document = self._parsed(text)
        with self._timing("validate"):
            return self._validated(document)

    @contextmanager
    def _timing(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.timed(phase, time.perf_counter() - began)

    def _parsed(self, text: str) -> DocumentNode:
        # Checked first: parsing takes time in proportion to the text.
        check("characters", len(text), self.limits.characters)
        try:
            document = parse(text, max_tokens=self.limits.tokens)
        except GraphQLSyntaxError as error:
            # graphql-core has no exception of its own for this limit.
            if TOO_MANY_TOKENS in error.message:
                raise LimitExceeded("tokens", self.limits.tokens) from None
            raise
        # Few documents have such a number, so most are not visited.
        if LONG_NUMBER.search(text):
            visit(document, LongNumbers())
        return document

    def _validated(self, node: DocumentNode) -> Document:
        # The visitor takes time in proportion to the document, whatever fragments it has; validation may not.
        visitor = CostVisitor(self.schema, self.paged, self.scopes, node)
        definitions = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        costs = [visitor.operation(each) for each in definitions]
        operations = {
            name_of(each): self._operation(each, cost, visitor.fragments)
            for each, cost in zip(definitions, costs, strict=True)
        }
        # A document beyond the limits is not validated, since that can take long.
        return Document(node, operations, self._limit_errors(costs) or self._validation_errors(node))

    def _operation(self, definition: OperationDefinitionNode, cost: SelectionCost, fragments: Fragments) -> Operation:
        kind = OperationType(definition.operation.value)
        names = {each.name.value for each in selected([definition], fragments)}
        return Operation(
            name=name_of(definition),
            kind=kind,
            kind_name=definition.operation.value,
            cost=cost.fixed,
            longest_list=self.list_sizes.of_variables(definition),
            scopes=cost.scopes | ROOT_SCOPES[kind],
            root_fields=cost.fields,
            changes=kind is OperationType.MUTATION and not names <= NOT_CHANGING,
            defaults=default_values(definition),
        )

    def _limit_errors(self, costs: Sequence[SelectionCost]) -> Sequence[GraphQLError]:
        """Return an error for the first limit that an operation exceeds."""
        try:
            for cost in costs:
                check("rootFields", cost.fields, self.limits.root_fields)
                check("depth", cost.depth, self.limits.depth)
                check("aliases", cost.aliases, self.limits.aliases)
                check("directives", cost.directives, self.limits.directives)
                check("listItems", cost.items, self.limits.list_items)
        except LimitExceeded as error:
            return [GraphQLError(str(error), original_error=error)]
        return ()

    def _validation_errors(self, node: DocumentNode) -> Sequence[GraphQLError]:
        return validate(
            self.schema,
            node,
            self.rules,
            # A document can repeat a mistake thousands of times.
            max_errors=self.limits.errors,
            # Suggestions reveal names of the schema.
            hide_suggestions=not self.limits.suggestions,
        )


def rules(*, introspection: bool) -> tuple[type[ASTValidationRule], ...]:
    """Return the rules that documents are validated by."""
    checked = tuple(
        FieldsCanBeMergedRule if each is OverlappingFieldsCanBeMergedRule else each for each in specified_rules
    )
    return checked if introspection else (*checked, NoSchemaIntrospectionCustomRule)


def check(limit: str, found: int, allowed: int) -> None:
    """Raise LimitExceeded if a limit is exceeded."""
    if found > allowed:
        raise LimitExceeded(limit, allowed, found)


def name_of(definition: OperationDefinitionNode) -> str | None:
    """Return the name of an operation; None if it has none."""
    return definition.name.value if definition.name else None


def default_values(definition: OperationDefinitionNode) -> dict[str, Any]:
    """Return the default values of the variables of an operation, as JSON."""
    return {
        each.variable.name.value: value_from_ast_untyped(each.default_value)
        for each in definition.variable_definitions or ()
        if each.default_value
    }

"""Documents, parsed and checked once however often they come."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from graphql import (
    ASTValidationRule,
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    parse,
    specified_rules,
    validate,
)
from strawberry.extensions import SchemaExtension

KEPT: Final = 512
LONGEST_KEPT: Final = 16_384
MOST_TOKENS: Final = 15_000
MOST_ERRORS: Final = 10


class Documents:
    """The documents that a schema was asked with, as far as they are kept."""

    def __init__(self, rules: Sequence[type[ASTValidationRule]] = ()) -> None:
        self.rules = (*specified_rules, *rules)
        self.parsed = functools.lru_cache(KEPT)(self._parse)
        self.checked = functools.lru_cache(KEPT)(self._check)

    def document(self, text: str) -> DocumentNode:
        """The document that a text is, or `GraphQLSyntaxError`."""
        return self.parsed(text) if len(text) <= LONGEST_KEPT else self._parse(text)

    def errors(self, text: str, schema: GraphQLSchema) -> list[GraphQLError]:
        """What is wrong with a document."""
        return list(self.checked(text, schema) if len(text) <= LONGEST_KEPT else self._check(text, schema))

    def refused(self, text: str, name: str | None, schema: GraphQLSchema) -> list[GraphQLError]:
        """Why a document is not executed: what is wrong with it, or that it does not say which operation is meant."""
        errors = self.errors(text, schema)
        if not errors and name is None and _operations(self.document(text)) > 1:
            return [GraphQLError("Say which operation is meant: the document has several.")]
        return errors

    def _parse(self, text: str) -> DocumentNode:
        return parse(text, max_tokens=MOST_TOKENS)

    def _check(self, text: str, schema: GraphQLSchema) -> list[GraphQLError]:
        return validate(schema, self.document(text), self.rules, max_errors=MOST_ERRORS)


class Prepared(SchemaExtension):
    """Takes documents from those that are kept, and refuses to guess which of several operations is meant."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    def on_parse(self) -> Iterator[None]:
        """Parse the document, unless it is kept. What is no document is reported by the parser after this."""
        context = self.execution_context
        context.parse_options["max_tokens"] = MOST_TOKENS
        with suppress(GraphQLError):
            context.graphql_document = self.documents.document(context.query or "")
        yield

    def on_validate(self) -> Iterator[None]:
        """Check the document, unless that is done."""
        context = self.execution_context
        name = context._provided_operation_name  # noqa: SLF001
        context.pre_execution_errors = self.documents.refused(context.query or "", name, context.schema._schema)  # noqa: SLF001
        yield


def _operations(document: DocumentNode) -> int:
    return sum(isinstance(part, OperationDefinitionNode) for part in document.definitions)

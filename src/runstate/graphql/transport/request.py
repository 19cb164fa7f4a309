"""GraphQL requests, on any transport."""

from typing import Any, NamedTuple

from runstate.graphql.errors import Code


class RefusedError(Exception):
    """The request is not a valid GraphQL request."""

    def __init__(self, status: int, message: str, code: Code = Code.BAD_REQUEST, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class GraphQLRequest(NamedTuple):
    """One operation, as a client sent it."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None


def operation(body: Any) -> GraphQLRequest:
    """Return the operation in the body of a request. An empty text counts as omitted."""
    if not isinstance(body, dict):
        raise RefusedError(400, "A request must be a JSON object.")
    if "" in body.values():
        body = {name: value for name, value in body.items() if value != ""}
    query = body.get("query")
    # Clients recognize this message, and send the document next.
    if query is None and _is_persisted(body.get("extensions")):
        raise RefusedError(200, "PersistedQueryNotSupported", Code.PERSISTED_QUERY_NOT_SUPPORTED)
    if not isinstance(query, str):
        raise RefusedError(400, "`query` must be the text of a GraphQL document.")
    name = body.get("operationName")
    if not isinstance(name, str | None):
        raise RefusedError(400, "`operationName` must be a text or null.")
    for part in ("variables", "extensions"):
        if not isinstance(body.get(part), dict | None):
            raise RefusedError(400, f"`{part}` must be an object or null.")
    return GraphQLRequest(query, body.get("variables"), name, body.get("extensions"))


def _is_persisted(extensions: Any) -> bool:
    """Return whether a client sends the digest of a document instead of the document."""
    return isinstance(extensions, dict) and "persistedQuery" in extensions

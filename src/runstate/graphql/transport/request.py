"""What a client asks, over whatever transport."""

from typing import Any, NamedTuple

from runstate.graphql.errors import Code


class RefusedError(Exception):
    """The request is none that GraphQL can be asked with."""

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


def operation(said: Any) -> GraphQLRequest:
    """Return the operation in the body of a request; a part that is empty is as good as none."""
    if not isinstance(said, dict):
        raise RefusedError(400, "A request is a JSON object.")
    said = {name: value for name, value in said.items() if value != ""}
    query = said.get("query")
    if query is None and _is_persisted(said.get("extensions")):
        raise RefusedError(200, "PersistedQueryNotSupported", Code.PERSISTED_QUERY_NOT_SUPPORTED)
    if not isinstance(query, str):
        raise RefusedError(400, "`query` is the text of a GraphQL document.")
    name = said.get("operationName")
    if not isinstance(name, str | None):
        raise RefusedError(400, "`operationName` is a text or null.")
    for part in ("variables", "extensions"):
        if not isinstance(said.get(part), dict | None):
            raise RefusedError(400, f"`{part}` is an object or null.")
    return GraphQLRequest(query, said.get("variables"), name, said.get("extensions"))


def _is_persisted(extensions: Any) -> bool:
    """Whether a client sends the digest of a document instead of the document."""
    return isinstance(extensions, dict) and "persistedQuery" in extensions

"""Hooks of schemathesis: scalars of the schema, and error codes that count as errors of the server or the client."""

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes
from schemathesis.specs.graphql import validation

SERVER_ERRORS = {"INTERNAL", "UNAVAILABLE", "TIMEOUT", "OVERLOADED"}
CLIENT_ERRORS = {
    "INVALID_INPUT",
    "LIMIT_EXCEEDED",
    "NOT_FOUND",
    "VERSION_CONFLICT",
    "IDEMPOTENCY_CONFLICT",
    "CURSOR_EXPIRED",
}

# schemathesis knows Apollo's codes only, and counts any other error of a field as a server error.
validation.SERVER_ERROR_MARKERS |= SERVER_ERRORS
validation.CLIENT_ERROR_MARKERS |= CLIENT_ERRORS

leaves = (
    st.booleans().map(nodes.Boolean)
    | st.integers(-(2**31), 2**31).map(nodes.Int)
    | st.text(st.characters(codec="utf-8"), max_size=20).map(nodes.String)
)
schemathesis.graphql.scalar("JSON", leaves | st.lists(leaves, max_size=5).map(nodes.List))

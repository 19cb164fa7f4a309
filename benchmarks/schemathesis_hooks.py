"""What schemathesis has to know of runstate: its scalars, and which codes of errors blame whom."""

import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes
from schemathesis.specs.graphql import validation

OURS = {"INTERNAL", "UNAVAILABLE", "TIMEOUT", "OVERLOADED"}
THEIRS = {"INVALID_INPUT", "LIMIT_EXCEEDED", "NOT_FOUND", "VERSION_CONFLICT", "IDEMPOTENCY_CONFLICT", "CURSOR_EXPIRED"}

# It knows Apollo's codes only, and takes any other error of a field for the server's fault.
validation.SERVER_ERROR_MARKERS |= OURS
validation.CLIENT_ERROR_MARKERS |= THEIRS

leaves = (
    st.booleans().map(nodes.Boolean)
    | st.integers(-(2**31), 2**31).map(nodes.Int)
    | st.text(st.characters(codec="utf-8"), max_size=20).map(nodes.String)
)
schemathesis.graphql.scalar("JSON", leaves | st.lists(leaves, max_size=5).map(nodes.List))

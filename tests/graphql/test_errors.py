"""Errors: a closed list of codes, each with a request id; bugs are masked and logged once."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from runstate import errors
from runstate.errors import LIMIT_MESSAGES, RunstateError
from runstate.graphql.errors import Code
from tests.client import Ask
from tests.subscribing import Listening, connected

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CODES = {code.value for code in Code}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


def raised() -> Iterator[type[RunstateError]]:
    """Yield every class of errors that clients see, in any module."""
    waiting: list[type[RunstateError]] = [RunstateError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        yield kind


def rows(page: str, heading: str) -> set[str]:
    """Return the code in the first column of the table under a heading."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_no_exception_has_a_code_outside_the_list() -> None:
    assert {kind.code for kind in raised()} <= CODES
    assert {kind.__module__ for kind in raised()} == {errors.__name__}


def given_codes(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the values of `code`, as a key of a dict or as an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "code")
        elif isinstance(node, ast.keyword) and node.arg == "code":
            yield node.value


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_codes_are_taken_from_the_list_and_never_written_as_text(file: Path) -> None:
    assert [each.lineno for each in given_codes(ast.parse(file.read_bytes())) if isinstance(each, ast.Constant)] == []


def test_exactly_the_existing_codes_and_limits_are_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()

    assert rows(page, "Codes") == CODES
    assert rows(page, "Limits") - {"limit"} == set(LIMIT_MESSAGES)


async def test_every_error_contains_its_request_id(ask: Ask) -> None:
    given = {"X-Request-ID": "mine"}
    asked = [
        ask.client.post("/graphql", json={"query": document}, headers=given)
        for document in (
            "{",
            "{ nothing }",
            '{ flows(after: "x") { totalCount } }',
            "{ a: flows { nodes { id } } " * 99,
        )
    ]
    asked += [ask.client.post("/graphql", json=[], headers=given), ask.client.put("/graphql", headers=given)]

    for reply in [await each for each in asked]:
        assert reply.headers["x-request-id"] == "mine"
        assert {error["extensions"]["requestId"] for error in reply.json()["errors"]} == {"mine"}


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (TRACE, None),
        ("", None),
    ],
)
async def test_the_request_id_of_a_traced_request_is_its_trace_id(
    ask: Ask, traceparent: str, expected: str | None
) -> None:
    headers = {"traceparent": traceparent}
    body = {"query": "{ __typename }"}

    reply = await ask.client.post("/graphql", json=body, headers=headers)
    named = await ask.client.post("/graphql", json=body, headers={**headers, "X-Request-ID": "mine"})

    assert (reply.headers["x-request-id"] == TRACE) is (expected is not None)
    assert named.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("document", ["{ flows { totalCount } }", "subscription { transitions { cursor } }"])
async def test_a_bug_on_a_socket_is_masked_and_logged_once(server: Listening, document: str) -> None:
    state = server.starlette.state
    sound = state.database, state.feed
    with capture_logs() as logs:
        state.database = state.feed = None
        try:
            async with connected(server) as socket:
                error = await (await socket.subscribe(document)).message()
        finally:
            state.database, state.feed = sound

    assert "AttributeError" not in str(error)
    assert "NoneType" not in str(error)
    assert "INTERNAL" in str(error)
    assert len([entry for entry in logs if entry["event"] == "operation_failed"]) == 1

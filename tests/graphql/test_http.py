"""GraphQL over HTTP: methods, media types and status codes, and the refusal of invalid requests."""

import gzip
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs

JSON = {"content-type": "application/json"}
PREFLIGHT = {"GraphQL-Require-Preflight": "1"}
GRAPHQL = "application/graphql-response+json"


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200") as client:
        yield client


async def post(client: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return await client.post("/graphql", content=content, headers={**JSON, **headers})


def code(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    return str(error["extensions"]["code"])


async def test_a_query_is_answered(client: httpx.AsyncClient) -> None:
    response = await post(client, {"query": "{ __typename }"})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json() == {"data": {"__typename": "Query"}}


async def test_the_cost_is_reported_when_it_is_asked_for(client: httpx.AsyncClient) -> None:
    query = "{ flows(first: 20) { nodes { id } } }"
    silent = await post(client, {"query": query})
    reported = await post(client, {"query": query}, **{"GraphQL-Cost": "report"})

    assert "extensions" not in silent.json()
    assert reported.json()["extensions"] == {"cost": {"requested": 21, "limit": 50_000}}


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"5", b"true", b'"x"', b"[]", b'[{"query": "{ __typename }"}]', b"{", b"\xff\xfe", b"[" * 100_000]
    + [b"NaN", b"{}", b'{"query": null}', b'{"query": 5}', b'{"query": ""}', b'{"query": ["{ __typename }"]}']
    + [
        b'{"query": "{ __typename }", "%s": %s}' % (name, value)
        for name in (b"variables", b"extensions", b"operationName")
        for value in (b"5", b"[]", b"true")
    ]
    + [b'{"query": "{ __typename }", "variables": "{}"}', b'{"query": "{ __typename }", "operationName": "Other"}']
    + [b'{"query": "fragment f on Query { __typename }"}'],
)
@pytest.mark.parametrize("accept", ["application/json", GRAPHQL])
async def test_an_invalid_body_is_refused(client: httpx.AsyncClient, body: bytes, accept: str) -> None:
    response = await post(client, body, accept=accept)

    assert response.status_code == 400
    assert response.headers["content-type"].startswith("application/json")
    assert code(response) == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ('{ flow(by: {name: "\\uD800"}) { id } }', "GRAPHQL_PARSE_FAILED"),
        ("{ __typename " * 1_000, "GRAPHQL_PARSE_FAILED"),
        ("{" + " a" * 5_000 + "}", "LIMIT_EXCEEDED"),
        ("{" + " " * 65_536 + "}", "LIMIT_EXCEEDED"),
        ("{ nothing }", "BAD_USER_INPUT"),
        ("{ flows(first: 1.5) { totalCount } }", "BAD_USER_INPUT"),
        ("query($x: Int!) { flows(first: $x) { totalCount } }", "BAD_USER_INPUT"),
        ("query A { __typename } query B { __typename }", "BAD_USER_INPUT"),
    ],
)
async def test_an_invalid_document_is_refused(client: httpx.AsyncClient, query: str, expected: str) -> None:
    for _ in range(2):
        response = await post(client, {"query": query})
        assert (response.status_code, code(response)) == (200, expected)
        assert "data" not in response.json()

        response = await post(client, {"query": query}, accept=GRAPHQL)
        assert (response.status_code, code(response)) == (400, expected)
        assert response.headers["content-type"].startswith(GRAPHQL)
        assert "data" not in response.json()


async def test_an_operation_is_chosen_by_its_name(client: httpx.AsyncClient) -> None:
    document = "query A { a: __typename } query B { b: __typename }"

    response = await post(client, {"query": document, "operationName": "B"})

    assert response.json()["data"] == {"b": "Query"}


async def test_an_error_of_a_root_field_has_a_path_and_a_code(client: httpx.AsyncClient) -> None:
    query = '{ __typename node(id: "x") { id } flows(after: "x") { totalCount } }'

    response = await post(client, {"query": query}, accept=GRAPHQL)

    assert response.status_code == 200
    assert response.json() == {
        "data": None,
        "errors": [
            {
                "message": "The cursor is malformed.",
                "locations": [{"line": 1, "column": 35}],
                "path": ["flows"],
                "extensions": {
                    "code": "INVALID_INPUT",
                    "path": ["after"],
                    "requestId": response.headers["x-request-id"],
                },
            }
        ],
    }


async def test_a_query_can_be_sent_with_get(client: httpx.AsyncClient) -> None:
    query = "query($id: ID!) { node(id: $id) { id } }"

    response = await client.get(
        "/graphql", params={"query": query, "variables": '{"id": "x"}', "operationName": ""}, headers=PREFLIGHT
    )

    assert response.json()["data"] == {"node": None}


@pytest.mark.parametrize(
    "parameters", [{}, {"query": ""}, {"query": "{ __typename }", "variables": "{"}, {"variables": "{}"}]
)
async def test_an_invalid_get_request_is_refused(client: httpx.AsyncClient, parameters: dict[str, str]) -> None:
    response = await client.get("/graphql", params=parameters, headers={**PREFLIGHT, "accept": "application/json, */*"})

    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_another_method_is_refused(client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, "/graphql")

    assert (response.status_code, code(response)) == (405, "BAD_REQUEST")
    assert response.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "foo/application/json-bar",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
        "application/graphql",
    ],
)
async def test_another_content_type_is_refused(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/graphql", content=b"{}", headers={"content-type": content_type})

    assert (response.status_code, code(response)) == (415, "BAD_REQUEST")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"'])
async def test_a_content_type_may_have_a_charset(client: httpx.AsyncClient, content_type: str) -> None:
    body = orjson.dumps({"query": "{ __typename }"})

    response = await client.post("/graphql", content=body, headers={"content-type": content_type})

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        (GRAPHQL, GRAPHQL),
        (f"{GRAPHQL}, application/json;q=0.9", GRAPHQL),
        (f"application/json, {GRAPHQL};q=0.5", "application/json"),
        (f"{GRAPHQL}; charset=utf-8, application/json; charset=utf-8", GRAPHQL),
        (f"application/json; charset=utf-8, {GRAPHQL}; charset=utf-8", "application/json"),
        (f"{GRAPHQL}, application/graphql+json, application/json, text/event-stream, multipart/mixed", GRAPHQL),
        ("application/json, text/event-stream;q=0.1", "application/json"),
        ("text/event-stream;q=0.5, application/json;q=0.6", "application/json"),
        ("text/event-stream, application/json;q=0.9", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0, */*", "application/json"),
        ("text/*", None),
        ("application/json;q=0, */*", GRAPHQL),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("*/*;q=nonsense", None),
    ],
)
async def test_the_accept_header_chooses_the_media_type(
    client: httpx.AsyncClient, accept: str, answered: str | None
) -> None:
    response = await post(client, {"query": "{ __typename }"}, accept=accept)

    if answered is None:
        assert (response.status_code, code(response)) == (406, "BAD_REQUEST")
    else:
        assert response.headers["content-type"] == f"{answered}; charset=utf-8"


async def test_several_lines_of_a_header_field_are_joined(client: httpx.AsyncClient) -> None:
    lines = [("accept", "image/png"), ("accept", "text/html"), ("accept", GRAPHQL), *JSON.items()]

    response = await client.post("/graphql", json={"query": "{ __typename }"}, headers=lines)

    assert response.headers["content-type"].startswith(GRAPHQL)


@pytest.mark.parametrize("hosts", [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "evil.example")])
async def test_two_host_headers_are_refused(client: httpx.AsyncClient, hosts: tuple[str, str]) -> None:
    response = await client.get("/healthz", headers=[("Host", host) for host in hosts])

    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "empty", [{"operationName": ""}, {"variables": ""}, {"extensions": ""}, {"operationName": "", "variables": {}}]
)
async def test_empty_members_of_a_request_are_ignored(client: httpx.AsyncClient, empty: dict[str, Any]) -> None:
    response = await post(client, {"query": "query A { __typename }", **empty})

    assert response.json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("query", ["{", "{ nothing }", "query($n: Int!) { flows(first: $n) { totalCount } }"])
@pytest.mark.parametrize("accept", ["application/json", GRAPHQL, "text/event-stream"])
async def test_a_document_that_is_not_executed_has_no_data(client: httpx.AsyncClient, query: str, accept: str) -> None:
    response = await post(client, {"query": query}, accept=accept)

    assert '"errors"' in response.text
    assert '"data"' not in response.text


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ %s }" % ("x" * 60_000), {}),
        ('{ node(id: "1", %s: 1) { id } }' % ("x" * 60_000), {}),
        ('{ flows(first: "%s") { totalCount } }' % ("x" * 60_000), {}),
        ("query($n: Int) { flows(first: $n) { totalCount } }", {"n": "x" * 60_000}),
        ("query A { %s: __typename } query A { __typename }" % ("x" * 60_000), {}),
    ],
    ids=["field", "argument", "literal", "variable", "alias"],
)
async def test_error_messages_do_not_repeat_a_long_document(
    client: httpx.AsyncClient, query: str, variables: dict[str, Any]
) -> None:
    with capture_logs() as logs:
        response = await post(client, {"query": query, "variables": variables})

    assert response.json()["errors"]
    assert len(response.content) < 5_000
    assert len(str(logs)) < 10_000


async def test_a_long_name_of_an_operation_is_shortened_in_logs(client: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        response = await post(client, {"query": "query A { __typename }", "operationName": "x" * 60_000})

    assert response.json()["errors"]
    assert len(response.content) < 1_000
    assert len(str(logs)) < 1_000


@pytest.mark.parametrize(
    "query", ["{ flows(first: %s) { totalCount } }", "query($n: Int = %s) { flows(first: $n) { totalCount } }"]
)
async def test_an_integer_of_thousands_of_digits_is_a_mistake(client: httpx.AsyncClient, query: str) -> None:
    response = await post(client, {"query": query % ("9" * 5_000)})

    assert code(response) == "GRAPHQL_PARSE_FAILED"
    assert len(response.content) < 1_000


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
async def test_a_compressed_body_is_refused_with_the_accepted_encoding(
    client: httpx.AsyncClient, encoding: str
) -> None:
    response = await post(client, gzip.compress(b'{"query": "{ __typename }"}'), **{"content-encoding": encoding})

    assert (response.status_code, code(response)) == (415, "BAD_REQUEST")
    assert response.headers["accept-encoding"] == "identity"
    assert (await post(client, {"query": "{ a }"}, **{"content-encoding": "identity"})).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_persisted_query_is_refused_with_the_error_that_clients_expect(
    client: httpx.AsyncClient, method: str
) -> None:
    extensions = {
        "persistedQuery": {
            "version": 1,
            "sha256Hash": "ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38",
        }
    }
    if method == "GET":
        parameters = {"extensions": orjson.dumps(extensions).decode()}
        response = await client.get("/graphql", params=parameters, headers=PREFLIGHT)
    else:
        response = await post(client, {"operationName": "A", "variables": {}, "extensions": extensions})

    assert (response.status_code, code(response)) == (200, "PERSISTED_QUERY_NOT_SUPPORTED")
    assert response.json()["errors"][0]["message"] == "PersistedQueryNotSupported"


@pytest.mark.parametrize("path", ["/graphql", "/graphql/"])
async def test_a_trailing_slash_is_accepted(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, json={"query": "{ __typename }"})

    assert response.json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "/metrics/", "/nothing/", "/graphiql", "/graphql/"])
async def test_no_redirect_contains_the_host(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"accept": "text/html"})

    assert "://" not in response.headers.get("location", "")


async def test_a_body_is_at_most_a_mebibyte(client: httpx.AsyncClient) -> None:
    query = orjson.dumps({"query": "{ __typename }"})

    assert (await post(client, query.ljust(2**20))).status_code == 200
    assert (await post(client, query.ljust(2**20 + 1))).status_code == 413

    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(33):
            yield b" " * 2**15

    response = await client.post("/graphql", content=in_pieces(), headers=JSON)
    assert (response.status_code, code(response)) == (413, "BAD_REQUEST")


@pytest.mark.parametrize("given", ["abc-123", "a" * 128])
async def test_a_request_keeps_its_given_id(client: httpx.AsyncClient, given: str) -> None:
    response = await post(client, {"query": "{ __typename }"}, **{"X-Request-ID": given})

    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "é", "<script>"])
async def test_a_request_without_a_valid_id_gets_a_generated_one(client: httpx.AsyncClient, given: str) -> None:
    headers = {b"X-Request-ID": given.encode(), b"content-type": b"application/json"}

    response = await client.post("/graphql", content=b"null", headers=headers)

    assert str(UUID(response.headers["x-request-id"])) == response.headers["x-request-id"]


async def test_a_bug_is_masked_and_logged_once(client: httpx.AsyncClient, app: Starlette) -> None:
    app.state.database = None
    with capture_logs() as logs:
        response = await post(client, {"query": "{ flows { totalCount } }"}, **{"X-Request-ID": "traced"})

    logs = [each for each in logs if each["event"] != "plan_failed"]  # the plan's own record
    (error,) = response.json()["errors"]
    assert error["message"] == "Internal error"
    assert error["extensions"] == {"code": "INTERNAL", "requestId": "traced"}
    (entry,) = (each for each in logs if each["log_level"] not in {"debug", "info"})
    assert entry["log_level"] == "error"
    assert {each["request_id"] for each in logs} == {"traced"}
    assert isinstance(entry["exc_info"], AttributeError)


async def test_an_error_of_a_client_is_not_logged_as_an_error(client: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        await post(client, {"query": "{ nothing }"})
        await post(client, {"query": '{ flows(after: "x") { totalCount } }'})

    assert {entry["log_level"] for entry in logs} == {"debug", "info"}
    assert [entry for entry in logs if "exc_info" in entry] == []


async def test_the_schema_can_be_introspected(client: httpx.AsyncClient) -> None:
    query = '{ __type(name: "FlowRef") { isOneOf inputFields { name } } __schema { queryType { name } } }'

    response = await post(client, {"query": query})

    assert response.json()["data"] == {
        "__type": {"isOneOf": True, "inputFields": [{"name": "id"}, {"name": "name"}]},
        "__schema": {"queryType": {"name": "Query"}},
    }


async def test_the_health_check_responds(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")

    assert response.json() == {"status": ANY}

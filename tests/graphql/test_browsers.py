"""Protection against pages of other sites: other host names, other origins, and cross-site requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
import websockets

from tests.client import Ask
from tests.subscribing import PROTOCOL, Listening, asking, dialled, listening

EVIL = "https://evil.example"
APP = "https://app.example"
SAID = {"query": "{ __typename }"}
ANSWER = {"__typename": "Query"}


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


async def post(ask: Ask, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask.client.post("/graphql", json=SAID, headers=named)


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["errors"][0]["extensions"]["code"]


@asynccontextmanager
async def opened(server: Listening, **headers: str) -> AsyncIterator[int]:
    """Yield the status of the handshake of a WebSocket; 101: it was opened."""
    place, origin = server.address.removesuffix("/graphql"), cast("Any", headers.get("Origin"))
    address = f"ws://{headers.get('Host', place)}/graphql"
    host, _, port = place.partition(":")
    try:
        async with websockets.connect(address, subprotocols=PROTOCOL, origin=origin, host=host, port=int(port)):
            yield 101
    except websockets.InvalidStatus as refused:
        yield refused.response.status_code


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST:80", "[::1]:4200", "127.0.0.1:1"])
async def test_a_server_on_loopback_accepts_its_own_names(live: Ask, host: str) -> None:
    assert (await post(live, Host=host)).json()["data"] == ANSWER


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example", "localhost.evil", ""])
async def test_another_host_name_is_refused(live: Ask, host: str) -> None:
    assert (await post(live, Host=host)).status_code == 400
    assert (await live.client.get("/health", headers={"Host": host})).status_code == 400


async def test_a_socket_with_another_host_name_is_refused(server: Listening) -> None:
    async with opened(server, Host="evil.example", Origin="http://evil.example") as status:
        assert status == 400


async def test_other_host_names_can_be_allowed(url: str) -> None:
    async with listening(url, allowed_hosts="runs.example, *.inside.example") as server, asking(server) as ask:
        assert (await post(ask, Host="runs.example")).json()["data"] == ANSWER
        assert (await post(ask, Host="a.inside.example:443")).json()["data"] == ANSWER
        assert (await post(ask, Host="evil.example")).status_code == 400


@pytest.mark.parametrize("origin", [EVIL, "http://127.0.0.1", "http://localhost:1", "null", "file://", "nonsense"])
async def test_a_page_of_another_origin_is_refused(live: Ask, origin: str) -> None:
    reply = await post(live, Origin=origin)

    assert code(reply) == (403, "FORBIDDEN")
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_cross_site_request_without_an_origin_is_refused(live: Ask, site: str) -> None:
    as_image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}

    assert (await live.client.get("/graphql?query={__typename}", headers=as_image)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://runs.example"},
    ],
    ids=["no-browser", "typed", "link", "own", "own-behind-proxy"],
)
async def test_requests_that_are_not_from_pages_of_other_sites_are_answered(live: Ask, headers: dict[str, str]) -> None:
    assert (await live.client.post("/graphql", json=SAID, headers=headers)).json()["data"] == ANSWER


async def test_a_page_of_the_server_itself_is_answered(server: Listening, live: Ask) -> None:
    own = f"http://{server.address.removesuffix('/graphql')}"

    assert (await post(live, Origin=own)).json()["data"] == ANSWER
    async with dialled(server, origin=own) as socket:
        await socket.say({"type": "connection_init"})
        assert await socket.hear() == {"type": "connection_ack"}


async def test_a_preflight_from_another_origin_is_refused(live: Ask) -> None:
    asks = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    reply = await live.client.options("/graphql", headers=asks)

    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_content_type_that_a_form_can_send_is_refused(live: Ask, content_type: str) -> None:
    reply = await live.client.post(
        "/graphql", content=b'{"query":"{__typename}"}', headers={"Content-Type": content_type}
    )

    assert reply.status_code == 415


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1"])
async def test_a_socket_from_another_origin_is_refused(server: Listening, origin: str) -> None:
    async with opened(server, Origin=origin) as status:
        assert status == 403


async def test_origins_can_be_allowed(url: str) -> None:
    async with listening(url, allowed_origins=f"{APP}, https://two.example:8443") as server, asking(server) as ask:
        asks = {"Origin": APP, "Access-Control-Request-Method": "POST"}
        headers = {"Access-Control-Request-Headers": "content-type, authorization, x-request-id"}
        preflight = await ask.client.options("/graphql", headers={**asks, **headers})
        reply = await post(ask, Origin=APP)

        assert preflight.status_code == 200
        assert reply.json()["data"] == ANSWER
        for each in (preflight, reply):
            assert each.headers["access-control-allow-origin"] == APP
            assert "access-control-allow-credentials" not in each.headers
        assert "X-Request-ID" in reply.headers["access-control-expose-headers"]
        assert (await post(ask, Origin="https://two.example:8443")).json()["data"] == ANSWER
        assert code(await post(ask, Origin=EVIL)) == (403, "FORBIDDEN")
        async with opened(server, Origin=APP) as status:
            assert status == 101
        async with opened(server, Origin=EVIL) as status:
            assert status == 403


@pytest.mark.parametrize(
    "names",
    [
        "apollo-require-preflight",
        "x-apollo-operation-name",
        "graphql-require-preflight",
        "apollographql-client-name,apollographql-client-version",
        "traceparent,tracestate,baggage",
        "x-csrf-token",
        "some-header-of-a-client",
    ],
)
async def test_a_page_of_an_allowed_origin_may_send_any_header(url: str, names: str) -> None:
    async with listening(url, allowed_origins=APP) as server, asking(server) as ask:
        wants = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": f"content-type,{names}"}
        allowed = await ask.client.options("/graphql", headers={"Origin": APP, **wants})
        refused = await ask.client.options("/graphql", headers={"Origin": EVIL, **wants})

    assert allowed.status_code == 200
    assert set(names.split(",")) <= set(allowed.headers["access-control-allow-headers"].split(","))
    assert refused.status_code == 400


async def test_with_keys_every_origin_can_be_allowed(url: str) -> None:
    async with listening(url, authentication="keys", allowed_origins="*") as server, asking(server) as ask:
        reply = await post(ask, Origin=EVIL)
        async with opened(server, Origin=EVIL) as status:
            assert status == 101

    assert reply.status_code == 401
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_with_keys_every_host_name_is_accepted(url: str) -> None:
    async with listening(url, authentication="keys") as server, asking(server) as ask:
        assert (await post(ask, Host="runs.example")).status_code == 401

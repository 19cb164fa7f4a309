"""The IP allowlist at the entrance, over HTTP and WebSockets, on both databases."""

import asyncio
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
import websockets
from starlette.applications import Starlette

from runstate.core.access.allowlist import AllowlistCache, address_of
from runstate.database import Database
from runstate.graphql.transport.addresses import client_address
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do
from tests.subscribing import PROTOCOL, Listening

FIELDS = "enforced entries { ipNetwork enabled description lastSeen }"


async def put(ask: Ask, *networks: str, **more: Any) -> Any:
    """Set the allowlist; return it or the problem."""
    selection = f"{PROBLEM} ... on SetIPAllowlistPayload {{ ipAllowlist {{ {FIELDS} }} }}"
    given = {"enforced": True, "entries": [{"ipNetwork": each} for each in networks], **more}
    return await do(ask, "setIpAllowlist", "SetIPAllowlistInput", selection, **given)


async def status(app: Starlette, address: str, path: str = "/graphql") -> int:
    """Return the status of a request from an address."""
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200") as client:
        request = {"query": "{ __typename }"}
        reply = await (client.post(path, json=request) if path == "/graphql" else client.get(path))
        return reply.status_code


async def test_requests_from_other_networks_are_refused_except_health_checks(ask: Ask, app: Starlette) -> None:
    await put(ask, "127.0.0.1", "10.0.0.0/8")
    await app.state.allowlist.refresh()

    assert [await status(app, each) for each in ("127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3")] == [200, 200, 200]
    assert [await status(app, each) for each in ("192.168.0.1", "::1")] == [403, 403]
    assert await status(app, "192.168.0.1", "/healthz") == 200


async def test_nobody_is_refused_while_the_list_is_not_enforced_or_empty(ask: Ask, app: Starlette) -> None:
    for networks, enforced in ((("10.0.0.0/8",), False), ((), True)):
        await put(ask, *networks, enforced=enforced)
        await app.state.allowlist.refresh()
        assert await status(app, "192.168.0.1") == 200


async def test_a_list_that_refuses_its_author_needs_force(ask: Ask) -> None:
    refused = await put(ask, "10.0.0.0/8")
    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["entries"])
    assert "127.0.0.1" in refused["message"]
    forced = await put(ask, "10.0.0.0/8", force=True)

    assert forced["ipAllowlist"]["entries"][0]["ipNetwork"] == "10.0.0.0/8"


async def test_sockets_are_refused_and_a_change_takes_effect_at_once(server: Listening, live: Ask) -> None:
    await put(live, "10.0.0.0/8", force=True)
    allowlist = server.starlette.state.allowlist
    while not allowlist.current.enforced:
        await allowlist.refresh()

    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(f"ws://{server.address}", subprotocols=PROTOCOL):
            pass
    assert refused.value.response.status_code == 403


async def test_a_process_on_this_machine_is_no_trusted_proxy_by_itself(server: Listening, live: Ask) -> None:
    await put(live, "127.0.0.1")
    await server.starlette.state.allowlist.refresh()
    for named in ("192.168.0.1", "nonsense"):
        reply = await live.client.post(
            "/graphql", json={"query": "{ myIpAccess { address } }"}, headers={"X-Forwarded-For": named}
        )
        assert reply.json()["data"] == {"myIpAccess": {"address": "127.0.0.1"}}


@pytest.mark.parametrize("turns", range(4))
async def test_a_change_at_the_moment_of_the_stop_does_not_keep_the_server_from_stopping(
    database: Database, turns: int
) -> None:
    allowlist = AllowlistCache(database, lambda: datetime.now(UTC))
    await allowlist.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    allowlist.has_news.set()
    for _ in range(turns):
        await asyncio.sleep(0)

    stopped, _ = await asyncio.wait([asyncio.ensure_future(allowlist.stop())], timeout=20)
    assert stopped


async def test_the_last_use_of_a_network_is_noted(ask: Ask, app: Starlette) -> None:
    await put(ask, "127.0.0.0/8", "10.0.0.0/8")
    await app.state.allowlist.refresh()
    await status(app, "127.0.0.1")
    await app.state.allowlist.write_seen()
    entries = (await ask(f"{{ ipAllowlist {{ {FIELDS} }} }}"))["ipAllowlist"]["entries"]

    assert [each["lastSeen"] is None for each in entries] == [False, True]


@pytest.mark.parametrize(
    ("peer", "header", "address"),
    [
        ("1.2.3.4", "5.6.7.8", "1.2.3.4"),
        ("10.0.0.1", "5.6.7.8", "5.6.7.8"),
        ("10.0.0.1", "9.9.9.9, 5.6.7.8, 10.0.0.2", "5.6.7.8"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9, 5.6.7.8:4711", "5.6.7.8"),
        ("10.0.0.1", "9.9.9.9, [2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "9.9.9.9, unknown", "10.0.0.1"),
    ],
)
def test_the_address_comes_from_the_header_of_trusted_proxies_only(peer: str, header: str, address: str) -> None:
    scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", header.encode())]}

    assert client_address(scope, [ip_network("10.0.0.0/8")]) == address_of(address)

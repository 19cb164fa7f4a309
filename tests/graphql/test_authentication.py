"""Authentication over HTTP, WebSockets and server-sent events: nothing without a valid key."""

import asyncio
import gc
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from runstate.core.access.credentials import KEPT_SECONDS, CredentialCache
from runstate.database import Database
from tests.client import Ask
from tests.core.fault_proxy import proxied
from tests.credentials import Keys, asking_with, bearing, connected_with, initialised, statements
from tests.graphql.mutations import STATE, create, flow_run, make_flow_run, propose
from tests.graphql.test_websocket import FLOODED, flood
from tests.subscribing import Listening, dialled, listening

TYPENAME = "{ __typename }"
TRANSITIONS = "subscription { transitions { cursor transitions { runId version } } }"
WITHIN_SECONDS = 1.0


@pytest.fixture
def keys(database: Database) -> Keys:
    """Return a helper that creates and revokes keys like another process."""
    return Keys(database)


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server that requires a key."""
    async with listening(url, authentication="keys") as server:
        yield server


@pytest.fixture
async def replicas(url: str, kind: str) -> AsyncIterator[list[Listening]]:
    """Yield servers that require a key: two on PostgreSQL, one on SQLite."""
    async with AsyncExitStack() as servers:
        number = 1 if kind == "sqlite" else 2
        yield [await servers.enter_async_context(listening(url, authentication="keys")) for _ in range(number)]


async def refused(server: Listening, **headers: str) -> dict[str, Any]:
    """Return the error with which a query with these headers is refused."""
    async with asking_with(server, None, **headers) as ask:
        reply = await ask.client.post("/graphql", json={"query": TYPENAME})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="runstate"'
    assert reply.headers["x-request-id"]
    (error,) = reply.json()["errors"]
    assert error["message"] == "Authentication is required: send an API key that is neither revoked nor expired."
    code: dict[str, Any] = error["extensions"]
    assert code["requestId"] == reply.headers["x-request-id"]
    return code


async def forget_unused_keys(server: Listening) -> None:
    """Let the server forget cached keys without open connections, as it does after they were unused for a while."""
    credentials: CredentialCache = server.starlette.state.credentials
    for holder in credentials.known.values():
        holder.used -= KEPT_SECONDS
    await credentials.look()
    gc.collect()
    assert not credentials.known


async def event(lines: AsyncIterator[str]) -> tuple[str, Any]:
    """Return the next event of a stream."""
    name = ""
    async with asyncio.timeout(30):
        async for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data:"):
                return name, orjson.loads(line[5:] or "null")
    raise AssertionError(name)


async def test_without_a_key_only_the_health_checks_are_accessible(server: Listening) -> None:
    async with asking_with(server, None) as ask:
        for method, path, headers in (
            ("GET", "/graphql?query={__typename}", {}),
            ("POST", "/graphql", {}),
            ("POST", "/graphql", {"Accept": "text/event-stream"}),
            ("OPTIONS", "/graphql", {}),
            ("GET", "/else", {}),
            ("GET", "/metrics", {}),
            ("GET", "/health/x", {}),
        ):
            reply = await ask.client.request(method, path, headers=headers)
            assert (reply.status_code, reply.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
        assert (await ask.client.get("/health")).json()["status"] == "ok"


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_pages_need_no_key_because_they_contain_no_data(server: Listening, url: str) -> None:
    async with asking_with(server, None) as ask:
        assert (await ask.client.get("/")).status_code != 401
        assert (await ask.client.get("/graphql", headers={"Accept": "text/html"})).status_code == 303
        asked = await ask.client.get("/graphql?query={__typename}", headers={"Accept": "text/html"})
        assert asked.status_code == 401
        assert (await ask.client.get("/graphiql/")).status_code != 401


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_pages_only_the_health_checks_need_no_key(url: str) -> None:
    async with listening(url, authentication="keys", graphiql=False) as server, asking_with(server, None) as ask:
        replies = [await ask.client.get(path) for path in ("/", "/graphiql/", "/health")]

    assert [reply.status_code for reply in replies] == [401, 401, 200]


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer rs_x", "rs_x", "Basic YTpi", "Bearer rs_aaaaaaaa_" + "a" * 55]
)
async def test_an_unknown_credential_is_refused(server: Listening, authorization: str) -> None:
    assert (await refused(server, Authorization=authorization))["code"] == "UNAUTHENTICATED"


async def test_a_key_is_accepted_and_its_name_is_the_actor(server: Listening, keys: Keys) -> None:
    async with asking_with(server, await keys.make("worker", "propose")) as ask:
        run = await make_flow_run(ask)
        await propose(ask, run, "RUNNING")
        found = await flow_run(ask, run, f"states {{ nodes {{ {STATE} }} }}")

    assert [state["actor"] for state in found["states"]["nodes"]] == ["worker", "worker"]
    assert all(state["requestId"] for state in found["states"]["nodes"])


async def test_each_state_has_its_own_actor(server: Listening, keys: Keys) -> None:
    async with (
        asking_with(server, await keys.make("maker")) as maker,
        asking_with(server, await keys.make("worker")) as worker,
    ):
        run = await make_flow_run(maker)
        await propose(worker, run, "RUNNING")
        found = await flow_run(maker, run, "states(orderBy: [{ version: ASC }]) { nodes { actor } }")

    assert [state["actor"] for state in found["states"]["nodes"]] == ["maker", "worker"]


async def test_a_key_is_the_actor_over_a_websocket(server: Listening, keys: Keys) -> None:
    key = await keys.make("worker")
    async with asking_with(server, key) as ask, connected_with(server, key) as socket:
        run = await make_flow_run(ask)
        document = """mutation($id: ID!) {
          proposeState(input: { run: { flowRunId: $id }, state: { type: RUNNING } }) {
            ... on OrchestrationResult { state { actor } } } }"""
        answer = await (await socket.subscribe(document, id=run)).next()

    assert answer["proposeState"]["state"]["actor"] == "worker"


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_a_socket_is_authenticated_by_its_first_message(server: Listening, keys: Keys, name: str) -> None:
    key = await keys.make("ci")
    async with dialled(server) as socket:
        assert await initialised(socket, {name: f"Bearer {key}", "else": 1}) == {"type": "connection_ack"}
        assert await (await socket.subscribe(TYPENAME)).next() == {"__typename": "Query"}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_socket_is_authenticated_by_its_handshake(server: Listening, keys: Keys) -> None:
    async with dialled(server, additional_headers=bearing(await keys.make("ci"))) as socket:
        await socket.say({"type": "connection_init"})
        assert await socket.hear() == {"type": "connection_ack"}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("payload", [None, {}, {"Authorization": 5}, {"Authorization": "Bearer x"}, {"key": "rs_x"}])
async def test_a_socket_without_a_valid_key_is_closed(server: Listening, payload: Any) -> None:
    async with dialled(server) as socket:
        await socket.say({"type": "connection_init", **({"payload": payload} if payload is not None else {})})
        assert await socket.closed() == 4403


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_socket_accepts_no_operation_before_it_is_authenticated(server: Listening) -> None:
    async with dialled(server) as socket:
        await socket.subscribe(TYPENAME)
        assert await socket.closed() == 4401


async def test_a_revoked_key_ends_its_subscriptions_on_every_replica(replicas: list[Listening], keys: Keys) -> None:
    key, other = await keys.make("gone"), await keys.make("stays")
    async with AsyncExitStack() as open_ones:
        sockets = [await open_ones.enter_async_context(connected_with(each, key)) for each in replicas]
        staying = [await open_ones.enter_async_context(connected_with(each, other)) for each in replicas]
        subscriptions = [await each.subscribe(TRANSITIONS) for each in (*sockets, *staying)]
        for subscription in subscriptions:
            await subscription.next()
        for server in replicas:
            await forget_unused_keys(server)

        since = await keys.revoke("gone")
        codes = [await socket.closed() for socket in sockets]
        seconds = asyncio.get_running_loop().time() - since

        assert codes == [4403] * len(replicas)
        assert seconds <= WITHIN_SECONDS
        for server in replicas:
            assert (await refused(server, **bearing(key)))["code"] == "UNAUTHENTICATED"
        async with asking_with(replicas[0], other) as ask:
            await make_flow_run(ask)
        for subscription in subscriptions[len(replicas) :]:
            assert (await subscription.next())["transitions"]["transitions"]


async def test_a_revoked_key_ends_its_event_streams_with_an_error(replicas: list[Listening], keys: Keys) -> None:
    key = await keys.make("gone")
    async with AsyncExitStack() as streams:
        heard = []
        for server in replicas:
            ask = await streams.enter_async_context(asking_with(server, key, Accept="text/event-stream"))
            stream = ask.client.stream("POST", "/graphql", json={"query": TRANSITIONS})
            heard.append((await streams.enter_async_context(stream)).aiter_lines())
        assert [(await event(lines))[0] for lines in heard] == ["next"] * len(replicas)
        for server in replicas:
            await forget_unused_keys(server)

        since = await keys.revoke("gone")
        errors = [await event(lines) for lines in heard]
        seconds = asyncio.get_running_loop().time() - since

        assert [name for name, _ in errors] == ["next"] * len(replicas)
        assert {said["errors"][0]["extensions"]["code"] for _, said in errors} == {"UNAUTHENTICATED"}
        assert all(said["errors"][0]["extensions"]["requestId"] for _, said in errors)
        assert seconds <= WITHIN_SECONDS
        assert [(await event(lines))[0] for lines in heard] == ["complete"] * len(replicas)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_client_that_does_not_read_is_disconnected_after_revocation(server: Listening, keys: Keys) -> None:
    key, other = await keys.make("gone"), await keys.make("writes")
    async with asking_with(server, other) as ask, connected_with(server, key, max_queue=1) as socket:
        await (await socket.subscribe(FLOODED)).next()
        await server.hub.join()
        await flood(ask, server)

        await keys.revoke("gone")
        async with asyncio.timeout(10):
            while server.hub.subscribers:
                await server.hub.join()

        assert await socket.closed() == 4403


async def test_an_expired_key_ends_its_subscriptions(server: Listening, keys: Keys) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=1)
    key = await keys.make("short", expires=expires)
    async with connected_with(server, key) as socket:
        await (await socket.subscribe(TRANSITIONS)).next()
        assert await socket.closed() == 4403

    late = datetime.now(UTC) - expires
    assert timedelta(0) <= late <= timedelta(seconds=WITHIN_SECONDS)
    await refused(server, **bearing(key))


async def test_a_key_in_use_is_not_looked_up_for_each_request(server: Listening, keys: Keys) -> None:
    async with asking_with(server, await keys.make("ci")) as ask:
        await ask(TYPENAME)
        async with statements(server.starlette.state.database, "digest") as read:
            for _ in range(20):
                await ask(TYPENAME)

    assert read == []


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_user_and_password_are_accepted(url: str) -> None:
    async with listening(url, auth_string="ops:secret") as server:
        credential = b64encode(b"ops:secret").decode()
        async with asking_with(server, None, Authorization=f"Basic {credential}") as ask:
            run = await make_flow_run(ask)
            found = await flow_run(ask, run, "states { nodes { actor } }")
            assert found["states"]["nodes"] == [{"actor": "ops"}]
            reply = await ask.client.post("/graphql", json={}, headers={"Authorization": "Basic b3BzOm5v"})

    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].endswith('Basic realm="runstate", charset="UTF-8"')


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_authentication_keys_are_ignored(ask: Ask) -> None:
    reply = await ask.client.post("/graphql", json={"query": TYPENAME}, headers=bearing("nonsense"))

    assert reply.json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_schema_does_not_contain_keys(server: Listening, keys: Keys) -> None:
    async with asking_with(server, await keys.make("ci")) as ask:
        schema = await ask("{ __schema { types { name fields { name } } } }")
        named = {each["name"] for kind in schema["__schema"]["types"] for each in kind["fields"] or ()}
        kinds = {each["name"] for each in schema["__schema"]["types"]}

    assert not {"ApiKey", "ApiKeyWhere"} & kinds
    assert not {"digest", "prefix", "apiKeys"} & named


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_preflight_from_another_origin_needs_no_key(url: str) -> None:
    origin = "https://app.example"
    async with (
        listening(url, authentication="keys", allowed_origins=[origin]) as server,
        asking_with(server, None, Origin=origin) as ask,
    ):
        wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = await ask.client.options("/graphql", headers=wanted)
        reply: httpx.Response = await ask.client.post("/graphql", json={"query": TYPENAME})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (401, origin)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_operation_with_a_key_is_executed(server: Listening, keys: Keys) -> None:
    async with asking_with(server, await keys.make("ci")) as ask:
        assert (await create(ask, "flow", name="etl"))["created"]


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_while_keys_cannot_be_checked_every_request_is_refused(url: str, keys: Keys) -> None:
    key = await keys.make("ci")
    async with (
        proxied(url) as proxy,
        listening(proxy.url, authentication="keys") as server,
        asking_with(server, key) as ask,
        dialled(server) as socket,
    ):
        await ask(TYPENAME)
        proxy.open = False
        for task in list(proxy.tasks):
            task.cancel()
        server.starlette.state.credentials.looked -= 3600
        reply = await ask.client.post("/graphql", json={"query": TYPENAME})
        await socket.say({"type": "connection_init", "payload": bearing(key)})

        assert (reply.status_code, reply.json()["errors"][0]["extensions"]["code"]) == (503, "UNAVAILABLE")
        assert reply.headers["retry-after"]
        assert await socket.closed() == 1013
        assert (await ask.client.get("/health")).status_code == 200
        proxy.open = True

"""The front of Prefect's API: who may use it, what it refuses, and how it says so."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import websockets
from pydantic import SecretStr
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.database import Database
from runstate.prefect.front import AT_ONCE, BODIES
from runstate.settings import Settings
from tests.client import running
from tests.credentials import Keys
from tests.prefect.reporting import PROTOCOL
from tests.subscribing import listening

ANYWHERE = "0.0.0.0"  # noqa: S104 nothing listens there: the application is called in this process


@asynccontextmanager
async def calling(app: Starlette, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200/api", headers=headers) as client:
        yield client


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application."""
    async with calling(app) as client:
        yield client


async def test_the_server_says_which_version_it_serves(client: httpx.AsyncClient) -> None:
    assert (await client.get("/admin/version")).json() == "3.8.5"
    assert (await client.get("/health")).json() is True


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_slash_at_the_end_makes_no_difference(client: httpx.AsyncClient, slash: str) -> None:
    assert (await client.post(f"/flows{slash}", json={"name": "one"})).status_code == 201


@pytest.mark.parametrize(("method", "path"), [("POST", "/savings/{id}/x"), ("PUT", "/flows/{id}")])
async def test_what_is_not_served_is_named_and_counted(client: httpx.AsyncClient, method: str, path: str) -> None:
    reply = await client.request(method, path.format(id=uuid4()))

    assert reply.status_code == 404
    assert f"{method} /api{path}" in reply.json()["detail"]
    shown = (await client.get("http://127.0.0.1:4200/metrics")).text
    assert f'runstate_prefect_unserved_total{{request="{method} /api{path}"}} 1.0' in shown


@pytest.mark.parametrize("version", ["0.7.9", "new", "1.2", ""])
async def test_old_and_malformed_versions_are_refused(client: httpx.AsyncClient, version: str) -> None:
    reply = await client.get("/flows/name/x", headers={"X-PREFECT-API-VERSION": version})

    assert reply.status_code == 400
    assert "X-PREFECT-API-VERSION" in reply.json()["detail"] or "0.8.0" in reply.json()["detail"]


async def test_invalid_bodies_are_answered_with_the_place_of_each_mistake(client: httpx.AsyncClient) -> None:
    reply = await client.post("/flow_runs/", json={"flow_id": "x", "tags": 1})

    assert reply.status_code == 422
    assert {tuple(each["loc"]) for each in reply.json()["exception_detail"]} == {("body", "flow_id"), ("body", "tags")}
    assert (await client.post("/flows/", content=b"{")).status_code == 422
    assert (await client.get("/flow_runs/no-id")).status_code == 422


async def test_unknown_objects_are_not_found(client: httpx.AsyncClient) -> None:
    for path in (f"/flow_runs/{uuid4()}", f"/task_runs/{uuid4()}", f"/flows/{uuid4()}", "/flows/name/none"):
        reply = await client.get(path)
        assert (reply.status_code, "detail" in reply.json()) == (404, True)
    run = {"state": {"type": "RUNNING"}}
    assert (await client.post(f"/flow_runs/{uuid4()}/set_state", json=run)).status_code == 404


async def test_too_large_bodies_are_refused(client: httpx.AsyncClient) -> None:
    lines = [{"name": "x", "level": 20, "message": "x" * 9_000_000, "timestamp": "2026-01-01T00:00:00Z"}]

    assert (await client.post("/logs/", json=lines)).status_code == 413


async def test_keys_have_the_scopes_that_endpoints_need(url: str, database: Database) -> None:
    app = build_app(Settings(database_url=url, services="off", authentication="keys"))
    async with running(app):
        keys = Keys(database)
        reads, proposes = await keys.make("reader", "read"), await keys.make("program", "propose")
        async with calling(app) as nobody, calling(app, Authorization=f"Bearer {reads}") as reader:
            assert (await nobody.get("/admin/version")).status_code == 401
            assert (await reader.get("/admin/version")).status_code == 200
            refused = await reader.post("/flows/", json={"name": "one"})
            assert (refused.status_code, "propose" in refused.json()["detail"]) == (403, True)
        async with calling(app, Authorization=f"Bearer {proposes}") as program:
            made = await program.post("/flows/", json={"name": "one"})
            assert made.status_code == 201
            assert (await program.delete(f"/flows/{made.json()['id']}")).status_code == 403


async def test_a_password_is_taken_as_basic_credentials(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", auth_string=SecretStr("me:secret")))
    async with running(app), calling(app, Authorization=f"Basic {b64encode(b'me:secret').decode()}") as client:
        assert (await client.get("/admin/version")).status_code == 200


@pytest.mark.parametrize(("token", "answer"), [("me:secret", "auth_success"), ("me:wrong", None), (None, None)])
async def test_sockets_take_the_password_in_their_first_message(
    url: str, token: str | None, answer: str | None
) -> None:
    async with listening(url, auth_string=SecretStr("me:secret")) as server:
        address = f"ws://{server.address.replace('/graphql', '/api/events/in')}"
        async with websockets.connect(address, subprotocols=PROTOCOL) as socket:
            await socket.send(orjson.dumps({"type": "auth", "token": token}).decode())
            if answer:
                assert orjson.loads(await socket.recv())["type"] == answer
            else:
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == 1008


async def test_changes_need_a_token_where_the_server_requires_it(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", csrf=True))
    async with running(app), calling(app) as client:
        refused = await client.post("/flows/", json={"name": "one"})
        assert (refused.status_code, "Invalid CSRF token" in refused.text) == (403, True)

        name = str(uuid4())
        token = (await client.get("/csrf-token", params={"client": name})).json()
        headers = {"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": token["token"]}
        assert (await client.post("/flows/", json={"name": "one"}, headers=headers)).status_code == 201


async def test_without_csrf_the_client_is_told_so(client: httpx.AsyncClient) -> None:
    reply = await client.get("/csrf-token", params={"client": str(uuid4())})

    assert (reply.status_code, reply.json()) == (422, {"detail": "CSRF protection is disabled."})


@pytest.mark.parametrize(
    ("host", "prefect_api", "status"), [("127.0.0.1", False, 404), (ANYWHERE, None, 404), (ANYWHERE, True, 200)]
)
async def test_other_machines_are_served_only_if_the_setting_says_so(
    url: str,
    host: str,
    prefect_api: bool | None,  # noqa: FBT001
    status: int,
) -> None:
    settings: dict[str, Any] = {"host": host, "prefect_api": prefect_api, "insecure": True}
    app = build_app(Settings(database_url=url, services="off", **settings))
    async with running(app), calling(app) as client:
        assert (await client.get("/admin/version")).status_code == status


async def test_the_bodies_of_all_requests_together_are_bounded(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", max_body_bytes=64))
    largest, begun, go_on = BODIES * 64, asyncio.Event(), asyncio.Event()
    arrived = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal arrived
        yield b"x" * largest
        arrived += 1
        if arrived == AT_ONCE:
            begun.set()
        await go_on.wait()

    async with running(app), calling(app) as client, asyncio.TaskGroup() as group:
        slow = [group.create_task(client.post("/flows/", content=body())) for _ in range(AT_ONCE)]
        await begun.wait()
        refused = await client.post("/flows/", content=b"{}")
        go_on.set()
        answers = [await each for each in slow]
        assert (refused.status_code, {each.status_code for each in answers}) == (503, {422})
        assert (await client.post("/flows/", json={"name": "one"})).status_code == 201

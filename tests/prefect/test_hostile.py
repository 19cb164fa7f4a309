"""Requests to all endpoints of Prefect's API: without a key, and with values that are out of range or malformed."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.database import Database
from runstate.documents.access import Scope
from runstate.prefect.endpoint import ENDPOINTS, Endpoint
from runstate.settings import Settings
from tests.client import running
from tests.credentials import Keys
from tests.prefect.reporting import ReportedTask, new_flow_run

LATE, EARLY = "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"
BODIES: list[bytes] = [
    b"",
    b"{",
    b"[null]",
    b'"\xff"',
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"name":' * 900 + b"1" + b"}" * 900,
    orjson.dumps({"name": "\0", "flow_id": "\0", "tag": "\0", "key": "\0", "names": ["\0"], "worker_name": "\0"}),
    orjson.dumps({"limit": 2**63, "offset": 2**63, "slots": 2**63, "concurrency_limit": 2**63}),
    orjson.dumps({"offset": 10**9}),
    orjson.dumps({"history_start": EARLY, "history_end": LATE, "history_interval_seconds": 1}),
    orjson.dumps({"scheduled_before": LATE, "timestamp": EARLY, "occurred": EARLY}),
    orjson.dumps({"work_pool_queues": {"name": {"startswith_": ["a"] * 3000}}}),
    orjson.dumps({"flow_runs": {"id": {"any_": [str(uuid4())] * 3000}, "tags": {"all_": ["\0"] * 3000}}}),
    orjson.dumps({"filter": {"event": {"prefix": ["a"] * 3000, "exclude_prefix": ["prefect.a"] * 100}}}),
    orjson.dumps({"filter": {"resource": {"labels": {str(n): ["*"] * 100 for n in range(20)}}}}),
    orjson.dumps({"filter": {"event": {"prefix": ["prefect.a"] * 100, "exclude_prefix": ["prefect.a"] * 100}}}),
]
NESTED = 100
TRIGGER = b'{"type":"compound","require":"all","within":0,"triggers":[' * NESTED + b"]}" * NESTED
BODIES.append(b'{"name":"deep","actions":[],"trigger":' + TRIGGER + b"}")
PLACES = ("%00", "%ff%fe", "x" * 5_000, "..", str(uuid4()))


@pytest.fixture
async def api(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        yield client


def path(endpoint: Endpoint, value: str = str(uuid4())) -> str:
    return re.sub(r"{\w+}", value, endpoint.path)


async def test_malformed_paths_and_bodies_have_a_typed_answer(api: httpx.AsyncClient) -> None:
    for each in ENDPOINTS:
        if "{" in each.path:
            for value in PLACES:
                reply = await api.request(each.method, path(each, value), content=b"{}")
                assert reply.status_code != 500, (each.method, each.path, value[:10])
        reply = await api.request(each.method, f"{path(each)}?flow_run_id=%00&client=%00&page-token=e30x%ff")
        assert reply.status_code != 500, (each.method, each.path)
        for body in BODIES if each.body else ():
            reply = await api.request(each.method, path(each), content=body)
            assert reply.status_code != 500, (each.method, each.path, body[:60])


async def test_every_endpoint_needs_a_key_with_its_scope(url: str, database: Database) -> None:
    app = build_app(Settings(database_url=url, services="off", authentication="keys"))
    async with running(app):
        less = {
            Scope.PROPOSE: {"Authorization": f"Bearer {await Keys(database).make('reader', 'read')}"},
            Scope.ADMIN: {"Authorization": f"Bearer {await Keys(database).make('program', 'propose')}"},
        }
        base = "http://127.0.0.1:4200/api"
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
            for each in ENDPOINTS:
                assert (await client.request(each.method, path(each))).status_code == 401, each.path
                if each.scope in less:
                    reply = await client.request(each.method, path(each), headers=less[each.scope])
                    assert reply.status_code == 403, each.path


async def test_every_endpoint_needs_the_password(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off", auth_string=SecretStr("me:secret")))
    wrong: dict[str, str] = {"Authorization": f"Basic {b64encode(b'me:wrong').decode()}"}
    base = "http://127.0.0.1:4200/api"
    async with running(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
        for each in ENDPOINTS:
            for headers in ({}, wrong):
                assert (await client.request(each.method, path(each), headers=headers)).status_code == 401, each.path


async def test_a_nul_becomes_a_character_that_can_be_stored(api: httpx.AsyncClient) -> None:
    run = await new_flow_run(api)
    task = ReportedTask(run)
    failed = task.event("Failed")
    failed["payload"]["validated_state"] |= {"message": "a\0b", "data": {"\0": "\\u0000"}}
    assert (await api.post("/events", json=[failed])).status_code == 204
    state = (await api.get(f"/task_runs/{task.id}")).json()["state"]
    assert (state["type"], state["message"], state["data"]) == ("FAILED", "a�b", {"�": "\\u0000"})

    crashed: dict[str, Any] = {"state": {"type": "CRASHED", "message": "a\0"}, "force": True}
    assert (await api.post(f"/flow_runs/{run}/set_state", json=crashed)).status_code == 201
    line = {"name": "x", "level": 20, "message": "a\0", "timestamp": "2026-01-01T00:00:00Z"}
    assert (await api.post("/logs/", json=[line])).status_code == 201
    assert [each["message"] for each in (await api.post("/logs/filter", json={})).json()] == ["a�"]


async def test_events_that_cannot_be_stored_do_not_keep_others_from_it(api: httpx.AsyncClient) -> None:
    run = await new_flow_run(api)
    good = ReportedTask(run)
    bad: list[dict[str, Any]] = [
        ReportedTask(run, **own).event("Running")
        for own in ({"run_count": 2**31}, {"task_key": "x" * 300_000}, {"tags": ["x"] * 5_000})
    ]
    other = {"event": "x", "occurred": "2026-01-01T00:00:00Z", "resource": {"prefect.resource.id": ""}}
    early = {**other, "occurred": EARLY}
    assert (await api.post("/events", json=[*bad, other, good.event("Running")])).status_code in (204, 422)
    assert (await api.post("/events", json=[early])).status_code == 422
    assert (await api.post("/events", json=[good.event("Completed", 1)])).status_code == 204
    assert (await api.get(f"/task_runs/{good.id}")).json()["state"]["type"] == "COMPLETED"

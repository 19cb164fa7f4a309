"""Endpoints that the client's programs do not call: limits of tags by name, queues of agents, searches, downloads."""

import csv
from collections.abc import AsyncIterator
from io import StringIO
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette

from runstate.prefect.endpoints import logs
from tests.prefect.reporting import new_flow_run


@pytest.fixture
async def api(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200/api") as client:
        yield client


async def holders(api: httpx.AsyncClient, tag: str) -> list[str]:
    found: list[str] = (await api.get(f"/concurrency_limits/tag/{tag}")).json()["active_slots"]
    return found


async def test_earlier_clients_take_and_return_slots_of_tags(api: httpx.AsyncClient) -> None:
    for tag, limit in (("db", 1), ("web", 2)):
        await api.post("/concurrency_limits/", json={"tag": tag, "concurrency_limit": limit})
    mine, other = ({"names": names, "task_run_id": str(uuid4())} for names in (["db", "web", "none"], ["web", "db"]))

    taken = await api.post("/concurrency_limits/increment", json=mine)
    full = await api.post("/concurrency_limits/increment", json=other)

    assert {each["name"] for each in taken.json()} == {"db", "web"}
    assert (full.status_code, float(full.headers["Retry-After"]) > 0) == (423, True)
    assert (await holders(api, "db"), await holders(api, "web")) == ([mine["task_run_id"]], [mine["task_run_id"]])
    unheld = await api.post("/concurrency_limits/decrement", json=other | {"occupancy_seconds": 1.0})
    assert {each["name"] for each in unheld.json()} == {"tag:db", "tag:web"}
    assert await holders(api, "db") == [mine["task_run_id"]]
    await api.post("/concurrency_limits/decrement", json=mine | {"occupancy_seconds": 1.0})
    assert (await holders(api, "db"), await holders(api, "web")) == ([], [])


async def test_a_queue_without_a_pool_is_in_the_pool_of_agents(api: httpx.AsyncClient) -> None:
    first, second, again = [
        await api.post("/work_queues/", json={"name": name}) for name in ("default", "mine", "mine")
    ]

    assert (first.status_code, second.status_code, again.status_code) == (201, 201, 409)
    assert first.json()["work_pool_id"] == second.json()["work_pool_id"]
    assert (await api.get("/work_pools/default-agent-pool")).json()["default_queue_id"] == first.json()["id"]
    assert (await api.get("/work_queues/name/mine")).json()["id"] == second.json()["id"]
    assert (await api.get("/work_queues/name/other")).status_code == 404


async def test_a_saved_search_is_replaced_listed_and_deleted(api: httpx.AsyncClient) -> None:
    condition = {"object": "flow_run", "property": "name", "type": "string", "operation": "equals", "value": "x"}

    made = await api.put("/saved_searches/", json={"name": "late", "filters": []})
    again = await api.put("/saved_searches/", json={"name": "late", "filters": [condition]})

    assert (made.status_code, again.status_code, made.json()["id"]) == (201, 200, again.json()["id"])
    path = f"/saved_searches/{made.json()['id']}"
    assert (await api.get(path)).json()["filters"] == [condition]
    assert [each["name"] for each in (await api.post("/saved_searches/filter", json={"limit": 1})).json()] == ["late"]
    assert (await api.delete(path)).status_code == 204
    assert (await api.get(path)).status_code == 404


async def test_the_lines_of_a_run_are_downloaded_page_by_page(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "CSV_LINES", 2)
    run = await new_flow_run(api)
    line: dict[str, Any] = {"name": "x", "level": 20, "timestamp": "2026-01-01T00:00:00Z", "flow_run_id": str(run)}
    sent = [line | {"message": f'no {n}, "quoted"\n'} for n in range(5)]
    assert (await api.post("/logs/", json=sent)).status_code == 201

    answer = await api.get(f"/flow_runs/{run}/logs/download")

    head, *rows = csv.reader(StringIO(answer.text, newline=""))
    assert (answer.headers["Content-Type"], head[-1]) == ("text/csv; charset=utf-8", "message")
    assert [row[-1] for row in rows] == [each["message"] for each in sent]
    assert rows[0][:4] == ["2026-01-01 00:00:00+00:00", "20", str(run), ""]
    assert (await api.get(f"/flow_runs/{uuid4()}/logs/download")).status_code == 404

"""Slots of concurrency limits, as the client takes them."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette
from uuid_utils.compat import uuid7

from runstate.prefect.leases import MOST, LeaseIds, leases_of

LIMITS = "/v2/concurrency_limits"


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the application, with the limits `a` of 1 and `b` of 2 slots."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200/api") as client:
        for name, limit in (("a", 1), ("b", 2)):
            assert (await client.post(f"{LIMITS}/", json={"name": name, "limit": limit})).status_code == 201
        yield client


async def take(client: httpx.AsyncClient, *names: str, **more: Any) -> httpx.Response:
    asked = {"names": names, "slots": 1, "mode": "concurrency", "lease_duration": 60, **more}
    return await client.post(f"{LIMITS}/increment-with-lease", json=asked)


async def active(client: httpx.AsyncClient, name: str) -> int:
    return int((await client.get(f"{LIMITS}/{name}")).json()["active_slots"])


async def test_one_lease_holds_slots_of_several_limits(client: httpx.AsyncClient) -> None:
    taken = (await take(client, "a", "b")).json()
    assert {each["name"] for each in taken["limits"]} == {"a", "b"}
    assert (await active(client, "a"), await active(client, "b")) == (1, 1)

    renewed = await client.post(f"{LIMITS}/leases/{taken['lease_id']}/renew", json={"lease_duration": 90})
    assert renewed.status_code == 204
    released = await client.post(f"{LIMITS}/decrement-with-lease", json={"lease_id": taken["lease_id"]})

    assert released.status_code == 204
    assert (await active(client, "a"), await active(client, "b")) == (0, 0)
    assert (await client.post(f"{LIMITS}/leases/{taken['lease_id']}/renew", json={})).status_code == 410


async def test_a_full_limit_says_when_to_ask_again_and_takes_nothing(client: httpx.AsyncClient) -> None:
    await take(client, "a")

    refused = await take(client, "a", "b")

    assert refused.status_code == 423
    assert float(refused.headers["Retry-After"]) > 0
    assert await active(client, "b") == 0


async def test_names_without_a_limit_are_ignored(client: httpx.AsyncClient) -> None:
    taken = (await take(client, "tag:none")).json()

    assert taken["limits"] == []
    assert (
        await client.post(f"{LIMITS}/decrement-with-lease", json={"lease_id": taken["lease_id"]})
    ).status_code == 204
    assert (await client.post(f"{LIMITS}/leases/{taken['lease_id']}/renew", json={})).status_code == 204


async def test_slots_without_a_lease_are_released_by_name(client: httpx.AsyncClient) -> None:
    taken = await client.post(f"{LIMITS}/increment", json={"names": ["a"], "slots": 1})
    assert [each["name"] for each in taken.json()] == ["a"]

    await client.post(f"{LIMITS}/decrement", json={"names": ["a"], "slots": 1, "occupancy_seconds": 1})

    assert await active(client, "a") == 0


async def test_a_limit_without_decay_is_no_rate_limit(client: httpx.AsyncClient) -> None:
    refused = await client.post(f"{LIMITS}/increment", json={"names": ["a"], "slots": 1, "mode": "rate_limit"})

    assert refused.status_code == 422


async def test_the_limit_of_a_tag_names_the_task_runs_that_hold_it(client: httpx.AsyncClient) -> None:
    holder = str(uuid4())
    assert (await client.post("/concurrency_limits/", json={"tag": "big", "concurrency_limit": 1})).status_code == 201
    assert (await client.post("/concurrency_limits/", json={"tag": "big", "concurrency_limit": 2})).status_code == 200
    await take(client, "tag:big", holder={"type": "task_run", "id": holder})

    limit = (await client.get("/concurrency_limits/tag/big")).json()

    assert (limit["concurrency_limit"], limit["active_slots"]) == (2, [holder])
    assert (await client.post("/concurrency_limits/tag/big/reset")).status_code == 200
    assert (await client.get("/concurrency_limits/tag/big")).json()["active_slots"] == []
    assert (await client.delete("/concurrency_limits/tag/big")).status_code == 200
    assert (await client.get("/concurrency_limits/tag/big")).status_code == 404


async def test_names_of_limits_are_taken_once(client: httpx.AsyncClient) -> None:
    assert (await client.post(f"{LIMITS}/", json={"name": "a", "limit": 3})).status_code == 409


@pytest.mark.parametrize("number", [0, 1, 2, 100, MOST])
def test_an_id_stands_for_any_number_of_leases(number: int) -> None:
    ids = LeaseIds(uuid7)

    leases = [ids() for _ in range(number)]

    assert leases_of(ids.together) == leases
    assert len({*leases, ids.together}) == number + 1
    assert all(each.version == 7 for each in leases)

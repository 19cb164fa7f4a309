"""The service for expired leases."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import structlog

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.checks.verify import verify
from runstate.core.commands.concurrency_limits import acquire_concurrency_slots
from runstate.documents import requests
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun
from runstate.services import lease_expiry
from tests.services.factories import NOW, Making

MINUTE = timedelta(minutes=1)


async def take(make: Making, *names: str, seconds: float = 60, slots: int = 1) -> list[UUID]:
    asked = requests.AcquireConcurrencySlots(names=list(names), slots=slots, lease_seconds=seconds)
    taken = await acquire_concurrency_slots(make.batcher.context, asked)
    return [lease.id for lease in taken.leases]


async def limit(make: Making, name: str) -> Any:
    (row,) = await make.rows(ConcurrencyLimit, ConcurrencyLimit.name == name)
    return row


async def held(make: Making) -> list[UUID]:
    return [lease.id for lease in await make.rows(ConcurrencyLease)]


async def test_slots_are_released_when_their_lease_expires(make: Making) -> None:
    await make.limit("a", 10)
    await take(make, "a", slots=3)
    lasting = await take(make, "a", seconds=61, slots=2)

    assert await lease_expiry.run_once(make.batcher, NOW + MINUTE - timedelta(microseconds=1)) == 0
    assert await lease_expiry.run_once(make.batcher, NOW + MINUTE) == 1
    assert (await limit(make, "a")).occupied == 2
    assert await held(make) == lasting
    assert await verify(make.database, NOW + MINUTE) == []


async def test_the_time_until_expiry_moves_the_average(make: Making) -> None:
    await make.limit("a", 1)
    await take(make, "a")

    await lease_expiry.run_once(make.batcher, NOW + MINUTE)

    assert (await limit(make, "a")).average_slot_occupancy_seconds == 2 + (60 - 2) / 2


async def test_expired_leases_of_many_limits_are_released(make: Making) -> None:
    names = [f"limit-{number}" for number in range(250)]
    for name in names:
        await make.limit(name)
    for some in (names[:100], names[100:200], names[200:]):
        await take(make, *some)

    assert await lease_expiry.run_once(make.batcher, NOW + MINUTE) == 250
    assert await held(make) == []
    assert {row.occupied for row in await make.rows(ConcurrencyLimit)} == {0}


async def test_many_expired_leases_of_one_limit_are_released(make: Making) -> None:
    limit_id = await make.limit("a", 3000)
    await take(make, "a", seconds=1)
    (one,) = await make.rows(ConcurrencyLease)
    more = [{**one._asdict(), "id": UUID(int=number)} for number in range(2500)]
    await make.execute(sa.insert(ConcurrencyLease).values(more[:1250]))
    await make.execute(sa.insert(ConcurrencyLease).values(more[1250:]))
    await make.execute(sa.update(ConcurrencyLimit).values(occupied=2501))

    assert await lease_expiry.run_once(make.batcher, NOW + MINUTE) == 2501
    (row,) = await make.rows(ConcurrencyLimit)
    assert (row.id, row.occupied) == (limit_id, 0)


async def test_slots_of_a_running_run_are_not_released(make: Making) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    run = await make.flow_run(states.scheduled(NOW), deployment_id=deployment)
    await make.flow_run_enters(run, states.pending())
    await make.flow_run_enters(run, states.running())

    assert await lease_expiry.run_once(make.batcher, NOW + timedelta(days=1)) == 0
    assert [lease.run_id for lease in await make.rows(ConcurrencyLease)] == [run]


async def test_a_claimed_run_that_does_not_start_in_time_loses_its_slot(make: Making) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    first, second = await make.flow_runs([states.scheduled(NOW)] * 2, deployment_id=deployment)
    await make.flow_run_enters(first, states.pending())

    assert await lease_expiry.run_once(make.batcher, make.clock.forward(seconds=299)) == 0
    assert await lease_expiry.run_once(make.batcher, make.clock.forward(seconds=1)) == 1
    await make.flow_run_enters(second, states.pending())
    assert await make.flow_run_names(first, second) == ["Pending", "Pending"]
    assert [lease.run_id for lease in await make.rows(ConcurrencyLease)] == [second]


async def test_expired_leases_of_rate_limits_are_only_deleted(make: Making) -> None:
    await make.limit("a", 10, slot_decay_per_second=1)
    await take(make, "a", slots=2)
    (later,) = await take(make, "a", slots=3)
    before = await limit(make, "a")

    assert await lease_expiry.run_once(make.batcher, NOW + timedelta(seconds=2)) == 1
    assert await held(make) == [later]
    assert await limit(make, "a") == before
    assert await verify(make.database, NOW + timedelta(seconds=2)) == []


async def test_a_limit_that_cannot_be_updated_does_not_block_others(make: Making) -> None:
    broken, _ = await make.limit("broken"), await make.limit("whole")
    await take(make, "broken", "whole")
    await make.execute(sa.update(ConcurrencyLimit).where(ConcurrencyLimit.id == broken).values(occupied=0))

    with structlog.testing.capture_logs() as logs:
        assert await lease_expiry.run_once(make.batcher, NOW + MINUTE) == 1
    assert (await limit(make, "whole")).occupied == 0
    assert [each["limit"] for each in logs] == [str(broken)]


@pytest.mark.parametrize("decay", [0, 1])
async def test_two_servers_release_a_lease_once(make: Making, other: Batcher, decay: float) -> None:
    for name in ("a", "b", "c"):
        await make.limit(name, 100, slot_decay_per_second=decay)
    for _ in range(20):
        await take(make, "a", "b", "c", seconds=1)
    await take(make, "a", seconds=3600, slots=7)
    moment = NOW + timedelta(seconds=20)

    done = await asyncio.gather(
        *(lease_expiry.run_once(batcher, moment) for batcher in (make.batcher, other) for _ in range(3))
    )

    assert sum(done) == 60
    assert (await limit(make, "a")).occupied == (0 if decay else 7)
    assert (await limit(make, "b")).occupied == 0
    assert await verify(make.database, moment) == []


async def test_a_run_may_end_during_the_expiry_of_its_lease(make: Making, other: Batcher) -> None:
    deployment = await make.deployment(concurrency_limit=30)
    runs = await make.flow_runs([states.scheduled(NOW)] * 30, deployment_id=deployment)
    for run in runs:
        await make.flow_run_enters(run, states.pending())
    later = make.clock.forward(seconds=300)

    await asyncio.gather(
        lease_expiry.run_once(other, later), *(make.flow_run_enters(run, states.failed()) for run in runs)
    )

    assert await held(make) == []
    assert {run.state_name for run in await make.rows(FlowRun)} == {"Failed"}
    assert await verify(make.database, later) == []

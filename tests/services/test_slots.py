"""Slots over time: services, clients and deletions change leases while runs continue."""

import asyncio

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import ProposeState
from runstate.core.checks.verify import verify
from runstate.core.commands.concurrency_limits import (
    UpdateConcurrencyLimit,
    acquire_concurrency_slots,
    release_concurrency_slots,
    update_limit,
)
from runstate.core.commands.deployments import delete_deployment
from runstate.core.commands.flow_runs import delete_flow_run
from runstate.core.commands.proposals import referred
from runstate.documents import requests
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun
from runstate.services import lease_expiry
from tests.databases import somebody_waits
from tests.services.factories import NOW, Making


async def test_a_decayed_slot_can_be_acquired_again(make: Making) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    await make.execute(sa.update(ConcurrencyLimit).values(slot_decay_per_second=0.1))
    first, second = await make.flow_runs([states.scheduled(NOW)] * 2, deployment_id=deployment)
    await make.flow_run_enters(first, states.pending())
    await lease_expiry.run_once(make.batcher, make.clock.forward(seconds=11))
    await make.flow_run_enters(second, states.pending())
    await make.flow_run_enters(first, states.running())
    assert await verify(make.database, make.clock.now) == []


async def test_a_limit_without_decay_has_no_decayed_leases(make: Making) -> None:
    limit = await make.limit("a", 5, slot_decay_per_second=1)
    await acquire_concurrency_slots(
        make.batcher.context, requests.AcquireConcurrencySlots(names=["a"], slots=2, lease_seconds=60)
    )
    now = make.clock.forward(seconds=10)
    changed = UpdateConcurrencyLimit(id=limit, slot_decay_per_second=0)
    assert (await update_limit(make.batcher.context, changed)).slot_decay_per_second == 0
    assert await make.rows(ConcurrencyLease) == []
    await lease_expiry.run_once(make.batcher, now)
    assert await verify(make.database, now) == []


async def test_deleting_a_deployment_releases_the_slots_of_task_runs(make: Making) -> None:
    deployment = await make.deployment()
    await make.limit("tag:x", 1)
    policy = FlowRunPolicy(retries=3, retry_delay_seconds=60)
    run = await make.flow_run(states.running(), deployment_id=deployment, policy=policy)
    task = await make.task_run(run, states.pending(), tags=["x"])
    await make.task_run_enters(task, states.running())
    await make.propose(RunKind.FLOW_RUN, run, states.failed())
    assert await make.flow_run_names(run) == ["AwaitingRetry"]
    await delete_deployment(make.batcher.context, deployment)
    assert await make.rows(ConcurrencyLease) == []
    assert await verify(make.database, make.clock.now) == []


@pytest.mark.parametrize("state", [states.running(), states.cancelling()])
@pytest.mark.parametrize("force", [True, False])
async def test_the_grace_period_of_a_claim_ends_when_the_run_enters_another_state(
    make: Making, state: states.State, *, force: bool
) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    first, second = await make.flow_runs([states.scheduled(NOW)] * 2, deployment_id=deployment)
    await make.flow_run_enters(first, states.pending())
    await make.flow_run_enters(first, state, force=force)
    await lease_expiry.run_once(make.batcher, make.clock.forward(seconds=400))
    await make.propose(RunKind.FLOW_RUN, second, states.pending())
    assert await make.flow_run_names(first, second) == [state.name, "AwaitingConcurrencySlot"]


async def test_a_client_cannot_release_slots_of_a_running_run(make: Making) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    run = await make.flow_run(states.scheduled(NOW), deployment_id=deployment)
    await make.flow_run_enters(run, states.pending())
    (lease,) = await make.rows(ConcurrencyLease)
    assert (
        await release_concurrency_slots(make.batcher.context, requests.ReleaseConcurrencySlots(lease_ids=[lease.id]))
        == []
    )
    assert len(await make.rows(ConcurrencyLease)) == 1


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_task_runs_do_not_wait_for_the_limit_of_their_flow_run(make: Making) -> None:
    deployment = await make.deployment(concurrency_limit=1)
    run = await make.flow_run(states.scheduled(NOW), deployment_id=deployment)
    await make.flow_run_enters(run, states.pending())
    await make.flow_run_enters(run, states.running())
    task = await make.task_run(run, states.pending())
    async with make.database.write() as transaction, asyncio.timeout(30):
        await transaction.connection.execute(sa.select(ConcurrencyLimit.id).with_for_update(key_share=True))
        await make.task_run_enters(task, states.running())


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_flow_run_is_deleted_while_its_subflow_run_changes(make: Making) -> None:
    parent = await make.flow_run()
    subflow, task = await make.subflow_run(parent)
    async with make.database.write() as transaction:
        locked = sa.select(FlowRun.id).where(FlowRun.id == subflow).with_for_update(key_share=True)
        await transaction.connection.execute(locked)
        deletion = asyncio.ensure_future(delete_flow_run(make.batcher.context, parent))
        await somebody_waits(make.database)
        await transaction.connection.execute(
            sa.select(TaskRun.id).where(TaskRun.id == task).with_for_update(key_share=True)
        )
    await deletion
    (outcome,) = await make.batcher.submit(
        [ProposeState(kind=RunKind.FLOW_RUN, run_id=subflow, state=states.running())]
    )
    assert not isinstance(outcome, Exception)


async def holder(make: Making, run_kind: RunKind) -> requests.RunRef:
    """Create a running run, and return a reference to it."""
    await make.limit("a", 1)
    if run_kind is RunKind.FLOW_RUN:
        return requests.RunRef(flow_run_id=await make.flow_run(states.running()))
    return requests.RunRef(task_run_id=await make.task_run(None, states.running()))


def acquisition(run: requests.RunRef) -> requests.AcquireConcurrencySlots:
    return requests.AcquireConcurrencySlots(names=["a"], run=run, lease_seconds=60)


@pytest.mark.parametrize("run_kind", list(RunKind))
@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_run_that_ends_while_it_acquires_slots_does_not_keep_them(
    make: Making, other: Batcher, run_kind: RunKind
) -> None:
    run = await holder(make, run_kind)
    _, run_id = referred(run)
    async with make.database.write() as transaction:  # the acquisition has read the run when it waits for the limit
        await transaction.connection.execute(sa.select(ConcurrencyLimit.id).with_for_update())
        acquired = asyncio.ensure_future(acquire_concurrency_slots(make.batcher.context, acquisition(run)))
        await somebody_waits(make.database)
        end = ProposeState(kind=run_kind, run_id=run_id, state=states.crashed())
        ended = asyncio.ensure_future(other.submit([end]))
        await somebody_waits(make.database, 2)
    assert len((await acquired).leases) == 1
    await ended

    assert await make.rows(ConcurrencyLease) == []
    assert await verify(make.database, make.clock.now) == []


@pytest.mark.parametrize("run_kind", list(RunKind))
@pytest.mark.parametrize("kind", ["postgresql"])
async def test_slots_are_not_acquired_for_a_run_that_ends_meanwhile(
    make: Making, other: Batcher, run_kind: RunKind
) -> None:
    run = await holder(make, run_kind)
    _, run_id = referred(run)
    row = FlowRun if run_kind is RunKind.FLOW_RUN else TaskRun
    async with make.database.write() as transaction:
        await transaction.connection.execute(sa.select(row.id).where(row.id == run_id).with_for_update())
        ended = asyncio.ensure_future(
            other.submit([ProposeState(kind=run_kind, run_id=run_id, state=states.crashed())])
        )
        await somebody_waits(make.database)
        acquired = asyncio.ensure_future(acquire_concurrency_slots(make.batcher.context, acquisition(run)))
        await somebody_waits(make.database, 2)
    with pytest.raises(InvalidInput):
        await acquired
    await ended

    assert await make.rows(ConcurrencyLease) == []

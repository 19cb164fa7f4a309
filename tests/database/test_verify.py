"""`verify`: no findings in a healthy database, and a named finding for each kind of damage."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core import states
from runstate.core.checks.check import Check
from runstate.core.checks.verify import all_checks, verify
from runstate.core.commands.claims import claim_flow_runs
from runstate.core.commands.concurrency_limits import acquire_concurrency_slots
from runstate.core.commands.flow_runs import run_deployment
from runstate.core.commands.work_pools import CreateWorkPool, create_pool
from runstate.core.commands.workers import PollNames, mark_poll
from runstate.database import Database
from runstate.database.queries import verify as sql
from runstate.documents import requests
from runstate.documents.policies import FlowRunPolicy, TaskRunPolicy
from runstate.documents.pools import ClaimFlowRuns
from runstate.documents.states import RunKind, StateType
from runstate.feed import TRANSITIONS, prune_log
from runstate.rows import (
    Base,
    ConcurrencyLease,
    ConcurrencyLimit,
    FlowRun,
    FlowRunState,
    RunClaim,
    RunTally,
    TaskRun,
    TaskRunState,
    Transition,
    Worker,
)
from runstate.services import SERVICES
from tests.services.factories import NOW, Making

HOUR = timedelta(hours=1)


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Making]:
    make = Making(database)
    yield make
    await make.batcher.close()


@dataclass
class LivedIn:
    """A database with rows of every kind."""

    make: Making
    flow_run: UUID
    """RUNNING, version 3, with a slot of its deployment."""
    task_run: UUID
    """RUNNING, version 2, with a slot of each of its tags."""
    ended_flow_run: UUID
    ended_task_run: UUID
    limits: dict[str, UUID]
    claim: UUID
    claimed_run: UUID

    async def findings(self) -> list[str]:
        """Return the findings of `verify`."""
        return await verify(self.make.database, self.make.clock.now)

    def flow_run_has(self, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of the RUNNING flow run."""
        return change(FlowRun, FlowRun.id == self.flow_run, **columns)

    def task_run_has(self, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of the RUNNING task run."""
        return change(TaskRun, TaskRun.id == self.task_run, **columns)

    def state_has(self, version: int, /, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of a state of the flow run."""
        return change(FlowRunState, state_of(self.flow_run, version, FlowRunState), **columns)

    def task_run_state_has(self, version: int, /, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of a state of the task run."""
        return change(TaskRunState, state_of(self.task_run, version, TaskRunState), **columns)

    def entry_has(self, run: UUID, version: int, /, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of an entry of the log."""
        return change(Transition, state_of(run, version, Transition), **columns)

    def limit_has(self, name: str, /, **columns: Any) -> sa.Executable:
        """Return a statement that changes columns of a limit."""
        return change(ConcurrencyLimit, ConcurrencyLimit.id == self.limits[name], **columns)

    def held(self, by: UUID) -> list[sa.Executable]:
        """Return statements that add a lease of a limit and count it."""
        made = {"id": uuid4(), "created": NOW, "updated": NOW, "limit_id": self.limits["manual"], "slots": 1}
        lease = sa.insert(ConcurrencyLease).values({**made, "run_id": by, "automatic": True})
        return [lease, self.limit_has("manual", occupied=ConcurrencyLimit.occupied + 1)]


def change(row: type[Base], *where: sa.ColumnElement[bool], **columns: Any) -> sa.Executable:
    return sa.update(row).where(*where).values(**columns)


def state_of(run: UUID, version: int, row: type[FlowRunState | TaskRunState | Transition]) -> sa.ColumnElement[bool]:
    return (row.run_id == run) & (row.version == version)


@pytest.fixture
async def lived_in(make: Making) -> LivedIn:
    limits = {
        "api": await make.limit("tag:api", 2),
        "slow": await make.limit("tag:slow", 3, slot_decay_per_second=0.5),
        "manual": await make.limit("manual", 5),
    }
    running, ended = await run_a_deployment(make)
    task_run, ended_task_run = await run_tasks(make)
    asked = requests.AcquireConcurrencySlots(names=["manual", "tag:slow"], slots=2, lease_seconds=60)
    await acquire_concurrency_slots(make.batcher.context, asked)
    claimed = await claim_a_run(make)
    return LivedIn(make, running, task_run, ended, ended_task_run, limits, claimed.id, claimed.flow_run_id)


async def claim_a_run(make: Making) -> RunClaim:
    await create_pool(make.batcher.context, CreateWorkPool(name="pool"))
    await create_pool(make.batcher.context, CreateWorkPool(name="other"))
    await mark_poll(make.batcher.context, PollNames("other", "stranger"), [])
    deployment = await make.deployment(work_pool="pool")
    wanted = requests.RunDeployment(deployment_id=deployment, scheduled_time=make.clock.now)
    await run_deployment(make.batcher, wanted)
    asked = ClaimFlowRuns(work_pool="pool", worker="w", lease_seconds=3600)
    (claim,) = (await claim_flow_runs(make.batcher, asked, actor="w", request_id=None)).claims
    return claim


async def run_a_deployment(make: Making) -> tuple[UUID, UUID]:
    due, policy = [states.scheduled(NOW)] * 4, FlowRunPolicy(retries=1)
    deployment = await make.deployment(concurrency_limit=3)
    runs = await make.flow_runs(due, deployment_id=deployment, policy=policy)
    for run in runs:
        await make.propose(RunKind.FLOW_RUN, run, states.pending())
        make.clock.forward(seconds=0.25)
    await make.flow_run_enters(runs[0], states.running())
    await make.flow_run_enters(runs[1], states.running())
    make.clock.forward(seconds=1)
    await make.propose(RunKind.FLOW_RUN, runs[1], states.failed())
    await make.flow_run_enters(runs[2], states.cancelled())
    return runs[0], runs[2]


async def run_tasks(make: Making) -> tuple[UUID, UUID]:
    parent = await make.flow_run()
    policy, tags = TaskRunPolicy(retries=1, retry_delays_seconds=(0,)), ["api", "slow"]
    tasks = await make.task_runs(parent, [states.pending()] * 4, tags=tags, policy=policy)
    for task in tasks:
        await make.propose(RunKind.TASK_RUN, task, states.running())
        make.clock.forward(seconds=0.3)
    await make.propose(RunKind.TASK_RUN, tasks[1], states.failed())
    make.clock.forward(seconds=4)
    await make.task_run_enters(tasks[2], states.running())
    await make.task_run_enters(tasks[2], states.completed())
    subflow, _ = await make.subflow_run(parent, states.running())
    make.clock.forward(seconds=2)
    await make.flow_run_enters(subflow, states.completed())
    await make.task_run(None, states.scheduled(NOW))
    return tasks[0], tasks[2]


async def test_an_empty_database_is_healthy(make: Making) -> None:
    assert await verify(make.database, NOW) == []


async def test_a_database_with_rows_of_every_kind_is_healthy(lived_in: LivedIn) -> None:
    assert await lived_in.findings() == []


async def test_services_leave_a_database_healthy(lived_in: LivedIn) -> None:
    for span in (timedelta(seconds=1), timedelta(minutes=5), timedelta(days=2)):
        now = lived_in.make.clock.forward(seconds=span.total_seconds())
        for service in SERVICES.values():
            await service.run_once(lived_in.make.batcher, now)
            assert await lived_in.findings() == []


Damage = Callable[[LivedIn], list[sa.Executable]]
AGO = NOW - HOUR

MISPLACED = "Flow runs that differ from their newest state"
MISCOUNTED = "Flow runs whose version is not that of their newest state"
BACK = "Flow runs with a state that is older than the previous one"
ENDED = "Flow runs whose end time does not match their state"
BEHIND = "Flow runs whose version is lower than in the log"
UNLOGGED = "States of flow runs that are missing in the log"
MISLOGGED = "States of flow runs that differ from the log"
TASK_MISPLACED = "Task runs that differ from their newest state"
TASK_MISCOUNTED = "Task runs whose version is not that of their newest state"
TASK_BACK = "Task runs with a state that is older than the previous one"
TASK_ENDED = "Task runs whose end time does not match their state"
TASK_BEHIND = "Task runs whose version is lower than in the log"
TASK_UNLOGGED = "States of task runs that are missing in the log"
TASK_MISLOGGED = "States of task runs that differ from the log"
COUNTED = "Limits whose occupied slots differ from their leases"
DRAINED = "Limits with decay whose drain time differs from their leases"
NOBODYS = "Leases without expiry of unknown runs"
KEPT = "Leases of flow runs that are not PENDING, RUNNING or CANCELLING"
TASK_KEPT = "Leases of task runs that are not RUNNING or CANCELLING"
SUMMED = "Flow runs whose tally differs from their number"
TASK_SUMMED = "Task runs whose tally differs from their number"
TWICE = "Runs with two leases of one limit"
UNNAMED = "Claims that their flow run does not name"
UNCLAIMED = "Flow runs that name an unknown claim"
WITHOUT_PROCESS = "Claims of flow runs without a process"
ELSEWHERE = "Claims of workers of another pool"
UNCOUNTED = "Flow runs whose expired claims exceed their claims"

DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "another state id": (lambda it: [it.flow_run_has(state_id=uuid4())], [MISPLACED]),
    "another type": (lambda it: [it.flow_run_has(state_type=StateType.PENDING)], [MISPLACED, SUMMED]),
    "another name": (lambda it: [it.flow_run_has(state_name="Walking")], [MISPLACED, SUMMED]),
    "another time": (lambda it: [it.task_run_has(state_timestamp=AGO)], [TASK_MISPLACED]),
    "no state": (lambda it: [it.task_run_has(state_id=None)], [TASK_MISPLACED]),
    "another version": (lambda it: [it.flow_run_has(version=4)], [MISPLACED, MISCOUNTED]),
    "an earlier version": (lambda it: [it.task_run_has(version=1)], [TASK_MISPLACED, TASK_MISCOUNTED, TASK_BEHIND]),
    "a lost state": (
        lambda it: [sa.delete(TaskRunState).where(state_of(it.task_run, 2, TaskRunState))],
        [TASK_MISPLACED, TASK_MISCOUNTED],
    ),
    "a state before the first": (
        lambda it: [it.state_has(1, version=0), it.entry_has(it.flow_run, 1, version=0)],
        [MISCOUNTED],
    ),
    "time that goes back": (
        lambda it: [it.state_has(2, timestamp=AGO), it.entry_has(it.flow_run, 2, occurred=AGO)],
        [BACK],
    ),
    "a task run's time that goes back": (
        lambda it: [
            it.task_run_state_has(2, timestamp=AGO),
            it.entry_has(it.task_run, 2, occurred=AGO),
            it.task_run_has(state_timestamp=AGO),
        ],
        [TASK_BACK],
    ),
    "an end without an ending": (lambda it: [it.flow_run_has(end_time=NOW)], [ENDED]),
    "an ending without an end": (
        lambda it: [change(TaskRun, TaskRun.id == it.ended_task_run, end_time=None)],
        [TASK_ENDED],
    ),
    "an entry too many": (lambda it: [it.entry_has(it.flow_run, 3, version=4)], [BEHIND, UNLOGGED]),
    "a task run's entry too many": (lambda it: [it.entry_has(it.task_run, 2, version=3)], [TASK_BEHIND, TASK_UNLOGGED]),
    "a lost entry": (lambda it: [sa.delete(Transition).where(state_of(it.flow_run, 2, Transition))], [UNLOGGED]),
    "a task run's lost entry": (
        lambda it: [sa.delete(Transition).where(state_of(it.task_run, 2, Transition))],
        [TASK_UNLOGGED],
    ),
    "an entry with another name": (lambda it: [it.entry_has(it.flow_run, 2, state_name="Walking")], [MISLOGGED]),
    "an entry of another state": (lambda it: [it.entry_has(it.task_run, 2, state_id=uuid4())], [TASK_MISLOGGED]),
    "an entry of another time": (lambda it: [it.entry_has(it.task_run, 2, occurred=NOW + HOUR)], [TASK_MISLOGGED]),
    "a change that was added up twice": (
        lambda _: [change(RunTally, RunTally.run_kind == RunKind.TASK_RUN, number=RunTally.number * 2)],
        [TASK_SUMMED],
    ),
    "a slot too many": (lambda it: [it.limit_has("manual", occupied=3)], [COUNTED]),
    "a slot too few": (lambda it: [it.limit_has("api", occupied=0)], [COUNTED]),
    "a lost lease": (
        lambda it: [sa.delete(ConcurrencyLease).where(ConcurrencyLease.limit_id == it.limits["api"])],
        [COUNTED],
    ),
    "a limit that drains too late": (lambda it: [it.limit_has("slow", drained=NOW + HOUR)], [DRAINED]),
    "a limit that drains too early": (lambda it: [it.limit_has("slow", drained=None)], [DRAINED]),
    "a lease of nobody": (lambda it: it.held(by=uuid4()), [NOBODYS]),
    "a lease of a flow run that ended": (lambda it: it.held(by=it.ended_flow_run), [KEPT]),
    "a lease of a task run that ended": (lambda it: it.held(by=it.ended_task_run), [TASK_KEPT]),
    "a claim of nobody": (
        lambda it: [change(FlowRun, FlowRun.id == it.claimed_run, claim_id=None)],
        [UNNAMED],
    ),
    "a lost claim": (lambda _: [sa.delete(RunClaim)], [UNCLAIMED]),
    "a claim of a run that ended": (
        lambda it: [
            change(RunClaim, flow_run_id=it.ended_flow_run),
            change(FlowRun, FlowRun.id == it.ended_flow_run, claim_id=it.claim),
            change(FlowRun, FlowRun.id == it.claimed_run, claim_id=None),
        ],
        [WITHOUT_PROCESS],
    ),
    "a claim of a worker elsewhere": (
        lambda _: [change(RunClaim, worker_id=sa.select(Worker.id).where(Worker.name == "stranger").scalar_subquery())],
        [ELSEWHERE],
    ),
    "a claim that was not counted": (
        lambda it: [change(FlowRun, FlowRun.id == it.claimed_run, expired_claims=2)],
        [UNCOUNTED],
    ),
    "two leases of one limit": (lambda it: it.held(by=it.task_run) + it.held(by=it.task_run), [TWICE]),
}


def test_every_check_has_a_damage_in_these_tests() -> None:
    found = {finding for _, expected in DAMAGES.values() for finding in expected}
    run_times = {"Flow runs whose run time is negative", "Task runs whose run time is negative"}

    assert {check.finding for check in all_checks()} == found | run_times


async def test_a_new_check_consists_of_a_query_and_a_name(make: Making) -> None:
    run = await make.flow_run()
    check = Check("Flow runs that there should not be", sa.select(FlowRun.id))

    assert await verify(make.database, NOW, [check]) == [f"{check.finding} (1): {run}."]


def names(findings: list[str]) -> list[str]:
    return [finding.partition(" (")[0] for finding in findings]


@pytest.mark.parametrize("what", DAMAGES)
async def test_damage_is_found_by_the_expected_check_only(lived_in: LivedIn, what: str) -> None:
    damage, expected = DAMAGES[what]
    for statement in damage(lived_in):
        await lived_in.make.execute(statement)

    assert names(await lived_in.findings()) == expected


async def let_in_run_times_below_zero(database: Database) -> None:
    async with database.write() as transaction:
        connection = transaction.connection
        checks = await connection.run_sync(lambda it: sa.inspect(it).get_check_constraints(FlowRun.__tablename__))
        (name,) = (each["name"] for each in checks if "total_run_time_seconds" in each["sqltext"])
        drop = f"ALTER TABLE flow_run DROP CONSTRAINT {name}"
        ignore = "PRAGMA ignore_check_constraints = ON"
        await connection.execute(sa.text(ignore if database.is_sqlite else drop))


async def test_a_negative_run_time_is_found_where_the_database_accepts_it(lived_in: LivedIn) -> None:
    await let_in_run_times_below_zero(lived_in.make.database)
    await lived_in.make.execute(lived_in.flow_run_has(total_run_time_seconds=-1))

    assert names(await lived_in.findings()) == ["Flow runs whose run time is negative"]


async def test_a_finding_has_ids_and_their_number(lived_in: LivedIn) -> None:
    await lived_in.make.execute(lived_in.limit_has("manual", occupied=4))
    (finding,) = await lived_in.findings()

    assert finding == f"{COUNTED} (1): {lived_in.limits['manual']}."


async def test_a_finding_about_many_rows_has_the_first_ten_ids(make: Making) -> None:
    runs = await make.flow_runs([states.running()] * 12)
    await make.execute(change(FlowRun, end_time=NOW))

    (finding,) = await verify(make.database, NOW)

    assert finding == f"{ENDED} (12): {', '.join(str(run) for run in sorted(runs)[:10])} …"


async def test_entries_removed_by_retention_are_not_findings(lived_in: LivedIn) -> None:
    make, keep = lived_in.make, HOUR
    await prune_log(make.database, TRANSITIONS, make.clock.now, keep)
    make.clock.forward(hours=1)
    kept = await make.flow_run(states.pending())

    assert await prune_log(make.database, TRANSITIONS, make.clock.now, keep) > 0
    assert await lived_in.findings() == []
    await make.execute(sa.delete(Transition).where(Transition.run_id == kept))
    (state,) = await make.history(kept)
    assert await lived_in.findings() == [f"{UNLOGGED} (1): {state.id}."]


async def test_a_missing_log_of_an_old_run_is_not_a_finding(lived_in: LivedIn) -> None:
    await lived_in.make.execute(sa.delete(Transition))

    assert await lived_in.findings() == []


async def flow_runs(connection: AsyncConnection) -> int:
    return (await connection.execute(sa.select(sa.func.count()).select_from(FlowRun))).scalar_one()


async def test_all_checks_read_one_snapshot(lived_in: LivedIn) -> None:
    async with sql.snapshot(lived_in.make.database) as connection:
        before = await flow_runs(connection)
        await lived_in.make.flow_run()
        assert await flow_runs(connection) == before
    async with sql.snapshot(lived_in.make.database) as connection:
        assert await flow_runs(connection) == before + 1


async def test_verify_cannot_write(lived_in: LivedIn) -> None:
    async with sql.snapshot(lived_in.make.database) as connection:
        with pytest.raises(sa.exc.DBAPIError, match=r"read-?only"):
            await connection.execute(lived_in.limit_has("manual", occupied=0))


async def test_a_reading_connection_has_its_old_settings_after_verify(lived_in: LivedIn) -> None:
    await lived_in.findings()
    async with lived_in.make.database.read() as connection:
        before = await flow_runs(connection)
        await lived_in.make.flow_run()
        after = await flow_runs(connection)

    assert after == before + (0 if lived_in.make.database.is_sqlite else 1)

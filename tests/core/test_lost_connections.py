"""Connections lost before, during and after COMMIT: nothing is executed twice, and no answered write is missing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, Created, CreateRun, Outcome
from runstate.core.proposal import Proposal, rule
from runstate.core.states import pending, running
from runstate.database import Database
from runstate.documents.decisions import OrchestrationStatus
from runstate.errors import Timeout, Unavailable, UnknownOutcome
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, Flow, FlowRun, TaskRun, Transition
from tests.core.audit import audit
from tests.core.factories import NOW, THOROUGH, flow_run, limit, task_run
from tests.core.fault_proxy import ENDS_EXCHANGE, Cut, Proxy, proxied, untouched
from tests.core.store_in_memory import proposal
from tests.core.stored import flow, history_of, put, rows_of
from tests.core.test_batcher import held_up, some
from tests.databases import WAITING, postgresql_database, say, somebody_waits

ACCEPT = OrchestrationStatus.ACCEPT
COMMIT = b"COMMIT\0"


@dataclass
class Way:
    """A database, reached through a proxy and directly."""

    proxy: Proxy
    database: Database
    """Connected through the proxy."""
    direct: Database
    """Connected directly."""


@pytest.fixture(scope="module")
def direct_url(postgresql: str, postgresql_template: str) -> Iterator[str]:
    """Yield the URL of a migrated PostgreSQL database."""
    with postgresql_database(postgresql, postgresql_template) as url:
        yield url


@pytest.fixture
async def way(direct_url: str) -> AsyncIterator[Way]:
    """Yield a migrated PostgreSQL database, reached through a proxy and directly."""
    async with proxied(direct_url) as proxy:
        made = Way(proxy, Database(proxy.url), Database(direct_url))
        yield made
        await made.database.close()
        await made.direct.close()


@asynccontextmanager
async def open_batcher(way: Way, **more: Any) -> AsyncIterator[Batcher]:
    """Yield a batcher that is connected through the proxy and retries quickly."""
    batcher = Batcher(
        way.database, clock=lambda: NOW, draw=lambda: 0.5, new_id=uuid7, **({"first_pause_seconds": 0.001} | more)
    )
    yield batcher
    await batcher.close()


@dataclass
class Work:
    """Some requests and their rows."""

    limit: ConcurrencyLimit
    run: FlowRun
    task: TaskRun
    new: FlowRun

    @property
    def requests(self) -> list[Any]:
        """Return requests: a run enters two states, another run is created, and a task run acquires a slot."""
        return [
            proposal(self.run, running()),
            CreateRun(run=self.new, state=pending()),
            proposal(self.run, running()),
            proposal(self.task, running()),
        ]


async def work(way: Way) -> Work:
    """Insert the rows for new requests."""
    its_flow, limited = flow(), limit(1, name=f"tag:{uuid7()}")
    runs = [flow_run(flow_id=its_flow.id) for _ in range(2)]
    task = task_run(tags=[limited.name.removeprefix("tag:")])
    await put(way.direct, its_flow, limited, runs[0], task)
    return Work(limited, runs[0], task, runs[1])


async def done_once(way: Way, work: Work, outcomes: list[Outcome]) -> None:
    """Check that every request was answered and executed once."""
    first, made, second, taken = outcomes
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    assert isinstance(taken, Answer)
    assert isinstance(made, Created)
    assert (made.kind, made.run_id, made.created) == (first.kind, work.new.id, True)
    assert [first.status, second.status, taken.status] == [ACCEPT] * 3
    assert [state.id for state in await history_of(way.direct, work.run)] == [first.state_id, second.state_id]
    assert [state.version for state in await history_of(way.direct, work.new)] == [1]
    assert [state.id for state in await history_of(way.direct, work.task)] == [taken.state_id]
    await as_often_in_the_log(way, work, 4)


async def as_often_in_the_log(way: Way, work: Work, entries: int) -> None:
    """Check that the log has this many entries, and that occupied slots equal the leases."""
    runs = [work.run.id, work.new.id, work.task.id]
    assert len(await rows_of(way.direct, Transition, Transition.run_id, runs)) == entries
    leases = await rows_of(way.direct, ConcurrencyLease, ConcurrencyLease.limit_id, [work.limit.id])
    (limited,) = await rows_of(way.direct, ConcurrencyLimit, ConcurrencyLimit.id, [work.limit.id])
    assert limited.occupied == len(leases) == min(entries, 1)


def at(exchange: int) -> Callable[[bytes, int], bool]:
    """Return a condition for messages of one exchange."""
    return lambda _, number: number == exchange


@pytest.mark.parametrize("where", [Cut.BEFORE, Cut.AFTER, Cut.REPLY])
async def test_requests_are_executed_once_wherever_the_connection_is_cut(way: Way, where: Cut) -> None:
    async with open_batcher(way) as batcher:
        await batcher.submit((await work(way)).requests)
        way.proxy.exchanges = 0
        await batcher.submit((await work(way)).requests)
        last = way.proxy.exchanges
        assert last > 6
        for exchange in range(1, last + 1):
            task = await work(way)
            way.proxy.cut(where, at(exchange))
            await done_once(way, task, await batcher.submit(task.requests))
            assert way.proxy.wanted is untouched


@pytest.mark.parametrize("where", [Cut.BEFORE, Cut.AFTER, Cut.REPLY])
async def test_a_batch_is_executed_once_if_the_connection_is_cut_at_commit(way: Way, where: Cut) -> None:
    async with open_batcher(way) as batcher:
        works = [await work(way) for _ in range(10)]
        way.proxy.cut(where, lambda message, _: COMMIT in message)
        answered = await asyncio.gather(*(batcher.submit(each.requests) for each in works))
        for each, outcomes in zip(works, answered, strict=True):
            await done_once(way, each, outcomes)


async def until(way: Way, condition: str) -> None:
    """Wait until a condition holds, by queries on the direct connection."""
    async with way.direct.read() as connection:
        while not (await connection.execute(sa.text(f"SELECT {condition}"))).scalar_one():
            continue


async def test_requests_are_executed_once_if_commit_arrives_during_the_retry(way: Way) -> None:
    async with open_batcher(way) as batcher:
        task = await work(way)
        way.proxy.cut(Cut.LATE, lambda message, _: COMMIT in message)
        asked = asyncio.ensure_future(batcher.submit(task.requests))
        await somebody_waits(way.direct)
        way.proxy.released.set()
        await done_once(way, task, await asked)


async def test_a_run_is_created_once_if_commit_arrives_during_the_retry(way: Way) -> None:
    async with open_batcher(way) as batcher:
        task = await work(way)
        way.proxy.cut(Cut.LATE, lambda message, _: COMMIT in message)
        asked = asyncio.ensure_future(batcher.submit([CreateRun(run=task.new, state=pending())]))
        await somebody_waits(way.direct)
        way.proxy.released.set()
        (made,) = await asked

    assert isinstance(made, Created)
    assert made.created
    assert [state.version for state in await history_of(way.direct, task.new)] == [1]


async def test_requests_are_executed_once_if_the_reply_is_lost_repeatedly(way: Way) -> None:
    async with open_batcher(way) as batcher:
        task, lost = await work(way), 0

        def again(message: bytes, _number: int) -> Cut | None:
            nonlocal lost
            lost += COMMIT in message
            return Cut.REPLY if COMMIT in message and lost < 5 else None

        way.proxy.wanted = again
        await done_once(way, task, await batcher.submit(task.requests))
    assert lost == 5


@pytest.mark.parametrize(("where", "written"), [(Cut.BEFORE, 0), (Cut.REPLY, 1)])
async def test_a_command_whose_commit_is_lost_says_that_it_may_have_been_written(
    way: Way, where: Cut, written: int
) -> None:
    made = flow()
    way.proxy.cut(where, lambda message, _: COMMIT in message)
    with pytest.raises(UnknownOutcome):
        await put(way.database, made)

    assert len(await rows_of(way.direct, Flow, Flow.id, [made.id])) == written


@pytest.mark.parametrize(("where", "entries"), [(Cut.BEFORE, 0), (Cut.REPLY, 4)])
async def test_an_unknown_outcome_is_reported_and_not_retried(way: Way, where: Cut, entries: int) -> None:
    async with open_batcher(way) as batcher:
        task = await work(way)

        def leave(message: bytes, _number: int) -> Cut | None:
            way.proxy.open = way.proxy.open and COMMIT not in message
            return where if COMMIT in message else None

        way.proxy.wanted = leave
        outcomes = await batcher.submit(task.requests)
        way.proxy.open, way.proxy.wanted = True, untouched
        await batcher.submit([proposal((await some(way.direct, 1))[0], running())])

    assert [type(outcome) for outcome in outcomes] == [Timeout] * 4
    await as_often_in_the_log(way, task, entries)


async def test_requests_fail_while_the_database_is_unreachable_and_succeed_afterwards(way: Way) -> None:
    async with open_batcher(way) as batcher:
        task = await work(way)
        way.proxy.open = False
        way.proxy.wanted = lambda _, __: Cut.BEFORE
        assert [type(outcome) for outcome in await batcher.submit(task.requests)] == [Unavailable] * 4
        await as_often_in_the_log(way, task, 0)
        way.proxy.open, way.proxy.wanted = True, untouched
        await done_once(way, task, await batcher.submit(task.requests))


async def test_an_unreachable_database_is_not_tried_once_for_each_request(way: Way) -> None:
    runs = await some(way.direct, 50)
    async with open_batcher(way) as batcher:
        asked = 0
        way.proxy.open = False

        def count(_message: bytes, _number: int) -> Cut:
            nonlocal asked
            asked += 1
            return Cut.BEFORE

        way.proxy.wanted = count
        outcomes = await batcher.submit([proposal(run, running()) for run in runs])

    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 50
    assert asked <= 5


async def end_connections(way: Way, which: str) -> None:
    """Terminate connections to the database on the server."""
    await say(way.direct.url.render_as_string(hide_password=False), f"SELECT pg_terminate_backend(pid) {which}")


async def test_terminated_connections_are_replaced(way: Way) -> None:
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    (run,) = await some(way.direct, 1)
    async with open_batcher(way) as batcher:
        for _ in range(3):
            (said,) = await batcher.submit([proposal(run, running())])
            assert isinstance(said, Answer)
            await end_connections(way, others)
    await way.direct.close()

    assert len(await history_of(way.direct, run)) == 3


async def test_requests_are_executed_once_if_the_server_terminates_the_connection(way: Way) -> None:
    task = await work(way)
    async with open_batcher(way) as batcher:
        async with held_up(way.direct, task.run):
            asked = asyncio.ensure_future(batcher.submit(task.requests))
            await somebody_waits(way.direct)
            await end_connections(way, WAITING)
        await done_once(way, task, await asked)


async def test_a_batch_is_not_executed_twice_if_one_of_its_runs_was_deleted_meanwhile(way: Way) -> None:
    task, (other,) = await work(way), await some(way.direct, 1)
    async with open_batcher(way) as batcher:

        def lose(message: bytes, _number: int) -> Cut | None:
            if COMMIT not in message:
                return None
            way.proxy.gate.clear()
            way.proxy.wanted = untouched
            return Cut.REPLY

        way.proxy.wanted = lose
        asked = asyncio.ensure_future(batcher.submit([*task.requests, proposal(other, running())]))
        await until(way, f"EXISTS (SELECT FROM flow_run_state WHERE run_id = '{other.id}')")
        async with way.direct.write() as transaction:
            await transaction.connection.execute(sa.delete(FlowRun).where(FlowRun.id == other.id))
        way.proxy.gate.set()
        *outcomes, last = await asked

    assert isinstance(last, Answer)
    await done_once(way, task, outcomes)


async def test_a_request_that_fails_in_the_retry_fails_alone_once_the_first_attempt_is_known_to_have_failed(
    way: Way,
) -> None:
    asked = list[str]()

    @rule()
    def only_once(proposal: Proposal[FlowRun]) -> None:
        """Raise an error from the second evaluation on."""
        asked.append("asked")
        if len(asked) > 1:
            raise LookupError

    one, two = await some(way.direct, 2)
    async with open_batcher(way) as batcher:
        way.proxy.cut(Cut.BEFORE, lambda message, _: COMMIT in message)
        said, failure = await batcher.submit([proposal(one, running()), proposal(two, running(), policy=(only_once,))])

    assert isinstance(said, Answer)
    assert isinstance(failure, LookupError)
    assert [len(await history_of(way.direct, run)) for run in (one, two)] == [1, 0]


async def test_a_request_that_times_out_on_a_lock_fails_and_the_others_are_answered(direct_url: str, way: Way) -> None:
    one, two, three = await some(way.direct, 3)
    way.database = impatient = Database(direct_url, statement_timeout_seconds=0.1)
    async with held_up(way.direct, two), open_batcher(way) as batcher:
        outcomes = await batcher.submit([proposal(run, running()) for run in (one, two, three)])
    await impatient.close()

    assert [type(outcome) for outcome in outcomes] == [Answer, Timeout, Answer]
    assert [len(await history_of(way.direct, run)) for run in (one, two, three)] == [1, 0, 1]


class RandomCuts:
    """Cuts connections at random messages."""

    def __init__(self, seed: int, once_in: int) -> None:
        self.chance, self.once_in = Random(seed), once_in
        self.cuts = 0

    def cut(self, message: bytes, _number: int) -> Cut | None:
        """Cut at random when the client starts to wait for the server."""
        if message[:1] not in ENDS_EXCHANGE or self.chance.randrange(self.once_in):
            return None
        self.cuts += 1
        return self.chance.choice([Cut.BEFORE, Cut.AFTER, Cut.REPLY])


@pytest.mark.parametrize("seed", range(20 if THOROUGH else 2))
async def test_random_cuts_execute_nothing_twice_and_lose_no_answered_write(way: Way, seed: int) -> None:
    runs = await some(way.direct, 5)
    cuts = RandomCuts(seed, 25)
    way.proxy.wanted = cuts.cut
    answered: dict[str, Outcome] = {}

    async def client(batcher: Batcher, number: int) -> None:
        for step in range(10):
            asked = [f"{seed}-{number}-{step}-{each}" for each in range(1 + step % 3)]
            chosen = [runs[(number + step + each) % len(runs)] for each in range(len(asked))]
            requests = [proposal(run, running(message=said)) for run, said in zip(chosen, asked, strict=True)]
            answered.update(zip(asked, await batcher.submit(requests), strict=True))

    async with open_batcher(way) as one, open_batcher(way) as two:
        await asyncio.gather(*(client((one, two)[number % 2], number) for number in range(16)))
    way.proxy.wanted = untouched

    assert cuts.cuts > 0
    await audit(way.direct, runs, [])
    histories = [await history_of(way.direct, run) for run in runs]
    done = Counter(state.message for history in histories for state in history)
    assert set(done.values()) == {1}
    for said, outcome in answered.items():
        assert isinstance(outcome, Answer | Timeout | Unavailable)
        assert done[said] == 1 or not isinstance(outcome, Answer)
        assert done[said] == 0 or not isinstance(outcome, Unavailable)

"""The batcher: concurrent requests share transactions, and each gets its answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from runstate.core.batch.batcher import BATCHES_AT_ONCE, REQUESTS_A_BATCH, Batcher
from runstate.core.batch.decide import Environment, decide_request
from runstate.core.batch.orchestrate import load, write
from runstate.core.batch.requests import Answer, Created, CreateRun, Outcome
from runstate.core.proposal import Proposal, rule
from runstate.core.states import completed, failed, paused, pending, running
from runstate.database import Database
from runstate.database.queries import orchestration as sql
from runstate.documents.decisions import OrchestrationStatus
from runstate.errors import NotFound, Overloaded, Timeout, VersionConflict
from runstate.feed import TRANSITIONS
from runstate.rows import FlowRun, Transition
from tests.core.factories import NOW, flow_run, task_run
from tests.core.store_in_memory import proposal
from tests.core.stored import flow, history_of, put, rows_of, run_of
from tests.databases import ended, somebody_waits

ACCEPT = OrchestrationStatus.ACCEPT


@asynccontextmanager
async def open_batcher(database: Database, **more: Any) -> AsyncIterator[Batcher]:
    """Yield a batcher whose clock stands still."""
    batcher = Batcher(database, clock=lambda: NOW, draw=lambda: 0.5, new_id=uuid7, **more)
    try:
        yield batcher
    finally:
        await batcher.close()


@asynccontextmanager
async def held_up(database: Database, run: FlowRun) -> AsyncIterator[None]:
    """Hold the lock of a run in another transaction."""
    async with database.write() as transaction:
        await sql.lock_flow_runs(transaction.connection, [run.id], shared=False)
        yield


async def some(database: Database, count: int) -> list[FlowRun]:
    """Create flow runs without a state."""
    its_flow = flow()
    runs = [flow_run(flow_id=its_flow.id) for _ in range(count)]
    await put(database, its_flow, *runs)
    return runs


async def turns(condition: Callable[[], bool]) -> None:
    """Run the event loop until a condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it does not come to that")


async def started(batcher: Batcher, *requests: Any) -> asyncio.Future[list[Outcome]]:
    """Submit requests and wait until their batch has started."""
    asked = asyncio.ensure_future(batcher.submit(requests))
    await turns(lambda: len(batcher.in_flight) == 1)
    return asked


def statuses(outcomes: list[Outcome]) -> list[Any]:
    return [outcome.status if isinstance(outcome, Answer) else type(outcome) for outcome in outcomes]


async def test_one_request_gets_its_answer(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database) as batcher:
        (said,) = await batcher.submit([proposal(run, running())])

    assert isinstance(said, Answer)
    assert (said.status, said.state_id) == (ACCEPT, (await run_of(database, run)).state_id)


async def test_no_requests_get_no_answers(database: Database) -> None:
    async with open_batcher(database) as batcher:
        assert await batcher.submit([]) == []


async def test_many_concurrent_requests_are_all_answered_and_versions_have_no_gap(database: Database) -> None:
    runs = await some(database, 10)
    async with open_batcher(database) as batcher:
        asked = [batcher.submit([proposal(runs[number % 10], running(message=str(number)))]) for number in range(200)]
        answers = [answer for (answer,) in await asyncio.gather(*asked)]

    assert statuses(answers) == [ACCEPT] * 200
    for number, run in enumerate(runs):
        history = await history_of(database, run)
        assert [state.version for state in history] == list(range(1, 21))
        assert [state.message for state in history] == [str(asked) for asked in range(number, 200, 10)]
        assert (await run_of(database, run)).run_count == 20


async def test_each_answer_has_the_state_that_its_request_wrote(database: Database) -> None:
    runs = await some(database, 3)
    async with open_batcher(database) as batcher:
        asked = [batcher.submit([proposal(runs[number % 3], running(message=str(number)))]) for number in range(30)]
        answers = [answer for (answer,) in await asyncio.gather(*asked)]

    written = {state.id: state for run in runs for state in await history_of(database, run)}
    for number, answer in enumerate(answers):
        assert isinstance(answer, Answer)
        assert answer.written
        assert answer.state_id
        assert (answer.written.message, written[answer.state_id].message) == (str(number), str(number))
        assert written[answer.state_id].version == answer.written.version == number // 3 + 1


async def test_concurrent_requests_share_transactions(database: Database) -> None:
    counted = ended(database, "COMMIT")
    runs = await some(database, 200)
    async with open_batcher(database) as batcher:
        await asyncio.gather(*(batcher.submit([proposal(run, running())]) for run in runs))

    assert len(counted) <= 1 + 2 * BATCHES_AT_ONCE  # the first transaction creates the runs


async def test_a_single_request_starts_immediately(database: Database) -> None:
    counted = ended(database, "COMMIT")
    (run,) = await some(database, 1)
    async with open_batcher(database) as batcher:
        for _ in range(3):
            await batcher.submit([proposal(run, running())])

    assert len(counted) == 1 + 3


async def test_a_batch_has_a_maximum_size(database: Database) -> None:
    counted = ended(database, "COMMIT")
    runs = await some(database, 2 * REQUESTS_A_BATCH)
    async with open_batcher(database) as batcher:
        async with held_up(database, runs[0]):
            asked = [asyncio.ensure_future(batcher.submit([proposal(run, running())])) for run in [runs[0], *runs]]
            await turns(lambda: len(batcher.waiting) > REQUESTS_A_BATCH)
        await asyncio.gather(*asked)

    assert len(counted) >= 1 + 3


async def test_requests_of_one_submission_are_answered_in_order(database: Database) -> None:
    counted = ended(database, "COMMIT")
    one, two = await some(database, 2)
    async with open_batcher(database) as batcher:
        answers = await batcher.submit(
            [
                proposal(one, pending()),
                proposal(two, running()),
                proposal(one, pending()),
                proposal(task_run(), running()),
                proposal(two, completed(), expected_version=7),
                proposal(one, running()),
                proposal(two, paused(NOW)),
            ]
        )

    abort = OrchestrationStatus.ABORT
    assert statuses(answers) == [ACCEPT, ACCEPT, abort, NotFound, VersionConflict, ACCEPT, ACCEPT]
    assert len(counted) == 1 + 1


async def test_a_later_request_does_not_overtake_an_earlier_one(database: Database) -> None:
    one, two = await some(database, 2)
    async with open_batcher(database) as batcher:
        async with held_up(database, one):
            first = await started(batcher, proposal(one, pending()))
            both = asyncio.ensure_future(batcher.submit([proposal(one, running()), proposal(two, pending())]))
            later = asyncio.ensure_future(batcher.submit([proposal(two, running())]))
            await turns(lambda: len(batcher.waiting) == 2)
        await asyncio.gather(first, both, later)

    assert [state.name for state in await history_of(database, two)] == ["Pending", "Running"]


async def test_a_run_that_many_requests_create_at_once_is_created_once(database: Database) -> None:
    its_flow = flow()
    await put(database, its_flow)
    runs = [flow_run(flow_id=its_flow.id, idempotency_key="k") for _ in range(20)]
    async with open_batcher(database) as batcher, open_batcher(database) as other:
        asked = [
            (batcher, other)[number % 2].submit([CreateRun(run=run, state=pending())])
            for number, run in enumerate(runs)
        ]
        made = [outcome for (outcome,) in await asyncio.gather(*asked)]

    stored = await rows_of(database, FlowRun, FlowRun.flow_id, [its_flow.id])
    assert [isinstance(outcome, Created) and outcome.created for outcome in made].count(True) == 1
    assert {outcome.run_id for outcome in made if isinstance(outcome, Created)} == {run.id for run in stored}
    assert [run.version for run in stored] == [1]


@rule()
def broken(proposal: Proposal[FlowRun]) -> None:
    """Raise an error."""
    raise LookupError("broken")


async def test_a_request_that_raises_fails_alone(database: Database) -> None:
    runs = await some(database, 9)
    async with open_batcher(database) as batcher:
        asked = [
            batcher.submit([proposal(run, running(), policy=(broken,) if number == 4 else None)])
            for number, run in enumerate(runs)
        ]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*asked)]

    assert statuses(outcomes) == [ACCEPT] * 4 + [LookupError] + [ACCEPT] * 4
    assert [(await run_of(database, run)).version for run in runs] == [1] * 4 + [0] + [1] * 4


async def test_a_state_that_cannot_be_stored_fails_alone(database: Database) -> None:
    runs = await some(database, 3)
    async with open_batcher(database) as batcher:
        unstorable = proposal(runs[0], running(data={"a": object()}))
        outcomes = await batcher.submit([proposal(runs[1], running()), unstorable, proposal(runs[2], running())])

    assert isinstance(outcomes[1], Exception)
    assert statuses(outcomes)[::2] == [ACCEPT, ACCEPT]
    assert [(await run_of(database, run)).version for run in runs] == [0, 1, 1]


async def test_a_request_whose_statement_fails_does_not_fail_the_others(database: Database) -> None:
    runs, stray = await some(database, 9), task_run()
    await put(database, stray)
    async with open_batcher(database) as batcher:
        failing = proposal(stray, running(), run_input_to_store=("key", "no flow run has the id of a task run"))
        requests = [*(proposal(run, running()) for run in runs[:5]), failing]
        outcomes = await asyncio.gather(*(batcher.submit([each]) for each in requests))
        later = await batcher.submit([proposal(run, running()) for run in runs[5:]])

    assert statuses([outcome for (outcome,) in outcomes]) == [ACCEPT] * 5 + [IntegrityError]
    assert statuses(later) == [ACCEPT] * 4
    assert [(await run_of(database, run)).version for run in runs] == [1] * 9
    assert (await run_of(database, stray)).version == 0


async def test_a_request_that_raises_leaves_the_order_of_the_others(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database) as batcher:
        states = [pending(), running(), failed(), completed()]
        requests = [proposal(run, state, policy=(broken,) if state.is_failed else None) for state in states]
        outcomes = await batcher.submit(requests)

    assert statuses(outcomes) == [ACCEPT, ACCEPT, LookupError, ACCEPT]
    assert [state.name for state in await history_of(database, run)] == ["Pending", "Running", "Completed"]


async def test_the_feed_is_notified_once_for_each_transaction_that_wrote(database: Database) -> None:
    runs, told = await some(database, 3), list[str]()
    database.listeners.append(told.append)
    async with open_batcher(database) as batcher:
        await batcher.submit([proposal(run, running()) for run in runs])
        await batcher.submit([proposal(runs[0], completed(), dry_run=True)])

    assert told == [TRANSITIONS.channel]


async def test_a_committed_batch_is_not_retried_if_its_notification_fails(database: Database) -> None:
    (run,) = await some(database, 1)

    def fail(_: str) -> None:
        raise LookupError

    database.listeners.append(fail)
    async with open_batcher(database) as batcher:
        outcomes = await batcher.submit([proposal(run, running()), proposal(run, running())])

    assert statuses(outcomes) == [ACCEPT, ACCEPT]
    assert len(await history_of(database, run)) == 2


async def test_requests_beyond_the_limit_are_refused_and_the_others_are_executed(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database, queue_size=5) as batcher:
        async with held_up(database, run):
            first = await started(batcher, proposal(run, running()))
            asked = [asyncio.ensure_future(batcher.submit([proposal(run, running())])) for _ in range(5)]
            await turns(lambda: len(batcher.waiting) == 5)
            with pytest.raises(Overloaded):
                await batcher.submit([proposal(run, running())])
        await asyncio.gather(first, *asked)
        await batcher.submit([proposal(run, running())])

    assert len(await history_of(database, run)) == 7


async def test_a_request_that_times_out_is_answered_and_still_executed(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database, timeout_seconds=0.01) as batcher, held_up(database, run):
        asked = [asyncio.ensure_future(batcher.submit([proposal(run, running())])) for _ in range(2)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Timeout, Timeout]
    assert len(await history_of(database, run)) == 2


async def test_a_request_of_a_cancelled_caller_is_still_executed(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database) as batcher:
        async with held_up(database, run):
            first = await started(batcher, proposal(run, running()))
            waiting = asyncio.ensure_future(batcher.submit([proposal(run, running())]))
            await turns(lambda: len(batcher.waiting) == 1)
            first.cancel()
            waiting.cancel()
            await asyncio.gather(first, waiting, return_exceptions=True)
        (said,) = await batcher.submit([proposal(run, completed())])

    assert isinstance(said, Answer)
    assert [state.name for state in await history_of(database, run)] == ["Running", "Running", "Completed"]


async def test_a_closed_batcher_answers_waiting_requests_and_refuses_new_ones(database: Database) -> None:
    runs = await some(database, 2)
    async with open_batcher(database) as batcher:
        async with held_up(database, runs[0]):
            first = await started(batcher, proposal(runs[0], running()))
            asked = [first, *(asyncio.ensure_future(batcher.submit([proposal(runs[0], running())])) for _ in range(2))]
            await turns(lambda: len(batcher.waiting) == 2)
            closing = asyncio.ensure_future(batcher.close())
            await turns(lambda: batcher.closed)
            with pytest.raises(Overloaded):
                await batcher.submit([proposal(runs[1], running())])
        await closing
        assert all(task.done() for task in asked)

    assert statuses([outcome for task in asked for outcome in task.result()]) == [ACCEPT] * 3


async def test_two_batchers_take_turns_at_a_run_and_see_each_others_writes(database: Database, url: str) -> None:
    runs, second = await some(database, 3), Database(url)
    async with open_batcher(database) as batcher, open_batcher(second) as other:
        asked = [
            (batcher, other)[number % 2].submit([proposal(runs[number % 3], running(name=str(number)))])
            for number in range(60)
        ]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*asked)]
    await second.close()

    assert statuses(outcomes) == [ACCEPT] * 60
    for run in runs:
        names = [state.name for state in await history_of(database, run)]
        told = await rows_of(database, Transition, Transition.run_id, [run.id], Transition.version)
        assert [each.version for each in told] == list(range(1, 21))
        assert [each.state_name for each in told] == names
        assert [each.previous_state_name for each in told] == [None, *names[:-1]]


async def test_a_proposal_that_waited_for_a_lock_is_decided_on_the_state_found_then(database: Database) -> None:
    (run,) = await some(database, 1)
    async with open_batcher(database) as batcher:
        await batcher.submit([proposal(run, running())])
        environment = Environment(NOW, lambda: 0.5, uuid7)
        async with database.write() as transaction:
            unit = await load(transaction.connection, [proposal(run, failed())], NOW)
            decide_request(proposal(run, failed()), unit, environment)
            await write(transaction.connection, unit, NOW)
            asked = asyncio.create_task(batcher.submit([proposal(run, pending(), force=True)]))
            if not database.is_sqlite:  # on SQLite it waits for the only writing connection
                await somebody_waits(database)
        await asked

    told = await rows_of(database, Transition, Transition.run_id, [run.id], Transition.version)
    assert [each.previous_state_name for each in told] == [None, "Running", "Failed"]

"""Watched rows: every process notices a deletion, with few statements."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.states import RunKind, StateType
from runstate.feed import DELETIONS, Feed, follow_run
from runstate.feed.deletions import DeletionWatch
from runstate.feed.notifications import Notifications
from runstate.rows import FlowRun, TaskRun
from tests.feed.conftest import NEVER, QUIET
from tests.feed.factories import write
from tests.feed.test_runs import logged, make_run

ROWS = {RunKind.FLOW_RUN: FlowRun, RunKind.TASK_RUN: TaskRun}


async def delete(database: Database, kind: RunKind, *runs: UUID, notify: bool = True) -> None:
    """Delete runs as a command does."""
    async with database.write() as transaction:
        await transaction.connection.execute(sa.delete(ROWS[kind]).where(ROWS[kind].id.in_(runs)))
        if notify:
            transaction.notify(DELETIONS)


@pytest.fixture
async def watch(database: Database) -> AsyncIterator[DeletionWatch]:
    """Yield a watch that checks only when it is notified."""
    watch = DeletionWatch(database, Notifications(database), interval_seconds=NEVER, pause_seconds=0)
    watch.start()
    yield watch
    await watch.stop()


@pytest.mark.parametrize("run_kind", list(RunKind))
async def test_a_deletion_is_noticed_at_its_notification(watch: DeletionWatch, run_kind: RunKind) -> None:
    runs = [await make_run(watch.database, run_kind, [StateType.PENDING]) for _ in range(3)]
    deleted = {run: asyncio.Event() for run in runs}
    with ExitStack() as stack:
        for run, event in deleted.items():
            stack.enter_context(watch.watch(ROWS[run_kind], run, event.set))
        await delete(watch.database, run_kind, runs[1])
        await deleted[runs[1]].wait()

    assert [event.is_set() for event in deleted.values()] == [False, True, False]


async def test_a_deletion_without_a_notification_is_noticed_at_the_next_check(database: Database) -> None:
    watch = DeletionWatch(database, Notifications(database), interval_seconds=0.01, pause_seconds=0)
    run = await make_run(database, RunKind.FLOW_RUN, [StateType.PENDING])
    deleted = asyncio.Event()
    watch.start()
    with watch.watch(FlowRun, run, deleted.set):
        await delete(database, RunKind.FLOW_RUN, run, notify=False)
        await deleted.wait()
    await watch.stop()


async def test_a_thousand_watched_rows_take_one_statement_and_none_without_deletions(
    watch: DeletionWatch,
) -> None:
    run = await make_run(watch.database, RunKind.FLOW_RUN, [StateType.PENDING])
    deleted = asyncio.Event()
    with ExitStack() as stack:
        for _ in range(1_000):
            stack.enter_context(watch.watch(FlowRun, run, deleted.set))
        for _ in range(999):
            stack.enter_context(watch.watch(FlowRun, uuid4(), lambda: None))
        await delete(watch.database, RunKind.FLOW_RUN, run, notify=False)
        before = watch.database.statements
        watch.has_news.set()
        await deleted.wait()

    assert watch.database.statements - before <= 2  # BEGIN on SQLite, and the check
    assert not any(watch.callbacks.values())


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_deletion_by_another_replica_is_noticed(url: str, database: Database) -> None:
    other = Database(url)
    feeds = [Feed(each, QUIET) for each in (database, other)]
    for feed in feeds:
        await feed.start()
        await feed.notifications.listening.wait()
    run = await make_run(database, RunKind.FLOW_RUN, [StateType.PENDING])
    deleted = asyncio.Event()
    with feeds[1].deletions.watch(FlowRun, run, deleted.set):
        await delete(database, RunKind.FLOW_RUN, run)
        async with asyncio.timeout(10):
            await deleted.wait()
    for feed in feeds:
        await feed.stop()
    await other.close()


@pytest.mark.parametrize("until_final", [False, True])
async def test_the_stream_of_a_run_ends_when_the_run_is_deleted(feed: Feed, *, until_final: bool) -> None:
    database = feed.transitions.database
    run = await make_run(database, RunKind.FLOW_RUN, [StateType.PENDING])
    async with aclosing(await follow_run(feed, RunKind.FLOW_RUN, run, until_final=until_final)) as stream:
        assert [each.version for each in (await anext(stream)).transitions] == [1]
        rest = asyncio.ensure_future(_versions(stream))
        while any(each.is_behind for each in feed.transitions.subscribers):
            await feed.transitions.join()
        await write(database, logged(run, 2, StateType.RUNNING))
        await delete(database, RunKind.FLOW_RUN, run)

        assert await rest == [2]
    assert not feed.transitions.subscribers


async def _versions(stream: object) -> list[int]:
    return [each.version async for page in stream for each in page.transitions]  # type: ignore[attr-defined]

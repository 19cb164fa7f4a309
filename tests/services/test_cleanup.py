"""The service for cleanup."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.app import set_services
from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.database.bulk import table_of
from runstate.database.queries.expiry import delete_in_batches, retention_settings, retentions
from runstate.database.queries.orchestration import digest
from runstate.documents.states import RunKind, StateDetails
from runstate.rows import CacheEntry, ProposalAnswer
from runstate.services import cleanup
from runstate.settings import Settings
from tests.databases import ended
from tests.services.factories import NOW, Making

RETENTION = {"idempotency_retention_hours": 24.0}
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


async def cache(make: Making, *expirations: datetime | None) -> None:
    task_run = await make.task_run(None, states.completed())
    (state,) = await make.history(task_run)
    made = {"created": NOW, "updated": NOW, "state_id": state.id}
    keys = [f"key {number}" for number in range(len(expirations))]
    entries = [
        {**made, "id": uuid4(), "cache_key": key, "digest": digest(key), "expires": expires}
        for key, expires in zip(keys, expirations, strict=True)
    ]
    await make.execute(sa.insert(CacheEntry).values(entries))


async def answers(make: Making, *created: datetime) -> None:
    made: dict[str, Any] = {"run_id": uuid4(), "fingerprint": "x", "answer": {}, "state_id": UUID(int=1)}
    rows = [{**made, "key": str(number), "created": moment} for number, moment in enumerate(created)]
    for start in range(0, len(rows), 1000):
        await make.execute(sa.insert(ProposalAnswer).values(rows[start : start + 1000]))


async def test_expired_results_are_deleted(make: Making) -> None:
    await cache(make, NOW - SECOND, NOW + SECOND, None)

    assert await cleanup.run_once(make.batcher, NOW, retention=RETENTION) == 1
    assert {entry.expires for entry in await make.rows(CacheEntry)} == {NOW + SECOND, None}


async def test_an_older_result_is_not_used_after_a_newer_one_expired(make: Making) -> None:
    first, second, third = await make.task_runs(None, [states.pending()] * 3)
    key = StateDetails(cache_key="key")
    brief = key.model_copy(update={"cache_expiration": NOW + 2 * SECOND})
    await make.task_run_enters(first, states.completed(details=key))
    make.clock.forward(seconds=1)
    await make.task_run_enters(second, states.completed(details=brief))
    now = make.clock.forward(seconds=9)

    for _ in range(2):
        assert await runs_with_key(make, third)
        await cleanup.run_once(make.batcher, now, retention=RETENTION)
    assert await make.rows(CacheEntry) == []


async def runs_with_key(make: Making, task_run: UUID) -> bool:
    """Return whether a task run would run instead of completing with the cached result."""
    state = states.running(details=StateDetails(cache_key="key"))
    answer = await make.propose(RunKind.TASK_RUN, task_run, state, dry_run=True)
    return answer.proposed is not None and answer.proposed.name == "Running"


async def test_answers_are_stored_for_a_day(make: Making) -> None:
    await answers(make, NOW - DAY - SECOND, NOW - DAY, NOW)

    assert await cleanup.run_once(make.batcher, NOW, retention=RETENTION) == 1
    assert [answer.created for answer in await make.rows(ProposalAnswer)] == [NOW - DAY, NOW]


async def test_the_retention_of_answers_is_a_setting(make: Making) -> None:
    await answers(make, NOW - DAY - SECOND, NOW - 2 * SECOND, NOW)

    assert await cleanup.run_once(make.batcher, NOW, retention={"idempotency_retention_hours": 1 / 3600}) == 2


async def test_a_proposal_with_a_deleted_answer_is_decided_again(make: Making) -> None:
    run = await make.flow_run(states.pending())
    first = await make.propose(RunKind.FLOW_RUN, run, states.running(), idempotency_key="key")
    again = await make.propose(RunKind.FLOW_RUN, run, states.running(), idempotency_key="key")
    assert await cleanup.run_once(make.batcher, make.clock.forward(days=1, seconds=1), retention=RETENTION) == 1
    anew = await make.propose(RunKind.FLOW_RUN, run, states.running(), idempotency_key="key")

    assert [first.replayed, again.replayed, anew.replayed] == [False, True, False]


async def test_any_number_of_rows_is_deleted(make: Making) -> None:
    await answers(make, *[NOW - 2 * DAY] * 2500)

    assert await cleanup.run_once(make.batcher, NOW, retention=RETENTION) == 2500


async def test_two_servers_delete_every_row_once(make: Making, other: Batcher) -> None:
    await answers(make, *[NOW - 2 * DAY] * 2500)
    await cache(make, *[NOW - SECOND] * 500)

    done = await asyncio.gather(
        *(cleanup.run_once(batcher, NOW, retention=RETENTION) for batcher in (make.batcher, other) for _ in range(2))
    )

    assert sum(done) == 3000
    assert await make.rows(ProposalAnswer) == []


async def test_without_its_setting_nothing_expires(make: Making) -> None:
    await answers(make, NOW - 99 * DAY)

    assert await cleanup.run_once(make.batcher, NOW) == 0


def test_every_setting_that_a_retention_names_exists_with_a_unit() -> None:
    settings = Settings()
    values = {name: getattr(settings, name) for name in retention_settings()}

    periods = {row.__name__: retention.period(values) for row, retention in retentions().items()}

    assert periods == {
        "AutomationFiring": 30 * DAY,
        "BulkOperation": DAY,
        "CacheEntry": timedelta(0),
        "ClaimAnswer": DAY,
        "DeletedDate": DAY,
        "EvaluatedRound": 30 * DAY,
        "ProposalAnswer": DAY,
        "Transition": 7 * DAY,
        "Log": 30 * DAY,
        "LogWrite": 7 * DAY,
    }


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_the_application_gives_services_the_settings_of_retention(make: Making) -> None:
    services = set_services(Settings(idempotency_retention_hours=48, transition_log_retention_days=3))
    await answers(make, NOW - timedelta(hours=49), NOW - timedelta(hours=47))
    await make.flow_run(states.pending())

    assert await services["cleanup"].run_once(make.batcher, NOW) == 1
    assert await services["log-retention"].run_once(make.batcher, NOW) == 0
    assert await services["log-retention"].run_once(make.batcher, NOW + 3 * DAY - SECOND) == 0
    # The transition, and the event of the new flow.
    assert await services["log-retention"].run_once(make.batcher, NOW + 3 * DAY) == 2


async def test_rows_are_deleted_in_batches(make: Making) -> None:
    commits = ended(make.database, "COMMIT")
    await answers(make, *[NOW - 2 * DAY] * 10)
    table, before = table_of(ProposalAnswer), len(commits)

    deleted = await delete_in_batches(make.database, table, table.c.created < NOW, batch_size=4)

    assert deleted == 10
    assert len(commits) - before == 3

"""A process that is killed at any statement of a round or of an action: another one goes on, and all happens once."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from uuid_utils.compat import uuid7

from runstate.core.actions.execution import LEASE, execute_due
from runstate.core.batch.batcher import Batcher
from runstate.core.checks.automations import verify_automations
from runstate.core.commands.work_pools import CreateWorkPool, create_pool
from runstate.core.evaluation.evaluator import LEASE as EVALUATOR_LEASE
from runstate.database import Database
from runstate.documents.actions import ActionStatus
from runstate.rows import AutomationActionRun, AutomationFiring, FlowRun
from runstate.rows import Event as AnyEvent
from runstate.rows.base import EPOCH
from tests.core.fault_proxy import Cut, Proxy, proxied
from tests.services.factories import Making
from tests.services.test_automations import Timed, automation, emit, expected, rows

A, B = (
    {"kind": "event", "posture": "REACTIVE", "expect": [name], "threshold": 1, "within_seconds": 0} for name in "ab"
)
KEY = {"for_each": [{"label": "resource.id"}]}
SILENT = {"posture": "PROACTIVE", "after": ["b"], "expect": ["z"], "within_seconds": 10, **KEY}
OTHERS: list[dict[str, Any]] = [
    {"kind": "compound", "triggers": [A, B], "within_seconds": 60},
    {"kind": "sequence", "triggers": [A, B]},
    {"kind": "event", "threshold": 1, **SILENT},
    {"kind": "metric", "metric": "SUCCESSES", "operator": "LT", "threshold": 0.5},
]
EXECUTE = {b"Q", b"E"}
"""Messages to PostgreSQL that execute a statement: BEGIN and COMMIT are statements, too."""


class Killed(Exception):
    """A statement of a process that was killed."""


@dataclass
class Mortal:
    """A process that can be killed at a statement: that one and all later ones fail."""

    database: Database
    proxy: Proxy | None = None
    """The way to PostgreSQL."""
    last: float = float("inf")
    """Number of the statement at which it is killed."""
    number: int = 0
    """Number of statements."""

    def is_killed(self) -> bool:
        """Return whether it has been killed."""
        return self.number >= self.last

    def executes(self, *_: Any) -> bool:
        """Count a statement; return whether the process is killed now, or was before."""
        self.number += 1
        if self.proxy:
            self.proxy.open = not self.is_killed()
        return self.is_killed()

    async def run(self, make: Making, last: float) -> bool:
        """Evaluate and execute all there is; return whether the process was killed at the statement of this number."""
        self.number, self.last = 0, last
        if self.proxy:
            self.proxy.open = True
        batcher = Batcher(self.database, clock=make.clock, draw=lambda: 0.5, new_id=uuid7, first_pause_seconds=0.001)
        try:
            await Timed(self.database, make.clock).run_once()
            await execute_due(batcher, make.clock())
        except Exception:
            if not self.is_killed():
                raise
        await batcher.close()
        killed, self.last = self.is_killed(), float("inf")
        return killed


@asynccontextmanager
async def mortal(database: Database) -> AsyncIterator[Mortal]:
    """Yield a process on a database: on SQLite on its connections, on PostgreSQL on others, which can be cut."""
    if database.is_sqlite:
        made = Mortal(database)

        def execute(*_: Any) -> None:
            if made.executes():
                raise Killed

        for engine in (database.reader, database.writer):
            sa.event.listen(engine.sync_engine, "before_cursor_execute", execute)
        yield made
        return
    async with proxied(database.url.render_as_string(hide_password=False)) as proxy:
        made = Mortal(Database(proxy.url), proxy)
        proxy.wanted = lambda message, _: Cut.BEFORE if message[:1] in EXECUTE and made.executes() else None
        yield made
        await made.database.close()


async def automations(make: Making) -> None:
    """Create automations with triggers of all kinds. One changes a table itself, and one creates a run."""
    pool = (await create_pool(make.batcher.context, CreateWorkPool(name="pool"))).row.id
    await automation(make, B, actions=[{"action": "pause", "kind": "WORK_POOL", "id": pool}])
    run = {"action": "run_deployment", "deployment_id": await make.deployment()}
    await automation(make, A | KEY | {"threshold": 2, "within_seconds": 60}, actions=[run])
    for trigger in OTHERS:
        await automation(make, trigger, actions=[])


async def told(database: Database, since: int) -> tuple[Counter[Any], int]:
    """Return how often each event was told after a place in the log, and the end of the log. Runs have new ids."""
    table = AnyEvent.__table__
    asked = sa.select(table.c.name, table.c.resource_id, table.c.seq).where(table.c.seq > since)
    async with database.read() as connection:
        found = (await connection.execute(asked)).all()
    named = [(each.name, each.resource_id if "automation" in each.name else None) for each in found]
    return Counter(named), max(each.seq for each in found)


async def test_all_happens_once_at_whichever_statement_a_process_is_killed(make: Making) -> None:
    await automations(make)
    other, rounds, end = Timed(make.database, make.clock), list[Counter[Any]](), 0
    await other.run_once()
    await make.flow_run()
    async with mortal(make.database) as process:
        # The first round pauses the pool and prepares statements, so the others are like each other.
        for place in count(-1):
            make.clock.forward(seconds=EVALUATOR_LEASE.total_seconds() + 1)
            leader, resource = str(uuid4()), f"r{place}"
            await emit(make, "c", follows=leader)
            await emit(make, "a", resource=resource, id=leader)
            await emit(make, "a", "b", resource=resource)
            make.clock.forward(seconds=EVALUATOR_LEASE.total_seconds() + 1)
            killed = await process.run(make, place if place > 0 else float("inf"))
            make.clock.forward(seconds=LEASE.total_seconds() + 1)
            while await other.run_once() or await execute_due(make.batcher, make.clock()):
                pass
            happened, end = await told(make.database, end)
            rounds.append(happened)
            if place > 0 and not killed:
                break

    assert len(rounds) > 40
    assert rounds[1:] == [rounds[1]] * (len(rounds) - 1)
    found = await rows(make.database, AutomationFiring, "id", "automation_id")
    assert found == await expected(make.database, make.clock())
    assert len(found) == 5 * len(rounds)
    runs = await rows(make.database, AutomationActionRun, "status")
    assert runs == [(ActionStatus.EXECUTED,)] * 2 * len(rounds)
    assert len(await rows(make.database, FlowRun, "id")) == len(rounds) + 1
    assert await verify_automations(make.database, EPOCH) == []

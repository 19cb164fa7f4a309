"""Whether the server runs, and whether it is ready for clients."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runstate.database import Database
from runstate.database.migrate import revision, revisions
from runstate.feed import Hub
from runstate.rows import Transition

PATIENCE_SECONDS: Final = 2.0
"""How long the database may take to answer."""
KEPT_SECONDS: Final = 1.0
"""How long an answer of the database is good for: who asks often does not make more work."""
FRESH_SECONDS: Final = 5.0
"""How old the news may be that subscribers get."""

OK: Final = "ok"
FAILURES = (sa.exc.SQLAlchemyError, OSError, TimeoutError)


class Health:
    """What is known of the server's condition."""

    def __init__(self) -> None:
        self.draining = False
        """Whether it is about to go away: it still answers, and clients should go elsewhere."""
        self.database: Database | None = None
        self.hub: Hub[Transition] | None = None
        self.revisions: list[str] = []
        self.asked = -KEPT_SECONDS
        self.answered: dict[str, str] = {}
        self.one_at_a_time = asyncio.Lock()

    def start(self, database: Database, hub: Hub[Transition]) -> None:
        """From now on there is something to look at."""
        self.revisions = revisions()
        self.database, self.hub = database, hub

    async def liveness(self, _: Request) -> Response:
        """Whether the process answers: nothing else is looked at."""
        return JSONResponse({"status": OK})

    async def readiness(self, _: Request) -> Response:
        """Whether clients are welcome: 200, or 503 with what is wrong."""
        checks = await self.checks()
        fine = all(check == OK for check in checks.values())
        return JSONResponse({"status": OK if fine else "unavailable", "checks": checks}, 200 if fine else 503)

    async def checks(self) -> dict[str, str]:
        """What is looked at, each `ok` or what is wrong with it."""
        serving = "draining" if self.draining else OK
        if self.database is None or self.hub is None:
            return {"serving": "starting"}
        return {"serving": serving, **await self._of_database(self.database), "feed": feed_status(self.hub.age)}

    async def _of_database(self, database: Database) -> dict[str, str]:
        async with self.one_at_a_time:
            if time.monotonic() - self.asked >= KEPT_SECONDS:
                self.answered = await self._asked(database.health)
                self.asked = time.monotonic()
        return self.answered

    async def _asked(self, database: Database) -> dict[str, str]:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found = await revision(database)
        except FAILURES as error:
            return {"database": f"unreachable: {type(error).__name__}", "migrations": "unknown"}
        return {"database": OK, "migrations": self._migrated(found)}

    def _migrated(self, found: str | None) -> str:
        """Whether the tables have the shape that this version needs; one that it does not know comes after it."""
        behind = found is None or found in self.revisions[1:]
        return f"at {found}, not {self.revisions[0]}" if behind else OK


def feed_status(age: float) -> str:
    """Whether the reader of the log keeps up."""
    return OK if age <= FRESH_SECONDS else f"stale for {age:.0f} s"


HealthEndpoint = Callable[[Request], Awaitable[Response]]


def paths(health: Health) -> dict[str, HealthEndpoint]:
    """Where it is asked; `/health` is what it was called first."""
    return {"/healthz": health.liveness, "/readyz": health.readiness, "/health": health.liveness}

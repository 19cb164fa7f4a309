"""Health checks: whether the process runs, and whether it is ready for clients."""

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
"""Seconds in which the database has to answer."""
KEPT_SECONDS: Final = 1.0
"""Seconds for which an answer of the database is reused, so that frequent checks cost no further statements."""
FRESH_SECONDS: Final = 5.0
"""Maximum age in seconds of the last complete reading of the log."""

OK: Final = "ok"
FAILURES = (sa.exc.SQLAlchemyError, OSError, TimeoutError)


class Health:
    """State of the server, for health checks."""

    def __init__(self) -> None:
        self.draining = False
        """Whether the server is shutting down: it still answers, but proxies should use another one."""
        self.database: Database | None = None
        self.hub: Hub[Transition] | None = None
        self.revisions: list[str] = []
        # The first check asks the database.
        self.asked = -KEPT_SECONDS
        self.answered: dict[str, str] = {}
        self.one_at_a_time = asyncio.Lock()

    def start(self, database: Database, hub: Hub[Transition]) -> None:
        """Start to check a database and a hub."""
        # Read once, because the scripts of the migrations do not change while the server runs.
        self.revisions = revisions()
        self.database, self.hub = database, hub

    async def liveness(self, _: Request) -> Response:
        """Answer 200: the process runs. Nothing else is checked, because a restart would not repair it."""
        return JSONResponse({"status": OK})

    async def readiness(self, _: Request) -> Response:
        """Answer 200 if the server is ready for clients, otherwise 503; both with the result of each check."""
        checks = await self.checks()
        fine = all(check == OK for check in checks.values())
        return JSONResponse({"status": OK if fine else "unavailable", "checks": checks}, 200 if fine else 503)

    async def checks(self) -> dict[str, str]:
        """Return the checks by name, each `ok` or a description of the fault."""
        serving = "draining" if self.draining else OK
        if self.database is None or self.hub is None:
            return {"serving": "starting"}
        return {"serving": serving, **await self._of_database(self.database), "feed": feed_status(self.hub.age)}

    async def _of_database(self, database: Database) -> dict[str, str]:
        # Concurrent checks share one query.
        async with self.one_at_a_time:
            if time.monotonic() - self.asked >= KEPT_SECONDS:
                self.answered = await self._query(database.health)
                self.asked = time.monotonic()
        return self.answered

    async def _query(self, database: Database) -> dict[str, str]:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                # `database` has connections of its own, so a busy pool does not make the server unready.
                found = await revision(database)
        except FAILURES as error:
            return {"database": f"unreachable: {type(error).__name__}", "migrations": "unknown"}
        return {"database": OK, "migrations": self._migrations(found)}

    def _migrations(self, found: str | None) -> str:
        """Return `ok` if the schema version is this server's or a later one. An unknown version is a later one."""
        behind = found is None or found in self.revisions[1:]
        return f"at {found}, not {self.revisions[0]}" if behind else OK


def feed_status(age: float) -> str:
    """Return `ok` if the reader of the log keeps up."""
    return OK if age <= FRESH_SECONDS else f"stale for {age:.0f} s"


HealthEndpoint = Callable[[Request], Awaitable[Response]]


def paths(health: Health) -> dict[str, HealthEndpoint]:
    """Return the endpoints by path. `/health` is an alias of `/healthz`."""
    return {"/healthz": health.liveness, "/readyz": health.readiness, "/health": health.liveness}

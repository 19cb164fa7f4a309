"""Health checks: whether the process runs, and whether it is ready for clients."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runstate.database import Database
from runstate.database.failures import FAILURES, failure_of
from runstate.database.migrate import revision, revisions
from runstate.errors import RunstateError
from runstate.feed import Hub
from runstate.rows import Transition

PATIENCE_SECONDS: Final = 2.0
"""Seconds in which the database has to answer."""
KEPT_SECONDS: Final = 1.0
"""Seconds for which an answer of the database is reused, so that frequent checks cost no further statements."""
FRESH_SECONDS: Final = 5.0
"""Maximum age in seconds of the last complete reading of the log."""

OK: Final = "ok"
LATE: Final = f"no answer in {PATIENCE_SECONDS:.0f} s"

Checks = dict[str, str]


class Probe:
    """A check of the database. It runs at most once a second, and never twice at once, however long it takes."""

    def __init__(self, ask: Callable[[], Awaitable[Checks]], late: Checks) -> None:
        self.ask = ask
        self.late = late
        """The result if the check takes longer."""
        self.asked = -KEPT_SECONDS
        self.answered: Checks = late
        self.one_at_a_time = asyncio.Lock()
        self.asking: asyncio.Future[Checks] | None = None

    async def result(self) -> Checks:
        """Return the last result if it is recent; otherwise run the check, and wait for it for two seconds."""
        async with self.one_at_a_time:
            if time.monotonic() - self.asked >= KEPT_SECONDS:
                self.asking = self.asking or asyncio.ensure_future(self.ask())
                done, _ = await asyncio.wait([self.asking], timeout=PATIENCE_SECONDS)
                self.asked = time.monotonic()
                self.answered = self.late
                if done:
                    ended, self.asking = self.asking, None
                    self.answered = ended.result()
        return self.answered

    async def stop(self) -> None:
        """Cancel a running check."""
        if self.asking:
            self.asking.cancel()
            await asyncio.gather(self.asking, return_exceptions=True)


class Health:
    """State of the server, for health checks."""

    def __init__(self) -> None:
        self.draining = False
        """Whether the server is shutting down: it still answers, but proxies should use another one."""
        self.database: Database | None = None
        self.hub: Hub[Transition] | None = None
        self.revisions: list[str] = []
        self.probes: list[Probe] = []

    def start(self, database: Database, hub: Hub[Transition]) -> None:
        """Start to check a database and a hub."""
        # Read once, because the scripts of the migrations do not change while the server runs.
        self.revisions = revisions()
        self.database, self.hub = database, hub
        self.probes = [
            Probe(self._read, {"database": f"unreachable: {LATE}", "migrations": "unknown"}),
            Probe(self._write, {"writes": LATE}),
        ]

    async def stop(self) -> None:
        """Cancel running checks."""
        for probe in self.probes:
            await probe.stop()

    async def liveness(self, _: Request) -> Response:
        """Answer 200: the process runs. Nothing else is checked, because a restart would not repair it."""
        return JSONResponse({"status": OK})

    async def readiness(self, _: Request) -> Response:
        """Answer 200 if the server is ready for clients, otherwise 503; both with the result of each check."""
        checks = await self.checks()
        fine = all(check == OK for check in checks.values())
        return JSONResponse({"status": OK if fine else "unavailable", "checks": checks}, 200 if fine else 503)

    async def checks(self) -> Checks:
        """Return the checks by name, each `ok` or a description of the fault."""
        serving = "draining" if self.draining else OK
        if self.database is None or self.hub is None:
            return {"serving": "starting"}
        read, written = await asyncio.gather(*(probe.result() for probe in self.probes))
        return {"serving": serving, **read, **written, "feed": feed_status(self.hub.age)}

    async def _read(self) -> Checks:
        assert self.database  # noqa: S101 `start` has set it
        try:
            # `health` has connections of its own, so a busy pool does not make the server unready.
            found = await revision(self.database.health)
        except (*FAILURES, RunstateError) as error:
            return {"database": f"unreachable: {_shown(error)}", "migrations": "unknown"}
        return {"database": OK, "migrations": self._migrations(found)}

    async def _write(self) -> Checks:
        assert self.database  # noqa: S101 `start` has set it
        try:
            return {"writes": await self.database.health.write_fault() or OK}
        except (*FAILURES, RunstateError) as error:
            return {"writes": _shown(error)}

    def _migrations(self, found: str | None) -> str:
        """Return `ok` if the schema version is this server's or a later one. An unknown version is a later one."""
        behind = found is None or found in self.revisions[1:]
        return f"at {found}, not {self.revisions[0]}" if behind else OK


def _shown(error: BaseException) -> str:
    """Return the reason of a failure as everybody may see it, without names and addresses."""
    failure = failure_of(error)
    return failure.reason if failure.is_temporary else type(error).__name__


def feed_status(age: float) -> str:
    """Return `ok` if the reader of the log keeps up."""
    return OK if age <= FRESH_SECONDS else f"stale for {age:.0f} s"


HealthEndpoint = Callable[[Request], Awaitable[Response]]


def paths(health: Health) -> dict[str, HealthEndpoint]:
    """Return the endpoints by path. `/health` is an alias of `/healthz`."""
    return {"/healthz": health.liveness, "/readyz": health.readiness, "/health": health.liveness}

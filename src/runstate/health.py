"""Whether the server runs, and whether it is ready for clients."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runstate.database import Database
from runstate.database.failures import FAILURES, reason
from runstate.database.migrate import revision, revisions
from runstate.errors import RunstateError
from runstate.feed import Hub
from runstate.rows import Transition

PATIENCE_SECONDS: Final = 2.0
"""How long the database may take to answer."""
KEPT_SECONDS: Final = 1.0
"""How long an answer of the database is good for: who asks often does not make more work."""
FRESH_SECONDS: Final = 5.0
"""How old the news may be that subscribers get."""

OK: Final = "ok"
LATE: Final = f"no answer in {PATIENCE_SECONDS:.0f} s"

Checks = dict[str, str]


class Probe:
    """A question to the database: asked at most once a second, and one at a time, however long it takes."""

    def __init__(self, ask: Callable[[], Awaitable[Checks]], late: Checks) -> None:
        self.ask = ask
        self.late = late
        """The result if there is no answer in time."""
        self.asked = -KEPT_SECONDS
        self.answered: Checks = late
        self.one_at_a_time = asyncio.Lock()
        self.asking: asyncio.Future[Checks] | None = None

    async def result(self) -> Checks:
        """Return the last answer if it is recent, or ask."""
        async with self.one_at_a_time:
            if time.monotonic() - self.asked >= KEPT_SECONDS:
                self.asking = self.asking or asyncio.ensure_future(self.ask())
                done, _ = await asyncio.wait([self.asking], timeout=PATIENCE_SECONDS)
                self.answered = self.asking.result() if done else self.late
                self.asking = None if done else self.asking
                self.asked = time.monotonic()
        return self.answered

    async def stop(self) -> None:
        """Ask no more."""
        if self.asking:
            self.asking.cancel()
            await asyncio.gather(self.asking, return_exceptions=True)


class Health:
    """What is known of the server's condition."""

    def __init__(self) -> None:
        self.draining = False
        """Whether it is about to go away: it still answers, and clients should go elsewhere."""
        self.database: Database | None = None
        self.hub: Hub[Transition] | None = None
        self.revisions: list[str] = []
        self.probes: list[Probe] = []

    def start(self, database: Database, hub: Hub[Transition]) -> None:
        """From now on there is something to look at."""
        self.revisions = revisions()
        self.database, self.hub = database, hub
        self.probes = [
            Probe(self._read, {"database": f"unreachable: {LATE}", "migrations": "unknown"}),
            Probe(self._write, {"writes": LATE}),
        ]

    async def stop(self) -> None:
        """Look at nothing any more."""
        for probe in self.probes:
            await probe.stop()

    async def liveness(self, _: Request) -> Response:
        """Whether the process answers: nothing else is looked at."""
        return JSONResponse({"status": OK})

    async def readiness(self, _: Request) -> Response:
        """Whether clients are welcome: 200, or 503 with what is wrong."""
        checks = await self.checks()
        fine = all(check == OK for check in checks.values())
        return JSONResponse({"status": OK if fine else "unavailable", "checks": checks}, 200 if fine else 503)

    async def checks(self) -> Checks:
        """What is looked at, each `ok` or what is wrong with it."""
        serving = "draining" if self.draining else OK
        if self.database is None or self.hub is None:
            return {"serving": "starting"}
        read, written = await asyncio.gather(*(probe.result() for probe in self.probes))
        return {"serving": serving, **read, **written, "feed": feed_status(self.hub.age)}

    async def _read(self) -> Checks:
        assert self.database  # noqa: S101 `start` has set it
        try:
            found = await revision(self.database.health)
        except (*FAILURES, RunstateError) as error:
            return {"database": f"unreachable: {reason(error)}", "migrations": "unknown"}
        return {"database": OK, "migrations": self._migrated(found)}

    async def _write(self) -> Checks:
        assert self.database  # noqa: S101 `start` has set it
        try:
            return {"writes": await self.database.health.write_fault() or OK}
        except (*FAILURES, RunstateError) as error:
            return {"writes": reason(error)}

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

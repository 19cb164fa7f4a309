"""The work of a client in its thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstate.client.connection import Connection
from runstate.client.journal import JournalingReports
from runstate.client.lines import Lines
from runstate.client.reports import Answer, OnlineReports, Reports
from runstate.client.storage import Storage
from runstate.client.waiting import Beats, Slots

if TYPE_CHECKING:
    from runstate.client.proposals import ReportedRun


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings of a client."""

    url: str
    key: str | None
    patience: float
    """Seconds for which a server that is away is awaited."""
    heartbeat_seconds: float | None
    storage: Storage | None
    allow_pickle: bool
    journal: str | None
    """Path of the SQLite file that keeps what cannot be told; None for none."""
    journal_after: float
    """Seconds of absence of the server after which the journal is used."""
    on_answer: Callable[[ReportedRun, Answer], None] | None = None
    """Called in the thread of the client with each answer to a proposal of a run."""


class Reporter:
    """The connection of a client and what shares it. Belongs to one event loop."""

    def __init__(self, settings: Configuration) -> None:
        self.settings = settings
        self.connection = Connection(settings.url, settings.key, settings.patience)
        self.slots = Slots(settings.url, settings.key)
        self.beats = Beats(self.connection, self.server_id)
        self.lines = Lines(self.connection, self.server_id)
        online = OnlineReports(self.connection)
        self.reports: Reports = online
        if settings.journal:
            self.reports = JournalingReports(online, settings.journal, settings.journal_after)

    @classmethod
    def maker(cls, settings: Configuration) -> Callable[[], Reporter]:
        """Return a function that makes reporters."""
        return lambda: cls(settings)

    def server_id(self, run: str) -> str | None:
        """Return the id that the server knows a run by; None if it was not told of the run yet."""
        return self.reports.server_id(run)

    async def execute(self, document: str, variables: Mapping[str, Any] | None, *, repeat: bool) -> dict[str, Any]:
        """Execute an operation and return its data."""
        return await self.connection.execute(document, variables, repeat=repeat)

    async def flush(self) -> None:
        """Wait until everything is told. Raise UnreachableError if the server is away for too long."""
        await self.reports.flush()
        await self.lines.flush()

    async def close(self) -> None:
        """Tell what is left, and close the connection."""
        try:
            await self.flush()
        finally:
            await self.beats.close()
            await self.slots.close()
            await self.reports.close()
            await self.connection.close()

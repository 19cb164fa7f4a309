"""A journal of reports on disk, for the time in which the server is away. It is told afterwards, in order."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final
from uuid import uuid4

import orjson

from runstate.client.errors import ClientError, ProblemError, RefusedError, UnreachableError
from runstate.client.reports import Answer, Json, OnlineReports, checked
from runstate.client.states import AwaitingRetry, State

LOCAL: Final = "local-"
"""Beginning of the id of a run that the server has not been told of."""
ATTEMPT_SECONDS: Final = 1.0
PROBE: Final = "{ __typename }"
TABLES: Final = """
create table if not exists report (
  number integer primary key, kind text not null, run text not null, given blob not null);
create table if not exists known (run text primary key, id text not null) without rowid;
"""


log = logging.getLogger(__name__)

Report = tuple[int, str, str, bytes]
"""Number, kind, run and content."""


def is_local(run: str) -> bool:
    """Return whether an id is one that the server does not know."""
    return run.startswith(LOCAL)


class Journal:
    """Reports in an SQLite file, in order."""

    def __init__(self, path: str) -> None:
        # Written in the thread of the client only, but the file is opened where the client is made.
        self.file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # A write-ahead log appends each page once; a rollback journal would write it twice.
        self.file.execute("pragma journal_mode = wal")
        self.file.executescript(TABLES)
        # Ids outlive the process: reports that an earlier one left behind refer to runs that it has told already.
        self.known: dict[str, str] = dict(self.file.execute("select run, id from known"))

    def append(self, kind: str, run: str, given: Json) -> None:
        """Write a report; it is on disk afterwards."""
        row = (kind, run, orjson.dumps(given))
        self.file.execute("insert into report (kind, run, given) values (?, ?, ?)", row)

    def first(self, most: int) -> list[Report]:
        """Return the oldest reports."""
        query = "select number, kind, run, given from report order by number limit ?"
        return list(self.file.execute(query, (most,)))

    def remove(self, last: int) -> None:
        """Remove the reports up to a number."""
        self.file.execute("delete from report where number <= ?", (last,))

    def learn(self, run: str, known: str) -> None:
        """Keep the id that the server gave to a run."""
        self.known[run] = known
        self.file.execute("insert or replace into known values (?, ?)", (run, known))

    def count(self) -> int:
        """Return the number of reports that were not told."""
        return int(self.file.execute("select count(*) from report").fetchone()[0])


class JournalingReports:
    """Reports that are kept in a journal while the server is away for longer than some seconds.

    A journal belongs to one process. Meanwhile every proposal is accepted, and failed task runs are retried as their
    policy says. The states are told as forced proposals, because the work was done.
    """

    def __init__(self, online: OnlineReports, path: str, after_seconds: float) -> None:
        self.online, self.journal, self.after_seconds = online, Journal(path), after_seconds
        self.versions: dict[str, int] = {}
        self.retries: dict[str, tuple[int, list[float]]] = {}
        self.task: asyncio.Task[None] | None = None
        # An earlier process left them behind: they go first, because later reports may depend on them.
        if self.journal.count():
            self._tell_soon()

    async def create_flow_run(self, given: Json) -> Json:
        """Create a flow run, here if the server is away."""
        parent = self.server_id(given["parentTaskRunId"]) if given.get("parentTaskRunId") else None
        # A subflow run waits in the journal with the task run that represents it: the server knows neither.
        if not self.is_away and (parent or not given.get("parentTaskRunId")):
            with suppress(UnreachableError, TimeoutError):
                async with asyncio.timeout(self.after_seconds):
                    more = {"parentTaskRunId": parent} if parent else {}
                    return await self.online.create_flow_run({**given, **more})
        return self._create("flow_run", given)

    async def create_task_run(self, given: Json) -> Json:
        """Create a task run, here if the server is away."""
        flow_run = self.server_id(given["flowRunId"]) if given.get("flowRunId") else None
        # The same for a task run whose flow run is still in the journal.
        if not self.is_away and (flow_run or not given.get("flowRunId")):
            with suppress(UnreachableError, TimeoutError):
                async with asyncio.timeout(self.after_seconds):
                    return await self.online.create_task_run(self._with_ids({**given}))
        made = self._create("task_run", given)
        policy = given.get("policy") or {}
        self.retries[made["id"]] = policy.get("retries", 0), policy.get("retryDelaysSeconds") or [0]
        return made

    async def propose(self, given: Json) -> Answer:
        """Propose a state; keep it if the server is away."""
        # The key goes to the journal, too: a report that reached the server before a timeout is not applied twice.
        given = {"idempotencyKey": uuid4().hex, **given}
        ((kind, run),) = given["run"].items()
        known = self.server_id(run)
        if known and not self.is_away:
            # Versions of runs that were told afterwards are not those that the client counted.
            loose = {"expectedVersion": None} if run in self.versions else {}
            with suppress(UnreachableError, TimeoutError):
                async with asyncio.timeout(self.after_seconds):
                    return await self.online.propose({**given, "run": {kind: known}, **loose})
        return self._keep(run, given)

    async def read(self, run: str) -> Json | None:
        """Return a run of the server."""
        known = self.server_id(run)
        return await self.online.read(known) if known else None

    def server_id(self, run: str) -> str | None:
        """Return the id that the server knows a run by; None if it was not told of the run yet."""
        return self.journal.known.get(run) if is_local(run) else run

    @property
    def is_away(self) -> bool:
        """Whether reports are kept: later ones must not overtake them."""
        return self.task is not None and not self.task.done()

    async def flush(self) -> None:
        """Wait until everything is told. Raise UnreachableError if the server is away for too long."""
        if self.task and not self.task.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(self.online.connection.patience):
                    await asyncio.shield(self.task)
        if left := self.journal.count():
            raise UnreachableError(
                f"{left} reports could not be told and stay in the journal: use it again when the server is back."
            )

    async def close(self) -> None:
        """Stop telling."""
        if self.task:
            self.task.cancel()
        self.journal.file.close()

    def _create(self, kind: str, given: Json) -> Json:
        run = f"{LOCAL}{uuid4()}"
        self.journal.append(kind, run, given)
        self.versions[run] = 1
        self._tell_soon()
        return {"id": run, "name": given.get("name") or run, "version": 1, "state": {"type": "PENDING", "version": 1}}

    def _keep(self, run: str, given: Json) -> Answer:
        self.journal.append("propose", run, given)
        # Counted on from the version that the server told last, so that the code sees versions that only grow.
        self.versions[run] = max(self.versions.get(run, 0), given.get("expectedVersion") or 0) + 1
        self._tell_soon()
        state = State.model_validate({**given["state"], "version": self.versions[run]})
        retries, delays = self.retries.get(run, (0, [0.0]))
        # The rules of the server are out of reach, so this repeats the one that matters to running code: retries.
        if not state.is_failed() or not retries or state.state_details.retriable is False:
            return Answer("ACCEPT", state)
        # The last delay counts for all further retries, as on the server.
        self.retries[run] = retries - 1, delays[1:] or delays
        retry = AwaitingRetry(scheduled_time=datetime.now(UTC) + timedelta(seconds=delays[0]))
        return Answer("REJECT", retry.model_copy(update={"version": self.versions[run]}))

    def _tell_soon(self) -> None:
        if not self.is_away:
            self.task = asyncio.ensure_future(self._tell_all())

    async def _tell_all(self) -> None:
        # A hundred at a time: memory stays small however long the server was away.
        while reports := self.journal.first(100):
            try:
                # A cheap question first: a batch of reports is not built and sent for nothing every second.
                await self.online.connection.send(orjson.dumps({"query": PROBE}), patience=0)
                for kind, group in groupby(reports, key=lambda report: report[1]):
                    await self._tell_group(kind, list(group))
            except ClientError:
                await asyncio.sleep(ATTEMPT_SECONDS)

    async def _tell_group(self, kind: str, reports: list[Report]) -> None:
        """Tell reports of one kind, and one by one if the server rejects them; one that it rejects is given up."""
        try:
            await self._tell(kind, reports)
        except (ProblemError, RefusedError) as error:
            # One report that is refused must not keep the others from being told.
            if len(reports) > 1:
                for each in reports:
                    await self._tell_group(kind, [each])
                return
            log.warning("A report of %s was rejected: %s", reports[0][2], error)
        # After the answer: if the process ends before this, they are told again, which their keys make harmless.
        self.journal.remove(reports[-1][0])

    async def _tell(self, kind: str, reports: list[Report]) -> None:
        items = [(run, self._with_ids(orjson.loads(given))) for _, _, run, given in reports]
        if kind == "propose":
            answers = await self.online.proposals.send([orjson.dumps({**each, "force": True}) for _, each in items])
            for problem in (each for each in answers if "code" in each):
                log.warning("A report was rejected: %s", problem["message"])
        elif kind == "task_run":
            answers = await self.online.creations.send([orjson.dumps(each) for _, each in items])
            for (run, _), answer in zip(items, answers, strict=True):
                self.journal.learn(run, checked(answer)["run"]["id"])
        else:
            for run, each in items:
                self.journal.learn(run, (await self.online.create_flow_run(each))["id"])

    def _with_ids(self, given: Json) -> Json:
        """Return a report with the ids of the server."""
        for key in ("flowRunId", "parentTaskRunId"):
            if given.get(key):
                given[key] = self.server_id(given[key])
        for sources in (given.get("taskInputs") or {}).values():
            for source in sources:
                if "id" in source:
                    source["id"] = self.server_id(source["id"])
        if "run" in given:
            # The versions that the client counted are not those of the server.
            given = {**given, "run": {key: self.server_id(run) for key, run in given["run"].items()}}
            given.pop("expectedVersion", None)
        return given

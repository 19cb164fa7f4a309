"""The import of a database of Prefect 3.8.5: all tables in order, and the report."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from runstate.database import bulk
from runstate.database.bulk import table_of
from runstate.imports.automations import AUTOMATIONS
from runstate.imports.importer import Importer
from runstate.imports.report import Report
from runstate.imports.runs import FLOW_RUNS, TASK_RUNS, link_subflows
from runstate.imports.slots import hold_slots
from runstate.imports.table import Table
from runstate.imports.tables import FEW, OF_RUNS
from runstate.rows import ConcurrencyLimit, Deployment

TABLES: Final[tuple[Table, ...]] = (*FEW, FLOW_RUNS, TASK_RUNS, *OF_RUNS, AUTOMATIONS)
HOMELESS: Final = {
    "agent": "agents; workers took their place",
    "automation_bucket": "windows of triggers; they begin anew",
    "automation_event_follower": "events that wait for others; triggers begin anew",
    "composite_trigger_child_firing": "firings that composite triggers keep; they begin anew",
    "configuration": "settings of the server; the key of the blocks was used",
    "csrf_token": "tokens of sessions",
    "deployment_version": "versions, which only Prefect Cloud makes",
    "event_resources": "resources of the events",
    "events": "events before the import; the log begins with it, and the states tell the history of runs",
}
"""Tables of the reference that are not imported, each with its reason."""
PARTS: Final = frozenset({"alembic_version", "automation_related_resource", "flow_run_state", "task_run_state"})
"""Tables that are read with others."""
UNUSED: Final = (
    ("deployment", "infrastructure_document_id", "blocks of infrastructure; work pools took their place"),
    ("deployment", "storage_document_id", "blocks of storage; pull steps took their place"),
    ("flow_run", "infrastructure_document_id", "blocks of infrastructure; work pools took their place"),
)
"""Columns of the reference that are not imported, each with its reason."""
UNFINISHED: Final = ("PENDING", "RUNNING", "CANCELLING")


async def import_all(importer: Importer) -> Report:
    """Import everything that is missing, and return the report."""
    for table in TABLES:
        await importer.run(table)
        # Deployments and limits refer to each other, too.
        if table.row is ConcurrencyLimit:
            await assign_limits(importer)
        if table is TASK_RUNS:
            await link_subflows(importer)
            await hold_slots(importer)
    await _note_the_rest(importer)
    return importer.report


async def assign_limits(importer: Importer) -> None:
    """Give deployments their limits, once these exist. Deployments with a limit keep it."""
    if importer.dry_run or not importer.facts.limit_of:
        return
    wanted = {
        importer.renamed[Deployment].get(deployment, deployment): importer.renamed[ConcurrencyLimit].get(limit, limit)
        for deployment, limit in importer.facts.limit_of.items()
    }
    table = table_of(Deployment)
    async with importer.connection() as connection:
        assert connection is not None  # noqa: S101 this is no dry run
        known = await importer.present(connection, ConcurrencyLimit, set(wanted.values()))
        without = sa.select(table.c.id).where(table.c.concurrency_limit_id.is_(None))
        rows = [
            Deployment.of({"id": key, "concurrency_limit_id": wanted[key]})
            for key in (await connection.execute(without)).scalars()
            if wanted.get(key) in known
        ]
        await bulk.write(connection, [bulk.updated(Deployment, ("concurrency_limit_id",), rows)])


async def _note_the_rest(importer: Importer) -> None:
    """Count what has no place, and the runs that had not ended."""
    source, homeless = importer.source, importer.report.homeless
    for name in sorted(source.columns.keys() - {table.name for table in TABLES} - PARTS):
        if number := await source.count(name):
            homeless[name, HOMELESS.get(name, "a table that Prefect 3.8.5 does not have")] += number
    for name, column, reason in UNUSED:
        if number := await source.count(name, sa.column(column).is_not(None)):
            homeless[f"{name}.{column}", reason] += number
    await _note_slots(importer)
    for name in ("flow_run", "task_run"):
        for kind in UNFINISHED:
            if number := await source.count(name, sa.cast(sa.column("state_type"), sa.Text) == kind):
                noted = importer.report.remark_number
                noted(name, f"{kind} in the source; their clients report to the other server", number)


async def _note_slots(importer: Importer) -> None:
    """Note the slots of limits whose holders are unknown."""
    limits = importer.source.tables["concurrency_limit_v2"].c
    asked = sa.select(limits.name, limits.active_slots).where(limits.active_slots > 0).order_by(limits.name)
    for limit, number in await importer.source.rows(asked):
        if not limit.startswith(("tag:", "deployment:")):
            text = "held by unknown clients, and free after the import"
            importer.report.remark_number(f"slots of the limit {limit}", text, number)

"""Verifies that the stored rows agree with each other."""

import pkgutil
from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from typing import Final

from runstate.core.checks import consistency
from runstate.core.checks.check import Check
from runstate.database import Database
from runstate.database.queries import verify as sql

MAX_IDS: Final = 10
"""Ids that a finding names."""


def all_checks() -> list[Check]:
    """Return the checks of every module in `consistency`."""
    names = sorted(each.name for each in pkgutil.iter_modules(consistency.__path__))
    return [check for name in names for check in import_module(f"{consistency.__name__}.{name}").CHECKS]


async def verify(database: Database, now: datetime, checks: Sequence[Check] | None = None) -> list[str]:
    """Return a line for each check that finds rows, with their number and the first ids.

    All checks see the database at one moment, so other processes can write meanwhile. An empty list means that no write
    was lost, incomplete or repeated.
    """
    findings = []
    async with sql.snapshot(database) as connection:
        values = {"now": now, "logged_since": await sql.logged_since(connection)}
        for check in all_checks() if checks is None else checks:
            count, ids = await sql.first(connection, check.ids, MAX_IDS, values)
            if count:
                findings.append(finding_of(check.finding, count, ids))
    return findings


def finding_of(finding: str, count: int, ids: Sequence[str]) -> str:
    """Return the line of a finding about a number of rows, with the first ids."""
    return f"{finding} ({count}): {', '.join(ids[:MAX_IDS])}{' …' if count > MAX_IDS else '.'}"

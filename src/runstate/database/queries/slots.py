"""The free slots of concurrency limits."""

from collections.abc import Sequence
from datetime import datetime
from math import floor
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database.dialects import DatabaseTime, among_given
from runstate.database.driver import fetch
from runstate.rows import ConcurrencyLimit

ROUNDING: Final = 1e-6
"""Missing part of a slot that counts as none, because sums of floats are not exact."""


class LimitReading(NamedTuple):
    """The free slots of an active limit."""

    name: str
    free: int
    """Number of free slots; 0 or less if it is full."""
    changed: datetime
    """Time of its last change."""


async def read_limits(connection: AsyncConnection, names: Sequence[str]) -> list[LimitReading]:
    """Return the active limits of clients with these names. Limits of deployments have names of their own."""
    return [_reading(*each) for each in await fetch(connection, LIMITS, {"names": list(names)})]


LIMITS: Final = sa.select(
    ConcurrencyLimit.name,
    ConcurrencyLimit.limit,
    ConcurrencyLimit.occupied,
    ConcurrencyLimit.slot_decay_per_second,
    ConcurrencyLimit.drained,
    ConcurrencyLimit.updated,
    DatabaseTime(),
).where(
    ConcurrencyLimit.active,
    ConcurrencyLimit.deployment_id.is_(None),  # otherwise the index of names is not used
    among_given(ConcurrencyLimit.name, "names"),
)


def _reading(name: str, limit: int, occupied: int, decay: float, *times: Any) -> LimitReading:
    drained, changed, now = times
    # Computed and not stored: slots with decay become free without a write.
    decaying = max(0.0, (drained - now).total_seconds() * decay) if drained else 0.0
    return LimitReading(name, floor(limit - (decaying if decay > 0 else occupied) + ROUNDING), changed)

"""The form of a consistency check."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from runstate.rows.base import Timestamp

NOW: Final = sa.bindparam("now", type_=Timestamp())
"""The time of the verification."""
LOGGED_SINCE: Final = sa.bindparam("logged_since", type_=Timestamp())
"""The time from which on every state has an entry in the log of transitions; NULL if it is unknown."""


@dataclass(frozen=True, slots=True)
class Check:
    """A query for rows that contradict other rows."""

    finding: str
    """Describes such rows as a plural noun phrase: "Limits that …"."""
    ids: sa.Select[Any]
    """Selects their ids, in one column."""

"""States agree with the log of transitions."""

from typing import Any, Final

import sqlalchemy as sa

from runstate.core.checks.check import LOGGED_SINCE, Check
from runstate.documents.access import IMPORT
from runstate.rows import FlowRunState, TaskRunState, Transition

State = type[FlowRunState | TaskRunState]

LOGGED: Final = (("state_id", "id"), ("state_type", "type"), ("state_name", "name"), ("occurred", "timestamp"))
"""Columns of a log entry, each with the column of the state that it copies."""


def _checks(states: str, state: State) -> tuple[Check, ...]:
    return (
        Check(f"{states} that are missing in the log", not_logged(state)),
        Check(f"{states} that differ from the log", wrongly_logged(state)),
    )


def not_logged(state: State) -> sa.Select[Any]:
    """Select states without a log entry, among those that are too new for their entry to be pruned.

    Imported states have none.
    """
    entry = sa.exists().where(Transition.run_id == state.run_id, Transition.version == state.version)
    recent = (state.timestamp >= LOGGED_SINCE, state.actor != IMPORT, ~state.late)
    return sa.select(state.id).where(*recent, ~entry)


def wrongly_logged(state: State) -> sa.Select[Any]:
    """Select states that differ from their log entry."""
    # Unlike `!=`, the comparison is true for NULL and a value.
    differs = [getattr(Transition, ours).is_distinct_from(getattr(state, theirs)) for ours, theirs in LOGGED]
    entry = sa.and_(Transition.run_id == state.run_id, Transition.version == state.version)
    return sa.select(state.id).join_from(state, Transition, entry).where(sa.or_(*differs))


CHECKS: Final = (
    *_checks("States of flow runs", FlowRunState),
    *_checks("States of task runs", TaskRunState),
)

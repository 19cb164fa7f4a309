"""Concurrency limits agree with their leases, and leases with the runs that hold them."""

from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from runstate.core.checks.check import NOW, Check
from runstate.core.rules.concurrency import HOLDING, HOLDING_TASK
from runstate.database.dialects import seconds_between
from runstate.documents.states import StateType
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun

Ids = sa.Select[Any]

TOLERANCE_SECONDS: Final = 1.0
"""Tolerated difference of drain times, for rounding."""


def miscounted_slots() -> Ids:
    """Select limits without decay whose number of occupied slots is not the sum over their leases."""
    held = sa.select(ConcurrencyLease.limit_id, sa.func.sum(ConcurrencyLease.slots).label("slots"))
    sums = held.group_by(ConcurrencyLease.limit_id).subquery()
    return (
        sa.select(ConcurrencyLimit.id)
        .outerjoin_from(ConcurrencyLimit, sums, sums.c.limit_id == ConcurrencyLimit.id)
        .where(ConcurrencyLimit.slot_decay_per_second == 0)
        .where(ConcurrencyLimit.occupied != sa.func.coalesce(sums.c.slots, 0))
    )


def wrongly_drained() -> Ids:
    """Select limits with decay whose drain time is not the latest expiry of their leases. All past times are equal."""
    latest = sa.select(ConcurrencyLease.limit_id, sa.func.max(ConcurrencyLease.expires).label("expires"))
    lasts = latest.group_by(ConcurrencyLease.limit_id).subquery()
    apart = seconds_between(_not_before_now(ConcurrencyLimit.drained), _not_before_now(lasts.c.expires))
    return (
        sa.select(ConcurrencyLimit.id)
        .outerjoin_from(ConcurrencyLimit, lasts, lasts.c.limit_id == ConcurrencyLimit.id)
        .where(ConcurrencyLimit.slot_decay_per_second > 0, sa.func.abs(apart) > TOLERANCE_SECONDS)
    )


def _not_before_now(instant: Any) -> sa.ColumnElement[Any]:
    return sa.case((instant > NOW, instant), else_=NOW)


def without_run() -> Ids:
    """Select leases that never expire and belong to unknown runs."""
    runs = [sa.exists().where(run.id == ConcurrencyLease.run_id) for run in (FlowRun, TaskRun)]
    return sa.select(ConcurrencyLease.id).where(
        ConcurrencyLease.run_id.is_not(None), ConcurrencyLease.expires.is_(None), ~sa.or_(*runs)
    )


def not_released(run: type[FlowRun | TaskRun], holding: Collection[StateType]) -> Ids:
    """Select leases that a state acquired and that belong to runs outside the state types that hold slots."""
    # The type of a run without a state is NULL.
    holds = sa.func.coalesce(run.state_type.in_(holding), sa.false())
    held = sa.select(ConcurrencyLease.id).join_from(ConcurrencyLease, run, run.id == ConcurrencyLease.run_id)
    return held.where(ConcurrencyLease.automatic, ~holds)


def acquired_twice() -> Ids:
    """Select runs with two leases of one limit that states acquired."""
    return (
        sa.select(ConcurrencyLease.run_id)
        .where(ConcurrencyLease.automatic, ConcurrencyLease.run_id.is_not(None))
        .group_by(ConcurrencyLease.run_id, ConcurrencyLease.limit_id)
        .having(sa.func.count() > 1)
    )


CHECKS: Final = (
    Check("Limits whose occupied slots differ from their leases", miscounted_slots()),
    Check("Limits with decay whose drain time differs from their leases", wrongly_drained()),
    Check("Leases without expiry of unknown runs", without_run()),
    Check("Leases of flow runs that are not PENDING, RUNNING or CANCELLING", not_released(FlowRun, HOLDING)),
    Check("Leases of task runs that are not RUNNING or CANCELLING", not_released(TaskRun, HOLDING_TASK)),
    Check("Runs with two leases of one limit", acquired_twice()),
)

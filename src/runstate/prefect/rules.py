"""Schedules of deployments, as the client sends and reads them."""

from __future__ import annotations

from typing import Any

from runstate.core.commands.schedules import ScheduleFields
from runstate.documents.schedules import CronSchedule, IntervalSchedule, RRuleSchedule, Schedule
from runstate.prefect.bodies import Body, Time


class IntervalBody(Body):
    """A fixed interval in seconds."""

    interval: float
    anchor_date: Time | None = None
    timezone: str | None = None


class CronBody(Body):
    """A cron expression."""

    cron: str
    timezone: str | None = None
    day_or: bool | None = None


class RRuleBody(Body):
    """A recurrence rule."""

    rrule: str
    timezone: str | None = None


RuleBody = IntervalBody | CronBody | RRuleBody
KINDS: dict[type[Body], type[IntervalSchedule | CronSchedule | RRuleSchedule]] = {
    IntervalBody: IntervalSchedule,
    CronBody: CronSchedule,
    RRuleBody: RRuleSchedule,
}
NAMES = {"interval": "interval_seconds", "anchor_date": "anchor", "timezone": "time_zone"}
"""The names of members that documents know by others."""
MEMBERS = {known: name for name, known in NAMES.items()}


def document_of(body: RuleBody) -> Any:
    """Return a rule as the document of commands."""
    return KINDS[type(body)](**{NAMES.get(name, name): value for name, value in body.given.items()})


def rule(schedule: Schedule) -> dict[str, Any]:
    """Return a rule as an object. The client refuses members that it does not know."""
    return {MEMBERS.get(name, name): value for name, value in schedule if name != "kind"}


class ScheduleChanges(Body):
    """Changes to a schedule of a deployment."""

    schedule: RuleBody | None = None
    active: bool | None = None
    max_scheduled_runs: int | None = None
    parameters: dict[str, Any] | None = None
    slug: str | None = None

    def columns(self) -> dict[str, Any]:
        """Return the members that were sent, as commands know them."""
        given = self.given
        return given | ({"schedule": document_of(self.schedule)} if self.schedule else {})


class ScheduleBody(ScheduleChanges):
    """A schedule of a deployment."""

    schedule: RuleBody
    replaces: str | None = None

    def document(self) -> ScheduleFields:
        """Return it as the document of commands."""
        return ScheduleFields(**self.columns())

"""Schedules: scheduleDates."""

from typing import Annotated

import strawberry

from runstate.documents.schedules import ScheduleDates, ScheduledDate
from runstate.errors import InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import query_with_problems
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.fields import object_type
from runstate.graphql.types.inputs import Input

register_type(ScheduledDate)
RANGE = strawberry.argument(description="The schedule and the range of dates.")


@object_type
class ScheduleDatesPayload:
    """Dates of a schedule."""

    dates: list[ScheduledDate] = strawberry.field(description="Ascending, without duplicates.")
    has_more: bool = strawberry.field(description="True if there are further dates, up to `until`.")


@strawberry.type
class Query:
    """Dates of schedules."""

    @query_with_problems(InvalidInput)
    async def schedule_dates(self, info: Info, input: Annotated[Input[ScheduleDates], RANGE]) -> ScheduleDatesPayload:
        """Compute dates of a schedule. Reads no database and gives the same answer on every server."""
        asked = input.checked()
        found = await info.context.commands.calendar.dates(
            asked.schedule, ("schedule",), asked.after or info.context.now, until=asked.until, first=asked.first
        )
        return ScheduleDatesPayload(dates=found.dates, has_more=found.has_more)

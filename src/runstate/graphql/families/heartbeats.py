"""Heartbeats of clients: heartbeat."""

from typing import Annotated, Any, Final

import strawberry

from runstate.core.commands.heartbeats import RunHeartbeat, beat
from runstate.documents.access import Scope
from runstate.documents.requests import RunRef
from runstate.errors import InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.types.derive import list_of, register_type
from runstate.graphql.types.inputs import Input

MOST_RUNS: Final = 1_000
Runs = Annotated[list[Input[RunRef]], strawberry.argument(description=f"The runs, from 1 to {MOST_RUNS:,}.")]

register_type(RunHeartbeat)
HeartbeatPayload: Any = payload(
    "HeartbeatPayload",
    "The states of the runs.",
    runs=(list_of(RunHeartbeat), "The state of each run, in the order of the input."),
)


@strawberry.type
class Mutation:
    """Heartbeats."""

    @mutation(Scope.PROPOSE, InvalidInput, returns=HeartbeatPayload)
    async def heartbeat(self, info: Info, runs: Runs) -> Any:
        """Report that the clients of runs are alive, and learn the states that the runs are in now.

        A run with `heartbeatSeconds` that is RUNNING or CANCELLING crashes after three intervals without a heartbeat
        or a proposal. No state is written, and other runs are only read.
        """
        if not 1 <= len(runs) <= MOST_RUNS:
            raise InvalidInput(f"`runs` takes from 1 to {MOST_RUNS:,} runs, not {len(runs):,}.", ("runs",))
        return HeartbeatPayload(runs=await beat(info.context.batcher, [each.checked() for each in runs]))

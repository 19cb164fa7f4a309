"""Values that flow runs read: what a paused run waits for, and what other programs send it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Outcome, ProposeState
from runstate.core.commands.retry import again
from runstate.core.commands.runs import current_state, input_of
from runstate.core.policies import CORE_FLOW
from runstate.core.proposal import Abort, Proposal, rule
from runstate.core.states import State
from runstate.database.bulk import table_of
from runstate.database.dialects import insert_or_skip
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.documents.states import Json, RunKind, StateType
from runstate.errors import InvalidInput, NotFound, VersionConflict
from runstate.rows import FlowRun, FlowRunInput

TRIES = 5


@rule()
def resume_only_when_paused(proposal: Proposal[FlowRun]) -> Abort | None:
    """Only a paused flow run can be resumed."""
    paused = proposal.initial is not None and proposal.initial.is_paused
    return None if paused else Abort(reason=f"The run is in {proposal.initial_name or 'no state'}, not paused.")


RESUME = (resume_only_when_paused, *CORE_FLOW)
"""Flow runs that are to be resumed: what is asked of every proposal, and that there is something to resume."""


async def resume(batcher: Batcher, given: requests.ResumeFlowRun, **who: Any) -> Outcome:
    """Let a paused flow run go on, with the input it waits for; a suspended one is scheduled, to be started anew."""
    for _ in range(TRIES):
        paused = await current_state(batcher, given.id)
        try:
            proposal = await _resuming(batcher, given, paused, who)
        except InvalidInput as problem:
            return problem
        (outcome,) = await batcher.submit([proposal])
        if not isinstance(outcome, VersionConflict):
            return outcome
    return outcome


async def _resuming(
    batcher: Batcher, given: requests.ResumeFlowRun, paused: State | None, who: dict[str, Any]
) -> ProposeState:
    reschedules = paused is not None and paused.details.pause_reschedule
    target = State(type=StateType.SCHEDULED, name="Resuming") if reschedules else states.running()
    return ProposeState(
        kind=RunKind.FLOW_RUN,
        run_id=given.id,
        state=states.State(type=target.type, name=target.name, message=given.message),
        expected_version=paused.version if paused else None,
        idempotency_key=given.idempotency_key,
        policy=RESUME,
        said=f"resume {given.model_dump_json()}",
        reply=await _reply(batcher, given, paused),
        **who,
    )


async def _reply(batcher: Batcher, given: requests.ResumeFlowRun, paused: State | None) -> tuple[str, Json] | None:
    """The answer to what the run waits for, checked against the schema that it gave."""
    keys = paused.details.run_input_keyset if paused and paused.is_paused else None
    if not keys:
        return None
    schema = await input_of(batcher, given.id, keys.get("schema", ""))
    if schema is None:
        raise InvalidInput("The run waits for an input but has given no schema for it.", ("runInput",))
    check(given.run_input, schema.value)
    return keys.get("response", "response"), given.run_input


def check(value: Json, schema: Json) -> None:
    """Raise InvalidInput unless the value fits the JSON schema. Schemas cannot refer to anything outside themselves."""
    try:
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema, registry=Registry()).validate(value)
    except ValidationError as error:
        path = tuple(str(part) for part in error.absolute_path)
        raise InvalidInput(f"The input does not fit: {error.message}"[:2000], ("runInput", *path)) from None
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise InvalidInput(f"The run's schema of its input cannot be used: {error}"[:2000], ("runInput",)) from None


@again
async def write_input(batcher: Batcher, given: requests.WriteFlowRun) -> tuple[UUID, bool] | NotFound:
    """Give a flow run a value under a key: the id of the input, and whether it is new; a key is written once."""
    now = batcher.clock()
    row = {"id": batcher.new_id(), "created": now, "updated": now, "flow_run_id": given.flow_run_id, "key": given.key}
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        if await sql.missing(connection, FlowRun, {given.flow_run_id}):
            return NotFound(given.flow_run_id)
        insert = insert_or_skip(connection.dialect.name, table_of(FlowRunInput)).returning(FlowRunInput.id)
        made = (await connection.execute(insert, {**row, "value": given.value, "sender": given.sender})).scalar()
    if made is not None:
        return made, True
    there = await input_of(batcher, given.flow_run_id, given.key)
    return (there.id, False) if there else NotFound(given.flow_run_id)


@again
async def delete_input(batcher: Batcher, input_id: UUID) -> bool:
    """Delete a run input; whether it was there."""
    async with batcher.database.write() as transaction:
        deleted = sa.delete(FlowRunInput).where(FlowRunInput.id == input_id)
        return bool((await transaction.connection.execute(deleted)).rowcount)

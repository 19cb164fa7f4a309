"""Inputs of flow runs: the values for which paused runs wait, and messages of other programs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, ProposeState
from runstate.core.commands import crud
from runstate.core.commands.crud import Existing, Written
from runstate.core.commands.proposals import current_state, input_of
from runstate.core.commands.runs import decided
from runstate.core.context import CommandContext
from runstate.core.policies import CORE_FLOW
from runstate.core.proposal import Abort, Proposal, rule
from runstate.core.states import State
from runstate.documents import requests
from runstate.documents.states import Json, RunKind, StateType
from runstate.errors import InvalidInput, VersionConflict
from runstate.rows import FlowRun, FlowRunInput
from runstate.rows.documents import create_document

TRIES = 5


@rule()
def resume_only_when_paused(proposal: Proposal[FlowRun]) -> Abort | None:
    """Only a paused flow run can be resumed."""
    paused = proposal.initial is not None and proposal.initial.is_paused
    return (
        None
        if paused
        else Abort(reason=f"Only a paused run can be resumed: it is in {proposal.initial_name or 'no state'}.")
    )


RESUME = (resume_only_when_paused, *CORE_FLOW)
"""Proposals of `resumeFlowRun`: the rules for proposals of clients, for paused runs only."""


async def resume(batcher: Batcher, given: requests.ResumeFlowRun, **actor: Any) -> Answer:
    """Resume a paused flow run with the input for which it waits: propose RUNNING, or SCHEDULED for a suspended run.

    The proposal is retried if the state of the run changed after the input was validated.
    """
    for _ in range(TRIES - 1):
        with suppress(VersionConflict):
            return await _resume(batcher, given, actor)
    return await _resume(batcher, given, actor)


async def _resume(batcher: Batcher, given: requests.ResumeFlowRun, actor: dict[str, Any]) -> Answer:
    paused = await current_state(batcher.context, given.id)
    return await decided(batcher, await _resuming(batcher, given, paused, actor))


async def _resuming(
    batcher: Batcher, given: requests.ResumeFlowRun, paused: State | None, who: dict[str, Any]
) -> ProposeState:
    reschedules = paused is not None and paused.details.pause_reschedule
    target = State(type=StateType.SCHEDULED, name="Resuming") if reschedules else states.running()
    return ProposeState(
        kind=RunKind.FLOW_RUN,
        run_id=given.id,
        state=states.State(type=target.type, name=target.name, message=given.message),
        expected_version=paused.version if paused else None,  # the input was validated for this state
        idempotency_key=given.idempotency_key,
        policy=RESUME,
        # Side effects of the reference are reproduced for `proposeState` only.
        quirks=False,
        # The proposed state depends on that of the run, which the first attempt has changed.
        fingerprint_source=f"resume {given.model_dump_json()}",
        run_input_to_store=await _run_input(batcher, given, paused),
        **who,
    )


async def _run_input(batcher: Batcher, given: requests.ResumeFlowRun, paused: State | None) -> tuple[str, Json] | None:
    """Return the key and value of the input for which the run waits, validated against its schema."""
    keys = paused.details.run_input_keyset if paused and paused.is_paused else None
    if not keys:
        return None
    schema = await input_of(batcher.context, given.id, keys.get("schema", ""))
    if schema is None:
        raise InvalidInput("The run waits for an input whose schema is not stored.", ("runInput",))
    # No lock is held, since validation can take seconds; the expected version detects a change.
    await batcher.context.json_schemas.validate(given.run_input, schema.value, ("runInput",))
    return keys.get("response", "response"), given.run_input


async def check_keyset(context: CommandContext, request: ProposeState) -> None:
    """Raise InvalidInput if a pause names a stored input schema that is invalid."""
    keyset = request.state.details.run_input_keyset
    schema = await input_of(context, request.run_id, keyset.get("schema", "")) if keyset else None
    if schema:
        # A schema that cannot be used is refused now, and not when the run is to be resumed.
        await context.json_schemas.check(schema.value, ("runInputKeyset", "schema"))


CreateFlowRunInput = create_document(FlowRunInput)
_create = crud.create(FlowRunInput, key=("flow_run_id", "key"), existing=Existing.RETURN)


async def create_input(context: CommandContext, document: Any) -> Written[FlowRunInput]:
    """Create an input. Raise InvalidInput if a paused run uses it as its schema and it is not a valid schema."""
    paused = await current_state(context, document.flow_run_id)
    keyset = paused.details.run_input_keyset if paused and paused.is_paused else None
    # A client can store the schema after the pause that names it.
    if keyset and keyset.get("schema") == document.key:
        await context.json_schemas.check(document.value, ("value",))
    written: Written[FlowRunInput] = await _create(context, document)
    return written


delete_input = crud.delete(FlowRunInput)

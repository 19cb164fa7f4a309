"""Proposals: the one way in which a run changes state, and verbs that propose a certain state."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, cast

import strawberry
from pydantic import BaseModel

from runstate.core import inputs, runs, states
from runstate.core.requests import Answer, Outcome
from runstate.core.requests import ProposeState as Request
from runstate.core.states import State as Proposed
from runstate.documents.requests import CancelFlowRun, PauseFlowRun, ProposeState, ResumeFlowRun, RetryFlowRun
from runstate.documents.states import RunKind
from runstate.errors import BadUserInput, RunstateError
from runstate.graphql.context import Info
from runstate.graphql.derive import add_field, publish
from runstate.graphql.fields import mutation
from runstate.graphql.inputs import Input
from runstate.graphql.problems import IdempotencyConflict, InvalidInput, NotFound, VersionConflict, problem
from runstate.graphql.shapes import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState

LARGEST_BATCH: Final = 200

publish(Proposed, name="ProposedState", only={"type", "name", "message", "details"})
publish(
    Answer,
    name="OrchestrationResult",
    only={"status", "reason", "rule", "retry_after_seconds", "replayed", "considered", "proposed"},
)


async def _state(root: strawberry.Parent[Answer], info: Info) -> State | None:
    """The stored state that the run is in now: the proposed one, another one, or the one it was in."""
    if root.written is not None:
        return root.written
    row = FlowRunState if root.kind is RunKind.FLOW_RUN else TaskRunState
    return cast("State | None", await info.context.load(info, row, root.state_id))


async def _run(root: strawberry.Parent[Answer], info: Info) -> Run:
    """The run, as it is now."""
    row = FlowRun if root.kind is RunKind.FLOW_RUN else TaskRun
    return cast("Run", await info.context.load(info, row, root.run_id))


Result = Annotated[
    Answer | NotFound | InvalidInput | VersionConflict | IdempotencyConflict,
    strawberry.union("ProposeStateResult", description="How a proposal was answered, or what is wrong with it."),
]


def who(info: Info) -> dict[str, Any]:
    """Who asks, and in which request: kept with every state."""
    return {"actor": info.context.actor, "request_id": info.context.request_id or None}


def answered(outcome: Outcome) -> Any:
    """An outcome as GraphQL answers it: problems are data, bugs are errors."""
    return problem(outcome) if isinstance(outcome, RunstateError) else outcome


async def _one(info: Info, request: Callable[[], Request]) -> Any:
    try:
        (outcome,) = await info.context.desk.submit([request()])
    except RunstateError as error:
        outcome = error
    if isinstance(outcome, Exception) and not isinstance(outcome, RunstateError):
        raise outcome
    return answered(outcome)


def _verb(info: Info, given: BaseModel, verb: str, state: Callable[[datetime], Proposed]) -> Request:
    """A proposal for a flow run. Two that say the same ask for the same, whatever the clock says."""
    return Request(
        kind=RunKind.FLOW_RUN,
        run_id=given.id,  # type: ignore[attr-defined]
        state=state(info.context.now),
        idempotency_key=given.idempotency_key,  # type: ignore[attr-defined]
        said=f"{verb} {given.model_dump_json()}",
        **who(info),
    )


@strawberry.type
class Mutation:
    """Proposals."""

    @mutation
    async def propose_state(self, info: Info, input: Input[ProposeState]) -> Result:
        """Propose a state for a run: the one way a run changes state. The rules accept, reject, delay or abort it."""
        return await _one(info, lambda: runs.proposed(input.checked(), **who(info)))

    @mutation
    async def propose_states(self, info: Info, inputs: list[Input[ProposeState]]) -> list[Result | None]:
        """1 to 200 proposals, decided in order as one batch; an answer for each in the same place.

        Each stands alone, none undoes another. An answer is null only where a bug is reported in `errors` under its
        place.
        """
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise BadUserInput(f"From 1 to {LARGEST_BATCH} proposals can be made at once, not {len(inputs)}.")
        requests = [_checked(info, each) for each in inputs]
        possible = [each for each in requests if isinstance(each, Request)]
        outcomes = iter(await info.context.desk.submit(possible) if possible else ())
        return [answered(next(outcomes) if isinstance(each, Request) else each) for each in requests]

    @mutation
    async def pause_flow_run(self, info: Info, input: Input[PauseFlowRun]) -> Result:
        """Let a running flow run wait in its process."""
        return await _one(info, lambda: _pausing(info, input.checked(), "pause", runs.paused))

    @mutation
    async def suspend_flow_run(self, info: Info, input: Input[PauseFlowRun]) -> Result:
        """Let a running flow run of a deployment wait without a process: it is started anew on resume."""
        return await _one(info, lambda: _pausing(info, input.checked(), "suspend", runs.suspended))

    @mutation
    async def resume_flow_run(self, info: Info, input: Input[ResumeFlowRun]) -> Result:
        """Let a paused flow run go on, with the input that it waits for; a suspended one is SCHEDULED.

        An input that does not fit the run's schema is an InvalidInput; a run that is not paused is answered ABORT.
        """
        try:
            outcome = await inputs.resume(info.context.desk, input.checked(), **who(info))
        except RunstateError as error:
            outcome = error
        if isinstance(outcome, Exception) and not isinstance(outcome, RunstateError):
            raise outcome
        return answered(outcome)

    @mutation
    async def cancel_flow_run(self, info: Info, input: Input[CancelFlowRun]) -> Result:
        """Cancel a flow run: CANCELLING while infrastructure is torn down, CANCELLED at once where there is none."""
        given = input.checked
        return await _one(info, lambda: _cancelling(info, given()))

    @mutation
    async def retry_flow_run(self, info: Info, input: Input[RetryFlowRun]) -> Result:
        """Let a flow run of a deployment that has ended run again: SCHEDULED as AwaitingRetry."""
        return await _one(info, lambda: _retrying(info, input.checked()))

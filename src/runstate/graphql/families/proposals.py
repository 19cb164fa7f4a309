"""Proposals: the one way in which a run changes state, and verbs that propose a certain state."""

from functools import partial
from typing import Annotated, Any, Final, cast

import strawberry

from runstate.core import states
from runstate.core.batch.requests import Answer, Outcome
from runstate.core.batch.requests import ProposeState as Request
from runstate.core.commands import run_inputs, runs
from runstate.core.states import State as Proposed
from runstate.documents.access import Scope
from runstate.documents.requests import CancelFlowRun, PauseFlowRun, ProposeState, ResumeFlowRun, RetryFlowRun
from runstate.documents.states import RunKind
from runstate.errors import BadUserInput
from runstate.errors import InvalidInput as InvalidInputError
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import proposing, settled, who
from runstate.graphql.published import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.fields import mutation
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import IdempotencyConflict, InvalidInput, NotFound, VersionConflict, problem

LARGEST_BATCH: Final = 200
TOLD: Final = {"status", "reason", "rule", "retry_after_seconds", "replayed", "considered", "proposed"}

register_type(Proposed, name="ProposedState", only={"type", "name", "message", "details"})
register_type(Answer, name="OrchestrationResult", only=TOLD)

Asked = strawberry.argument(description="What is proposed.")
ProposeStateResult = Annotated[
    Answer | NotFound | InvalidInput | VersionConflict | IdempotencyConflict,
    strawberry.union("ProposeStateResult", description="How a proposal was answered, or what is wrong with it."),
]


@extends(cast("Any", Answer), name="state", held="written")
async def state_of_answer(root: strawberry.Parent[Answer], info: Info) -> State | None:
    """The stored state that the run is in now: the proposed one, another one, or the one it was in."""
    row: type[State] = FlowRunState if root.kind is RunKind.FLOW_RUN else TaskRunState
    return root.written or await info.context.load(info, row, root.state_id)


@extends(cast("Any", Answer), name="run")
async def run_of_answer(root: strawberry.Parent[Answer], info: Info) -> Run:
    """The run, as it is now."""
    row: type[Run] = FlowRun if root.kind is RunKind.FLOW_RUN else TaskRun
    return cast("Run", await info.context.load(info, row, root.run_id))


async def _one(info: Info, request: Request) -> Any:
    (outcome,) = await info.context.batcher.submit([request])
    return outcome


def _verb(info: Info, verb: str, given: PauseFlowRun | CancelFlowRun | RetryFlowRun, state: states.State) -> Request:
    """A proposal for a flow run. Two that say the same ask for the same, whatever the clock says."""
    return Request(
        kind=RunKind.FLOW_RUN,
        run_id=given.id,
        state=state,
        idempotency_key=given.idempotency_key,
        said=f"{verb} {given.model_dump_json()}",
        **who(info),
    )


def _checked(info: Info, given: Input[ProposeState]) -> Request | InvalidInputError:
    try:
        return runs.proposed(given.checked(), **who(info))
    except InvalidInputError as error:
        return error


def _placed(outcome: Outcome) -> Any:
    """An answer in a list: a problem as data; a bug, which GraphQL reports under its place."""
    try:
        return settled(outcome)
    except Exception as error:  # noqa: BLE001 whatever it is, the other answers stand
        return error


@strawberry.type
class Mutation:
    """Proposals."""

    @proposing
    async def propose_state(self, info: Info, input: Annotated[Input[ProposeState], Asked]) -> ProposeStateResult:
        """Propose a state for a run: the one way a run changes state. The rules accept, reject, delay or abort it."""
        answer: ProposeStateResult = await _one(info, runs.proposed(input.checked(), **who(info)))
        return answer

    @partial(mutation, scope=Scope.PROPOSE)
    async def propose_states(
        self, info: Info, inputs: Annotated[list[Input[ProposeState]], Asked]
    ) -> list[ProposeStateResult | None]:
        """1 to 200 proposals, decided in order as one batch; an answer for each in the same place.

        Each stands alone, none undoes another. An answer is null only where a bug is reported in `errors` under its
        place.
        """
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise BadUserInput(f"From 1 to {LARGEST_BATCH} proposals can be made at once, not {len(inputs)}.")
        requests = [_checked(info, each) for each in inputs]
        possible = [each for each in requests if isinstance(each, Request)]
        outcomes = iter(await info.context.batcher.submit(possible) if possible else ())
        return [problem(each) if isinstance(each, InvalidInputError) else _placed(next(outcomes)) for each in requests]

    @proposing
    async def pause_flow_run(self, info: Info, input: Annotated[Input[PauseFlowRun], Asked]) -> ProposeStateResult:
        """Let a running flow run wait in its process."""
        given = input.checked()
        answer: ProposeStateResult = await _one(info, _verb(info, "pause", given, runs.paused(given, info.context.now)))
        return answer

    @proposing
    async def suspend_flow_run(self, info: Info, input: Annotated[Input[PauseFlowRun], Asked]) -> ProposeStateResult:
        """Let a running flow run of a deployment wait without a process: it is started anew on resume."""
        given = input.checked()
        answer: ProposeStateResult = await _one(
            info, _verb(info, "suspend", given, runs.suspended(given, info.context.now))
        )
        return answer

    @proposing
    async def resume_flow_run(self, info: Info, input: Annotated[Input[ResumeFlowRun], Asked]) -> ProposeStateResult:
        """Let a paused flow run go on, with the input that it waits for; a suspended one is SCHEDULED.

        An input that does not fit the run's schema is an InvalidInput; a run that is not paused is answered ABORT.
        """
        outcome: Any = await run_inputs.resume(info.context.batcher, input.checked(), **who(info))
        answer: ProposeStateResult = outcome
        return answer

    @proposing
    async def cancel_flow_run(self, info: Info, input: Annotated[Input[CancelFlowRun], Asked]) -> ProposeStateResult:
        """Cancel a flow run: CANCELLING while infrastructure is torn down, CANCELLED at once where there is none."""
        given = input.checked()
        answer: ProposeStateResult = await _one(
            info, _verb(info, "cancel", given, states.cancelling(message=given.message))
        )
        return answer

    @proposing
    async def retry_flow_run(self, info: Info, input: Annotated[Input[RetryFlowRun], Asked]) -> ProposeStateResult:
        """Let a flow run of a deployment that has ended run again: SCHEDULED as AwaitingRetry."""
        given = input.checked()
        answer: ProposeStateResult = await _one(
            info, _verb(info, "retry", given, runs.retried(given, info.context.now))
        )
        return answer

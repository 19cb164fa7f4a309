"""Proposals: proposeState, proposeStates, and mutations that propose a particular state."""

from functools import partial
from typing import Annotated, Any, Final, cast

import strawberry

from runstate.core import states
from runstate.core.batch.requests import Answer, Outcome
from runstate.core.batch.requests import ProposeState as Request
from runstate.core.commands import proposals, run_inputs
from runstate.core.commands.runs import decided
from runstate.core.policies import CANCEL, RETRY
from runstate.core.proposal import Rule
from runstate.core.states import State as Proposed
from runstate.documents.access import Scope
from runstate.documents.requests import CancelFlowRun, PauseFlowRun, ProposeState, ResumeFlowRun, RetryFlowRun
from runstate.documents.states import RunKind
from runstate.errors import BadUserInput, IdempotencyConflict, InvalidInput, NotFound, VersionConflict
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import actor, mutation, result_union
from runstate.graphql.published import FlowRun, FlowRunState, Run, State, TaskRun, TaskRunState
from runstate.graphql.types import fields
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.inputs import Input
from runstate.graphql.types.problems import as_object

LARGEST_BATCH: Final = 200
SHOWN: Final = {"status", "reason", "rule", "retry_after_seconds", "replayed", "considered", "proposed"}

register_type(Proposed, name="ProposedState", only={"type", "name", "message", "details"})
register_type(Answer, name="OrchestrationResult", only=SHOWN)

PROBLEMS: Final = (NotFound, InvalidInput, VersionConflict, IdempotencyConflict)
PROPOSAL = strawberry.argument(description="The run and the proposed state.")
RUN = strawberry.argument(description="The run, and options of the state that is proposed for it.")
ProposeStateResult: Any = result_union("ProposeStateResult", Answer, *PROBLEMS)
proposing = mutation(Scope.PROPOSE, *PROBLEMS, returns=Answer, result="ProposeStateResult")


@extends(cast("Any", Answer), name="state", held="written")
async def state_of_answer(root: strawberry.Parent[Answer], info: Info) -> State | None:
    """The state of the run after the decision: the proposed state, another one, or the previous state."""
    row: type[State] = FlowRunState if root.kind is RunKind.FLOW_RUN else TaskRunState
    # A state that this request wrote needs no statement.
    return root.written or await info.context.load(info, row, root.state_id)


@extends(cast("Any", Answer), name="run")
async def run_of_answer(root: strawberry.Parent[Answer], info: Info) -> Run:
    """The run as it is now."""
    row: type[Run] = FlowRun if root.kind is RunKind.FLOW_RUN else TaskRun
    return cast("Run", await info.context.load(info, row, root.run_id))


def _verb(
    info: Info,
    verb: str,
    given: PauseFlowRun | CancelFlowRun | RetryFlowRun,
    state: states.State,
    policy: tuple[Rule[FlowRun], ...] | None = None,
) -> Request:
    """Return the proposal of a mutation. Its fingerprint is that of the input: a later repetition is the same."""
    return Request(
        kind=RunKind.FLOW_RUN,
        run_id=given.id,
        state=state,
        idempotency_key=given.idempotency_key,
        policy=policy,
        quirks=False,
        fingerprint_source=f"{verb} {given.model_dump_json()}",
        **actor(info),
    )


async def _checked(info: Info, document: Input[ProposeState]) -> Request | InvalidInput:
    try:
        request = proposals.proposed(document.checked(), **actor(info))
        await run_inputs.check_keyset(info.context.commands, request)
    # Other proposals of the list are decided all the same.
    except InvalidInput as error:
        return error
    return request


async def _decided(info: Info, request: Request) -> Any:
    await run_inputs.check_keyset(info.context.commands, request)
    return await decided(info.context.batcher, request)


def _as_member(outcome: Outcome) -> Any:
    """Return an answer for a list. Problems are data; GraphQL reports other errors with their place in the list."""
    return as_object(outcome) if isinstance(outcome, PROBLEMS) else outcome


@strawberry.type
class Mutation:
    """Proposals."""

    @proposing
    async def propose_state(self, info: Info, input: Annotated[Input[ProposeState], PROPOSAL]) -> Any:
        """Propose a state for a run. Rules accept, reject, delay or abort the proposal; nothing else changes states."""
        return await _decided(info, proposals.proposed(input.checked(), **actor(info)))

    # Not the decorator `mutation`: here, problems are members of the list.
    @partial(fields.mutation, scope=Scope.PROPOSE)
    async def propose_states(
        self, info: Info, inputs: Annotated[list[Input[ProposeState]], PROPOSAL]
    ) -> list[ProposeStateResult | None]:
        """Propose 1 to 200 states, decided in order as one batch. The answers have the order of the proposals.

        A proposal that fails does not undo others. An answer is null only if `errors` has an internal error with its
        place in the list.
        """
        if not 1 <= len(inputs) <= LARGEST_BATCH:
            raise BadUserInput(f"From 1 to {LARGEST_BATCH} proposals can be made at once, not {len(inputs)}.")
        requests = [await _checked(info, each) for each in inputs]
        valid = [each for each in requests if isinstance(each, Request)]
        outcomes = iter(await info.context.batcher.submit(valid) if valid else ())
        return [_as_member(each if isinstance(each, InvalidInput) else next(outcomes)) for each in requests]

    @proposing
    async def pause_flow_run(self, info: Info, input: Annotated[Input[PauseFlowRun], RUN]) -> Any:
        """Pause a running flow run. It waits in its process."""
        document = input.checked()
        state = proposals.paused(document, info.context.now)
        return await _decided(info, _verb(info, "pause", document, state))

    @proposing
    async def suspend_flow_run(self, info: Info, input: Annotated[Input[PauseFlowRun], RUN]) -> Any:
        """Suspend a running flow run of a deployment. Its process ends, and resuming starts a new one."""
        document = input.checked()
        state = proposals.suspended(document, info.context.now)
        return await _decided(info, _verb(info, "suspend", document, state))

    @proposing
    async def resume_flow_run(self, info: Info, input: Annotated[Input[ResumeFlowRun], RUN]) -> Any:
        """Resume a paused flow run with the input that it waits for; a suspended one becomes SCHEDULED.

        An input that does not match the run's schema is an InvalidInput. If the run is not paused, the status is ABORT.
        """
        return await run_inputs.resume(info.context.batcher, input.checked(), **actor(info))

    @proposing
    async def cancel_flow_run(self, info: Info, input: Annotated[Input[CancelFlowRun], RUN]) -> Any:
        """Cancel a flow run: CANCELLING while its infrastructure is stopped, or CANCELLED at once if it has no process.

        A run that is paused in its process becomes CANCELLING too. A run that never ran has no start time.
        """
        document = input.checked()
        state = states.cancelling(message=document.message)
        return await decided(info.context.batcher, _verb(info, "cancel", document, state, CANCEL))

    @proposing
    async def retry_flow_run(self, info: Info, input: Annotated[Input[RetryFlowRun], RUN]) -> Any:
        """Retry an ended flow run of a deployment. Its new state is SCHEDULED with the name AwaitingRetry."""
        document = input.checked()
        state = proposals.retried(document, info.context.now)
        return await decided(info.context.batcher, _verb(info, "retry", document, state, RETRY))

"""Answers to proposals, as the client reads them."""

from __future__ import annotations

from math import ceil
from typing import Any

from runstate.core.batch.requests import Answer
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.states import RunKind
from runstate.prefect import presentation, reading
from runstate.prefect.endpoint import Call, Reply
from runstate.rows import FlowRunState, TaskRunState


async def result(call: Call, answer: Answer) -> Reply:
    """Return the answer to a proposal, with the state of the run after it."""
    accepted = answer.status is OrchestrationStatus.ACCEPT
    content = {"state": await _state(call, answer), "status": answer.status.value, "details": _details(answer)}
    return Reply(content, 201 if accepted else 200)


async def _state(call: Call, answer: Answer) -> Any:
    # Without a state, the client goes on with the one that it has.
    if answer.status in (OrchestrationStatus.WAIT, OrchestrationStatus.ABORT):
        return None
    if answer.written is not None:
        return presentation.state(answer.written)
    row: type[FlowRunState | TaskRunState] = FlowRunState if answer.kind is RunKind.FLOW_RUN else TaskRunState
    return next(iter(await reading.states(call, row, row.id == answer.state_id)), None)


def _details(answer: Answer) -> dict[str, Any]:
    kind = {"type": f"{answer.status.value.lower()}_details"}
    if answer.status is OrchestrationStatus.ACCEPT:
        return kind
    if answer.status is OrchestrationStatus.WAIT:
        return {**kind, "delay_seconds": ceil(answer.retry_after_seconds or 0), "reason": answer.reason}
    return {**kind, "reason": answer.reason}


def rejected(reason: str) -> Reply:
    """Return the rejection of a request that no rule has judged."""
    return Reply({"state": None, "status": "REJECT", "details": {"type": "reject_details", "reason": reason}}, 200)

"""Decisions on proposals: the one that a state came from, and the last one of a run that wrote no state."""

from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

from pydantic import Field

from runstate.documents.base import Document
from runstate.documents.states import StateType


class OrchestrationStatus(Enum):
    """The decision on a proposal."""

    ACCEPT = "ACCEPT"
    """The proposed state was written, possibly with another name or more details."""
    REJECT = "REJECT"
    """Another state was written instead, or the run stays in its state."""
    WAIT = "WAIT"
    """Nothing was written. Propose the state again after `retryAfterSeconds`."""
    ABORT = "ABORT"
    """Nothing was written. The client should stop."""


class ProposedType(Document):
    """Type and name of a state as it was proposed."""

    type: StateType = Field(description="Type of the proposed state.")
    name: str = Field(description="Name of the proposed state.")


class StateDecision(Document):
    """The decision that wrote a state. An acceptance without changes is not stored."""

    proposed: ProposedType | None = Field(
        default=None, description="The state as it was proposed; null if it was written by force or by a service."
    )
    status: OrchestrationStatus = Field(
        default=OrchestrationStatus.ACCEPT,
        description="ACCEPT if the proposed state was written, REJECT if this one was written instead.",
    )
    rule: str | None = Field(
        default=None,
        description="Name of the rule that rejected the proposal. Of a state without a proposal: `force`, "
        "`follow_subflow_run` or the service that wrote it, as in `service:late`. Null for an acceptance.",
    )
    reason: str | None = Field(default=None, description="Reason of the rule, for people.")
    amended_by: tuple[str, ...] = Field(default=(), description="Names of the rules that changed the state, in order.")


class LastAnswer(Document):
    """The answer to the last proposal that did not give a run the state it asked for."""

    at: datetime = Field(description="Time of the answer. Equal answers are recorded at most once a second.")
    proposed: ProposedType = Field(description="The state as it was proposed.")
    status: OrchestrationStatus = Field(description="The decision: WAIT, ABORT or REJECT.")
    rule: str = Field(description="Name of the rule that decided.")
    reason: str = Field(description="Reason of the rule, for people.")
    retry_after_seconds: float | None = Field(
        default=None, description="For WAIT: seconds after which to propose the state again."
    )
    attempts: int = Field(default=1, description="Number of recorded answers in a row about full limits; otherwise 1.")
    limit_ids: tuple[UUID, ...] = Field(default=(), description="Ids of the full limits that the run waits for.")


AT_MOST_EVERY_SECONDS: Final = 1.0
"""Time in which an answer that is equal to the recorded one is not recorded again."""


def is_repeated(answer: LastAnswer, last: LastAnswer | None) -> bool:
    """Whether an answer says the same as the one that was recorded a moment ago."""
    # If the clock went back, the answer is recorded again.
    if last is None or not 0 <= (answer.at - last.at).total_seconds() < AT_MOST_EVERY_SECONDS:
        return False
    said = (answer.status, answer.rule, answer.limit_ids, answer.proposed)
    return said == (last.status, last.rule, last.limit_ids, last.proposed)

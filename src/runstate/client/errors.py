"""Errors of the client. Their messages say what to do."""

from typing import Any, Final

INTERNAL: Final = "INTERNAL"
"""Code of an error of the server itself; it may have a cause that passes."""


class LostError(Exception):
    """The stream ended and can be resumed."""


class ClientError(Exception):
    """The client could not do what was asked."""


class RefusedError(ClientError):
    """The server rejected the request; retrying does not help."""


class UnreachableError(ClientError):
    """No server answered for as long as the client is told to try."""


class ProblemError(ClientError):
    """The server returned a problem: the input is wrong, or does not fit the present state."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("message"))
        self.code: str = problem.get("code", INTERNAL)
        self.details = problem


class AbortedError(ClientError):
    """A rule aborted the proposal that a run starts. The message is the rule's reason."""


class FinalRunError(ClientError):
    """The run has ended already and is not run again. Read its state, or use another idempotency key."""


class Cancelled(BaseException):
    """The run was cancelled. Like CancelledError, it passes `except Exception`."""


class ResultError(ClientError):
    """A state has no result to return. The docstring is the default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class UnfinishedRun(ResultError):
    """The run has not ended: wait for it with `client.wait_for(run)`."""


class PausedRun(ResultError):
    """The run is paused: resume it with `runstate runs resume ID` or the mutation resumeFlowRun, then wait for it."""


class FailedRun(ResultError):
    """The run failed. Its exception was not kept; its logs may say more."""


class CrashedRun(ResultError):
    """The run crashed: its process ended before the run did."""


class CancelledRun(ResultError):
    """The run was cancelled."""


class MissingResult(ResultError):
    """The run completed, but its result was not kept: return JSON of up to 512 KiB, or give the client a storage."""

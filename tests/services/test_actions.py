"""Actions are executed once if they change our tables, and tried again if they send something."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from starlette.applications import Starlette
from typing_extensions import override

from runstate.core.actions.execution import LEASE, PAUSES, claim, execute_due
from runstate.core.actions.sending import SendAgain, Sender, SendingFailed
from runstate.services import actions, automations
from tests.client import Ask

TRIGGER = {"event": {"posture": "REACTIVE", "expect": ["a"]}}
CREATE = """mutation($input: CreateAutomationInput!) { createAutomation(input: $input) {
  ... on CreateAutomationPayload { automation { id } } } }"""
EMIT = """mutation { emitEvents(input: { events: [{ name: "a", resource: { resourceId: "x" } }] }) { __typename } }"""
RUNS = "{ automationActionRuns { nodes { id status attempts reason } } }"
RETRY = """mutation($id: ID!) { retryAutomationAction(id: $id) {
  ... on RetryAutomationActionPayload { actionRun { status } } } }"""


class Receiver(BaseHTTPRequestHandler):
    """Answers with the status in the path."""

    @override
    def log_message(self, *_: Any) -> None:
        return

    def do_POST(self) -> None:
        """Answer a request."""
        self.send_response(int(self.path.strip("/")))
        self.send_header("location", "http://127.0.0.1:1/")
        self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(b"x" * 5000)


@pytest.fixture
def receiver() -> Iterator[str]:
    """Yield the address of a receiver of webhooks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def fire(app: Starlette, ask: Ask, *given: Any) -> None:
    """Let an automation with actions fire."""
    await ask(CREATE, input={"name": "x", "trigger": TRIGGER, "actions": list(given)})
    await automations.run_once(app.state.batcher, app.state.batcher.clock())
    await ask(EMIT)
    await automations.run_once(app.state.batcher, app.state.batcher.clock())


async def runs(ask: Ask) -> Any:
    """Return the actions of all firings."""
    return (await ask(RUNS))["automationActionRuns"]["nodes"]


async def test_an_action_is_executed_once(app: Starlette, ask: Ask) -> None:
    await fire(app, ask, {"doNothing": True})
    batcher = app.state.batcher
    assert [await actions.run_once(batcher, batcher.clock()) for _ in range(2)] == [1, 0]
    assert [(each["status"], each["attempts"]) for each in await runs(ask)] == [("EXECUTED", 1)]


async def test_an_action_that_failed_can_be_tried_again(app: Starlette, ask: Ask) -> None:
    await fire(app, ask, {"flowRun": {"verb": "CANCEL"}})
    batcher = app.state.batcher
    await actions.run_once(batcher, batcher.clock())
    (failed,) = await runs(ask)
    assert (failed["status"], "flow-run" in failed["reason"]) == ("FAILED", True)
    retried = await ask(RETRY, id=failed["id"])
    assert retried["retryAutomationAction"]["actionRun"]["status"] == "PENDING"
    assert await actions.run_once(batcher, batcher.clock()) == 1


async def test_an_action_of_a_killed_process_is_taken_over_after_its_lease(app: Starlette, ask: Ask) -> None:
    await fire(app, ask, {"doNothing": True})
    batcher = app.state.batcher
    assert len(await claim(batcher.context, batcher.clock())) == 1
    assert await execute_due(batcher, batcher.clock()) == 0
    assert await execute_due(batcher, batcher.clock() + LEASE) == 1
    assert [(each["status"], each["attempts"]) for each in await runs(ask)] == [("EXECUTED", 2)]


async def test_webhooks_do_not_reach_this_machine_unless_that_is_allowed(receiver: str) -> None:
    with pytest.raises(SendingFailed, match="not public"):
        await Sender().call("POST", f"{receiver}/200", {}, "")
    answer = await Sender(["127.0.0.0/8"]).call("POST", f"{receiver}/200", {}, "")
    assert (answer.status, len(answer.body)) == (200, 1000)


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_a_busy_receiver_is_asked_again(receiver: str, status: int) -> None:
    with pytest.raises(SendAgain) as error:
        await Sender(["127.0.0.0/8"]).call("POST", f"{receiver}/{status}", {}, "")
    assert error.value.after == 7


@pytest.mark.parametrize("status", [302, 400, 404])
async def test_a_receiver_that_refuses_is_not_asked_again(receiver: str, status: int) -> None:
    with pytest.raises(SendingFailed, match=str(status)):
        await Sender(["127.0.0.0/8"]).call("POST", f"{receiver}/{status}", {}, "")


def test_pauses_between_attempts_grow() -> None:
    assert list(PAUSES) == sorted(PAUSES)

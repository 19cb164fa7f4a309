"""A client that runs one task run: it enters RUNNING, sends heartbeats, and prints a line for each answer.

python tests/services/beating.py URL TASK_RUN_ID SECONDS_BETWEEN_HEARTBEATS
"""

import json
import sys
import time
import urllib.error
import urllib.request

RUNNING = """mutation($id: ID!) { proposeState(input: { run: { taskRunId: $id }, state: { type: RUNNING } }) {
  ... on OrchestrationResult { status } } }"""
HEARTBEAT = """mutation($id: ID!) { heartbeat(runs: [{ taskRunId: $id }]) {
  ... on HeartbeatPayload { runs { stateType } } } }"""


def ask(url: str, document: str, run: str) -> str:
    """Return the answer to a request, or what kept the server from answering."""
    body = json.dumps({"query": document, "variables": {"id": run}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310
            return str(reply.read().decode())
    except (OSError, urllib.error.URLError) as error:
        return f"unreachable: {type(error).__name__}"


def main(url: str, run: str, seconds: str) -> None:
    """Run until the process is killed."""
    say(ask(url, RUNNING, run))
    while True:
        say(ask(url, HEARTBEAT, run))
        time.sleep(float(seconds))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

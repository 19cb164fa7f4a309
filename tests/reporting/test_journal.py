"""A journal keeps what happened while the server was away, and tells it afterwards, in order."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from runstate.client import Client, UnreachableError
from tests.client import Ask
from tests.reporting.test_verdicts import failing, history
from tests.subscribing import asking, listening


@pytest.fixture
def port() -> int:
    """Return a free port."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


def away(port: int, journal: Path, patience: float = 20) -> Client:
    """Return a client of a server that may be away."""
    return Client(f"http://127.0.0.1:{port}", patience=patience, journal=journal, journal_after=0.1)


async def names(ask: Ask) -> dict[str, list[str]]:
    """Return the names of the states of each task run by its key."""
    found = (await ask("{ taskRuns { nodes { id taskKey } } }"))["taskRuns"]["nodes"]
    return {each["taskKey"]: await history(ask, each["id"]) for each in found}


async def test_a_run_without_a_server_is_told_to_the_next_one(url: str, port: int, tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"

    def script() -> None:
        client = away(port, journal, patience=0)
        with client.flow_run("etl", parameters={"day": 1}) as run:
            assert run.task("extract").run(lambda: 5) == 5
            assert run.task("load", retries=1).run(failing(1, "done")) == "done"
        with pytest.raises(UnreachableError, match="reports could not be told and stay in the journal"):
            client.close()

    await asyncio.to_thread(script)
    async with listening(url, port=port) as server, asking(server) as ask:
        later = away(port, journal)
        # Opening it begins to tell.
        await asyncio.to_thread(later.flush)
        await asyncio.to_thread(later.close)

        runs = (await ask("{ flowRuns { nodes { id parameters } } }"))["flowRuns"]["nodes"]
        assert [each["parameters"] for each in runs] == [{"day": 1}]
        assert await history(ask, runs[0]["id"]) == ["Pending", "Running", "Completed"]
        assert await names(ask) == {
            "extract": ["Pending", "Running", "Completed"],
            "load": ["Pending", "Running", "Failed", "Running", "Completed"],
        }


async def test_a_run_goes_on_while_its_server_is_away(url: str, port: int, tmp_path: Path) -> None:
    client = away(port, tmp_path / "journal.db")
    run = client.flow_run("etl")
    done, go = [threading.Event() for _ in range(2)], [threading.Event() for _ in range(2)]

    def body() -> None:
        run.task("before").run(lambda: None)
        done[0].set()
        go[0].wait()
        run.task("meanwhile").run(lambda: None)
        done[1].set()
        go[1].wait()
        run.task("after").run(lambda: None)

    async with listening(url, port=port):
        working = asyncio.create_task(asyncio.to_thread(run.run, body))
        await asyncio.to_thread(done[0].wait)
    go[0].set()
    await asyncio.to_thread(done[1].wait)
    async with listening(url, port=port) as server, asking(server) as ask:
        go[1].set()
        await working
        await asyncio.to_thread(client.close)
        completed = ["Pending", "Running", "Completed"]
        assert await names(ask) == {"before": completed, "meanwhile": completed, "after": completed}
        # A server that takes longer than the journal waits has told the client no id.
        (told,) = (await ask("{ flowRuns { nodes { id } } }"))["flowRuns"]["nodes"]
        assert await history(ask, told["id"]) == completed

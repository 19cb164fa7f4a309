"""A short form of benchmarks/client_torture.py: a server and a client are killed under clients that report runs."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from benchmarks.client_torture import Server, torture


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: the benchmark uses PostgreSQL."""
    return "sqlite"


async def test_runs_end_in_the_database_as_in_their_clients(url: str, tmp_path: Path) -> None:
    server = await asyncio.to_thread(Server, url)
    options = {"clients": 2, "flows": 4, "kills": 1, "victims": 1}
    play = partial(torture, server, tmp_path, **options, restart=lambda: None)
    try:
        assert await asyncio.to_thread(play) == []
    finally:
        await asyncio.to_thread(server.stop)

"""How long `runstate serve` takes to its first answer and how much memory it has, beside what it imports from others.

    python benchmarks/start.py --times 5

In turns: a process that imports every module of other packages that the server imports, and no more; and a server on an
empty SQLite database that has its tables. Printed are medians, and what the server adds.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import typer
from light import Client, serving

LIST = "import runstate.__main__, sys; print('\\n'.join(n for n in sys.modules if n.split('.')[0] != 'runstate'))"
ALONE = """
import importlib, sys
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except Exception:
        pass
print(flush=True)
import time; time.sleep(60)
"""


def of_others(names: bytes) -> tuple[float, float]:
    """Seconds and megabytes of importing these modules."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout  # noqa: S101, PT018 they are piped
    process.stdin.write(names)
    process.stdin.close()
    process.stdout.readline()
    taken, held = time.perf_counter() - began, psutil.Process(process.pid).memory_info().rss / 2**20
    process.kill()
    process.wait()
    return taken, held


def of_server(database_url: str) -> tuple[float, float]:
    """Seconds to the first answer of a server, and its megabytes then."""
    began = time.perf_counter()
    with serving(database_url) as (url, process):
        asyncio.run(answered(url))
        return time.perf_counter() - began, process.memory_info().rss / 2**20


async def answered(url: str) -> None:
    """Ask once."""
    client = await Client.connect(url)
    await client.ask("{ __typename }")
    client.close()


def main(times: int = 5) -> None:
    """Measure both in turns."""
    names = subprocess.run([sys.executable, "-c", LIST], check=True, capture_output=True).stdout
    others, servers = [], []
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite+aiosqlite:///{Path(directory) / 'runstate.db'}"
        of_server(url)
        for _ in range(times):
            others.append(of_others(names))
            servers.append(of_server(url))
    for place, what in ((0, "seconds"), (1, "megabytes")):
        alone, served = (statistics.median(each[place] for each in held) for held in (others, servers))
        print(f"{what:10} {alone:7.2f} of others' modules {served:7.2f} at the first answer {served - alone:+7.2f}")


if __name__ == "__main__":
    typer.run(main)

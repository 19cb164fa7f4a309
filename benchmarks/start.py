"""Time to the first answer of `runstate serve`, and its memory, compared with the imports of other packages alone.

    python -m benchmarks.start --times 5

Two processes alternate: one only imports the modules of other packages that the server imports; one is a server on an
empty, migrated SQLite database. The output has the medians and the difference.
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

from benchmarks.http_client import Client, serving

MODULES = "import runstate.__main__, sys; print('\\n'.join(n for n in sys.modules if n.split('.')[0] != 'runstate'))"
IMPORT = """
import importlib, sys
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except Exception:
        pass
print(flush=True)
import time; time.sleep(60)
"""


def measure_imports(names: bytes) -> tuple[float, float]:
    """Return seconds and megabytes that the import of some modules takes."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", IMPORT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout  # noqa: S101, PT018 they are piped
    process.stdin.write(names)
    process.stdin.close()
    process.stdout.readline()
    taken, memory = time.perf_counter() - began, psutil.Process(process.pid).memory_info().rss / 2**20
    process.kill()
    process.wait()
    return taken, memory


def measure_server(database_url: str) -> tuple[float, float]:
    """Return seconds until the first answer of a server, and its megabytes then."""
    began = time.perf_counter()
    with serving(database_url) as (url, process):
        asyncio.run(request_once(url))
        return time.perf_counter() - began, process.memory_info().rss / 2**20


async def request_once(url: str) -> None:
    """Send one request."""
    client = await Client.connect(url)
    await client.execute("{ __typename }")
    client.close()


def main(times: int = 5) -> None:
    """Measure both alternately and print the medians."""
    names = subprocess.run([sys.executable, "-c", MODULES], check=True, capture_output=True).stdout
    others, servers = [], []
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite+aiosqlite:///{Path(directory) / 'runstate.db'}"
        measure_server(url)
        for _ in range(times):
            others.append(measure_imports(names))
            servers.append(measure_server(url))
    for place, what in ((0, "seconds"), (1, "megabytes")):
        alone, served = (statistics.median(each[place] for each in found) for found in (others, servers))
        print(f"{what:10} {alone:7.2f} imports {served:7.2f} at the first answer {served - alone:+7.2f}")


if __name__ == "__main__":
    typer.run(main)

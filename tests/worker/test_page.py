"""docs/workers.md: its worker works."""

import re
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from pathlib import Path

from tests.worker.conftest import Pool, end

PAGE = (Path(__file__).parents[2] / "docs" / "workers.md").read_text()
SNIPPETS = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


async def test_the_minimal_worker_executes_a_run(pool: Pool, tmp_path: Path) -> None:
    program = tmp_path / "minimal_worker.py"
    program.write_text(SNIPPETS[program.name].replace("http://127.0.0.1:4200/graphql", pool.url))
    run_id = await pool.make_run(await pool.deploy("the worker of the page ignores this"))
    worker = await create_subprocess_exec(sys.executable, program, stdout=PIPE, stderr=STDOUT)
    pool.workers.push_async_callback(end, worker)

    assert (await pool.until(run_id, "COMPLETED", "CRASHED"))["stateType"] == "COMPLETED"

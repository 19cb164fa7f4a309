"""Calls the function of an entry point, such as `flows/etl.py:etl` or `package.module:etl`.

The parameters of the run are read as JSON from standard input. A path without a function is run as a script.
"""

import asyncio
import importlib
import inspect
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def function_of(entrypoint: str) -> Callable[..., Any] | None:
    """Return the function of an entry point; None for a script, which has run by then."""
    place, _, name = entrypoint.rpartition(":")
    sys.path.insert(0, str(Path.cwd()))
    if not place:
        runpy.run_path(name, run_name="__main__")
        return None
    if place.endswith(".py"):
        sys.path.insert(0, str(Path(place).parent.resolve()))
        function: Callable[..., Any] = runpy.run_path(place)[name]
        return function
    found: Callable[..., Any] = getattr(importlib.import_module(place), name)
    return found


def main(entrypoint: str) -> None:
    """Call the function with the parameters; wait for a coroutine."""
    if function := function_of(entrypoint):
        parameters = json.loads(sys.stdin.read() or "{}")
        result = function(**parameters)
        if inspect.iscoroutine(result):
            asyncio.run(result)


if __name__ == "__main__":
    main(sys.argv[1])

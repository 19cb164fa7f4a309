"""The loop of a bounded process. It imports nothing else of runstate, so that the process starts fast."""

import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

CPU_SECONDS: Final = 0.5
"""Processor time that one request may use."""
MEMORY_BYTES: Final = 2**29
"""Address space that the process may use."""


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answer each line with a line until the end of the input.

    A request that uses too much processor time or memory ends the process.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a process that is killed must not write a core dump
    for request in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # the default action of its signal ends the process
        written = answer(request.rstrip(b"\n"))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(written + b"\n")
        sys.stdout.buffer.flush()

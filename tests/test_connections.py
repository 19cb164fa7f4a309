"""Limits on connections."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.testing import capture_logs

from runstate.connections import REPORT_SECONDS, ConnectionLimits, Connections


@contextmanager
def no_files_left() -> Iterator[None]:
    """Allow this process no file besides those that it has opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_exhausted_file_descriptors_are_logged_once_in_a_while() -> None:
    connections = Connections(ConnectionLimits())
    with capture_logs() as logs:
        connections.sweep(0, set())
        with no_files_left():
            for now in (1, 2, 1 + REPORT_SECONDS):
                connections.sweep(now, set())

    assert [each["event"] for each in logs] == ["file_descriptors_exhausted"] * 2


def test_refused_connections_are_logged_once_in_a_while() -> None:
    connections = Connections(ConnectionLimits(connections=1))
    with capture_logs() as logs:
        assert [connections.enter("one"), connections.enter("two"), connections.enter("two")] == [True, False, False]
        connections.now = REPORT_SECONDS + 1
        connections.sweep(connections.now, set())

    assert [each["refused"] for each in logs] == [1, 1]

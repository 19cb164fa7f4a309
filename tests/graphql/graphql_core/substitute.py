"""A plugin of pytest for graphql-core's own tests: what asks for no executor of its own gets the one that is named.

With `--planned` their types look as if Strawberry had made them, so that whatever can be planned is: fields that have
neither a resolver nor arguments are read from objects, and objects are written by plans.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from graphql import Executor, GraphQLObjectType, GraphQLSchema, default_field_resolver
from graphql.execution.incremental import IncrementalExecutor
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

from runstate.graphql.execution.executor import executor_with
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.types.fields import DEFINED_BY


class Told:
    """What is told of a run, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.plan_cache = PlanCache()
        self.executors = 0
        self.passed = 0
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test."""
        if report.failed:
            self.failed.add(report.nodeid)
        self.passed += report.passed and report.when == "call"

    def pytest_unconfigure(self) -> None:
        """Tell it."""
        noted = {"passed": self.passed, "executors": self.executors, "left": self.plan_cache.fallbacks.counts.total()}
        self.file.write_bytes(orjson.dumps({"failed": sorted(self.failed), **noted}))


class Definition(NamedTuple):
    """As much of what Strawberry notes on a type as plans ask for."""

    origin: type


class Nobody:
    """No object is of this class."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which executor, whether its plans are used, and where to tell of it."""
    parser.addoption("--executor", choices=["stock", "strawberry", "ours"], required=True)
    parser.addoption("--planned", action="store_true")
    parser.addoption("--told", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Substitute the executor."""
    told, name = Told(config.getoption("--told")), config.getoption("--executor")
    config.pluginmanager.register(told)
    if name == "strawberry":
        substitute(StrawberryGraphQLCoreExecutionContext, told)
    elif name == "ours":
        substitute(executor_with(told.plan_cache), told, plan if config.getoption("--planned") else None)


def substitute(executor: type[Executor[Any]], told: Told, then: Callable[[Any], None] | None = None) -> None:
    """Have the library use an executor by default: whatever is executed begins with `Executor.build`."""
    build = vars(Executor)["build"].__func__

    def built(cls: type[Executor[Any]], *arguments: Any, **named: Any) -> Any:
        made = build(executor if cls in {Executor, IncrementalExecutor} else cls, *arguments, **named)
        told.executors += isinstance(made, executor)
        if then and isinstance(made, executor):
            then(made)
        return made

    Executor.build = classmethod(built)  # type: ignore[assignment]
    # The default of subscribe has tests of its own, which ask for it by name.
    vars(import_module("graphql.execution.execute"))["ExecutorThrowingOnIncremental"] = executor


def plan(executor: Any) -> None:
    """Have an executor plan whatever can be planned."""
    derive(executor.schema)
    if executor.field_resolver is not default_field_resolver:
        executor.planning = False


def derive(schema: GraphQLSchema) -> None:
    """Make the types of a schema look as if they were derived from classes."""
    for kind in schema.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            kind.extensions.setdefault(DEFINED_BY, Definition(Nobody if kind.is_type_of else object))
            for name, field in kind.fields.items():
                if field.resolve is None and not field.args:
                    field.extensions.setdefault(DEFINED_BY, StrawberryField(python_name=name))

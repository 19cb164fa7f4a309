"""A plugin of pytest for graphql-core's own tests: they execute with the named executor unless they choose one.

With `--planned` their types look like types of Strawberry, so that plans execute as much as possible: fields with
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


class Results:
    """Records the results of a run in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.plan_cache = PlanCache()
        self.executors = 0
        self.passed = 0
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the result of a test."""
        if report.failed:
            self.failed.add(report.nodeid)
        self.passed += report.passed and report.when == "call"

    def pytest_unconfigure(self) -> None:
        """Write the file."""
        noted = {"passed": self.passed, "executors": self.executors, "left": self.plan_cache.fallbacks.counts.total()}
        self.file.write_bytes(orjson.dumps({"failed": sorted(self.failed), **noted}))


class Definition(NamedTuple):
    """The part of Strawberry's definition of a type that plans read."""

    origin: type


class Nobody:
    """A class without instances."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options: the executor, whether its plans are used, and the file of the results."""
    parser.addoption("--executor", choices=["stock", "strawberry", "ours"], required=True)
    parser.addoption("--planned", action="store_true")
    parser.addoption("--results", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Substitute the executor."""
    results, name = Results(config.getoption("--results")), config.getoption("--executor")
    config.pluginmanager.register(results)
    if name == "strawberry":
        substitute(StrawberryGraphQLCoreExecutionContext, results)
    elif name == "ours":
        substitute(executor_with(results.plan_cache), results, plan if config.getoption("--planned") else None)


def substitute(executor: type[Executor[Any]], results: Results, then: Callable[[Any], None] | None = None) -> None:
    """Have graphql-core use an executor by default: every execution starts with `Executor.build`."""
    build = vars(Executor)["build"].__func__

    def built(cls: type[Executor[Any]], *arguments: Any, **named: Any) -> Any:
        made = build(executor if cls in {Executor, IncrementalExecutor} else cls, *arguments, **named)
        results.executors += isinstance(made, executor)
        if then and isinstance(made, executor):
            then(made)
        return made

    Executor.build = classmethod(built)  # type: ignore[assignment]
    # `subscribe` has a default of its own, which its tests import by name.
    vars(import_module("graphql.execution.execute"))["ExecutorThrowingOnIncremental"] = executor


def plan(executor: Any) -> None:
    """Have an executor use plans where it can."""
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

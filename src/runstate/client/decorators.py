"""Functions as flows and tasks."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast, overload

from runstate.client.bodies import CURRENT
from runstate.client.client import BaseClient, Client
from runstate.client.proposals import ReportedRun
from runstate.client.reporter import Reporter
from runstate.client.results import data_of_value
from runstate.client.runs import FlowRun, TaskRun, given

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")
CacheKey = str | Callable[..., str]

NOT_READY: Final = {"type": "PENDING", "name": "NotReady", "message": "A task run that it depends on did not complete."}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of flows and tasks."""

    name: str
    retries: int = 0
    retry_delay: float | Sequence[float] = 0
    tags: Sequence[str] = ()
    client: BaseClient | None = None
    cache_key: CacheKey | None = None
    cache_for: timedelta | None = None
    refresh_cache: bool = False
    executor: Executor | None = None


class TaskFuture(Generic[T]):
    """The result of a submitted task. As an argument of another task it is replaced by its value, and a dependency."""

    def __init__(self, run: TaskRun, future: Future[T]) -> None:
        self.task_run, self.future = run, future

    def result(self, timeout: float | None = None) -> T:
        """Wait for the value, or raise the exception."""
        return self.future.result(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task has ended, well or not."""
        self.future.exception(timeout)

    def __await__(self) -> Generator[Any, Any, T]:
        return asyncio.wrap_future(self.future).__await__()


@dataclass(frozen=True, slots=True)
class Unmapped(Generic[T]):
    """An argument that `map` passes to each task as it is."""

    value: T


def unmapped(value: T) -> Unmapped[T]:
    """Return an argument that `map` passes to each task as it is."""
    return Unmapped(value)


class FlowFunction(Generic[P, T]):
    """A function whose calls are flow runs; inside of another one, subflow runs."""

    def __init__(self, function: Callable[P, T], options: Options) -> None:
        self.function, self.options = function, options
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the flow. The arguments are the parameters of the run."""
        if inspect.iscoroutinefunction(self.function):
            return cast("T", self._acall(args, kwargs))
        with self._run(args, kwargs) as run:
            return run.run(self.function, *_values(args), **_values(kwargs))

    def with_options(self, **changes: Any) -> FlowFunction[P, T]:
        """Return the flow with other options."""
        return FlowFunction(self.function, replace(self.options, **changes))

    async def _acall(self, args: Any, kwargs: Any) -> Any:
        with self._run(args, kwargs) as run:
            function = cast("Callable[..., Awaitable[Any]]", self.function)
            return await run.arun(function, *await _avalues(args), **await _avalues(kwargs))

    @contextmanager
    def _run(self, args: Any, kwargs: Any) -> Iterator[FlowRun]:
        options = self.options
        common: dict[str, Any] = {"tags": options.tags, "retries": options.retries, "retry_delay": options.retry_delay}
        parameters, inputs = _parameters(self.function, args, kwargs), _inputs(self.function, args, kwargs)
        parent = _flow_run(CURRENT.get())
        # A flow inside of another one is reported by the client of the outer one.
        if parent:
            run = parent.subflow(options.name, parameters=parameters, inputs=inputs, **common)
            run.executor = options.executor
            yield run
            return
        with _client(options.client) as client:
            run = client.flow_run(options.name, parameters=parameters, **common)
            run.executor = options.executor
            yield run


class TaskFunction(Generic[P, T]):
    """A function whose calls are task runs of the current flow run, or of none."""

    def __init__(self, function: Callable[P, T], options: Options) -> None:
        self.function, self.options = function, options
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the task and return its value."""
        if inspect.iscoroutinefunction(self.function):
            return cast("T", self._acall(args, kwargs))
        with self._run(args, kwargs) as run:
            return self._execute(run, args, kwargs)

    @overload
    def submit(self: TaskFunction[P, Coroutine[Any, Any, V]], *args: Any, **kwargs: Any) -> TaskFuture[V]: ...
    @overload
    def submit(self, *args: Any, **kwargs: Any) -> TaskFuture[T]: ...
    def submit(self, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Run the task at the same time as the flow; return its future. Futures among the arguments are awaited."""
        flow_run = _flow_run(CURRENT.get())
        if flow_run is None:
            raise RuntimeError("Tasks are submitted inside of a flow: call the task, or submit it in a flow.")
        return self._submit(flow_run, self._new(flow_run, args, kwargs), args, kwargs)

    @overload
    def map(self: TaskFunction[P, Coroutine[Any, Any, V]], *args: Any, **kwargs: Any) -> list[TaskFuture[V]]: ...
    @overload
    def map(self, *args: Any, **kwargs: Any) -> list[TaskFuture[T]]: ...
    def map(self, *args: Any, **kwargs: Any) -> list[TaskFuture[Any]]:
        """Submit the task for each item of the iterable arguments; other arguments, and texts, are those of each."""
        flow_run = _flow_run(CURRENT.get())
        if flow_run is None:
            raise RuntimeError("Tasks are mapped inside of a flow: call the task, or map it in a flow.")
        calls = list(_mapped(args, kwargs))
        runs = [self._new(flow_run, *call) for call in calls]
        # Created together; those that depend on others are created when these have ended.
        flow_run.engine.submit(
            lambda reporter: _create([run for run in runs if "taskInputs" not in run.fields], reporter)
        )
        return [self._submit(flow_run, run, *call) for run, call in zip(runs, calls, strict=True)]

    def with_options(self, **changes: Any) -> TaskFunction[P, T]:
        """Return the task with other options."""
        return TaskFunction(self.function, replace(self.options, **changes))

    def _submit(self, flow_run: FlowRun, run: TaskRun, args: Any, kwargs: Any) -> TaskFuture[T]:
        if not inspect.iscoroutinefunction(self.function):
            return TaskFuture(run, flow_run.submit(lambda: self._execute(run, args, kwargs)))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return TaskFuture(run, flow_run.submit(lambda: asyncio.run(self._aexecute(run, args, kwargs))))
        # In the loop of the caller, because coroutines use objects that belong to it.
        future = asyncio.run_coroutine_threadsafe(self._aexecute(run, args, kwargs), loop)
        return TaskFuture(run, flow_run.track(future))

    def _execute(self, run: TaskRun, args: Any, kwargs: Any) -> T:
        try:
            values, named = _values(args), _values(kwargs)
        except BaseException:
            self._depend(run, args, kwargs)
            run.fields["state"] = NOT_READY
            run.engine.wait(run.create)
            raise
        self._depend(run, args, kwargs)
        return run.run(self.function, *values, **named)

    async def _aexecute(self, run: TaskRun, args: Any, kwargs: Any) -> Any:
        try:
            values, named = await _avalues(args), await _avalues(kwargs)
        except BaseException:
            self._depend(run, args, kwargs)
            run.fields["state"] = NOT_READY
            await run.engine.join(run.create)
            raise
        self._depend(run, args, kwargs)
        return await run.arun(cast("Callable[..., Awaitable[Any]]", self.function), *values, **named)

    def _depend(self, run: TaskRun, args: Any, kwargs: Any) -> None:
        """Set the inputs of a run, when the runs that it depends on have ended and have ids."""
        if "taskInputs" in run.fields:
            inputs = _inputs(self.function, args, kwargs) or {}
            # A run that could not be created has no id.
            run.fields["taskInputs"] = {name: [each for each in of if each["id"]] for name, of in inputs.items()}

    async def _acall(self, args: Any, kwargs: Any) -> Any:
        with self._run(args, kwargs) as run:
            return await self._aexecute(run, args, kwargs)

    @contextmanager
    def _run(self, args: Any, kwargs: Any) -> Iterator[TaskRun]:
        if flow_run := _flow_run(CURRENT.get()):
            yield self._new(flow_run, args, kwargs)
            return
        with _client(self.options.client) as client:
            yield client.task_run(self.options.name, **self._given(args, kwargs))

    def _new(self, flow_run: FlowRun, args: Any, kwargs: Any) -> TaskRun:
        return flow_run.task(self.options.name, **self._given(args, kwargs))

    def _given(self, args: Any, kwargs: Any) -> dict[str, Any]:
        options, key = self.options, self.options.cache_key
        return given(
            retries=options.retries,
            retry_delay=options.retry_delay,
            tags=options.tags,
            cache_key=key(*args, **kwargs) if callable(key) else key,
            cache_for=options.cache_for,
            refresh_cache=options.refresh_cache,
            inputs=_inputs(self.function, args, kwargs),
        )


@overload
def flow(function: Callable[P, T], /) -> FlowFunction[P, T]: ...
@overload
def flow(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: float = 0,
    tags: Sequence[str] = (),
    client: BaseClient | None = None,
    executor: Executor | None = None,
) -> Callable[[Callable[P, T]], FlowFunction[P, T]]: ...
def flow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make the calls of a function flow runs. Without a client, each run has one with the settings of the environment.

    Submitted tasks are executed by the executor; threads by default.
    """
    return _decorated(FlowFunction, function, options)


@overload
def task(function: Callable[P, T], /) -> TaskFunction[P, T]: ...
@overload
def task(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: float | Sequence[float] = 0,
    tags: Sequence[str] = (),
    cache_key: CacheKey | None = None,
    cache_for: timedelta | None = None,
    refresh_cache: bool = False,
    client: BaseClient | None = None,
) -> Callable[[Callable[P, T]], TaskFunction[P, T]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make the calls of a function task runs. A cache key that is a function gets the arguments of the call."""
    return _decorated(TaskFunction, function, options)


def _decorated(kind: Any, function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    def decorate(function: Callable[..., Any]) -> Any:
        name = options.get("name") or function.__name__.replace("_", "-")
        return kind(function, Options(**{**options, "name": name}))

    return decorate if function is None else decorate(function)


@contextmanager
def _client(client: BaseClient | None) -> Iterator[BaseClient]:
    """Yield a client, or one that is closed afterwards."""
    if client:
        yield client
        return
    with Client() as made:
        yield made


def _flow_run(run: ReportedRun | None) -> FlowRun | None:
    """Return the flow run that a run is or belongs to."""
    return run.flow_run if isinstance(run, TaskRun) else run if isinstance(run, FlowRun) else None


def _parameters(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by name; those that are no JSON as text."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return {name: _shown(value) for name, value in bound.arguments.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown(each) for each in value]
    kept = data_of_value(value, None, keeps_none=False)
    return value if kept is value else repr(value)[:1_000]


def _inputs(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any] | None:
    """Return the task inputs of a call: the runs of the futures in each argument."""
    if not any(True for each in (*args, *kwargs.values()) for _ in _futures(each)):
        return None
    bound = inspect.signature(function).bind(*args, **kwargs).arguments
    sources = {name: [_source(each) for each in _futures(value)] for name, value in bound.items()}
    return {name: each for name, each in sources.items() if each}


def _source(future: TaskFuture[Any]) -> dict[str, str]:
    return {"input_type": "task_run", "id": future.task_run.id}


def _futures(value: Any) -> Iterator[TaskFuture[Any]]:
    if isinstance(value, TaskFuture):
        yield value
    elif isinstance(value, Mapping):
        yield from _futures(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _futures(each)


def _values(given: Any) -> Any:
    """Return arguments with the values of futures in their place."""
    if isinstance(given, TaskFuture):
        return given.result()
    if isinstance(given, dict):
        return {key: _values(each) for key, each in given.items()}
    if type(given) in {list, tuple, set, frozenset} and any(True for _ in _futures(given)):
        return type(given)(_values(each) for each in given)
    return given


async def _avalues(given: Any) -> Any:
    """Return arguments with the values of futures in their place, without blocking the loop."""
    for future in _futures(given):
        await future
    return _values(given)


def _mapped(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the arguments of each call."""
    named = [*((None, each) for each in args), *kwargs.items()]
    items = [(name, list(value)) for name, value in named if _is_mapped(value)]
    if not items:
        raise ValueError("Nothing to map: pass a list or another iterable of items.")
    lengths = {len(values) for _, values in items}
    if len(lengths) > 1:
        raise ValueError(f"The arguments to map have different lengths: {', '.join(map(str, sorted(lengths)))}.")
    for number in range(lengths.pop()):
        columns = iter(items)
        row = [(name, next(columns)[1][number] if _is_mapped(value) else _plain(value)) for name, value in named]
        yield tuple(each for name, each in row if name is None), {name: each for name, each in row if name is not None}


def _is_mapped(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Unmapped | TaskFuture)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Unmapped) else value


async def _create(runs: Sequence[TaskRun], reporter: Reporter) -> None:
    await asyncio.gather(*(run.create(reporter) for run in runs))

"""The list of failures: every SQLSTATE and every result code of SQLite has a decided answer, as documented."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from runstate.database.failures import RESULTS, SQLSTATES, Failure, Kind, as_answer, failure_of, is_temporary
from runstate.errors import NotFound, Overloaded, Timeout, Unavailable, UnknownOutcome

PAGE = Path(__file__).parent.parent.parent / "docs" / "errors.md"


def documented(first: str) -> dict[str, str]:
    """The answers in the table whose first column has this heading, by code."""
    table = PAGE.read_text().split(f"\n| {first} |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    return {code: answer.replace("`", "") for codes, _, answer in rows for code in re.findall(r"`(\w+)`", codes)}


def errors_of_postgresql() -> Iterator[type[asyncpg.PostgresError]]:
    """Every error that the driver knows."""
    known = [each for each in vars(asyncpg).values() if isinstance(each, type)]
    yield from (each for each in known if issubclass(each, asyncpg.PostgresError) and each.sqlstate)


def results_of_sqlite() -> Iterator[str]:
    """Every result code of an error that SQLite has, also the extended ones."""
    names = [name for name in vars(sqlite3) if re.fullmatch(r"SQLITE_[A-Z]+(_\w+)?", name)]
    primary = {name for name in names if name.count("_") == 1 and isinstance(getattr(sqlite3, name), int)}
    yield from (name for name in names if "_".join(name.split("_")[:2]) in primary & RESULTS.keys())


def of_sqlite(result: str) -> Failure:
    """The failure for a result code."""
    error = sqlite3.OperationalError("it fails")
    error.sqlite_errorname = result
    return failure_of(sa.exc.OperationalError("SELECT", None, error))


def test_every_class_of_sqlstate_is_decided() -> None:
    classes = {str(each.sqlstate)[:2] for each in errors_of_postgresql()}

    assert len(classes) > 40
    assert {each for each in classes if each not in SQLSTATES} == set()


def test_every_decision_is_documented_and_no_other() -> None:
    assert documented("SQLSTATE") == {code: failure.kind.value for code, failure in SQLSTATES.items()}
    assert documented("result code") == {code: failure.kind.value for code, failure in RESULTS.items()}


@pytest.mark.parametrize("error", list(errors_of_postgresql()), ids=lambda each: f"{each.sqlstate}-{each.__name__}")
def test_an_error_is_the_same_failure_wherever_it_is_raised(error: type[asyncpg.PostgresError]) -> None:
    raw = error("it fails")
    wrapped = sa.exc.DBAPIError("SELECT", None, raw)
    state = str(error.sqlstate)
    expected = SQLSTATES.get(state) or SQLSTATES[state[:2]]

    assert failure_of(raw) == failure_of(wrapped) == expected
    assert (type(as_answer(raw)) is Unavailable) == expected.is_temporary


@pytest.mark.parametrize("result", list(results_of_sqlite()))
def test_an_extended_result_code_is_the_failure_of_its_primary_one(result: str) -> None:
    assert of_sqlite(result) == RESULTS["_".join(result.split("_")[:2])]


@pytest.mark.parametrize("result", ["SQLITE_ERROR", "SQLITE_MISUSE", "SQLITE_CONSTRAINT_CHECK", ""])
def test_other_results_are_bugs(result: str) -> None:
    assert of_sqlite(result).kind is Kind.BUG


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (ConnectionRefusedError(), Unavailable),
        (asyncpg.InterfaceError("cannot perform operation: connection is closed"), Unavailable),
        (asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"), Unavailable),
        (asyncpg.InternalClientError("got result for unknown protocol state 3"), Unavailable),
        (asyncpg.InternalClientError("_on_result: waiter is None"), Unavailable),
        (ConnectionError("unexpected connection_lost() call"), Unavailable),
        (asyncpg.TargetServerAttributeNotMatched(), Unavailable),
        (sa.exc.DBAPIError("SELECT", None, Exception(), connection_invalidated=True), Unavailable),
        (sa.exc.TimeoutError(), Overloaded),
        (asyncpg.QueryCanceledError("too late"), Timeout),
        (UnknownOutcome(), UnknownOutcome),
        (NotFound(), NotFound),
    ],
)
def test_errors_without_a_code_have_an_answer_too(error: Exception, answer: type[Exception]) -> None:
    assert type(as_answer(error)) is answer


@pytest.mark.parametrize("state", [11, 12, 15])
def test_an_ended_session_is_a_lost_connection_if_sqlalchemy_adapts_the_error_too(state: int) -> None:
    raised = asyncpg.InternalClientError(f"cannot switch to state {state}; another operation (2) is in progress")
    adapted = AsyncAdapt_asyncpg_dbapi.InternalClientError("<class>: it failed", raised)  # type: ignore[no-untyped-call]
    error = sa.exc.InternalError("SELECT", None, adapted)

    assert failure_of(error).kind is Kind.LOST
    assert type(as_answer(error)) is Unavailable


@pytest.mark.parametrize("error", [LookupError(), sa.exc.ArgumentError(), asyncpg.InterfaceError("misused")])
def test_what_is_a_bug_is_none_of_the_database(error: Exception) -> None:
    assert as_answer(error) is None
    assert not is_temporary(error)


def test_what_the_database_refused_at_commit_was_not_written_and_what_was_lost_may_have_been() -> None:
    answered = {kind for kind in Kind if Failure(kind).is_answered}

    assert answered == {Kind.STALE, Kind.CONFLICT, Kind.REFUSED, Kind.BROKEN}


@pytest.mark.parametrize("error", [Overloaded(), Timeout(), Unavailable(), UnknownOutcome()])
def test_what_the_batcher_raises_under_load_is_temporary(error: Exception) -> None:
    assert is_temporary(error)


def test_a_wrong_request_is_not_temporary() -> None:
    assert not is_temporary(NotFound())

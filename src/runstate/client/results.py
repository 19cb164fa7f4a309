"""Results of runs: what is kept in the data of states, and what it means."""

from __future__ import annotations

import base64
import builtins
import bz2
import gzip
import json
import lzma
import pickle
import time
import traceback
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from runstate.client.errors import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    ResultError,
    UnfinishedRun,
)
from runstate.client.storage import LocalStorage, Storage
from runstate.documents.states import StateType

if TYPE_CHECKING:
    from runstate.client.states import State

LARGEST_INLINE: Final = 500_000
"""Bytes of JSON up to which a result is kept in the state itself; the server takes 512 KiB."""
LONGEST_TEXT: Final = 50_000
"""Characters of a traceback that are kept, from its end."""
INLINE: Final = "inline"
UNPERSISTED: Final = {"type": "unpersisted"}
EXCEPTION: Final = "exception"
ERRORS: Final[dict[StateType, type[ResultError]]] = {
    StateType.FAILED: FailedRun,
    StateType.CRASHED: CrashedRun,
    StateType.CANCELLED: CancelledRun,
}
READINGS: Final = 10
READING_SECONDS: Final = 0.25
COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "zlib": zlib.decompress,
    "gzip": gzip.decompress,
    "bz2": bz2.decompress,
    "lzma": lzma.decompress,
}


class Nothing:
    """No value, as opposed to null."""


NOTHING: Final = Nothing()


def result_of(state: State, storage: Storage | None, *, raises: bool, retries: bool, allow_pickle: bool) -> Any:
    """Return the value of a final state. Raise the error of a failed one, or MissingResult."""
    if state.type is StateType.PAUSED:
        raise PausedRun
    if not state.is_final():
        raise UnfinishedRun(f"The run is {state.name}: wait for its end with `client.wait_for(run)`.")
    value = value_of(state.data, storage, retries=retries, allow_pickle=allow_pickle)
    if state.type is StateType.COMPLETED:
        if isinstance(value, Nothing):
            raise MissingResult
        return value
    if raises:
        raise exception_of(state, value)
    # The exception is returned like any other result of a failed run.
    return exception_of(state, NOTHING) if isinstance(value, Nothing) else value


def value_of(data: Any, storage: Storage | None, *, retries: bool = True, allow_pickle: bool = False) -> Any:
    """Return the value that data holds or refers to; NOTHING without one. Raise ValueError if it is unreadable."""
    if data is None or data == UNPERSISTED:
        return NOTHING
    if not isinstance(data, dict):
        return data
    if data.get("type") == EXCEPTION and "traceback" in data:
        return _rebuilt(data)
    if "storage_key" not in data:
        return data
    if data["storage_key"] == INLINE:
        return json.loads(data["result"])
    record = json.loads(_read(data, storage or LocalStorage(), READINGS if retries else 1))
    return _deserialized(record["result"], record["metadata"].get("serializer") or {}, allow_pickle=allow_pickle)


def _read(data: dict[str, Any], storage: Storage, readings: int) -> bytes:
    """Read a result. The state may be there before the file."""
    if data.get("storage_block_id") is not None:
        raise ValueError("The result is in a storage block: read it with the program that has the block.")
    for _ in range(readings - 1):
        try:
            return storage.read(data["storage_key"])
        except ValueError:
            time.sleep(READING_SECONDS)
    return storage.read(data["storage_key"])


def _deserialized(text: str, serializer: dict[str, Any], *, allow_pickle: bool) -> Any:
    kind = str(serializer.get("type", "json"))
    if kind.startswith("compressed"):
        inner = serializer.get("serializer") or {"type": kind.partition("/")[2] or "json"}
        decompress = COMPRESSIONS[serializer.get("compressionlib", "lzma")]
        return _deserialized(decompress(base64.b64decode(text)).decode(), inner, allow_pickle=allow_pickle)
    if kind == "json":
        return json.loads(text)
    if kind == "pickle" and allow_pickle:
        return pickle.loads(base64.b64decode(text))  # noqa: S301 - the caller trusts the storage
    if kind == "pickle":
        raise ValueError("The result is pickled, which can run any code: pass allow_pickle=True if you trust it.")
    raise ValueError(f"The serializer {kind} of the result is unknown.")


def exception_of(state: State, value: Any) -> BaseException:
    """Return the exception of a state that did not complete, found in its value."""
    kind = ERRORS.get(state.type, FailedRun)
    if value is None or isinstance(value, Nothing):
        return kind(state.message)
    if isinstance(value, BaseException):
        return value
    if isinstance(value, str):
        return kind(value)
    if hasattr(value, "is_final"):
        return exception_of(value, value_of(value.data, None))
    if isinstance(value, list) and value and all(hasattr(each, "is_final") for each in value):
        return _first_of(value)
    return TypeError(f"The data of a {state.type.value} state is no exception, but {type(value).__name__}.")


def _first_of(states: Iterable[State]) -> BaseException:
    for state in states:
        if not state.is_completed():
            return exception_of(state, value_of(state.data, None))
    return ValueError("All of the states completed.")


def data_of_exception(error: BaseException) -> dict[str, Any]:
    """Return an exception as data of a state: its class, its message, and its traceback as text."""
    # The end of a traceback says what failed.
    text = "".join(traceback.format_exception(error))[-LONGEST_TEXT:]
    kind = type(error)
    return {
        "type": EXCEPTION,
        "module": kind.__module__,
        "name": kind.__qualname__,
        "message": _storable(str(error))[:LONGEST_TEXT],
        "traceback": _storable(text),
    }


def message_of(error: BaseException) -> str:
    """Return the class and the message of an exception in one text."""
    return _storable(f"{type(error).__name__}: {error}".removesuffix(": "))[:LONGEST_TEXT]


def _storable(text: str) -> str:
    """Return a text without what no database keeps: NUL and halves of surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _rebuilt(data: dict[str, Any]) -> BaseException:
    """Return the exception that data describes. One that Python has is of its class, another one a FailedRun."""
    # Only builtins: importing a module that data names would execute code of somebody else's choice.
    kind = getattr(builtins, data["name"], None) if data["module"] == "builtins" else None
    message = data["message"]
    error: BaseException = FailedRun(f"{data['name']}: {message}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(message)
        except TypeError:
            # Some exceptions need other arguments, such as UnicodeDecodeError.
            error.add_note("")
    error.add_note(f"In the run:\n{data['traceback']}")
    return error


def data_of_value(value: Any, storage: Storage | None, *, keeps_none: bool, allow_pickle: bool = False) -> Any:
    """Return the data of a state that keeps a value: JSON itself, or a reference to the storage."""
    if value is None and not keeps_none:
        return None
    text = _as_json(value)
    if text is not None and len(text) <= LARGEST_INLINE:
        # Wrapped, so that a reader does not take the value for a reference.
        return {"storage_key": INLINE, "result": text} if value is None or _looks_special(value) else value
    if storage is None or (text is None and not allow_pickle):
        return UNPERSISTED
    return _stored(value, text, storage)


def _stored(value: Any, text: str | None, storage: Storage) -> dict[str, Any]:
    serializer = {"type": "pickle" if text is None else "json"}
    metadata = {"serializer": serializer, "storage_key": f"result-{uuid4().hex}", "storage_block_id": None}
    result = base64.b64encode(pickle.dumps(value)).decode() if text is None else text
    storage.write(str(metadata["storage_key"]), json.dumps({"metadata": metadata, "result": result}).encode())
    return metadata


def _as_json(value: Any) -> str | None:
    """Return a value as JSON; None if JSON gives another value back, or if the server cannot store it."""
    try:
        text = json.dumps(value, allow_nan=False)
        # Read again, because JSON turns tuples into lists and keys into text.
        return text if "\\u0000" not in text and json.loads(text) == value and text.encode() else None
    except (TypeError, ValueError, RecursionError):
        return None


def _looks_special(value: Any) -> bool:
    """Return whether a value looks like a reference, an exception or an artifact."""
    if not isinstance(value, dict):
        return False
    return "storage_key" in value or "type" in value or any(str(key).startswith("artifact_") for key in value)

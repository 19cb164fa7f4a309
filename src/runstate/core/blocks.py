"""The pure part of blocks: checksums of schemas, secret values, and references in data."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MASK: Final = "********"
"""Text in place of a secret value."""
EVERYTHING: Final = "*"
"""Part of a path that stands for all keys from there on."""
DEFINITION: Final = "#/definitions/"
REFERENCE: Final = "$ref"
ABSENT: Final = object()

Data = dict[str, Any]


def checksum(fields: Mapping[str, Any]) -> str:
    """Return the checksum of a schema's fields, as clients compute it: without secret fields and nested blocks."""
    cleaned = _without_secret_fields(fields)
    definitions = cleaned.get("definitions")
    if isinstance(definitions, dict) and definitions:
        others = {key: value for key, value in cleaned.items() if key != "definitions"}
        kept = _kept_definitions(others, definitions)
        cleaned = others | ({"definitions": kept} if kept else {})
    text = json.dumps([[cleaned], {}], sort_keys=True, separators=(", ", ": "))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _without_secret_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secret_fields(each) for key, each in value.items() if key != "secret_fields"}
    return [_without_secret_fields(each) for each in value] if isinstance(value, list) else value


def _kept_definitions(fields: Data, definitions: Data) -> Data:
    """Return the definitions that the fields refer to, directly or through others, and that are not blocks."""
    kept: Data = {}
    waiting = list(_referred(fields))
    while waiting:
        name = waiting.pop()
        found = definitions.get(name)
        is_block = isinstance(found, dict) and "block_type_slug" in found
        if name in definitions and name not in kept and not is_block:
            kept[name] = found
            waiting += _referred(found)
    return kept


def _referred(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == REFERENCE and isinstance(each, str) and each.startswith(DEFINITION):
                yield each.removeprefix(DEFINITION)
            yield from _referred(each)
    elif isinstance(value, list):
        for each in value:
            yield from _referred(each)


def secret_fields(definition: Mapping[str, Any]) -> list[str]:
    """Return the paths of secret values that a schema declares."""
    paths = definition.get("secret_fields")
    return [path for path in paths if isinstance(path, str)] if isinstance(paths, list) else []


def hidden(data: Any, paths: Sequence[str]) -> Any:
    """Return data with a mask in place of the secret values at these paths."""
    for path in paths:
        data = _hidden(data, path.split("."))
    return data


def _hidden(value: Any, parts: Sequence[str]) -> Any:
    if not parts:
        return None if value is None else MASK
    first, *others = parts
    if first == EVERYTHING:
        return _all_hidden(value)
    if not isinstance(value, dict) or first not in value:
        return value
    return {**value, first: _hidden(value[first], others)}


def _all_hidden(value: Any) -> Any:
    if isinstance(value, dict) and value:
        return {key: _all_hidden(each) for key, each in value.items()}
    return None if value is None else MASK


def restored(new: Any, old: Any, paths: Sequence[str]) -> Any:
    """Return new data in which masks at these paths are replaced by the old values."""
    for path in paths:
        new = _restored(new, old, path.split("."))
    return new


def _restored(new: Any, old: Any, parts: Sequence[str]) -> Any:
    if not parts or parts[0] == EVERYTHING:
        return _all_restored(new, old)
    first, *others = parts
    if not isinstance(new, dict) or first not in new or not isinstance(old, dict):
        return new
    return {**new, first: _restored(new[first], old.get(first, ABSENT), others)}


def _all_restored(new: Any, old: Any) -> Any:
    if new == MASK:
        return new if old is ABSENT else old
    if isinstance(new, dict):
        known = old if isinstance(old, dict) else {}
        return {key: _all_restored(each, known.get(key, ABSENT)) for key, each in new.items()}
    return new


def split(data: Data) -> tuple[Data, dict[str, str]]:
    """Return data without nested documents, and the ids of these by key. Raise ValueError for a misplaced reference."""
    nested = {key: value[REFERENCE] for key, value in data.items() if isinstance(value, dict) and REFERENCE in value}
    plain = {key: value for key, value in data.items() if key not in nested}
    if any(map(_has_reference, plain.values())):
        raise ValueError("`$ref` can only be the value of a key at the top of the data.")
    ids = {}
    for key, reference in nested.items():
        match reference:
            case {"block_document_id": str(found)}:
                ids[key] = found
            case _:
                raise ValueError(f"`{key}` has a `$ref` without `block_document_id`.")
    return plain, ids


def _has_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return REFERENCE in value or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))

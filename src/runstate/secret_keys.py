"""The keys of secrets, from the settings of a server."""

import os
from pathlib import Path

from runstate.core.keyring import Keyring, new_key, parse_keys
from runstate.database.address import parse
from runstate.errors import ConfigurationError
from runstate.exposure import is_loopback
from runstate.settings import Settings

OTHERS = 0o077
"""Permissions of the group and of others."""


def keyring_of_secrets(settings: Settings) -> Keyring:
    """Return the keys that the settings name. On loopback with SQLite, a missing key is created beside the database.

    Raise ConfigurationError if a key is malformed, or if others may read the file.
    """
    if settings.secret_keys and settings.secret_keys_file:
        raise ConfigurationError("Set RUNSTATE_SECRET_KEYS or RUNSTATE_SECRET_KEYS_FILE, not both.")
    if settings.secret_keys:
        texts = settings.secret_keys.get_secret_value().split(",")
        return Keyring(parse_keys([text.strip() for text in texts if text.strip()]))
    if settings.secret_keys_file:
        return Keyring(_read(Path(settings.secret_keys_file)))
    file = parse(settings.database_url).file
    return Keyring(_own(Path(f"{file}.key"))) if file and is_loopback(settings.host) else Keyring()


def _read(file: Path) -> list[bytes]:
    try:
        if file.stat().st_mode & OTHERS:
            raise ConfigurationError(f"Others may read {file}: run `chmod 600 {file}`.")
        lines = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The keys of secrets cannot be read: {error}") from None
    return parse_keys(lines)


def _own(file: Path) -> list[bytes]:
    """Return the keys in a file, which is created with a new key if it does not exist."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(file)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(f"{new_key()}\n")
    return _read(file)

"""Encryption of secrets: AES-256-GCM. The first key encrypts, and all keys decrypt."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from secrets import token_bytes
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runstate.documents import exact_json
from runstate.errors import ConfigurationError, NoSecretKey

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
ID_BYTES: Final = 8


class Keyring:
    """The keys of a server."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self.keys = {key_id(key): key for key in keys}

    def __repr__(self) -> str:
        # Ids only: a representation ends in logs and tracebacks.
        return f"Keyring({list(self.keys)})"

    @property
    def newest(self) -> str | None:
        """Id of the key that encrypts; None without keys."""
        return next(iter(self.keys), None)

    def encrypt(self, value: Any, about: str) -> str:
        """Return a value, encrypted. It can only be decrypted as being about the same thing."""
        if self.newest is None:
            raise NoSecretKey
        # Random: with one nonce for two texts, AES-GCM would reveal both.
        nonce = token_bytes(NONCE_BYTES)
        ciphertext = _cipher(self.keys[self.newest]).encrypt(nonce, exact_json.dumps(value), about.encode())
        return f"{self.newest}.{urlsafe_b64encode(nonce + ciphertext).decode()}"

    def decrypt(self, text: str, about: str) -> Any:
        """Return the value of an encrypted text. Raise NoSecretKey if its key is not in the ring."""
        key, _, rest = text.partition(".")
        if key not in self.keys:
            raise NoSecretKey
        raw = urlsafe_b64decode(rest)
        return exact_json.loads(_cipher(self.keys[key]).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], about.encode()))


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def key_id(key: bytes) -> str:
    """Return the id of a key, which is stored with what it encrypts."""
    # A digest, so that the stored id tells nothing about the key.
    return hashlib.sha256(key).hexdigest()[: 2 * ID_BYTES]


def key_of(encrypted: str) -> str:
    """Return the id of the key of an encrypted text."""
    return encrypted.partition(".")[0]


def new_key() -> str:
    """Return a new key as text."""
    return urlsafe_b64encode(token_bytes(KEY_BYTES)).decode()


def parse_keys(texts: Sequence[str]) -> list[bytes]:
    """Return keys from texts. Raise ConfigurationError, without the text, if one is not a key."""
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            key = urlsafe_b64decode(text.encode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ConfigurationError(
                f"Key {number} is not one of 32 bytes in URL-safe base64: `runstate secrets new-key`."
            )
        keys.append(key)
    return keys

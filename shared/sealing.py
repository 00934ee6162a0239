"""Secrets at rest: AES-256-GCM with keys from the environment, so that a copy of the database signs nothing.

What is sealed is one byte of version, four that name the key, a nonce of twelve, and the ciphertext with its tag.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import ConfigError

KEY_BYTES = 32
_VERSION = b"\x01"
_NAME = 4
_NONCE = 12

Keys = Mapping[bytes, AESGCM]
"""Keys by name: the first seals, all open."""


class SealedError(Exception):
    """Something sealed that none of the keys opens, or not for what it is read as."""


def new_key() -> str:
    """Return a new key as the environment holds it: base64 of 32 random bytes."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def keys(text: str) -> Keys:
    """Return the keys in a list separated by commas: put a new one first to rotate. Raises ConfigError."""
    found: dict[bytes, AESGCM] = {}
    for one in text.split(","):
        try:
            raw = base64.b64decode(one.strip(), validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise ConfigError("must be base64 of 32 bytes, or several, separated by commas: `openssl rand -base64 32`")
        found[hashlib.sha256(raw).digest()[:_NAME]] = AESGCM(raw)
    return found


def beginning(keys: Keys) -> bytes:
    """Return how everything begins that is sealed now."""
    return _VERSION + next(iter(keys))


def seal(keys: Keys, plain: str, *, bound: str) -> bytes:
    """Return a text sealed by the first key. It opens only as what it is `bound` to: a row, and whose that is."""
    name, key = next(iter(keys.items()))
    nonce = os.urandom(_NONCE)
    return _VERSION + name + nonce + key.encrypt(nonce, plain.encode(), bound.encode())


def unseal(keys: Keys, sealed: bytes, *, bound: str) -> str:
    """Return a sealed text. Raises SealedError."""
    head = len(_VERSION) + _NAME
    key = keys.get(sealed[len(_VERSION) : head]) if sealed.startswith(_VERSION) else None
    if key is None:
        raise SealedError("sealed by a key that is not in SLUICE_SECRETS_KEY")
    try:
        return key.decrypt(sealed[head : head + _NONCE], sealed[head + _NONCE :], bound.encode()).decode()
    except (InvalidTag, ValueError):
        raise SealedError("not what was sealed here") from None

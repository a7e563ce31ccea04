"""Encrypting dead letters to age public keys, so that the worker can write what only an operator can read.

The format is age (https://age-encryption.org/v1) with X25519 recipients, by way of pyrage, which is imported when first
needed. Any age tool opens the `sealed` field of a line: `jq -r .sealed | base64 -d | age -d -i key.txt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consumer.errors import DeadLetterError, SettingsError

__all__ = ["sealer", "unsealer"]


def sealer(recipients: Sequence[str]) -> Callable[[bytes], bytes]:
    """Make the function that encrypts bytes to every one of these age public keys (`age1...`).

    Raises SettingsError when pyrage is missing or a key is none. The function raises DeadLetterError.
    """
    pyrage = _pyrage("dead_letters.recipients")
    keys = []
    for place, recipient in enumerate(recipients, 1):
        try:
            keys.append(pyrage.x25519.Recipient.from_str(recipient.strip()))
        except pyrage.RecipientError:
            expected = "expected an age public key, which starts with age1"
            raise SettingsError(f"dead_letters.recipients: {expected} (number {place} is none)") from None
    if not keys:
        raise SettingsError("dead_letters.recipients: expected at least one age public key")

    def seal(data: bytes) -> bytes:
        try:
            return bytes(pyrage.encrypt(data, keys))
        except pyrage.EncryptError:
            raise DeadLetterError("a dead letter could not be encrypted") from None

    return seal


def unsealer(identity_file: Path) -> Callable[[bytes], bytes]:
    """Make the function that decrypts with the secret keys in an age identity file; `#` starts a comment line.

    Raises SettingsError when pyrage is missing, or the file cannot be read or holds no key. The function raises
    DeadLetterError when no key fits or the data is damaged.
    """
    pyrage = _pyrage("dead_letters.identity_file")
    keys = []
    for number, text in _key_lines(identity_file):
        try:
            keys.append(pyrage.x25519.Identity.from_str(text))
        except pyrage.IdentityError:
            problem = f"line {number} of {identity_file} is no age secret key"
            raise SettingsError(f"dead_letters.identity_file: {problem}") from None
    if not keys:
        raise SettingsError(f"dead_letters.identity_file: {identity_file} holds no age secret key")

    def unseal(data: bytes) -> bytes:
        try:
            return bytes(pyrage.decrypt(data, keys))
        except pyrage.DecryptError:
            raise DeadLetterError("sealed for another key, or damaged") from None

    return unseal


def _key_lines(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"dead_letters.identity_file: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"dead_letters.identity_file: {path} is not text") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    return [(number, line) for number, line in numbered if line and not line.startswith("#")]


def _pyrage(setting: str) -> Any:
    try:
        import pyrage  # noqa: PLC0415  (an extra: only those who encrypt need it)
    except ImportError:
        raise SettingsError(f"{setting} needs age: pip install 'health-event-consumer[age]'") from None
    return pyrage

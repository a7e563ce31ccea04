"""Finding out how a captured message was signed, by trying every scheme that anybody would plausibly use.

Thrive's format is not published, so the first real message decides it. What is found is given as settings; a signature
over a body that was written out anew is only reported, since no verifier can know how the sender wrote it.
"""

from __future__ import annotations

import hmac
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from consumer.envelope import Members, Opening, instant, object_content, read_members, split, unwrap_neutral
from consumer.errors import SettingsError, VerificationError
from consumer.layouts import DEFAULT_FIELDS, Path, Template
from consumer.macs import ALGORITHMS, ENCODINGS, SECRET_ENCODINGS, decode_digest, key_of, without_prefix
from consumer.signatures import SahhaSignature, ThriveSignature

__all__ = ["TEMPLATES", "Match", "Report", "probe"]

_SEPARATORS: Final = (".", ":", "", "\n", "|", ",", ";", " ", "-", "_", "&", "\r\n")
TEMPLATES: Final = (
    *(f"{{signed_at}}{separator}{{body}}" for separator in _SEPARATORS),
    *(f"{{body}}{separator}{{signed_at}}" for separator in _SEPARATORS),
    "{body}",
    "{body}\n",
    *(f"{version}{mark}{{signed_at}}{mark}{{body}}" for version in ("v0", "v1", "v2") for mark in ":.|"),
    "t={signed_at}.{body}",
    "t={signed_at},{body}",
    "{signed_at}.{body}\n",
    "{signed_at}\n{body}\n",
    "signed_at={signed_at}&body={body}",
    "body={body}&signed_at={signed_at}",
    '{"signed_at":"{signed_at}","body":{body}}',
    '{"body":{body},"signed_at":"{signed_at}"}',
)
"""The signed texts that are tried, the likeliest first."""

_DEPTH: Final = 3
_prefixed: Final = re.compile(r"([A-Za-z0-9_.-]{1,20}[=:,])(.+)", re.DOTALL).fullmatch


@dataclass(frozen=True, slots=True)
class Match:
    """A way of signing that gives one of the signatures in the message."""

    provider: str
    secret: int
    """Which secret, from 0."""
    settings: Mapping[str, str]
    """Settings that verify it, by their names in the environment; the secret is not among them."""
    obstacle: str | None = None
    """Why those settings cannot verify it all the same; None if they do."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and what was looked at."""

    matches: tuple[Match, ...]
    combinations: int
    """How many digests were computed."""
    notes: tuple[str, ...]
    """What was taken for a signature, a time and a body; names only."""


@dataclass(frozen=True, slots=True)
class _Signature:
    path: Path
    digest: bytes = field(repr=False)
    algorithm: str
    encoding: str
    prefix: str | None


@dataclass(frozen=True, slots=True)
class _Text:
    path: Path
    text: str = field(repr=False)
    form: str = ""
    """How the text was written anew; empty for the text as it was received."""


@dataclass(frozen=True, slots=True)
class _Key:
    secret: int
    encoding: str
    key: bytes = field(repr=False)


class _Search:
    """Counts while it compares."""

    def __init__(self, secrets: Sequence[str], signatures: Sequence[_Signature]) -> None:
        self.keys = _keys(secrets)
        self.signatures = signatures
        self.combinations = 0

    def over(self, message: bytes) -> Iterator[tuple[_Key, _Signature]]:
        """The keys and signatures that belong to this text."""
        for key, algorithm in itertools.product(self.keys, {signature.algorithm for signature in self.signatures}):
            self.combinations += 1
            digest = hmac.digest(key.key, message, algorithm)
            for signature in self.signatures:
                if signature.algorithm == algorithm and hmac.compare_digest(digest, signature.digest):
                    yield key, signature


class _Everything(dict[str, Opening]):
    """Opens every object down to a depth."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self._depth = depth

    def __contains__(self, name: object) -> bool:
        return self._depth > 0

    def __getitem__(self, name: str) -> Opening:
        return _Everything(self._depth - 1)


def probe(raw: bytes, *, secrets: Sequence[str], headers: Mapping[str, str] | None = None) -> Report:
    """Try every combination of signed text, secret decoding, hash, encoding and field on one captured message.

    An array of envelopes is judged by its first one, a neutral envelope by the request in it. Raises `Unreadable` if
    the message cannot be taken apart at all.
    """
    neutral = unwrap_neutral(raw)
    if neutral is not None:
        raw, headers = neutral.body, {**neutral.headers, **(headers or {})}
    thrive = _probe_thrive(raw if headers else split(raw)[0], secrets)
    if not headers:
        return thrive
    sahha = _probe_sahha(raw, secrets, headers)
    return Report(
        (*sahha.matches, *thrive.matches),
        sahha.combinations + thrive.combinations,
        (*sahha.notes, *thrive.notes),
    )


def _probe_thrive(raw: bytes, secrets: Sequence[str]) -> Report:
    try:
        leaves = list(_leaves(read_members(raw, _Everything(_DEPTH))))
    except VerificationError as error:
        return Report((), 0, (f"as an envelope: {error}",))
    signatures = [found for path, value, _ in leaves for text in _texts(value) for found in _signatures(path, text)]
    times = [_Text(path, text) for path, _, text in leaves if instant(text) is not None]
    bodies = [form for path, value, text in leaves for form in _bodies(path, value, text)]
    search = _Search(secrets, signatures)
    matches = [
        _thrive_match(raw=raw, secrets=secrets, key=key, signature=signature, template=template, time=time, body=body)
        for body, template in itertools.product(bodies, _COMPILED)
        for time in (times if template.signs_time else [None])
        for key, signature in search.over(template.fill(_bytes(time.text) if time else b"", _bytes(body.text)))
    ]
    matches.sort(key=lambda match: (match.obstacle is not None, len(match.settings)))
    notes = (
        _note("signatures", [signature.path for signature in signatures]),
        _note("times", [time.path for time in times]),
        _note("bodies", [body.path for body in bodies]),
    )
    return Report(tuple(matches), search.combinations, notes)


def _thrive_match(
    *,
    raw: bytes,
    secrets: Sequence[str],
    key: _Key,
    signature: _Signature,
    template: Template,
    time: _Text | None,
    body: _Text,
) -> Match:
    paths = {"body": body.path, "signature": signature.path} | ({"signed_at": time.path} if time else {})
    fields = {name: ".".join(path) for name, path in paths.items()}
    options: dict[str, Any] = {
        "template": template.text,
        "algorithm": signature.algorithm,
        "encoding": signature.encoding,
        "secret_encoding": key.encoding,
    }
    if signature.prefix is not None:
        options["prefix"] = signature.prefix
    settings = {f"CONSUMER_THRIVE__SIGNATURE__{name.upper()}": value for name, value in options.items()}
    for name, value in fields.items():
        if value != DEFAULT_FIELDS[name]:
            settings[f"CONSUMER_THRIVE__SIGNATURE__FIELDS__{name.upper()}"] = value
    if not template.signs_time:
        settings["CONSUMER_THRIVE__SIGNATURE__MAX_AGE"] = "off"
    obstacle = f"the body was signed as {body.form}, not as it was sent; ask the sender" if body.form else None
    if obstacle is None:
        try:
            ThriveSignature(secrets=[secrets[key.secret]], fields=fields, **options).open(raw)
        except (SettingsError, VerificationError) as error:
            obstacle = str(error)
    return Match("thrive", key.secret, settings, obstacle)


def _probe_sahha(raw: bytes, secrets: Sequence[str], headers: Mapping[str, str]) -> Report:
    signatures = [found for name, value in headers.items() for found in _signatures((name,), value)]
    search = _Search(secrets, signatures)
    matches = [
        _sahha_match(body=body, form=form, secrets=secrets, headers=headers, key=key, signature=signature)
        for body, form in _requests(raw)
        for key, signature in search.over(body)
    ]
    matches.sort(key=lambda match: match.obstacle is not None)
    notes = (_note("headers with signatures", [signature.path for signature in signatures]),)
    return Report(tuple(matches), search.combinations, notes)


def _sahha_match(
    *,
    body: bytes,
    form: str,
    secrets: Sequence[str],
    headers: Mapping[str, str],
    key: _Key,
    signature: _Signature,
) -> Match:
    settings = {
        "CONSUMER_SOURCES__<NAME>__PROVIDER": "sahha",
        "CONSUMER_SAHHA__SIGNATURE__ENCODING": signature.encoding,
    }
    obstacle: str | None = None
    if form:
        obstacle = f"the signature is over the body {form}"
    elif key.encoding != "utf8":
        obstacle = f"the key is the secret decoded as {key.encoding}; expected its text"
    elif signature.path[0].lower() != "x-signature":
        obstacle = f"the signature is in the header {signature.path[0]}; expected X-Signature"
    elif signature.algorithm != "sha256":
        obstacle = f"the hash is {signature.algorithm}; expected sha256"
    else:
        try:
            SahhaSignature(secrets=[secrets[key.secret]], encoding=signature.encoding).open(body, headers)
        except (SettingsError, VerificationError) as error:
            obstacle = str(error)
    return Match("sahha", key.secret, settings, obstacle)


def _requests(raw: bytes) -> Iterator[tuple[bytes, str]]:
    """The body of a request, and what an editor or a sender may have made of it."""
    yield raw, ""
    stripped = raw.rstrip(b"\r\n")
    if stripped != raw:
        yield stripped, "without the line break at the end of the file: capture it without"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    for rewritten, form in _rewritten(text):
        if rewritten.encode("utf-8", "replace") not in (raw, stripped):
            yield rewritten.encode("utf-8", "replace"), f"written as {form}, not as it was sent; ask the sender"


def _leaves(members: Members, path: Path = ()) -> Iterator[tuple[Path, Any, str]]:
    """Every value that a setting can name, down to a depth: its path, itself, and its exact text."""
    for name, value in members.values.items():
        if not name or "." in name or members.names.count(name) > 1:
            continue
        yield (*path, name), value, members.text_of((name,))
        if isinstance(value, Members):
            yield from _leaves(value, (*path, name))


def _texts(value: object) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [text for text in found if isinstance(text, str)]


def _signatures(path: Path, text: str) -> Iterator[_Signature]:
    """What `text` is if it is a signature; text whose length fits no digest is none."""
    forms: list[tuple[str | None, str]] = [(None, without_prefix(text, None) or "")]
    own = _prefixed(text)
    if own and forms[0][1] == text:
        forms.append((own[1], own[2]))
    for prefix, bare in forms:
        for algorithm, size in ALGORITHMS.items():
            for encoding in ENCODINGS:
                digest = decode_digest(bare, (encoding,), size)
                if digest is not None:
                    yield _Signature(path, digest, algorithm, encoding, prefix)
                    break


def _bodies(path: Path, value: object, text: str) -> Iterator[_Text]:
    """A body as it was received, if `value` is one, and as a sender might have written it before signing."""
    if not isinstance(value, (str, Members)):
        return
    try:
        object_content(text)
    except VerificationError:
        return
    yield _Text(path, text)
    for rewritten, form in _rewritten(text):
        yield _Text(path, rewritten, form)


def _rewritten(text: str) -> Iterator[tuple[str, str]]:
    """The forms common libraries would give the same JSON, each once, and never the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    seen = {text}
    for ordered, spaced, ascii_only in itertools.product((False, True), (False, True), (False, True)):
        separators = (", ", ": ") if spaced else (",", ":")
        form = json.dumps(value, sort_keys=ordered, separators=separators, ensure_ascii=ascii_only)
        parts = ["spaced" if spaced else "compact", "sorted" if ordered else "", "ASCII" if ascii_only else ""]
        if form not in seen:
            seen.add(form)
            yield form, " ".join(part for part in (*parts, "JSON") if part)
    if json.dumps(text) not in seen:
        yield json.dumps(text), "a quoted JSON string"


def _keys(secrets: Sequence[str]) -> list[_Key]:
    keys: list[_Key] = []
    for index, encoding in itertools.product(range(len(secrets)), SECRET_ENCODINGS):
        try:
            key = key_of(secrets[index], encoding)
        except ValueError:
            continue
        if key:
            keys.append(_Key(index, encoding, key))
    return keys


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _note(what: str, paths: Sequence[Path]) -> str:
    return f"{what}: {', '.join(dict.fromkeys('.'.join(path) for path in paths)) or 'none found'}"


_COMPILED: Final = tuple(Template(text) for text in TEMPLATES)

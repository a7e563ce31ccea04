"""`consumer probe`: which signature scheme a captured message was signed with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import click

from consumer.cli.common import Failed, WrongSettings, config_option, load
from consumer.dead_letters.record import SealedDeadLetter, decode
from consumer.errors import DeadLetterError, SettingsError, VerificationError
from consumer.probing import Match, Report, probe
from consumer.secret_files import read_secret_file

__all__ = ["command"]

_LARGEST = 16 << 20


@click.command(
    name="probe",
    epilog="Example: consumer probe captured.json --secrets-file secrets.txt. "
    "A webhook: consumer probe body.json --header X-Signature=... --header X-External-Id=... --header X-Event-Type=...",
)
@click.argument("file", type=click.File("rb"))
@click.option("--secrets-file", type=click.Path(path_type=Path), help="Secrets to try, one a line; else the settings'.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header that came with the message.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def command(
    *, file: BinaryIO, secrets_file: Path | None, headers: tuple[str, ...], as_json: bool, config: Path | None
) -> None:
    """Find which signature scheme the message in FILE (- for standard input) was signed with.

    FILE is the message itself, what `aws sqs receive-message` printed, or a dead letter that was exported: of several
    the first. Every plausible signed text, hash, encoding, reading of the secret and field is tried. The settings that
    verify the message are printed, ready for the environment; without any the exit code is 1. No secret is ever
    printed.
    """
    raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise Failed("FILE is larger than 16 MiB")
    secrets = _secrets(secrets_file, config)
    message, attributes = _message(raw)
    try:
        report = probe(message, secrets=secrets, headers=attributes | _headers(headers))
    except VerificationError as error:
        raise Failed(f"the message cannot be taken apart: {error}") from None
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        for match in report.matches:
            click.echo("\n".join(_lines(match)))
    if not any(match.obstacle is None for match in report.matches):
        raise Failed(_explanation(report, len(secrets)))


def _message(raw: bytes) -> tuple[bytes, dict[str, str]]:
    """The message and, if one of them may be a signature, its attributes.

    All that `aws sqs receive-message` printed is taken apart, and so is a dead letter; anything else is the message
    itself. Raises `Failed` for a dead letter that is sealed.
    """
    try:
        letter = decode(raw.partition(b"\n")[0])
    except DeadLetterError:
        return _received(raw)
    if isinstance(letter, SealedDeadLetter):
        raise Failed("FILE is a sealed dead letter: `consumer dead-letters show ID --reveal` prints its message last")
    return letter.message, _telling(letter.headers)


def _received(raw: bytes) -> tuple[bytes, dict[str, str]]:
    try:
        message = json.loads(raw)["Messages"][0]
        body, attributes = message["Body"].encode(), message.get("MessageAttributes") or {}
        texts = {name: str(value["StringValue"]) for name, value in attributes.items() if "StringValue" in value}
        return body, _telling(texts)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return raw, {}


def _telling(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers) if any("signature" in name.lower() for name in headers) else {}


def _secrets(path: Path | None, config: Path | None) -> list[str]:
    if path is not None:
        try:
            return read_secret_file(path)
        except SettingsError as error:
            raise WrongSettings(f"--secrets-file: {error}") from None
    settings = load(config).settings
    schemes = [
        settings.thrive.signature,
        settings.sahha.signature,
        *(one.signature for one in settings.sources.values()),
    ]
    secrets = [secret.get_secret_value() for scheme in schemes for secret in scheme.secrets]
    if not secrets:
        names = " or ".join(f"CONSUMER_{provider}__SIGNATURE__SECRETS" for provider in ("THRIVE", "SAHHA"))
        raise WrongSettings(f"no secret to try: give --secrets-file, or set {names}")
    return list(dict.fromkeys(secrets))


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError("--header: expected NAME=VALUE")
        headers[name] = value
    return headers


def _lines(match: Match) -> Iterator[str]:
    yield f"# {match.provider}, secret {match.secret + 1}" + (f": {match.obstacle}" if match.obstacle else "")
    for name, value in match.settings.items():
        # A name with a blank to fill in is no command.
        yield ("# " if match.obstacle or "<" in name else "") + f"{name}={_quoted(value)}"


def _quoted(value: str) -> str:
    """For a shell: line ends are not left to the eye."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{value}'" if escaped == value else f"$'{escaped}'"


def _as_json(report: Report) -> dict[str, object]:
    matches = [
        {
            "provider": match.provider,
            "secret": match.secret + 1,
            "usable": match.obstacle is None,
            "obstacle": match.obstacle,
            "settings": dict(match.settings),
        }
        for match in report.matches
    ]
    return {"matches": matches, "combinations": report.combinations, "notes": list(report.notes)}


def _explanation(report: Report, secrets: int) -> str:
    found = "no settings verify this message" if report.matches else "no match"
    return f"{found}: {report.combinations} combinations of {secrets} secrets tried; {'; '.join(report.notes)}"

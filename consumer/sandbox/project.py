"""The partner project beside a sandbox: its settings reach the sandbox, and keep its keys over a restart."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from consumer.errors import ConsumerError, SettingsError
from consumer.project import write_project
from consumer.sandbox.credentials import Credentials, SahhaCredentials
from consumer.sandbox.kept import STARTS
from consumer.sandbox.options import LOOPBACK
from consumer.sandbox.readme import README
from consumer.settings_loading import load_settings

__all__ = ["Kept", "kept_project", "write_sandbox_project"]

_SETTINGS: Final = "consumer.toml"
_THRIVE: Final = "secrets/thrive"
_SAHHA: Final = "secrets/sahha"
_TEMPLATE: Final = Template("""\
# Settings of a project that works with `consumer sandbox`, which wrote them. All keys in here are toys.
# `consumer settings` shows every setting with its value and where it came from.

handlers = "handlers"

[thrive]
base_url = "$url"
tenant_key = "$tenant_key"

[thrive.signature]
# One secret a line. The file is watched: after a rotation put the new one into it, and keep the old one for a while.
secrets_file = "$thrive_file"

[sahha]
base_url = "$url"
client_id = "$client_id"
client_secret = "$client_secret"
app_id = "$app_id"
app_secret = "$app_secret"

[sahha.signature]
secrets_file = "$sahha_file"

# Thrive's events: `consumer thrive queues register all --source events` has the sandbox publish to it.
[sources.events]
kind = "local"
path = "queue/events.db"

# Sahha's webhooks: `consumer relay` receives them and puts them on it.
[sources.webhooks]
kind = "local"
provider = "sahha"
path = "queue/webhooks.db"

[database]
url = "sqlite:///consumer.db"

[dead_letters]
path = "dead-letters"
""")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a project that is there says of its sandbox."""

    credentials: Credentials
    port: int | None
    """Where it expects the sandbox."""


def kept_project(folder: Path) -> Kept | None:
    """The keys of an earlier sandbox's project; None where there is no `consumer.toml` yet.

    Raises `SettingsError` for settings of something else: real keys are not for a toy.
    """
    folder = folder.resolve()
    file = folder / _SETTINGS
    if not file.exists():
        return None
    settings = load_settings(config=file, env={}, cwd=folder).settings
    thrive, sahha = settings.thrive, settings.sahha
    place = urlsplit(thrive.base_url)
    if place.hostname not in LOOPBACK:
        raise SettingsError(
            f"{file}: thrive.base_url is not this machine, so these are no settings of a sandbox: choose another folder"
        )
    thrive_secrets, sahha_secrets = thrive.signature.secrets, sahha.signature.secrets
    return Kept(
        Credentials(
            tenant_key=_given(file, "thrive.tenant_key", thrive.tenant_key),
            thrive_secret=_given(file, "thrive.signature.secrets", next(iter(thrive_secrets), None)),
            sahha=SahhaCredentials(
                client_id=_given(file, "sahha.client_id", sahha.client_id),
                client_secret=_given(file, "sahha.client_secret", sahha.client_secret),
                app_id=_given(file, "sahha.app_id", sahha.app_id),
                app_secret=_given(file, "sahha.app_secret", sahha.app_secret),
                webhook_secret=_given(file, "sahha.signature.secrets", next(iter(sahha_secrets), None)),
            ),
        ),
        place.port,
    )


def write_sandbox_project(folder: Path, *, url: str, credentials: Credentials) -> None:
    """Write a project that reaches a sandbox on this machine, at `url`; overwrites nothing.

    Settings and secrets are readable by their owner alone; `README.md` is a sandbox's own, the rest is what `consumer
    init` writes. The settings come last: once they are there, all that is needed is. Raises `ConsumerError` when a file
    cannot be written or is in the way.
    """
    sahha = credentials.sahha
    settings = _TEMPLATE.substitute(
        url=url,
        tenant_key=credentials.tenant_key,
        client_id=sahha.client_id,
        client_secret=sahha.client_secret,
        app_id=sahha.app_id,
        app_secret=sahha.app_secret,
        thrive_file=_THRIVE,
        sahha_file=_SAHHA,
    )
    try:
        (folder / _THRIVE).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / _THRIVE, f"{credentials.thrive_secret}\n")
        _write(folder / _SAHHA, f"{sahha.webhook_secret}\n")
        _write(folder / STARTS, "0\n")
        _write_readme(folder / "README.md", url)
        _write(folder / _SETTINGS, settings)
    except FileExistsError as error:
        raise ConsumerError(f"{error.filename} is in the way: choose another folder") from None
    except OSError as error:
        raise ConsumerError(f"{error.filename or folder}: {error.strerror}") from None
    write_project(folder)


def _write_readme(path: Path, url: str) -> None:
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(README.substitute(url=url))


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _given(file: Path, key: str, value: str | SecretStr | None) -> str:
    if value is None:
        raise SettingsError(f"{file}: {key} is missing: these are no settings of a sandbox, choose another folder")
    return value.get_secret_value() if isinstance(value, SecretStr) else value

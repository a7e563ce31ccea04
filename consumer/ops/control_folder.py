"""Where a worker's control socket is, and who may be at the other end of it.

The folder's default name can be guessed, so anybody on the machine may have made it first. It is used only if it is
ours alone: then nobody but us, and root, can put or reach a socket in it.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from consumer.errors import ConsumerError

__all__ = ["ControlError", "check_folder", "default_folder", "is_one_of_us", "make_folder", "sockets"]

_SUFFIX = ".sock"
_LONGEST_PATH = 103
"""Bytes of a socket's address, on the systems where it may be shortest (macOS; Linux has four more)."""
_LONGEST_NAME = 16
_LOCAL_PEERCRED = 1
"""macOS; see its unix(4). Python does not name it."""
_XUCRED = 76


class ControlError(ConsumerError):
    """The control socket cannot be used; the text says why in one line."""


def default_folder() -> Path:
    """`health-event-consumer-<uid>` among the temporary files. Raises `ControlError` when there is no place for those.

    A container with a read-only root needs a writable /tmp for it, or `TMPDIR`.
    """
    try:
        return Path(tempfile.gettempdir()) / f"health-event-consumer-{os.geteuid()}"
    except OSError:
        raise ControlError("there is no folder for temporary files: mount /tmp or set TMPDIR") from None


def make_folder(folder: Path) -> None:
    """Make the folder if it is not there, and check it. Raises `ControlError`."""
    if len(os.fsencode(folder)) + 1 + _LONGEST_NAME > _LONGEST_PATH:
        raise ControlError(f"{folder} is too long a name for a socket's folder: expected {_most()} bytes or less")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ControlError(f"cannot make {folder}: {error.strerror}") from None
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """See that the folder is ours alone, and no link to another. Raises `ControlError`."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise ControlError(f"cannot look at {folder}: {error.strerror}") from None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not ours:
        raise ControlError(
            f"{folder} is not a folder of our own with mode 0700: make it so, or name one that is not there yet"
        )


def sockets(folder: Path) -> list[Path]:
    """The sockets in the folder, of living processes and of dead ones."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIX))
    except OSError:
        return []


def is_one_of_us(connection: socket.socket) -> bool:
    """Whether the process at the other end runs as our user, or as root. Unknown is no."""
    try:
        peer = _peer_uid(connection)
    except (OSError, struct.error):
        return False
    return peer in (0, os.geteuid())


def _peer_uid(connection: socket.socket) -> int:
    if sys.platform == "linux":
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    credentials = connection.getsockopt(0, _LOCAL_PEERCRED, _XUCRED)  # type: ignore[unreachable,unused-ignore]
    return int(struct.unpack_from("=II", credentials)[1])


def _most() -> int:
    return _LONGEST_PATH - 1 - _LONGEST_NAME

"""Ownership of runs: paths in a run folder are followed only if this user wrote them on this machine.

The settings that name places are signed with a key that never leaves the user's home folder. A run folder from
elsewhere, or one that was edited, has no valid signature: it is data, and its paths are not followed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import secrets
from typing import Any

from tfvamp.files import read_bytes

PLACES = ("dataset", "data_dir", "raw_dir")  # the settings that name data, or the place of data
KEY_BYTES = 32


def signature(settings: dict[str, Any]) -> str | None:
    """Returns the signature of the places in the settings of a run; None if no key can be kept."""
    return sign(_places(settings))


def is_own(settings: dict[str, Any], signed: Any) -> bool:
    """Returns whether this user wrote the settings on this machine."""
    return is_signed(_places(settings), signed)


def sign(statement: bytes) -> str | None:
    """Returns the signature of a statement, 64 hexadecimal digits; None if no key can be kept."""
    key = _key(make=True)
    return None if key is None else hmac.new(key, statement, hashlib.sha256).hexdigest()


def is_signed(statement: bytes, signed: Any) -> bool:
    """Returns whether this user signed the statement on this machine."""
    key = _key(make=False)
    if key is None or not isinstance(signed, str):
        return False
    expected = hmac.new(key, statement, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signed.encode(errors="replace"))


def _places(settings: dict[str, Any]) -> bytes:
    return json.dumps([settings.get(name) for name in PLACES]).encode()


def _key(make: bool) -> bytes | None:
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = pathlib.Path(state) / "tfvamp" / "key"
    with contextlib.suppress(Exception):  # no home, a full disk, a damaged key: then no run counts as yours
        if make and (not path.exists() or path.stat().st_size != KEY_BYTES):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(f".tfvamp-{secrets.token_hex(8)}")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            if path.exists():  # cut off by a power failure
                os.replace(scratch, path)
            else:
                with contextlib.suppress(FileExistsError):  # another process was faster
                    os.link(scratch, path)
                scratch.unlink()
        key = read_bytes(path, KEY_BYTES)
        if len(key) == KEY_BYTES:
            return key
    return None

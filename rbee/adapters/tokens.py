"""Makes, keeps and compares the swarm's token, and derives from it the swarm's id and the keys that open less."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import shlex
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import full_disk, private
from rbee.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


FORM: Final = re.compile(r"[!-~]{1,512}")
"""What can stand after `Authorization: Bearer`; wider than what we make, because a user may bring a token along."""
_ANOTHER: Final = "RBEE_TOKEN_FILE, or `token_file` under [auth] in the settings, names another file"


def load_or_create(path: Path) -> str:
    """Return the swarm's token, made on first use: 32 random bytes, base64url, in a file of mode 0600.

    Two processes that start at once agree on one token: the file gets its name by a link, and a link never overwrites.
    """
    if (token := read(path)) is not None:
        return token
    try:
        private.make_private(path.parent)
        token = "rbee_" + _base64(secrets.token_bytes(32))
        try:
            with private.written_beside(path, f"{token}\n".encode()) as scratch:
                os.link(scratch, path)
        except FileExistsError:
            token = read(path) or token
    except OSError as exc:
        raise full_disk.refused(f"the token file {path} could not be made", exc) from exc
    return token


def read(path: Path) -> str | None:
    """Return the token in `path`, or None where there is no such file."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise StorageError(
            f"the token file {path} is a folder",
            hint=f"move it away, and the next queen makes a new token; {_ANOTHER}",
        ) from None
    except OSError as exc:
        raise StorageError(
            f"the token file {path} could not be read: {exc.strerror}",
            hint=f"see that it is yours: `ls -l {shlex.quote(str(path))}`",
        ) from exc
    except UnicodeDecodeError:
        raise _unusable(path) from None
    if not token and not path.is_file():  # to delete /dev/null would be no help
        raise StorageError(f"{path} is no file, and holds no token", hint=_ANOTHER)
    if not token:
        raise StorageError(f"the token file {path} is empty", hint="delete it, and the next queen makes a new one")
    if not FORM.fullmatch(token):
        # It would not survive its way through a header, and the other side would seem to be out of reach.
        raise _unusable(path)
    return token


def _unusable(path: Path) -> StorageError:
    return StorageError(
        f"the token file {path} could not be read: not a token",
        hint="it holds one line of up to 512 visible characters; deleted, the next queen makes a new one",
    )


@lru_cache(maxsize=1024)  # it is asked with each request
def worker_key(token: str, worker_id: str) -> str:
    """Return the key of one worker: HMAC-SHA256 (RFC 2104) of its id under the swarm's token.

    Worker ids are random, so each key is fresh; and since the token is enough to compute it, a hive that was restarted
    knows the keys of the workers it finds, and no key is ever stored.
    """
    return "rbee_w_" + _base64(_hmac(token, f"rbee worker {worker_id}").digest())


def swarm_id(token: str) -> str:
    """Return the id of the swarm with this token; the token cannot be computed from it.

    It is public, so that a daemon need not send its token to a stranger to find out that it is one.
    """
    return _hmac(token, "rbee swarm").hexdigest()[:32]


def proof(token: str, role: str, challenge: str) -> str:
    """Return what only a daemon with the token can answer to a challenge; the token cannot be computed from it."""
    return _hmac(token, f"rbee proof {role} {challenge}").hexdigest()


def content_key(token: str, sha256: str) -> str:
    """Return the key that opens one file's content at every hive of the swarm: HMAC-SHA256 of its hash.

    A hive that copies a model shows this and never the token: the address may lead to another machine than was meant.
    """
    return "rbee_c_" + _base64(_hmac(token, f"rbee content {sha256}").digest())


def _hmac(token: str, text: str) -> hmac.HMAC:
    return hmac.new(token.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def matches(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())

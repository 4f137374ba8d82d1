"""A daemon proves that it knows the swarm's token, in the answer to a question that needs none."""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

from rbee.adapters import tokens
from rbee.wire.common import CHALLENGE_HEADER

_FORM: Final = re.compile(r"[0-9a-f]{32}(?: (\S{1,100}))?")


class Challenge(NamedTuple):
    """A question that only who knows the token can answer; each is asked once."""

    text: str
    expected: str

    @property
    def at(self) -> str:
        """The address at which it must be met; nothing where that may be anywhere."""
        return self.text.partition(" ")[2]

    @property
    def headers(self) -> dict[str, str]:
        """What asks it, beside a request."""
        return {CHALLENGE_HEADER: self.text}

    def is_met_by(self, proof: str | None) -> bool:
        """Whether this answers it."""
        return proof is not None and tokens.matches(proof, self.expected)


def challenge(token: str, role: str, *, at: str = "") -> Challenge:
    """Return a new challenge for a daemon of a role.

    With `at`, a host and port, only one that is asked at that very address may answer: none for which another program
    asks, which listens there itself. A proxy or a tunnel is such a program too.
    """
    text = f"{secrets.token_hex(16)} {at}".strip()
    return Challenge(text, tokens.proof(token, role, text))


def answer(asked: str, own_address: str, token: str, role: str) -> str | None:
    """Return the proof for a challenge that has come to an address of ours; None where it is none, or for another."""
    found = _FORM.fullmatch(asked)
    if found is None or found[1] not in (None, own_address):
        return None
    return tokens.proof(token, role, asked)

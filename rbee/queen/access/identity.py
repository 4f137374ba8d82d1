"""Whose request it is: what it has shown, or where it comes from, and what that opens (PURE)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from rbee.errors import ModelAccessDeniedError

RESERVED: Final = frozenset({"token", "local", "open", "public"})
"""Names that no key may have: in the log they stand for callers without one."""


class CallerIdentity(NamedTuple):
    """A caller that was let in: by the swarm's token, an API key, as the queen's own user, or as everyone is.

    `name` is what people see: a key's name, or else the kind. `models` are what a key is for; empty for all models.
    `key_hash` tells a key from another that had its name before.
    """

    kind: Literal["token", "key", "local", "open", "public"]
    name: str
    address: str = ""
    models: frozenset[str] = frozenset()
    key_hash: str = ""

    @property
    def caller(self) -> str:
        """Whose turn it is where several wait: the key's name, else the kind; where all are let in, the address."""
        return f"open {self.address}" if self.kind == "open" else self.name

    @property
    def salt(self) -> str:
        """What parts the prompts of an API key from all others: how soon an answer comes would tell of theirs."""
        return blake2b(self.key_hash.encode(), digest_size=16).hexdigest() if self.kind == "key" else ""

    def may_use(self, reference: str, asked: str = "") -> bool:
        """Whether it may use a model, which was `asked` for by some name: a key is for names too, as aliases are."""
        if not self.models:
            return True
        names = _plain_names(asked)
        return any(own.lower() in names or _covers(own.lower(), reference.lower()) for own in self.models)

    def check_model(self, reference: str, asked: str = "") -> None:
        """Raise ModelAccessDeniedError for a model that its key is not for."""
        if not self.may_use(reference, asked):
            raise ModelAccessDeniedError(
                f"the key {self.name} is not for the model {asked or reference}",
                hint=f"it is for {', '.join(sorted(self.models))}; `rbee keys list` shows what each key is for",
                key=self.name,
            )


def _plain_names(asked: str) -> set[str]:
    """Return a name that a caller has chosen, with and without the node, and the tag that says nothing.

    As a whole: whatever else begins as an allowed one may mean any model, and does with `unknown_model = "default"`.
    """
    name = asked.strip().lower()
    names = {name, name.rpartition("@")[0]}
    return {plain for name in names for plain in (name, name.removesuffix(":latest")) if plain}


def _covers(allowed: str, reference: str) -> bool:
    """Whether a key that is for `allowed` is for a model: the same, or one of a repository's variants or files."""
    return any(
        reference == whole or reference.startswith((f"{whole}:", f"{whole}/")) for whole in (allowed, f"hf:{allowed}")
    )

"""Whose request it is: what it has shown, or where it comes from, and what that opens (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from rbee.errors import ModelAccessDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable

RESERVED: Final = frozenset({"token", "local", "open", "public"})
"""Names that no key may have: in the log they stand for callers without one."""


class CallerIdentity(NamedTuple):
    """A caller that was let in: by the swarm's token, an API key, as the queen's own user, or as everyone is.

    `name` is what people see: a key's name, or else the kind. `models` are what a key is for; empty for all models.
    """

    kind: Literal["token", "key", "local", "open", "public"]
    name: str
    address: str = ""
    models: frozenset[str] = frozenset()

    @property
    def caller(self) -> str:
        """Whose turn it is where several wait: the key's name, else the kind; where all are let in, the address."""
        return f"open {self.address}" if self.kind == "open" else self.name

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether it may use a model that has these names: as it was asked for, and what that turned out to be."""
        return not self.models or any(_covers(own, name.lower()) for own in self.models for name in names)

    def check_model(self, *names: str) -> None:
        """Raise ModelAccessDeniedError for a model that its key is not for."""
        if not self.may_use(names):
            raise ModelAccessDeniedError(
                f"the key {self.name} is not for the model {names[0]}",
                hint=f"it is for {', '.join(sorted(self.models))}; `rbee keys list` shows what each key is for",
                key=self.name,
            )


def _covers(allowed: str, name: str) -> bool:
    """Whether a key that is for `allowed` is for `name`: the same, or one of a repository's variants or files."""
    allowed = allowed.lower()
    return name == allowed or name.startswith((f"{allowed}:", f"{allowed}/", f"{allowed}@"))

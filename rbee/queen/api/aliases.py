"""Decides which aliases there may be, and says what each leads to (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import InvalidRequestError, RbeeError
from rbee.queen.api.models import meant, reference_of
from rbee.wire.administration import alias_names
from rbee.wire.administration.aliases import ModelAlias

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.queen.api.models import Names
    from rbee.wire.administration.aliases import AliasRequest


def check(asked: AliasRequest, names: Names) -> None:
    """Refuse an alias that cannot be, hides a model, or leads nowhere; `names` holds it not yet, or its old target.

    Raises InvalidRequestError, ModelNotFoundError or NodeNotFoundError.
    """
    alias_names.check_name(asked.name)
    if (hidden := _hidden(asked.name, names)) is not None:
        raise InvalidRequestError(
            f"field name: {asked.name} is a name of {hidden} already, which an alias would hide",
            hint="choose another name",
            field="name",
            rule="a name that no model has",
        )
    others = {name: target for name, target in names.aliases.items() if name.lower() != asked.name.lower()}
    alias_names.check_chain(asked.name, {**others, asked.name: asked.target})
    meant(asked.target, names._replace(aliases=others, unknown_is_default=False))


def described(names: Names, of_settings: Collection[str]) -> list[ModelAlias]:
    """Return all aliases by name, with what each leads to."""
    return [_described(name, names, name in of_settings) for name in sorted(names.aliases)]


def _described(name: str, names: Names, is_of_settings: bool) -> ModelAlias:
    found = ModelAlias(name=name, target=names.aliases[name], source="settings" if is_of_settings else "command")
    try:
        found.model, found.node = meant(name, names._replace(unknown_is_default=False))
    except RbeeError as exc:
        found.problem = exc.message
    else:
        if (hidden := _hidden(name, names)) is not None and hidden != found.model:
            found.problem = f"it hides {hidden}, whose name this is too"
    return found


def _hidden(name: str, names: Names) -> str | None:
    return reference_of(name, names.known)

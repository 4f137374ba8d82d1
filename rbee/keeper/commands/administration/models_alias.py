"""`rbee models alias`: lists the further names of models, makes one, changes one, or removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.arguments import UsageError
from rbee.errors import InvalidRequestError, NotFoundError
from rbee.keeper.command_line import reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.administration import alias_names
from rbee.wire.administration.aliases import AliasName, AliasRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import AliasOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.administration.aliases import ModelAlias

NONE_YET = "There are no aliases; `rbee models alias NAME REF` makes one."
_HEADINGS = ("alias", "stands for", "model", "node", "from")


def run(options: AliasOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return what the aliases stand for; what cannot be one is refused before anything starts."""
    if options.remove:
        return _remove(options, settings, terminal)
    if options.name is None or options.target is None:
        return _list(options, settings, terminal)
    alias_names.check_name(options.name)
    asked = convert({"name": options.name, "target": _target(options.target, settings)}, AliasRequest)
    made = session.ask(options, settings, terminal, lambda queen: queen.make_alias(asked))
    where = f" on {made.node}" if made.node is not None else ""
    meant = made.model or made.target
    return Result(data=msgspec.to_builtins(made), notes=(f"{made.name} stands for {meant}{where}.",))


def _target(text: str, settings: Settings) -> str:
    """Return a reference where that is one, or a path, perhaps with a node; else what the queen is to look for."""
    rest, at, node = text.rpartition("@")
    for name, where in ((text, ""), (rest, f"{at}{node}")) if at and rest else ((text, ""),):
        try:
            return f"{reference.parse(name, settings.paths.models)}{where}"
        except InvalidRequestError as exc:
            if reference.is_path(name) and not (at and name == text):
                raise InvalidRequestError(exc.message, hint=exc.hint, field="target", rule="a model") from exc
    return text


def _list(options: AliasOptions, settings: Settings, terminal: Terminal) -> Result:
    aliases = session.ask(options, settings, terminal, lambda queen: queen.aliases())
    notes: tuple[str, ...] = ()
    if options.name is not None:
        found = alias_names.named(options.name, {alias.name: alias.target for alias in aliases})
        if found is None:
            raise NotFoundError(f"there is no alias {options.name}", hint="`rbee models alias` lists them")
        aliases = [alias for alias in aliases if alias.name == found]
    elif not aliases:
        notes = (NONE_YET,)
    notes += tuple(f"{alias.name}: {alias.problem}" for alias in aliases if alias.problem is not None)
    return Result(
        data={"aliases": msgspec.to_builtins(aliases)},
        text=table(aliases, terminal.room) if aliases else "",
        notes=notes,
    )


def table(aliases: Sequence[ModelAlias], room: int | None) -> str:
    """Return them as a table."""
    rows = [
        (alias.name, alias.target, alias.model or "nothing", alias.node or "any", alias.source) for alias in aliases
    ]
    return tables.table(_HEADINGS, rows, room)


def _remove(options: AliasOptions, settings: Settings, terminal: Terminal) -> Result:
    if options.name is None or options.target is not None:
        raise UsageError("--remove takes the name of one alias", "`rbee models alias NAME --remove`")
    asked = convert({"name": options.name}, AliasName)
    name = session.ask(options, settings, terminal, lambda queen: queen.remove_alias(asked.name))
    return Result(data={"name": name}, notes=(f"The alias {name} is removed.",))

"""`rbee models rm`: removes a model from a node's disk."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from rbee.errors import InvalidRequestError, ModelNotFoundError
from rbee.keeper.command_line import reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire import model_ref
from rbee.wire.administration import alias_names
from rbee.wire.models import NodeModelId
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import ModelIdOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.administration.aliases import ModelAlias
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.models import Removed


def run(options: ModelIdOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen remove the model; one that a worker uses is refused."""
    if options.id.removeprefix("builtin:") in model_ref.BUILTIN_FILES:
        raise InvalidRequestError(
            f"{options.id} ships with rbee and cannot be removed; it is in the program's own file", field="id"
        )
    node = options.node or settings.defaults.node
    ref = None
    may_be_alias = reference.is_alias(options.id, settings)
    if not may_be_alias:
        ref = _reference(options.id, settings, node)  # what is wrong with it is told before anything starts

    async def remove(queen: QueenClient) -> Removed:
        where, wanted = node, ref
        if may_be_alias:
            if (alias := await _alias(queen, options.id)) is not None:
                where, wanted = node or alias.node, reference.parse(alias.model or alias.target)
            else:
                wanted = _reference(options.id, settings, node)
        model_id = options.id if wanted is None else await _id_of(queen, wanted, where, terminal)
        return await queen.remove_model(NodeModelId(id=model_id, node=where), terminal.report)

    removed = session.ask(options, settings, terminal, remove)
    note = f"{removed.id} was removed from {removed.node}: {render.size(removed.freed_bytes)}."
    return Result(data=msgspec.to_builtins(removed), notes=(note,))


def _reference(text: str, settings: Settings, node: str | None) -> ModelRef | None:
    """Return the reference that was typed; None for an id. Raises InvalidRequestError for what is neither."""
    if {":", "/"} & set(text) or text.lower().endswith(".gguf"):
        return reference.parse(text, settings.paths.models)
    convert({"id": text, "node": node}, NodeModelId)
    return None


async def _alias(queen: QueenClient, name: str) -> ModelAlias | None:
    """Return the alias that a name is, perhaps with `@node`; None for what may be an id."""
    aliases = {alias.name: alias for alias in await queen.known_aliases()}
    targets = {alias.name: alias.target for alias in aliases.values()}
    rest, _, node = name.rpartition("@")
    if (found := alias_names.named(name, targets)) is not None:
        return aliases[found]
    if rest and (found := alias_names.named(rest, targets)) is not None:
        return msgspec.structs.replace(aliases[found], node=node)
    return None


async def _id_of(queen: QueenClient, ref: ModelRef, node: str | None, terminal: Terminal) -> str:
    """Return the id of the model that `ref` means on a node. Raises ModelNotFoundError or InvalidRequestError."""
    swarm = await queen.list_models(node or LOCAL_NODE, terminal.report)
    rows = [row for one in swarm.nodes for row in one.models]
    found = [row for row in rows if row.model_ref == str(ref) or f"file:{row.local_path}" == str(ref)]
    found = found or [row for row in rows if ref.variant is None and (row.provider, row.reference) == ref[:2]]
    if len(found) == 1:
        return found[0].id
    if found:
        ids = ", ".join(shlex.quote(row.id) for row in found)
        raise InvalidRequestError(f"{ref} may be {len(found)} models", hint=f"name one of them: {ids}", field="id")
    hint = "`rbee models list` shows what can be removed"
    if ref.provider == "file":
        hint += "; a file of your own stays yours: rbee removes what it has fetched, or what was pushed to a node"
    raise ModelNotFoundError(f"{ref} is no model of {node or LOCAL_NODE}", hint=hint, model=str(ref))

"""`rbee models show`: shows what a model is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.download import hub_cache
from rbee.errors import RbeeError
from rbee.keeper.command_line import reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.inference import explain_failure
from rbee.keeper.output import render, tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire import model_kind
from rbee.wire.models import NodeModel
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import ModelOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.gguf import ModelHeader
    from rbee.wire.models import ModelDetails


def run(options: ModelOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the header of the model's file; a model that is not on the node is not fetched."""
    node = options.node or settings.defaults.node
    is_here = node in (None, LOCAL_NODE) and not settings.queen.url
    folders = (settings.paths.models, hub_cache.root()) if is_here else None
    is_name = reference.is_name(options.model, settings)
    text = options.model if is_name else reference.parse_or_id(options.model, folders)
    wanted = convert({"model_ref": text, "node": node}, NodeModel)
    try:
        model = session.ask(
            options, settings, terminal, lambda queen: queen.show_model(wanted.model_ref, wanted.node, terminal.report)
        )
    except RbeeError as exc:
        explain_failure.name_node(exc, settings)
        raise
    return Result(data=msgspec.to_builtins(model), text=_text(model, terminal.room))


def _chat_template(header: ModelHeader) -> str:
    if header.has_chat_template:
        return "yes"
    # A hive of an earlier version does not say how it writes them.
    return "no" if header.chat_family is None else f"no (conversations are written in the {header.chat_family} way)"


def _context(model: ModelDetails) -> str | None:
    """Say for how many tokens a model was trained, and how many a request may have on its node where they are fewer."""
    trained, here = model.header.context_length, model.context
    if trained is None or here is None or here == trained:
        return None if trained is None else f"{trained} tokens"
    return f"{trained} tokens; a request may have {here} here"


def _text(model: ModelDetails, room: int | None) -> str:
    header = model.header
    lines = {
        "kind": model_kind.describe(header),
        "file": model.local_path,
        "size": render.size(model.size_bytes),
        "name": header.name,
        "architecture": header.architecture,
        "parameters": f"{header.parameters / 1e6:.1f} million",
        "quantisation": header.quantisation,
        "layers": header.block_count,
        "context": _context(model),
        "vocabulary": None if header.vocabulary is None else f"{header.vocabulary} tokens",
        "end token": header.end_token,
        "chat template": _chat_template(header),
    }
    shown = [(name, "unknown" if value is None else value) for name, value in lines.items()]
    return f"{render.clean(model.model_ref)}\n{tables.fields(shown, room, indent='  ')}"

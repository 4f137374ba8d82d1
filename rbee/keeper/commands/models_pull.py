"""`rbee models pull`: fetches a model to a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.arguments import UsageError
from rbee.errors import RbeeError
from rbee.keeper.command_line import reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.inference import explain_failure
from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.models import NodeModel

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import ModelOptions
    from rbee.keeper.output.terminal import Terminal


def run(options: ModelOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen fetch the model, and show the progress; Ctrl+C ends it, unless another request needs it too."""
    node = options.node or settings.defaults.node
    wanted = convert({"model_ref": _reference(options.model, settings), "node": node}, NodeModel)
    try:
        row = session.ask(options, settings, terminal, lambda queen: queen.pull_model(wanted, terminal.report))
    except RbeeError as exc:
        explain_failure.name_node(exc, settings)
        raise
    finally:
        terminal.end_progress()
    note = f"{row.model_ref} is on {wanted.node or 'local'}: {row.id}, {render.size(row.size_bytes)}."
    return Result(data=msgspec.to_builtins(row), notes=(note,))


def _reference(text: str, settings: Settings) -> str:
    """Return a reference that can be fetched, or a name, which the queen knows."""
    if reference.is_name(text, settings):
        return text
    ref = reference.parse(text, settings.paths.models)
    if ref.provider != "hf":
        raise UsageError(
            f"{ref} cannot be fetched: only models of the Hugging Face hub can",
            "`rbee models push FILE --node NAME` copies a file of yours to a node",
        )
    return str(ref)

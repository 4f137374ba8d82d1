"""Runs one command; turns its result or its error into output and an exit code."""

from __future__ import annotations

import gc
import importlib
import os
import signal
from typing import TYPE_CHECKING, Final

from rbee.adapters.arguments import WRONG_USAGE, HelpRequest, UsageError
from rbee.adapters.files import working_folder
from rbee.errors import InternalError, InvalidRequestError, RbeeError
from rbee.keeper.command_line import checked
from rbee.keeper.command_line.checked import WrongValueError
from rbee.keeper.command_line.options import parse
from rbee.keeper.output.result import Interrupted, Result
from rbee.keeper.output.terminal import CANCELLED, OutputClosedError, Terminal, occupy_standard_descriptors

if TYPE_CHECKING:
    from argparse import Namespace
    from types import ModuleType

    from rbee.adapters.config import Settings

OUTPUT_CLOSED: Final = 128 + signal.SIGPIPE
"""The exit code that a shell reports for a program whose output nobody reads any more."""


def main(arguments: list[str]) -> int:
    """Run a command; returns 0, or 1 for a failure, 2 for wrong usage, 130 after Ctrl+C."""
    occupy_standard_descriptors()
    terminal = Terminal()
    try:
        _run(arguments, terminal)
    except UsageError as exc:
        terminal.error(exc.message, exc.hint)
        return WRONG_USAGE
    except OutputClosedError:
        return OUTPUT_CLOSED
    except Interrupted as exc:
        terminal.cancelled(None if exc.ends_a_view else CANCELLED)
        return exc.exit_code
    except KeyboardInterrupt:
        terminal.cancelled()
        return 128 + signal.SIGINT
    except RbeeError as exc:
        if "--debug" in arguments:
            terminal.debug(_traceback())
        terminal.error(exc.message, exc.hint)
        return exc.exit_code
    except Exception as exc:  # noqa: BLE001 (a bug: its traceback is shown or logged)
        if isinstance(exc, OSError) and working_folder.is_gone():
            terminal.error(working_folder.MESSAGE, working_folder.HINT)
            return 1
        trace = _traceback()
        if "--debug" in arguments:
            terminal.debug(trace)
        terminal.error(f"this is a bug in rbee: {type(exc).__name__}", _log_bug(trace))
        return 1
    finally:
        terminal.settle()
    return 0


def _run(arguments: list[str], terminal: Terminal) -> None:
    try:
        options = parse(arguments)
    except HelpRequest as request:
        terminal.data(request.text.rstrip("\n"))
        return
    terminal.quiet, terminal.verbose = options.quiet, options.verbose
    module, config = _import(options.module), _import("rbee.adapters.config")
    settings = config.load(
        {"queen": {"url": options.queen}}, file=options.config, environment=config.absolute_environment()
    )
    try:
        result = module.run(options, settings, terminal)
    except WrongValueError as exc:
        raise checked.usage_error(exc, options) from None
    except InvalidRequestError as exc:
        checked.name_option(exc, options)
        raise
    except InternalError as exc:
        exc.hint = exc.hint or _where_to_look(exc, settings)
        raise
    _show(result, options, terminal)


def _import(name: str) -> ModuleType:
    """Import a module fast: half the time of a command on a warm model is spent here."""
    # Objects of modules are never garbage; scanning them again and again takes a tenth of the time.
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _show(result: Result, options: Namespace, terminal: Terminal) -> None:
    terminal.settle()
    for note in result.notes:
        terminal.note(note)
    if options.json:
        import msgspec

        if result.data is not None:
            terminal.data(msgspec.json.encode(result.data).decode())
    elif result.text:
        terminal.data(result.text)
    if result.failure is not None:
        raise result.failure


def _where_to_look(error: RbeeError, settings: Settings) -> str:
    about = f" for correlation id {error.correlation_id}" if error.correlation_id else ""
    if settings.queen.url:
        return (
            f"look{about} into the logs of the queen's machine: `rbee logs`; this machine's are in {settings.logs_dir}"
        )
    return f"look{about} into the logs in {settings.logs_dir}"


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


def _log_bug(trace: str) -> str:
    """Append a bug's traceback to the keeper's log; returns the hint for the user."""
    try:
        from rbee.adapters import config
        from rbee.adapters.files import private

        folder = config.load(environment=config.absolute_environment()).logs_dir
        private.make_private(folder)
        log = folder / "keeper.log"
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(trace)
    except (OSError, RbeeError):
        return "run the same command with --debug to see where"
    return f"please report it with the last lines of {log}"

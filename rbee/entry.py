"""Chooses the role from the program's name and first argument, and hands over to its module."""

from __future__ import annotations

import gc
import importlib
import os
import sys

ROLES = {
    "queen": "rbee.queen.daemon",
    "hive": "rbee.hive.daemon",
    "worker": "rbee.worker.daemon",
    "model-header": "rbee.worker.llama.header",
    "chat-template": "rbee.worker.chat.template",
    "grammar-trial": "rbee.worker.llama.grammar_trial",
}
"""First argument → module with `main(argv) -> exit code`; everything else is the keeper's."""

NAMES = {"queen-rbee": "queen", "rbee-hive": "hive", "llm-worker-rbee": "worker"}
"""Names by which the program may be called to act as one role."""


def main(argv: list[str] | None = None) -> int:
    """Run the program; `argv` is without the program's name. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    role = NAMES.get(os.path.basename(sys.argv[0]))  # noqa: PTH119 (pathlib is slow to import)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    # A daemon starts the one below it by the name it was called by itself: `queen-rbee hive`.
    if role is not None and not (arguments and arguments[0] in ROLES):
        arguments.insert(0, role)
    if arguments and arguments[0] in ROLES:
        from rbee.adapters.files import working_folder

        module, arguments = ROLES[arguments[0]], arguments[1:]
        if not working_folder.can_do_without(arguments):
            sys.stderr.write(f"rbee: {working_folder.MESSAGE}\nhint: {working_folder.HINT}\n")
            return 1
    else:
        if arguments and arguments[0] in ("--version", "-V", "version"):
            from rbee import __version__

            print(f"rbee {__version__}")  # noqa: T201
            return 0
        module = "rbee.keeper.cli"
    try:
        from rbee.adapters import lean_imports

        lean_imports.arrange(serves=module in ROLES.values())
        # Objects of modules are never garbage; scanning them, and at the end taking them apart, takes a daemon 0.15 s.
        gc.disable()
        chosen = importlib.import_module(module)
        gc.freeze()
        gc.enable()
        code = chosen.main(arguments)
    except KeyboardInterrupt:
        # Ctrl+C while modules are imported: nothing has been started yet.
        sys.stderr.write("\nCancelled.\n")
        return 130
    assert isinstance(code, int)
    return code

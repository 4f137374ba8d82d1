"""Parses the command line: the options of each command and their allowed values."""

from __future__ import annotations

import argparse
import os
from functools import cache
from typing import TYPE_CHECKING

from rbee.adapters.arguments import (
    GIVEN,
    HelpAction,
    HelpRequest,
    Once,
    Parser,
    UsageError,
    duration,
    whole,
)
from rbee.keeper.command_line import command_table, generation_options, slips

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rbee.keeper.command_line.command_table import Command

SHORT_ID = 8
"""Characters of a worker's id that identify it."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options, with the command's module in `module`.

    Raises HelpRequest or UsageError.
    """
    main = _parser()
    slips.check(main, arguments)
    options, extra = main.parse_known_args(arguments)
    options.__dict__.pop(GIVEN, None)
    parser: Parser = options.parser
    if extra and hasattr(options, "words") and not any(word.startswith("-") for word in extra):
        # argparse takes no words behind an option once it has had some before it.
        options.words = [*options.words, *extra]
    elif extra:
        parser.refuse(extra[0])
    if not hasattr(options, "module"):
        if parser.prog != "rbee":
            raise UsageError(f"{parser.prog} needs a command", _actions(parser))
        raise HelpRequest(command_table.HELP)
    return options


def _actions(parser: Parser) -> str:
    names = [f"`{parser.prog} {name}`" for action in parser._actions for name in action.choices or ()]
    return f"{', '.join(names[:-1])} or {names[-1]}; `{parser.prog} --help` explains them"


class _Main(Parser):
    def format_help(self) -> str:
        return command_table.HELP


@cache
def _parser() -> Parser:
    main = _Main(prog="rbee")
    main.set_defaults(config=None, queen=None, quiet=False, verbose=False, debug=False, json=False)
    _general_options(main)
    commands = main.add_subparsers(metavar="command", parser_class=Parser)
    made = {command.name: _add(commands, command) for command in command_table.COMMANDS}
    for group in command_table.GROUPS:
        parser = commands.add_parser(
            group.name, prog=f"rbee {group.name}", usage=group.usage, description=group.summary
        )
        _general_options(parser)
        actions = parser.add_subparsers(metavar="command", help=argparse.SUPPRESS, parser_class=Parser)
        prefix = f"{group.name} "
        made |= {f"{prefix}{command.name}": _add(actions, command, prefix) for command in group.commands}
    generation_options.add_infer_options(made["infer"])
    generation_options.add_chat_options(made["chat"])
    generation_options.add_run_options(made["run"])
    for name in ("infer", "chat", "run", "models load"):
        _keep_option(made[name], "keep the model loaded so long after its last request, from now on")
    _keep_option(made["up"], "keep each model loaded so long after its last request, on all nodes")
    _up_options(made["up"])
    _install_options(made)
    _workers_options(made)
    _models_options(made)
    _setup_options(made)
    made["status"].add_argument("-w", "--watch", action="store_true", help="keep the view up to date until Ctrl+C")
    _logs_options(made["logs"])
    _keys_options(made)
    _requests_options(made)
    lists = ("status", "logs", "requests", "why", "detect", "workers list", "workers health", "workers shutdown")
    for name in (*lists, "keys create", "keys list", "keys revoke", "setup list-nodes"):
        made[name].add_argument("--json", action="store_true", help="print JSON")
    for parser in made.values():
        _general_options(parser)
    return main


def _add(parsers: argparse._SubParsersAction[Parser], command: Command, prefix: str = "") -> Parser:
    name = f"rbee {prefix}{command.name}"
    parser = parsers.add_parser(command.name, prog=name, description=command.summary, epilog=command.examples)
    parser.set_defaults(module=command.module)
    return parser


def _general_options(parser: Parser) -> None:
    """Add the options that all commands take, also before the command's name; a default here would overwrite those."""
    add = parser.add_argument_group("general").add_argument
    add("--config", metavar="FILE", type=_absolute, default=argparse.SUPPRESS, help="read settings from this file")
    add(
        "--queen",
        metavar="URL",
        type=_queen,
        default=argparse.SUPPRESS,
        help="use the queen at this address, which may be another machine's",
    )
    add("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="print only errors to standard error")
    add("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="print each step, and who does it")
    add(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the traceback of an error; a queen that is started logs more",
    )
    add("-h", "--help", action=HelpAction)
    parser.set_defaults(parser=parser)


def _absolute(path: str) -> str:
    """Return a path that names the same file in the folders in which daemons run."""
    path = os.path.expanduser(path)  # noqa: PTH111 (pathlib is slow to import)
    if path.startswith("~/"):
        from rbee.adapters.files import home

        path = str(home.expanded(path))  # says why not
    return os.path.abspath(path)  # noqa: PTH100


def _queen(text: str) -> str:
    """Check the address of a queen."""
    from rbee.keeper.command_line.queen_url import parse as parse_url

    try:
        return parse_url(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _worker_id(text: str) -> str:
    """Return a worker's id, or its beginning, as the daemons write it; the name of its log is taken too."""
    found = text.lower().removeprefix("worker-").removesuffix(".log")
    if len(found) < SHORT_ID:
        raise argparse.ArgumentTypeError(f"at least the first {SHORT_ID} characters of an id are expected")
    if not set(found) <= set("0123456789abcdef-"):
        raise argparse.ArgumentTypeError("digits, letters a to f and dashes are expected")
    return found


def _keep_option(parser: Parser, what: str) -> None:
    parser.add_argument("--keep", metavar="TIME", type=duration, help=f"{what}: 90s, 30m, 2h, 1d or forever")


def _up_options(parser: Parser) -> None:
    add = parser.add_argument_group("who may use it").add_argument
    add("--lan", action="store_true", help="listen on all networks of this machine; API keys open it there")
    add("--open", action="store_true", help="everyone who reaches it may use models, without a key")


def _install_options(made: Mapping[str, Parser]) -> None:
    for name, verb in (("install", "install for"), ("uninstall", "remove it from")):
        add = made[name].add_argument_group("where").add_argument
        add("--system", action="store_true", help=f"{verb} all users of this machine; needs root")
        add("--prefix", metavar="DIR", help=f"with --system: {name} below this folder instead of /")
    add = made["install"].add_argument
    add("--systemd", action="store_true", help="also write systemd user services for queen and hive")
    add = made["uninstall"].add_argument_group("what else to remove").add_argument
    add("--models", action="store_true", help="also the models that were fetched")
    add("--state", action="store_true", help="also the token, the registered nodes and the logs")
    add("--all", action="store_true", help="also both of these, the settings and the cache")


def _workers_options(made: Mapping[str, Parser]) -> None:
    made["workers health"].add_argument("--node", metavar="NAME", action=Once, help="only this node (default: all)")
    made["workers shutdown"].add_argument(
        "--id",
        metavar="ID",
        action=Once,
        type=_worker_id,
        required=True,
        help="the worker's id, or at least its first eight characters",
    )


def _logs_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--node", metavar="NAME", action=Once, help="the node (default: the queen's own host)")
    add("-f", "--follow", action="store_true", help="print new lines as they are written, until Ctrl+C")
    add("--lines", metavar="N", default=200, type=whole(0, 10_000), help="start with the last N lines (default: 200)")


def _keys_options(made: Mapping[str, Parser]) -> None:
    for name in ("create", "revoke"):
        made[f"keys {name}"].add_argument("name", metavar="NAME", help="the key's name: letters, digits, dots, dashes")
    add = made["keys create"].add_argument
    add("--models", metavar="REF,…", action="append", help="only for these models (default: for all)")
    add("--expires", metavar="TIME", type=duration, help="good for so long: 12h, 30d (default: until it is revoked)")


def _requests_options(made: Mapping[str, Parser]) -> None:
    add = made["requests"].add_argument
    add("-f", "--follow", action="store_true", help="print each request when it ends, until Ctrl+C")
    add("--lines", metavar="N", default=50, type=whole(0, 10_000), help="start with the last N requests (default: 50)")
    made["why"].add_argument(
        "request",
        metavar="ID",
        nargs="?",
        help="the request's id, or at least its first eight characters (default: the latest request)",
    )


def _models_options(made: Mapping[str, Parser]) -> None:
    hub = "hf:ORG/REPO[:VARIANT] or hf:ORG/REPO/FILE.gguf"
    made["models show"].add_argument("model", metavar="REF", help=f"a path, builtin:NAME, {hub}, or an id of the list")
    made["models pull"].add_argument("model", metavar="REF", help=hub)
    made["models load"].add_argument("model", metavar="REF", help=f"a path, builtin:NAME, {hub}, or a model's name")
    generation_options.add_where_options(made["models load"])
    made["models load"].add_argument("--json", action="store_true", help="print JSON")
    made["models rm"].add_argument(
        "id", metavar="ID", help="the model's id, as shown by `rbee models list`, its reference or an alias"
    )
    _alias_options(made["models alias"])
    made["models push"].add_argument("file", metavar="FILE", help="a GGUF file of this machine")
    made["models push"].add_argument(
        "--node", metavar="NAME", action=Once, required=True, help="the node to copy it to"
    )
    made["models push"].add_argument("--json", action="store_true", help="print JSON")
    for name in ("list", "show", "pull", "rm"):
        where = "all that answer" if name == "list" else "from the settings, else `local`"
        parser = made[f"models {name}"]
        parser.add_argument("--node", metavar="NAME", action=Once, help=f"the node (default: {where})")
        parser.add_argument("--json", action="store_true", help="print JSON")


def _alias_options(parser: Parser) -> None:
    parser.usage = "rbee models alias [NAME [REF] [--remove]] [options]"
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="the alias: letters, digits, and any of . _ - + : /")
    what = "what it stands for: a reference, a path, or any other name of a model, perhaps with @NODE"
    add("target", metavar="REF", nargs="?", help=what)
    add("--remove", action="store_true", help="remove the alias")
    add("--json", action="store_true", help="print JSON")


def _setup_options(made: Mapping[str, Parser]) -> None:
    for name in ("setup add-node", "setup update-node"):
        is_update = name.endswith("update-node")
        made[name].set_defaults(is_update=is_update)
        add = made[name].add_argument
        default = (lambda _: "") if is_update else " (default: {})".format
        add("--name", metavar="NAME", action=Once, required=True, help="the node's name: letters, digits, dots, dashes")
        add(
            "--ssh-host",
            metavar="HOST",
            action=Once,
            required=not is_update,
            help="the node, as `ssh` takes it: [USER@]HOST, or a name in ~/.ssh/config",
        )
        add(
            "--ssh-port",
            metavar="PORT",
            type=whole(1, 65535),
            help="the port of its sshd" + default("from ~/.ssh/config, else 22"),
        )
        add(
            "--ssh-user", metavar="USER", help="log in as this user" + default("from ~/.ssh/config, else your own name")
        )
        add("--ssh-key", metavar="FILE", help="the only key to offer" + default("what `ssh` offers"))
        add(
            "--install-path",
            metavar="DIR",
            help="the folder for rbee on the node" + default("~/.local/share/rbee/node"),
        )
        add("--git-repo", metavar="URL", help="the repository that `setup install --from-source` builds")
        add("--git-branch", metavar="NAME", help="its branch" + default("main"))
        add(
            "--tunnel",
            choices=("auto", "always", "never"),
            help="reach its ports through SSH; auto: only if they cannot be reached directly" + default("auto"),
        )
        add(
            "--accept-host-key",
            metavar="SHA256:…",
            help="trust a new host key with this fingerprint; without it you are asked on a terminal",
        )
    made["setup remove-node"].add_argument("--name", metavar="NAME", action=Once, required=True, help="the node's name")
    add = made["setup install"].add_argument
    which = made["setup install"].add_mutually_exclusive_group(required=True).add_argument
    which("--node", metavar="NAME", action=Once, help="the node's name")
    which("--all", action="store_true", help="all registered nodes, one after the other")
    add("--python", metavar="PATH", help="the Python there that runs it (default: the newest that fits)")
    way = made["setup install"].add_mutually_exclusive_group().add_argument
    way("--from-source", action="store_true", help="build the node's registered repository there instead")
    way("--rollback", action="store_true", help="go back to the previous version")

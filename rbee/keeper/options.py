"""The commands: their options, their help, and the module that carries each out."""

from __future__ import annotations

import argparse
from typing import Final, NamedTuple

from rbee.adapters.arguments import HelpAction, HelpRequest, Parser, UsageError, fraction, whole

HELP: Final = """\
usage: rbee <command> [options]

Runs language models on the machines you own.

use a model
  infer            continue a prompt; the text streams to standard output
  models           the models on the machines: list, show, pull, rm

add a machine
  setup            register machines that are reached by SSH, and bring rbee there

see what there is
  status           what runs where
  workers          list the workers that hold a model, ask for their health, or end one
  logs             what the hive and the workers of a node write, also live
  detect           backends and devices of this machine

keep it running (otherwise everything ends with the command)
  up               start a queen in the background
  down             stop it, with everything it started
  queen, hive      run that daemon in the foreground
  token            print the swarm's token

set it up
  install          put rbee, its settings and its services in their places

examples
  rbee infer --prompt "Once upon a time"
  echo "Once upon a time" | rbee infer --max-tokens 100 2>/dev/null
  rbee up; rbee infer --prompt "The bees" --json; rbee down

`rbee <command> --help` explains a command; `rbee --version` tells the version.
Standard output holds data only; what happens is told on standard error.
"""

INFER: Final = """\
Continue a prompt with a language model, and print the text as it is generated.

Without a running queen everything that is needed is started, and ends with the command.
Standard output gets the text and one newline, nothing else.
"""

INFER_EXAMPLES: Final = """\
models
  builtin:bee-stories               ships with rbee
  file:/absolute/path.gguf          a GGUF file on the node
  hf:ORG/REPO[:VARIANT]             from the Hugging Face hub, for example hf:ORG/REPO:Q4_K_M
  hf:ORG/REPO/FILE.gguf

examples
  rbee infer --prompt "Once upon a time"
  rbee infer --prompt "The queen" --max-tokens 200 --temperature 0.2 --seed 1
  cat question.txt | rbee infer --quiet > answer.txt
  rbee infer --prompt "List three flowers:" --stop "4." --json
"""


INSTALL: Final = """\
Put rbee in its place, with its other names, a settings file and a folder for models.

Run from a checkout, it installs dist/rbee.pyz, and builds it first where that is needed. Run again, it brings the
program up to date. A settings file that is there is never changed.
"""

INSTALL_EXAMPLES: Final = """\
               install                          install --system
  program      ~/.local/bin/rbee                /usr/local/bin/rbee
  settings     ~/.config/rbee/config.toml       /etc/rbee/config.toml
  models       ~/.local/share/rbee/models/      /var/lib/rbee/models/
  services     ~/.config/systemd/user/          /etc/systemd/user/

Beside the program: rbee-keeper, queen-rbee, rbee-hive and llm-worker-rbee, the same program under other names.
"""

STATUS: Final = """\
Show the queen, the nodes and the workers.

With --watch the picture is kept up to date until Ctrl+C; with --json too, each change is one line.
"""

LOGS: Final = """\
Show the logs of a node's hive and its workers, the newest lines last.

The logs of this host can be read without any daemon. Times are local.
"""

LOGS_EXAMPLES: Final = """\
examples
  rbee logs
  rbee logs --node attic --follow
  rbee logs --lines 10000 --json
"""

MODELS_USAGE: Final = "rbee models {list,show,pull,rm} [options]"
MODELS_HELP: Final = """\
  list       what is on the machines, with sizes and last use
  show REF   what a model is, from its file's header
  pull REF   fetch one of the Hugging Face hub
  rm ID      remove one from the disk
"""

WORKERS_USAGE: Final = "rbee workers {list,health,shutdown} [options]"
WORKERS_HELP: Final = """\
  list       the workers of all nodes
  health     whether the hives and workers are well
  shutdown   end a worker
"""


SETUP_USAGE: Final = "rbee setup {add-node,update-node,list-nodes,remove-node,install} [options]"
SETUP_HELP: Final = """\
  add-node      register a machine that is reached by SSH
  update-node   change a registered one
  list-nodes    the registered nodes
  remove-node   forget one
  install       bring rbee to a registered node
"""
SETUP_EXAMPLES: Final = """\
examples
  rbee setup add-node --name attic --ssh-host 192.168.1.5 --ssh-user bee
  rbee setup install --node attic
  rbee infer --node attic --prompt "Once upon a time"
"""


class Command(NamedTuple):
    """A command; `module` has `run(options, settings, terminal) -> Result`."""

    name: str
    module: str
    summary: str
    examples: str = ""


COMMANDS: Final = (
    Command("infer", "rbee.keeper.commands.infer", INFER, INFER_EXAMPLES),
    Command("status", "rbee.keeper.commands.status", STATUS),
    Command("logs", "rbee.keeper.commands.logs", LOGS, LOGS_EXAMPLES),
    Command(
        "detect",
        "rbee.keeper.commands.detect",
        "Show this machine's processor, memory, backends and devices. Needs no daemon.\n",
    ),
    Command(
        "up",
        "rbee.keeper.commands.up",
        "Start a queen in the background and wait until it answers.\n\n"
        "Models then stay loaded between commands. It runs until `rbee down`.\n",
    ),
    Command(
        "down",
        "rbee.keeper.commands.down",
        "Stop the queen that runs in the background, its hives and their workers.\n\n"
        "Running requests may finish first; no new ones are taken.\n",
    ),
    Command(
        "token",
        "rbee.keeper.commands.token",
        "Print the token that opens the swarm's HTTP interfaces; it is made where there is none yet.\n",
        'examples\n  curl -H "Authorization: Bearer $(rbee token)" http://127.0.0.1:8080/v2/workers/list\n',
    ),
    Command("install", "rbee.keeper.commands.install", INSTALL, INSTALL_EXAMPLES),
)

WORKERS: Final = (
    Command("list", "rbee.keeper.commands.workers_list", "List the workers of all nodes.\n"),
    Command("health", "rbee.keeper.commands.workers_health", "Show whether the hives and workers are well.\n"),
    Command(
        "shutdown",
        "rbee.keeper.commands.workers_shutdown",
        "End a worker: its requests may finish first, then its model is unloaded. Returns once it has ended.\n",
    ),
)

MODELS: Final = (
    Command("list", "rbee.keeper.commands.models_list", "List the models that were fetched, on all nodes or one.\n"),
    Command(
        "show",
        "rbee.keeper.commands.models_show",
        "Show what a model on a node is: architecture, size, quantisation, context, vocabulary.\n",
    ),
    Command(
        "pull",
        "rbee.keeper.commands.models_pull",
        "Fetch a model of the Hugging Face hub, from another node that has it or from there, and verify it.\n\n"
        "What an interrupted one left is used. Private models: HF_TOKEN, or the token file of the hub's own tools.\n",
        "example\n  rbee models pull hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M\n",
    ),
    Command("rm", "rbee.keeper.commands.models_rm", "Remove a fetched model from a node's disk.\n"),
)

SETUP: Final = (
    Command(
        "add-node",
        "rbee.keeper.commands.setup_add",
        "Register a machine: connect to it by SSH, find out what it has, and remember it.\n\n"
        "Nothing is stored when the connection fails.\n",
        SETUP_EXAMPLES,
    ),
    Command(
        "update-node",
        "rbee.keeper.commands.setup_add",
        "Change a registered machine; what is not given stays as it is.\n",
    ),
    Command("list-nodes", "rbee.keeper.commands.setup_list", "List the registered nodes.\n"),
    Command("remove-node", "rbee.keeper.commands.setup_remove", "Forget a node; what is installed there stays.\n"),
    Command(
        "install",
        "rbee.keeper.commands.setup_install",
        "Bring this very program to a registered node, with the swarm's token and its settings, and try it there.\n\n"
        "Where the same file is there already nothing is sent. The version before is kept.\n",
    ),
)


SYNONYMS: Final = {
    "run": 'rbee infer --model REF --prompt "…"',
    "generate": 'rbee infer --prompt "…"',
    "complete": 'rbee infer --prompt "…"',
    "chat": 'rbee infer --prompt "…"',
    "pull": "rbee models pull REF",
    "list": "rbee models list",
    "ls": "rbee models list",
    "show": "rbee models show REF",
    "rm": "rbee models rm ID",
    "ps": "rbee workers list",
    "serve": "rbee up",
    "start": "rbee up",
    "stop": "rbee down",
    "nodes": "rbee setup list-nodes",
    "add-node": "rbee setup add-node",
    "list-nodes": "rbee setup list-nodes",
    "remove-node": "rbee setup remove-node",
    "update-node": "rbee setup update-node",
}
"""What people try who come from Ollama, Docker or llama.cpp, or forget the group."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options, with the command's module in `module`.

    Raises HelpRequest or UsageError.
    """
    options, extra = _parser().parse_known_args(arguments)
    parser: Parser = options.parser
    if extra:
        parser.refuse(extra[0])
    if not hasattr(options, "module"):
        if parser.prog != "rbee":
            raise UsageError(f"{parser.prog} needs to know what to do", _actions(parser))
        raise HelpRequest(HELP)
    return options


def _actions(parser: Parser) -> str:
    names = [f"`{parser.prog} {name}`" for action in parser._actions for name in action.choices or ()]
    return f"{', '.join(names[:-1])} or {names[-1]}; `{parser.prog} --help` explains them"


class _Main(Parser):
    def format_help(self) -> str:
        return HELP


def _parser() -> Parser:
    main = _Main(prog="rbee")
    main.synonyms = SYNONYMS
    main.set_defaults(config=None, quiet=False, debug=False, json=False)
    _general_options(main)
    commands = main.add_subparsers(metavar="command", parser_class=Parser)
    made = {command.name: _add(commands, command) for command in COMMANDS}
    workers = commands.add_parser("workers", prog="rbee workers", usage=WORKERS_USAGE, description=WORKERS_HELP)
    _general_options(workers)
    actions = workers.add_subparsers(metavar="command", help=argparse.SUPPRESS, parser_class=Parser)
    made |= {f"workers {command.name}": _add(actions, command, "workers ") for command in WORKERS}

    models = commands.add_parser("models", prog="rbee models", usage=MODELS_USAGE, description=MODELS_HELP)
    _general_options(models)
    actions = models.add_subparsers(metavar="command", help=argparse.SUPPRESS, parser_class=Parser)
    made |= {f"models {command.name}": _add(actions, command, "models ") for command in MODELS}

    setup = commands.add_parser("setup", prog="rbee setup", usage=SETUP_USAGE, description=SETUP_HELP)
    _general_options(setup)
    actions = setup.add_subparsers(metavar="command", help=argparse.SUPPRESS, parser_class=Parser)
    made |= {f"setup {command.name}": _add(actions, command, "setup ") for command in SETUP}

    _infer_options(made["infer"])
    _setup_options(made)
    _install_options(made["install"])
    made["workers health"].add_argument(
        "--node", metavar="NAME", default=None, help="this node only (default: all of them)"
    )
    made["workers shutdown"].add_argument(
        "--id", metavar="ID", required=True, help="the worker's id, or the first eight characters of it or more"
    )
    made["status"].add_argument("-w", "--watch", action="store_true", default=False, help="show what changes, live")
    add = made["logs"].add_argument
    add("--node", metavar="NAME", default=None, help="the node (default: from the configuration, else `local`)")
    add("-f", "--follow", action="store_true", default=False, help="go on with what is written, until Ctrl+C")
    add("--lines", metavar="N", default=200, type=whole(0, 10_000), help="how many lines to begin with (default 200)")
    for name, what in (("show", "REF"), ("pull", "REF"), ("rm", "ID")):
        made[f"models {name}"].usage = f"rbee models {name} {what} [options]"
    for name in ("models show", "models pull"):
        made[name].add_argument("model", metavar="REF", help="hf:ORG/REPO[:VARIANT], hf:ORG/REPO/FILE.gguf, …")
    made["models rm"].add_argument("id", metavar="ID", help="as `rbee models list` shows it")
    for command in MODELS:
        where = "all that answer" if command.name == "list" else "from the configuration, else `local`"
        name = f"models {command.name}"
        made[name].add_argument("--node", metavar="NAME", default=None, help=f"the node (default: {where})")
        made[name].add_argument("--json", action="store_true", help="print JSON")
    for name in ("status", "logs", "detect", "workers list", "workers health", "workers shutdown", "setup list-nodes"):
        made[name].add_argument("--json", action="store_true", help="print JSON")
    for parser in made.values():
        _general_options(parser)
    return main


def _add(parsers: argparse._SubParsersAction[Parser], command: Command, prefix: str = "") -> Parser:
    name = f"rbee {prefix}{command.name}"
    parser = parsers.add_parser(
        command.name,
        prog=name,
        usage=f"{name} [options]",
        argument_default=argparse.SUPPRESS,
        description=command.summary,
        epilog=command.examples,
    )
    parser.set_defaults(module=command.module)
    return parser


def _general_options(parser: Parser) -> None:
    """Add what every command takes, also before its name; there a default of its own would win over what is given."""
    add = parser.add_argument_group("general").add_argument
    add("--config", metavar="FILE", default=argparse.SUPPRESS, help="read the settings from this file")
    add("-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="only errors on standard error")
    add("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
    add("-h", "--help", action=HelpAction)
    parser.set_defaults(parser=parser)


def _infer_options(parser: Parser) -> None:
    add = parser.add_argument_group("what to generate").add_argument
    add("--prompt", metavar="TEXT", default=None, help="the text to continue (default: standard input)")
    add(
        "--model", metavar="REF", default=None, help="the model (default: from the configuration, else the bundled one)"
    )
    add("--max-tokens", metavar="N", default=20, type=whole(1, 2**31 - 1), help="stop after N tokens (default 20)")
    add("--stop", metavar="TEXT", default=None, action="append", help="stop before this text; may be repeated")
    add("--raw", action="store_true", default=False, help="give the prompt to the model without its chat template")

    add = parser.add_argument_group("how to choose the next token").add_argument
    add("--temperature", metavar="X", default=0.7, type=fraction(0, 2), help="0 takes the likeliest (default 0.7)")
    add("--top-k", metavar="N", default=None, type=whole(0, 1_000_000), help="only the N likeliest; 0 for all")
    add(
        "--top-p",
        metavar="X",
        default=None,
        type=fraction(0, 1, above=True),
        help="only the likeliest that add up to X",
    )
    add(
        "--min-p",
        metavar="X",
        default=None,
        type=fraction(0, 1),
        help="only those at least X times as likely as the first",
    )
    add("--seed", metavar="N", default=None, type=whole(0, 2**32 - 2), help="the same seed gives the same text")

    add = parser.add_argument_group("where to run").add_argument
    add(
        "--node",
        metavar="NAME",
        default=None,
        help="the node (default: from the configuration, else the queen chooses)",
    )
    add("--backend", metavar="NAME", default=None, help="cpu, cuda, …; `rbee detect` lists them")
    add("--device", metavar="N", default=None, type=whole(0, 1023), help="the backend's device")
    add(
        "--wait",
        metavar="SECONDS",
        default=0.0,
        type=fraction(0, 3600),
        help="wait in line so long for a slot where all are taken (default 0: ask again after 1, 2 and 4 s)",
    )

    parser.add_argument("--json", action="store_true", default=False, help="print one JSON object at the end")


def _install_options(parser: Parser) -> None:
    add = parser.add_argument_group("where to").add_argument
    add("--system", action="store_true", default=False, help="for all users of this machine; needs root")
    add("--prefix", metavar="DIR", default=None, help="with --system: below this folder instead of /")
    parser.add_argument(
        "--systemd",
        action="store_true",
        default=False,
        help="also write systemd services of the user for queen and hive",
    )


def _setup_options(made: dict[str, Parser]) -> None:
    for name in ("setup add-node", "setup update-node"):
        is_update = name.endswith("update-node")
        made[name].set_defaults(is_update=is_update)
        add = made[name].add_argument
        default = (lambda _: "") if is_update else " (default {})".format
        add("--name", metavar="NAME", required=True, help="the node's name: letters, digits, dots, dashes")
        add("--ssh-host", metavar="HOST", required=not is_update, default=None, help="its name or address")
        add("--ssh-port", metavar="PORT", default=None, type=whole(1, 65535), help="sshd's port" + default("22"))
        add("--ssh-user", metavar="USER", required=not is_update, default=None, help="the user to log in as")
        add("--ssh-key", metavar="FILE", default=None, help="the private key" + default("the agent's, then the usual"))
        add(
            "--install-path",
            metavar="DIR",
            default=None,
            help="where rbee lives there" + default("~/.local/share/rbee/node"),
        )
        add("--git-repo", metavar="URL", default=None, help="the repository for `setup install --from-source`")
        add("--git-branch", metavar="NAME", default=None, help="its branch" + default("main"))
        add(
            "--tunnel",
            choices=("auto", "always", "never"),
            default=None,
            help="reach its ports through SSH; auto: where they cannot be reached directly" + default("auto"),
        )
        add(
            "--accept-host-key",
            metavar="SHA256:…",
            default=None,
            help="trust a new host key with this fingerprint; without, you are asked on a terminal",
        )
    made["setup remove-node"].add_argument("--name", metavar="NAME", required=True, help="the node")
    add = made["setup install"].add_argument
    add("--node", metavar="NAME", required=True, help="the node")
    way = made["setup install"].add_mutually_exclusive_group().add_argument
    way("--from-source", action="store_true", default=False, help="build the registered repository there")
    way("--rollback", action="store_true", default=False, help="take the version before back")

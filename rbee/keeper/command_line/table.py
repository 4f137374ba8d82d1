"""The commands: what their help says, and the module that carries each out."""

from __future__ import annotations

from typing import Final, NamedTuple

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


class Group(NamedTuple):
    """Commands with a first word in common, which is `name`."""

    name: str
    usage: str
    summary: str
    commands: tuple[Command, ...]


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

GROUPS: Final = (
    Group("workers", WORKERS_USAGE, WORKERS_HELP, WORKERS),
    Group("models", MODELS_USAGE, MODELS_HELP, MODELS),
    Group("setup", SETUP_USAGE, SETUP_HELP, SETUP),
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

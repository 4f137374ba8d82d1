"""Lists the commands: the help text of each, and the module that runs it."""

from __future__ import annotations

from typing import Final, NamedTuple

HELP: Final = """\
usage: rbee <command> [options]

Runs language models on the machines you own.

The queen picks a node (a machine) for each request; the node's hive keeps its
models and starts workers; a worker runs one model. They start when needed.

use a model
  run              answer with a model, or chat with it, by its name alone
  chat             talk with a model, on a terminal
  infer            answer or continue a prompt; the text streams to stdout
  models           list, show, pull, push, remove or name models on the nodes

add a node
  setup            register machines as nodes over SSH, and install rbee there

see what is there
  status           show what runs where
  workers          list workers, check their health, or end one
  logs             show what the daemons log, also live
  detect           show this machine's processor, memory, backends and devices

let programs and people use it
  keys             make, list or revoke API keys, which only use models
  requests         show what became of the last requests, also live
  why              tell the story of one request

keep it running (otherwise everything ends with the command)
  up               start a queen in the background
  down             stop it and everything it started
  queen, hive      run that daemon in the foreground

set it up
  install          install rbee here, with a settings file and services
  uninstall        remove that again; models and state stay if not asked for
  token            print the token that opens the swarm's HTTP interfaces

examples
  rbee infer --prompt "Once upon a time"
  echo "Once upon a time" | rbee infer --max-tokens 100 2>/dev/null
  rbee up; rbee infer --prompt "The bees" --json; rbee down

`rbee <command> --help` explains a command; `rbee --version` prints the version.
Standard output carries data only; progress and errors go to standard error.
"""

INFER: Final = """\
Answer or continue a prompt with a language model, and print the text as it is generated.

A model with a chat template answers the prompt, for example a question; any other model continues it.
If no queen is running, the command starts everything it needs, and ends it before it exits.
Standard output gets the text and one newline, nothing else.
"""

INFER_EXAMPLES: Final = """\
models
  builtin:bee-stories               ships with rbee
  ./path.gguf, ~/path.gguf          a GGUF file of this machine
  file:/absolute/path.gguf          a GGUF file on the node
  hf:ORG/REPO[:VARIANT]             from the Hugging Face hub, for example hf:ORG/REPO:Q4_K_M
  hf:ORG/REPO/FILE.gguf             one file of it

examples
  rbee infer --prompt "Once upon a time"
  rbee infer --prompt "The queen" --max-tokens 200 --temperature 0.2 --seed 1
  cat question.txt | rbee infer --quiet > answer.txt
  git diff | rbee infer --prompt "Review these changes:"
  rbee infer --prompt "List three flowers:" --stop "4." --json
"""

CHAT: Final = """\
Talk with a language model.

On a terminal there is a line editor with a history, and answers are drawn as they come; Ctrl+C ends an answer, Ctrl+D
the chat, and /help shows the rest. Elsewhere each line of standard input is a message, and answers are plain text.
"""

CHAT_EXAMPLES: Final = """\
examples
  rbee chat
  rbee chat --model hf:ORG/REPO:Q4_K_M --node attic
  rbee chat --system "Answer in one sentence."
"""

RUN: Final = """\
Answer a prompt with a model, or chat with it.

A model that is on no node is fetched first. With a prompt, or text that is piped in, there is one answer, as of `rbee
infer`; without, and on a terminal, a chat, as of `rbee chat`.
"""

RUN_EXAMPLES: Final = """\
examples
  rbee run hf:ORG/REPO:Q4_K_M
  rbee run ./model.gguf Why do bees dance?
  git diff | rbee run ./model.gguf "Review these changes:"
"""

STATUS: Final = """\
Show the queen, the nodes and the workers.

With --watch the view stays up to date until Ctrl+C; with --watch --json each change is printed as one line.
"""

LOGS: Final = """\
Show what queen, hive and workers log on the queen's own host, or hive and workers of another node, oldest line first.

The queen writes a line for each request: who asked for what, which worker had it, tokens and times, and how it ended.
The logs of this machine can be read while no daemon runs. Times are local.
"""

LOGS_EXAMPLES: Final = """\
examples
  rbee logs
  rbee logs --node attic --follow
  rbee logs --lines 10000 --json
"""

DETECT: Final = """\
Show this machine's processor, memory, disk, backends and devices.

No daemon needs to run.
"""

UP: Final = """\
Start a queen in the background, and wait until it answers.

Models then stay loaded between commands, until `rbee down`. Only a worker that nobody uses ends after [timeouts] idle,
300 s unless the settings file has another value; --keep 2h makes that longer for all models, and `rbee infer --keep 2h`
for one. `rbee workers list` and `rbee status` show until when each stays.
"""

UP_EXAMPLES: Final = """\
examples
  rbee up                           for you, on this machine
  rbee up --lan                     for other machines too, with API keys: `rbee keys create NAME`
  rbee up --lan --open              for everyone on the network, without keys
"""

KEYS_USAGE: Final = "rbee keys {create,list,revoke} [options]"
KEYS_HELP: Final = """\
API keys let programs and people use models over HTTP, and nothing else. The token (`rbee token`) opens everything.

  create     make a key, and print it this once
  list       list the keys, with last use and counts
  revoke     make a key good for nothing, at once
"""

KEYS_CREATE: Final = """\
Make an API key, and print it. It is shown this once: the queen keeps a hash of it.

It is sent as `Authorization: Bearer KEY` or `x-api-key: KEY`. You yourself need none on the queen's machine.
"""

KEYS_EXAMPLES: Final = """\
examples
  rbee keys create laptop
  rbee keys create guest --models hf:ORG/REPO:Q4_K_M --expires 30d
  OPENAI_API_KEY=$(rbee keys create script) OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python3 script.py
"""

REQUESTS: Final = """\
Show what became of the last requests: whose each was, tokens, times, and how it ended; never its text.

With --follow each request is printed when it ends, until Ctrl+C. `rbee why ID` tells the story of one.
"""

WHY: Final = """\
Tell the story of a request: when it waited, where it was placed and why, what was loaded, and how it ended.

ID is that of `rbee requests` or of an answer (X-Request-Id); its first eight characters are enough. Without one it is
the latest request.
"""

DOWN: Final = """\
Stop the queen that runs in the background, its hives and their workers.

Running requests may finish first; new ones are refused.
"""

INSTALL: Final = """\
Install rbee on this machine: the program, its other names, a settings file and a folder for models.

From a checkout it installs dist/rbee.pyz, and builds that file first if it is missing or out of date.
Run it again to update the program. An existing settings file is never changed.
"""

INSTALL_EXAMPLES: Final = """\
               install                          install --system
  program      ~/.local/bin/rbee                /usr/local/bin/rbee
  settings     ~/.config/rbee/config.toml       /etc/rbee/config.toml
  models       ~/.local/share/rbee/models/      /var/lib/rbee/models/
  services     ~/.config/systemd/user/          /etc/systemd/user/

The other names beside the program: rbee-keeper, queen-rbee, rbee-hive and llm-worker-rbee.
"""

UNINSTALL: Final = """\
Remove rbee from this machine: the program, its other names, its services, and a settings file that nobody changed.

Models, token, registered nodes, logs and the cache stay unless you say so; it prints where they are.
What is installed on nodes stays there.
"""

WORKERS_USAGE: Final = "rbee workers {list,health,shutdown} [options]"
WORKERS_HELP: Final = """\
Workers are processes that each hold one model in memory.

  list       list the workers of all nodes
  health     show whether hives and workers are healthy
  shutdown   end a worker
"""

MODELS_USAGE: Final = "rbee models {list,show,pull,push,rm,alias} [options]"
MODELS_HELP: Final = """\
Models are GGUF files on the disks of the nodes.

  list       list the models on the nodes, with size and last use
  show REF   show what a model is, read from its file's header
  pull REF   fetch a model from the Hugging Face hub
  push FILE  copy a model file of yours to another node
  rm ID      remove a model from the disk
  alias      list, make or remove further names of models
"""

PULL: Final = """\
Fetch a model from the Hugging Face hub, or from another node that has it, and verify it.

An interrupted download is resumed. For private models set HF_TOKEN, or log in with the hub's own tools.
"""

PULL_EXAMPLES: Final = """\
example
  rbee models pull hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M
"""

PUSH: Final = """\
Copy a model file of this machine to a node. The node is asked first whether it has the room, and compares the hash.

An interrupted copy is resumed by the next push. A split model is named by any of its files, and copied whole.
Afterwards the same path means the copy: `rbee infer --node NAME --model file:/PATH.gguf`; `rbee models rm ID`
removes it.
"""

PUSH_EXAMPLES: Final = """\
example
  rbee models push ~/models/mine.Q4_K_M.gguf --node attic
"""

ALIAS: Final = """\
List the further names of models, make one, or remove it.

An alias stands for a model in every command, and for every program that asks the queen. It may stand for another alias,
for a model on one node (REF@NODE), and it can be changed at any time. Those of the settings file are listed too.
"""

ALIAS_EXAMPLES: Final = """\
examples
  rbee models alias
  rbee models alias gpt-4o hf:ORG/REPO:Q4_K_M
  rbee models alias coder ./coder.gguf; rbee run coder
  rbee models alias gpt-4o --remove
"""

SETUP_USAGE: Final = "rbee setup {add-node,update-node,list-nodes,remove-node,install} [options]"
SETUP_HELP: Final = """\
Nodes are machines of the swarm, each known by a name.

  add-node      register a machine that is reached over SSH as a node
  update-node   change a registered node
  list-nodes    list the registered nodes
  remove-node   remove a node from the registry
  install       install rbee on a registered node
"""

ADD_NODE: Final = """\
Register a machine: connect to it over SSH, find out what it has, and store it as a node.

If the connection fails, nothing is stored.
"""

SETUP_EXAMPLES: Final = """\
examples
  rbee setup add-node --name attic --ssh-host 192.168.1.5 --ssh-user bee
  rbee setup install --node attic
  rbee infer --node attic --prompt "Once upon a time"
"""

SETUP_INSTALL: Final = """\
Copy this program to a registered node, with the token (see `rbee token`) and a settings file, and test it there.

If the node has the same file already, nothing is sent. The previous version is kept.
"""


class Command(NamedTuple):
    """A command; its module in `rbee.keeper.commands` has `run(options, settings, terminal) -> Result`."""

    name: str
    module_name: str
    summary: str
    examples: str = ""

    @property
    def module(self) -> str:
        return f"rbee.keeper.commands.{self.module_name}"


class Group(NamedTuple):
    """Commands with a first word in common, which is `name`."""

    name: str
    usage: str
    summary: str
    commands: tuple[Command, ...]


COMMANDS: Final = (
    Command("run", "conversation.run", RUN, RUN_EXAMPLES),
    Command("chat", "conversation.chat", CHAT, CHAT_EXAMPLES),
    Command("infer", "infer", INFER, INFER_EXAMPLES),
    Command("status", "status", STATUS),
    Command("logs", "logs", LOGS, LOGS_EXAMPLES),
    Command("detect", "detect", DETECT),
    Command("requests", "administration.requests", REQUESTS),
    Command("why", "administration.why", WHY),
    Command("up", "up", UP, UP_EXAMPLES),
    Command("down", "down", DOWN),
    Command(
        "token",
        "token",
        "Print the token that opens the HTTP interfaces of the queen and of all hives; create it if there is none.\n",
        'example\n  curl -H "Authorization: Bearer $(rbee token)" http://127.0.0.1:8080/v2/workers/list\n',
    ),
    Command("install", "program.install", INSTALL, INSTALL_EXAMPLES),
    Command("uninstall", "program.uninstall", UNINSTALL),
)

WORKERS: Final = (
    Command("list", "workers_list", "List the workers of all nodes.\n"),
    Command("health", "workers_health", "Show whether hives and workers are healthy.\n"),
    Command(
        "shutdown",
        "workers_shutdown",
        "End a worker, and wait until it has ended. Its running requests may finish first.\n",
    ),
)

MODELS: Final = (
    Command("list", "models_list", "List the fetched models of all nodes, or of one.\n"),
    Command("show", "models_show", "Show what a model is: architecture, size, quantisation, context, vocabulary.\n"),
    Command(
        "load",
        "models_load",
        "Load a model, and fetch it where it is not there, so that its first answer begins at once.\n",
        "example\n  rbee models load hf:ORG/REPO --keep 2h\n",
    ),
    Command("pull", "models_pull", PULL, PULL_EXAMPLES),
    Command("push", "models_push", PUSH, PUSH_EXAMPLES),
    Command("alias", "administration.models_alias", ALIAS, ALIAS_EXAMPLES),
    Command("rm", "models_rm", "Remove a fetched model from a node's disk.\n"),
)

KEYS: Final = (
    Command("create", "administration.keys_create", KEYS_CREATE, KEYS_EXAMPLES),
    Command("list", "administration.keys_list", "List the API keys, with last use and counts.\n"),
    Command(
        "revoke",
        "administration.keys_revoke",
        "Make a key good for nothing, at once: its running requests end too.\n",
    ),
)

SETUP: Final = (
    Command("add-node", "setup_add", ADD_NODE, SETUP_EXAMPLES),
    Command("update-node", "setup_add", "Change a registered node. Options that are left out keep their values.\n"),
    Command("list-nodes", "setup_list", "List the registered nodes.\n"),
    Command("remove-node", "setup_remove", "Remove a node from the registry. What is installed there stays.\n"),
    Command("install", "setup_install", SETUP_INSTALL),
)

GROUPS: Final = (
    Group("workers", WORKERS_USAGE, WORKERS_HELP, WORKERS),
    Group("models", MODELS_USAGE, MODELS_HELP, MODELS),
    Group("keys", KEYS_USAGE, KEYS_HELP, KEYS),
    Group("setup", SETUP_USAGE, SETUP_HELP, SETUP),
)

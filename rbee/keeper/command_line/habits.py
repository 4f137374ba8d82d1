"""Lists what users type by habit of other tools, and what that is here."""

from __future__ import annotations

from typing import Final

_INFER: Final = 'rbee infer --prompt "…"'
_LOAD: Final = "rbee models load REF"
_RUN: Final = 'rbee infer --model REF --prompt "…"'
_LIST_NODES: Final = "rbee setup list-nodes"
_REMOVE_NODE: Final = "rbee setup remove-node --name NAME"
_ADD_NODE: Final = "rbee setup add-node --name NAME --ssh-host HOST"
_INSTALL_NODE: Final = "rbee setup install --node NAME"
_NODE_ACTIONS: Final = {
    "list": _LIST_NODES, "ls": _LIST_NODES, "show": _LIST_NODES, "add": _ADD_NODE, "new": _ADD_NODE,
    "create": _ADD_NODE, "register": _ADD_NODE, "rm": _REMOVE_NODE, "remove": _REMOVE_NODE, "delete": _REMOVE_NODE,
    "install": _INSTALL_NODE, "update": "rbee setup update-node --name NAME",
}  # fmt: skip
_LISTS: Final = {
    "models": "rbee models list", "model": "rbee models list", "workers": "rbee workers list",
    "worker": "rbee workers list", "nodes": _LIST_NODES, "node": _LIST_NODES, "devices": "rbee detect",
    "logs": "rbee logs", "status": "rbee status",
}  # fmt: skip
_END_WORKER: Final = "rbee workers shutdown --id ID"

COMMANDS: Final[dict[str, dict[str, str]]] = {
    "rbee": {
        "generate": _INFER, "complete": _INFER, "talk": "rbee chat", "ask": _INFER, "prompt": _INFER,
        "pull": "rbee models pull REF", "download": "rbee models pull REF", "get": "rbee models pull REF",
        "push": "rbee models push FILE --node NAME", "list": "rbee models list", "ls": "rbee models list",
        "show": "rbee models show REF", "rm": "rbee models rm ID", "remove": "rbee models rm ID",
        "delete": "rbee models rm ID", "ps": "rbee workers list", "top": "rbee status --watch",
        "watch": "rbee status --watch", "kill": _END_WORKER, "serve": "rbee up", "start": "rbee up",
        "daemon": "rbee up", "stop": "rbee down", "quit": "rbee down", "restart": "rbee down; rbee up",
        "log": "rbee logs", "devices": "rbee detect", "node": _LIST_NODES, "nodes": _LIST_NODES,
        "add-node": "rbee setup add-node", "list-nodes": _LIST_NODES, "remove-node": "rbee setup remove-node",
        "update-node": "rbee setup update-node", "model": "rbee models list", "worker": "rbee workers list",
        "shutdown": "rbee down", "exit": "rbee down", "end": "rbee down", "load": _LOAD, "preload": _LOAD,
        "unload": _END_WORKER, "info": "rbee models show REF", "inspect": "rbee models show REF",
        "list-models": "rbee models list", "list-workers": "rbee workers list", "gpu": "rbee detect",
        "gpus": "rbee detect", "hardware": "rbee detect", "health": "rbee workers health", "add": _ADD_NODE,
        "register": _ADD_NODE, "deploy": _INSTALL_NODE, "key": "rbee token", "tail": "rbee logs --follow",
    },
    "rbee models": {
        "ls": "rbee models list", "ps": "rbee workers list", "remove": "rbee models rm ID",
        "delete": "rbee models rm ID", "del": "rbee models rm ID", "uninstall": "rbee models rm ID",
        "add": "rbee models pull REF", "get": "rbee models pull REF", "download": "rbee models pull REF",
        "fetch": "rbee models pull REF", "install": "rbee models pull REF", "info": "rbee models show REF",
        "inspect": "rbee models show REF", "describe": "rbee models show REF", "preload": _LOAD, "run": _RUN,
        "unload": _END_WORKER, "stop": _END_WORKER,
    },
    "rbee workers": {
        "ls": "rbee workers list", "ps": "rbee workers list", "show": "rbee workers list",
        "status": "rbee workers health", "kill": _END_WORKER, "stop": _END_WORKER, "end": _END_WORKER,
        "rm": _END_WORKER, "remove": _END_WORKER, "delete": _END_WORKER, "terminate": _END_WORKER,
        "unload": _END_WORKER, "add": _RUN, "run": _RUN, "start": _RUN, "spawn": _RUN, "load": _LOAD,
        "logs": "rbee logs", "log": "rbee logs",
    },
    "rbee keys": {
        "ls": "rbee keys list", "show": "rbee keys list", "add": "rbee keys create NAME",
        "new": "rbee keys create NAME", "make": "rbee keys create NAME", "generate": "rbee keys create NAME",
        "rm": "rbee keys revoke NAME", "remove": "rbee keys revoke NAME", "delete": "rbee keys revoke NAME",
        "del": "rbee keys revoke NAME", "expire": "rbee keys create NAME --expires 30d",
    },
    "rbee setup": {
        "ls": _LIST_NODES, "list": _LIST_NODES, "nodes": _LIST_NODES, "show": _LIST_NODES, "status": _LIST_NODES,
        "rm": _REMOVE_NODE, "rm-node": _REMOVE_NODE, "delete": _REMOVE_NODE, "del-node": _REMOVE_NODE,
        "delete-node": _REMOVE_NODE, "unregister": _REMOVE_NODE, "new": "rbee setup add-node",
        "create": "rbee setup add-node", "register": "rbee setup add-node", "edit": "rbee setup update-node",
        "change": "rbee setup update-node", "edit-node": "rbee setup update-node", "set": "rbee setup update-node",
        "deploy": "rbee setup install --node NAME", "upgrade": "rbee setup install --node NAME",
        "install-node": "rbee setup install --node NAME",
    },
}  # fmt: skip
"""The words before it → a command of Ollama, Docker, git or llama.cpp, or one without its group → the command here."""

PHRASES: Final[dict[str, dict[str, str]]] = {
    "node": _NODE_ACTIONS, "nodes": _NODE_ACTIONS, "list": _LISTS, "ls": _LISTS, "show": _LISTS, "get": _LISTS,
    "add": {"node": _ADD_NODE, "model": "rbee models pull REF"},
    "remove": {"node": _REMOVE_NODE, "model": "rbee models rm ID", "worker": _END_WORKER},
    "rm": {"node": _REMOVE_NODE, "model": "rbee models rm ID"},
    "delete": {"node": _REMOVE_NODE, "model": "rbee models rm ID"},
    "install": {"node": _INSTALL_NODE}, "update": {"node": "rbee setup update-node --name NAME"},
    "stop": {"worker": _END_WORKER}, "kill": {"worker": _END_WORKER}, "end": {"worker": _END_WORKER},
    "start": {"queen": "rbee up"}, "pull": {"model": "rbee models pull REF"},
}  # fmt: skip
"""Two words in another order or another number than here → the command here."""
OF_ONE: Final = {"stop": _END_WORKER, "unload": _END_WORKER}
"""A command that ends all here, and elsewhere what is named behind it → the command here that ends one."""
ALIASES: Final = {"model": "models", "worker": "workers", "log": "logs", "set-up": "setup"}
"""A word in another number → the same here."""
NOTES: Final = {
    "cp": "a model is used from where it is: `rbee infer --model ./FILE.gguf`",
    "copy": "`rbee models push FILE --node NAME` copies a model to another node",
    "create": "a model is a GGUF file, and needs no recipe: `rbee infer --model ./FILE.gguf`",
    "import": "a model is used from where it is: `rbee infer --model ./FILE.gguf`",
    "search": "models are found on huggingface.co: `rbee models pull hf:ORG/REPO`",
    "signin": "for private models of the hub set HF_TOKEN, or log in with its own tools",
    "login": "for private models of the hub set HF_TOKEN, or log in with its own tools",
    "config": "settings are in ~/.config/rbee/config.toml, or another file: --config FILE",
    "settings": "settings are in ~/.config/rbee/config.toml, or another file: --config FILE",
    "update": "`rbee install`, run from the new file, updates this machine; `rbee setup install --all` the nodes",
    "upgrade": "`rbee install`, run from the new file, updates this machine; `rbee setup install --all` the nodes",
    "doctor": "`rbee status` shows what runs, `rbee detect` this machine, `rbee logs` what was logged",
    "ping": "`rbee workers health` asks all nodes",
    "ssh": "`rbee setup add-node --name NAME --ssh-host HOST` registers what `ssh HOST` reaches",
}
"""A command that has no counterpart here → what to do instead."""

WORDS: Final = {
    "rbee status": "`rbee status` shows all nodes; `rbee workers health --node NAME` shows the workers of one node",
    "rbee workers list": "`rbee workers health --node NAME` shows the workers of one node",
    "rbee setup list-nodes": "`rbee setup list-nodes` shows all nodes",
    "rbee install": "`rbee setup install --node NAME` installs rbee on a node",
    "rbee uninstall": "`rbee setup remove-node --name NAME` says how what is on a node is deleted",
    "rbee down": "`rbee down` ends everything that the queen started, on all nodes",
    "rbee up": "`rbee up` starts the queen of this machine; a hive is started by the first request for its node",
    "rbee token": "`rbee token` prints the token, and makes it where there is none",
    "rbee detect": "`rbee detect` shows all of this machine",
}
"""Command → what is to be said about a word that it does not take; NAME stands for the word."""

_MORE_TOKENS: Final = "the length of the answer is --max-tokens N"
_THREADS: Final = "the threads of workers are a setting: `threads` under [worker], or RBEE_WORKER_THREADS"
_CONTEXT: Final = "room for a long conversation is --context N; `context` under [worker] is that of all workers"
_CARDS: Final = "the engine chooses how much of a model a device holds; --backend and --device choose the device"
_ONE_NODE: Final = "`rbee workers health --node NAME` shows the workers of one node"

OPTIONS: Final[dict[str, dict[str, str]]] = {
    "rbee infer": {
        "-n": _MORE_TOKENS, "--n-predict": _MORE_TOKENS, "--predict": _MORE_TOKENS, "--num-predict": _MORE_TOKENS,
        "--num_predict": _MORE_TOKENS, "--max-new-tokens": _MORE_TOKENS, "--max_new_tokens": _MORE_TOKENS,
        "--length": _MORE_TOKENS, "-t": _THREADS, "--threads": _THREADS, "-c": _CONTEXT, "--ctx-size": _CONTEXT,
        "--num-ctx": _CONTEXT, "--num_ctx": _CONTEXT, "-ngl": _CARDS,
        "--n-gpu-layers": _CARDS, "--gpu-layers": _CARDS, "--gpu": _CARDS,
        "-f": "pipe the file in: `rbee infer < FILE`", "--file": "pipe the file in: `rbee infer < FILE`",
        "--input": "pipe the file in: `rbee infer < FILE`", "-o": "redirect the text: `rbee infer … > FILE`",
        "--output": "redirect the text: `rbee infer … > FILE`", "-s": "a seed is --seed N",
        "-hf": "a model of the hub is --model hf:ORG/REPO", "--hf-repo": "a model of the hub is --model hf:ORG/REPO",
        "--host": "a machine of the swarm is --node NAME", "--format": "JSON is --json",
        "--stream": "text always streams; --json waits for its end", "--no-stream": "--json waits for the end",
        "--silent": "silence is --quiet",
    },
    "rbee status": {
        "--all": "`rbee status` shows all nodes and workers",
        "--node": f"`rbee status` shows all nodes; {_ONE_NODE}", "-f": "the live view is --watch",
        "--follow": "the live view is --watch", "--live": "the live view is --watch",
    },
    "rbee workers list": {"--node": f"`rbee workers list` shows those of all nodes; {_ONE_NODE}"},
    "rbee workers shutdown": {
        "--all": "`rbee down` ends all workers, with the queen; --id ends one",
        "--node": "--id ends one worker; `rbee workers list` shows the ids, and on which nodes they are",
        "--model": "--id ends one worker; `rbee workers list` shows the ids, and which models they have",
    },
    "rbee logs": {
        "-n": "the last N lines are --lines N", "--tail": "the last N lines are --lines N",
        "-w": "new lines are shown with --follow", "--watch": "new lines are shown with --follow",
        "--worker": "`rbee logs --node NAME` shows all workers of a node; each line names its worker",
        "--id": "`rbee logs --node NAME` shows all workers of a node; each line names its worker",
    },
    "rbee up": {
        "-d": "a queen of `rbee up` always runs in the background; `rbee queen` is one in the foreground",
        "--host": "the address is a setting: `host` under [queen], or RBEE_QUEEN_HOST",
        "--port": "the port is a setting: `port` under [queen], or RBEE_QUEEN_PORT",
    },
    "rbee down": {
        "--all": "`rbee down` ends everything that the queen started, on all nodes",
        "--now": "Ctrl+C and once more `rbee down` end running requests at once",
        "--node": "`rbee down` ends everything that the queen started, on all nodes",
        "--force": "`rbee down` lets running requests finish; Ctrl+C and once more `rbee down` end them at once",
    },
    "rbee detect": {"--all": "`rbee detect` shows all of this machine"},
    "rbee install": {
        "--node": "`rbee setup install --node NAME` installs rbee on a node",
        "--all": "`rbee setup install --all` installs rbee on all nodes",
    },
    "rbee uninstall": {"--node": "`rbee setup remove-node --name NAME` says how what is on a node is deleted"},
    "rbee models rm": {"--force": "a model in use is kept; `rbee workers shutdown` ends its worker"},
    "rbee setup add-node": {
        "-p": "the port of its sshd is --ssh-port PORT", "--port": "the port of its sshd is --ssh-port PORT",
        "-i": "a key file is --ssh-key FILE", "--key": "a key file is --ssh-key FILE",
        "--identity": "a key file is --ssh-key FILE", "-l": "the user there is --ssh-user USER",
        "--user": "the user there is --ssh-user USER", "--host": "the machine is --ssh-host HOST",
        "--address": "the machine is --ssh-host HOST",
    },
}  # fmt: skip
"""Command → an option that it does not have → what to do instead."""

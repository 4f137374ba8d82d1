"""Lists what users type by habit of other tools, and what that is here."""

from __future__ import annotations

from typing import Final

_INFER: Final = 'rbee infer --prompt "…"'
_RUN: Final = 'rbee infer --model REF --prompt "…"'
_LIST_NODES: Final = "rbee setup list-nodes"
_REMOVE_NODE: Final = "rbee setup remove-node --name NAME"
_END_WORKER: Final = "rbee workers shutdown --id ID"

COMMANDS: Final[dict[str, dict[str, str]]] = {
    "rbee": {
        "run": _RUN, "generate": _INFER, "complete": _INFER, "chat": _INFER, "ask": _INFER, "prompt": _INFER,
        "pull": "rbee models pull REF", "download": "rbee models pull REF", "get": "rbee models pull REF",
        "push": "rbee models push FILE --node NAME", "list": "rbee models list", "ls": "rbee models list",
        "show": "rbee models show REF", "rm": "rbee models rm ID", "remove": "rbee models rm ID",
        "delete": "rbee models rm ID", "ps": "rbee workers list", "top": "rbee status --watch",
        "watch": "rbee status --watch", "kill": _END_WORKER, "serve": "rbee up", "start": "rbee up",
        "daemon": "rbee up", "stop": "rbee down", "quit": "rbee down", "restart": "rbee down; rbee up",
        "log": "rbee logs", "devices": "rbee detect", "node": _LIST_NODES, "nodes": _LIST_NODES,
        "add-node": "rbee setup add-node", "list-nodes": _LIST_NODES, "remove-node": "rbee setup remove-node",
        "update-node": "rbee setup update-node",
    },
    "rbee models": {
        "ls": "rbee models list", "ps": "rbee workers list", "remove": "rbee models rm ID",
        "delete": "rbee models rm ID", "del": "rbee models rm ID", "uninstall": "rbee models rm ID",
        "add": "rbee models pull REF", "get": "rbee models pull REF", "download": "rbee models pull REF",
        "fetch": "rbee models pull REF", "install": "rbee models pull REF", "info": "rbee models show REF",
        "inspect": "rbee models show REF", "describe": "rbee models show REF", "load": _RUN, "run": _RUN,
        "unload": _END_WORKER, "stop": _END_WORKER,
    },
    "rbee workers": {
        "ls": "rbee workers list", "ps": "rbee workers list", "show": "rbee workers list",
        "status": "rbee workers health", "kill": _END_WORKER, "stop": _END_WORKER, "end": _END_WORKER,
        "rm": _END_WORKER, "remove": _END_WORKER, "delete": _END_WORKER, "terminate": _END_WORKER,
        "unload": _END_WORKER, "add": _RUN, "run": _RUN, "start": _RUN, "spawn": _RUN, "load": _RUN,
        "logs": "rbee logs", "log": "rbee logs",
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

_MORE_TOKENS: Final = "the length of the answer is --max-tokens N"
_THREADS: Final = "the threads of workers are a setting: `threads` under [worker], or RBEE_WORKER_THREADS"
_CONTEXT: Final = "the context of workers is a setting: `context` under [worker], or RBEE_WORKER_CONTEXT"
_CARDS: Final = "the engine chooses how much of a model a device holds; --backend and --device choose the device"
_ONE_NODE: Final = "`rbee workers health --node NAME` shows the workers of one node"

OPTIONS: Final[dict[str, dict[str, str]]] = {
    "rbee infer": {
        "-n": _MORE_TOKENS, "--n-predict": _MORE_TOKENS, "--predict": _MORE_TOKENS, "--num-predict": _MORE_TOKENS,
        "--num_predict": _MORE_TOKENS, "--max-new-tokens": _MORE_TOKENS, "--max_new_tokens": _MORE_TOKENS,
        "--length": _MORE_TOKENS, "-t": _THREADS, "--threads": _THREADS, "-c": _CONTEXT, "--ctx-size": _CONTEXT,
        "--context": _CONTEXT, "--num-ctx": _CONTEXT, "--num_ctx": _CONTEXT, "-ngl": _CARDS,
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
        "--force": "`rbee down` lets running requests finish; Ctrl+C and once more `rbee down` end them at once",
    },
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

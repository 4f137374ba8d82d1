"""The types of each command's options, as the parser makes them."""

from __future__ import annotations

from typing import Literal, Protocol


class Options(Protocol):
    """What every command takes; `config` is an absolute path, `queen` a base URL."""

    config: str | None
    queen: str | None
    quiet: bool
    verbose: bool
    debug: bool
    json: bool


class NodeOptions(Options, Protocol):
    node: str | None


class GenerationOptions(NodeOptions, Protocol):
    """What is generated, how and where; `wait` and `keep` count seconds."""

    model: str | None
    system: str | None
    max_tokens: int | None
    stop: list[str] | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    backend: str | None
    device: int | None
    context: int | None
    wait: float
    keep: float | None


class InferOptions(GenerationOptions, Protocol):
    prompt: str | None
    raw: bool


class ChatOptions(GenerationOptions, Protocol):
    """What holds for each answer of a chat."""


class RunOptions(InferOptions, Protocol):
    """`words` are the prompt, if there are any."""

    model: str
    words: list[str]


class UpOptions(Options, Protocol):
    """`keep` counts seconds."""

    keep: float | None
    lan: bool
    open: bool


class KeyOptions(Options, Protocol):
    """`models` are words with commas between them; `expires` counts seconds."""

    name: str
    models: list[str] | None
    expires: float | None


class RequestsOptions(Options, Protocol):
    follow: bool
    lines: int


class WhyOptions(Options, Protocol):
    """`request` is an id, or its first characters; None is the latest."""

    request: str | None


class StatusOptions(Options, Protocol):
    watch: bool


class LogsOptions(NodeOptions, Protocol):
    follow: bool
    lines: int


class PlaceOptions(Options, Protocol):
    system: bool
    prefix: str | None


class InstallOptions(PlaceOptions, Protocol):
    systemd: bool


class UninstallOptions(PlaceOptions, Protocol):
    models: bool
    state: bool
    all: bool


class PreloadOptions(NodeOptions, Protocol):
    """`model` is a reference or a name; `keep` and `wait` count seconds."""

    model: str
    backend: str | None
    device: int | None
    context: int | None
    wait: float
    keep: float | None


class ModelOptions(NodeOptions, Protocol):
    """`model` is a reference."""

    model: str


class AliasOptions(Options, Protocol):
    """Without a name all are listed, and without a target one is shown, or removed."""

    name: str | None
    target: str | None
    remove: bool


class PushOptions(Options, Protocol):
    """`file` is a path on this machine."""

    node: str
    file: str


class ModelIdOptions(NodeOptions, Protocol):
    id: str


class WorkerOptions(Options, Protocol):
    """`id` is a worker's, or its first characters."""

    id: str


class NodeSettingsOptions(Options, Protocol):
    """What is known of a node; with `is_update` None leaves a value as it is."""

    is_update: bool
    name: str
    ssh_host: str | None
    ssh_port: int | None
    ssh_user: str | None
    ssh_key: str | None
    install_path: str | None
    git_repo: str | None
    git_branch: str | None
    tunnel: Literal["auto", "always", "never"] | None
    accept_host_key: str | None


class NodeNameOptions(Options, Protocol):
    name: str


class NodeInstallOptions(Options, Protocol):
    """`node` is None for all nodes."""

    node: str | None
    all: bool
    python: str | None
    from_source: bool
    rollback: bool

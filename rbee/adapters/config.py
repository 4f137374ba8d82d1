"""Reads the settings: built-in defaults, then one TOML file, then the environment, then flags."""

from __future__ import annotations

import json
import os
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from rbee.adapters.files import home
from rbee.adapters.wrong_settings import like_key, like_section, with_value
from rbee.errors import InvalidConfigurationError, InvalidRequestError
from rbee.wire.administration import alias_names
from rbee.wire.common import FOREVER, CacheType

if TYPE_CHECKING:
    from collections.abc import Mapping

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Limit = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
"""Seconds, or 0 for no limit."""
Delay = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Attempts = Annotated[tuple[Delay, ...], msgspec.Meta(min_length=1, max_length=100)]
"""The seconds before each attempt, the first one too."""
Retries = Annotated[tuple[Delay, ...], msgspec.Meta(max_length=100)]
"""The seconds before each attempt after the first."""
ModelName = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Words = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=512)], ...], msgspec.Meta(max_length=1000)]
AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^[/~]")]
"""Daemons work in other folders than the command that starts them, so a relative path would name another file."""
_PATHS: Final = (
    "RBEE_HOME",
    "RBEE_CONFIG",
    "RBEE_PATHS_STATE_DIR",
    "RBEE_PATHS_MODELS_DIR",
    "RBEE_CACHE_DIR",
    "RBEE_AUTH_TOKEN_FILE",
    "RBEE_TOKEN_FILE",
)
"""Environment variables that hold a path."""
_SHORT_NAMES: Final = (("RBEE_HOME", "paths", "state_dir"), ("RBEE_TOKEN_FILE", "auth", "token_file"))
"""Environment variables with a name of their own, and the settings that they are."""
ENDING_MARGIN: Final = 10.0
"""Seconds that a daemon's server and its files may take to close after everything else has ended."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class QueenSettings(_Section, kw_only=True):
    """`max_waiting` requests may wait for a slot on one node; callers with less than their share of them come on top.

    Where a request does not say how long its worker stays without the next one, `keep` does, on all nodes; None leaves
    that to the timeouts of each node's hive. `url` is that of another queen, which commands use.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    url: str | None = None
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    keep: Annotated[float, msgspec.Meta(ge=0, le=FOREVER)] | None = None


class ApiSettings(_Section, kw_only=True):
    """Who may use models over the queen's HTTP interface, beside those who show the token or an API key.

    With `open` everyone who reaches it may. `origins` are further sites whose pages may, with `*` for any characters,
    and `hosts` further names by which this machine is reached. A model that is not known is refused, or stands for the
    default one; what a model thinks stands in the field `reasoning_field` of OpenAI's answers.
    """

    open: bool = False
    origins: Words = ()
    hosts: Words = ()
    unknown_model: Literal["refuse", "default"] = "refuse"
    reasoning_field: Literal["reasoning_content", "reasoning"] = "reasoning_content"


class ModelSettings(_Section, kw_only=True):
    """`aliases` are further names of models: each stands for a reference, or for what else names a model."""

    aliases: Annotated[dict[ModelName, ModelName], msgspec.Meta(max_length=1000)] = msgspec.field(default_factory=dict)


class HiveSettings(_Section, kw_only=True):
    """`advertise` is the host that stands in the workers' URLs; None means the one the hive listens on.

    The workers together take at most `max_memory` megabytes of RAM; None means what is available.
    """

    host: str = "127.0.0.1"
    port: Port = 9200
    advertise: str | None = None
    max_memory: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] | None = None

    @property
    def max_memory_bytes(self) -> int | None:
        return None if self.max_memory is None else self.max_memory * 1_000_000


class WorkerSettings(_Section, kw_only=True):
    """`context` counts the tokens that each request is sure of; None means as many as the memory is good for.

    `kv` is how they are kept; `threads` None means as many as the model is worth, at most one for each core. With
    `speculation` text that repeats itself is guessed where that is faster. `longest_pause` is how many seconds a text
    may stand still because of other requests' prompts. `command` is started as a worker.
    """

    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    context: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] | None = None
    kv: CacheType | Literal["auto"] = "auto"
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    speculation: bool = True
    longest_pause: Annotated[float, msgspec.Meta(ge=0.02, le=60)] = 0.3
    port_from: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8001
    command: list[str] | None = None


class CacheSettings(_Section, kw_only=True):
    """How much is kept of what models made of prompts, in megabytes; 0 turns it off.

    `ram_mb` is for each worker; None means a share of what its model takes. `disk_mb` is for all models together, in
    `dir`; None means `prefixes` in rbee's cache folder.
    """

    ram_mb: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] | None = None
    disk_mb: Annotated[int, msgspec.Meta(ge=0, le=1 << 30)] = 4096
    dir: AbsolutePath | None = None

    @property
    def ram_bytes(self) -> int | None:
        return None if self.ram_mb is None else self.ram_mb * 1_000_000

    @property
    def disk_bytes(self) -> int:
        return self.disk_mb * 1_000_000

    @property
    def folder(self) -> Path:
        """Where it is kept on the disk. Raises InvalidConfigurationError where there is no home folder for it."""
        return home.cache() / "prefixes" if self.dir is None else home.expanded(self.dir)


class PathSettings(_Section, kw_only=True):
    models_dir: AbsolutePath = "~/.local/share/rbee/models"
    state_dir: AbsolutePath = "~/.rbee"

    @property
    def models(self) -> Path:
        return home.expanded(self.models_dir)


class DefaultSettings(_Section, kw_only=True):
    """What a request uses that names nothing else; `model` is a reference, or the path of a file."""

    model: str | None = None
    node: str | None = None

    @property
    def reference(self) -> str | None:
        """The model as a reference; a relative path, which only a command in a folder can mean, as it is."""
        if self.model is None or not self.model.startswith(("~", "/")):
            return self.model
        return f"file:{home.expanded(self.model)}"


class RemoteSettings(_Section, kw_only=True):
    """On other machines: the program to run, and where sources are kept; None means those of the install path."""

    binary_path: AbsolutePath | None = None
    git_repo_dir: AbsolutePath | None = None


class HubSettings(_Section, kw_only=True):
    """The Hugging Face hub; its address is `HF_ENDPOINT` of the environment, as for its own tools.

    `private_redirects` lets it redirect to addresses of private networks, as a mirror inside one may.
    """

    private_redirects: bool = False


class LogSettings(_Section, kw_only=True):
    """`max_bytes` bounds each log file, and the older one beside it; `kept_workers` counts logs of ended workers."""

    max_bytes: Annotated[int, msgspec.Meta(ge=10_000, le=1 << 40)] = 10_000_000
    kept_workers: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20


class Timeouts(_Section, kw_only=True):
    """Seconds. Where a field stands for several steps the comment says which."""

    ssh_connect: Seconds = 10  # an SSH connection
    connect: Seconds = 10  # one attempt to connect to a hive
    connect_delays: Attempts = (0, 0.2, 0.4)
    call: Seconds = 5  # one short call between daemons
    call_delays: Attempts = (0, 0.1, 0.2)  # of a call that is safe to repeat
    busy_delays: Retries = (1, 2, 4)  # of a request for which all slots were busy
    download_delays: Retries = (0.1, 0.2, 0.4, 0.8, 1.6)  # of a file, which goes on at its last byte
    download_stall: Seconds = 60  # without a byte of a download, before that counts as a failure
    copy_stall: Seconds = 10  # the same of another node, before the next one or the hub is asked
    ready_poll: Seconds = 0.1  # between two polls for a worker's readiness, at first
    ready_poll_most: Seconds = 2  # and at last
    start: Seconds = 30  # a queen or hive, until it answers
    worker_ready: Seconds = 30  # process start to ready callback
    health_interval: Seconds = 30  # between two health checks of a worker
    health: Seconds = 5  # its answer to one
    idle: Seconds = 300  # a worker without requests, before it is ended
    orphan: Seconds = 120  # an idle worker that no hive follows, before it ends itself
    loading: Seconds = 300  # ready callback to model loaded
    inference: Limit = 0  # a request in all; 0: as long as text comes
    token: Seconds = 60  # between two tokens, or two signs that a prompt is being read
    drain: Seconds = 30  # running requests at a shutdown
    acknowledge: Seconds = 5  # a worker's answer to a shutdown, a queen's to a cancellation
    unload: Seconds = 10  # a worker's end after its last request
    cascade: Seconds = 30  # a whole hive's end, beside the drain
    heartbeat: Seconds = 10  # a comment line on each quiet stream
    silent: Seconds = 0.4  # a client that takes nothing of what it is sent, before others may have its slot
    stalled: Seconds = 30  # a client that takes nothing of what it is sent, before its connection is closed

    @property
    def ending(self) -> float:
        """The longest that a daemon takes to end, with everything it has started."""
        return self.drain + self.cascade + ENDING_MARGIN


class AuthSettings(_Section, kw_only=True):
    token_file: AbsolutePath | None = None


class Settings(_Section, kw_only=True):
    """All settings; `source` says which file they came from, for error messages.

    `file` is the absolute path of the one that `--config` named: a process that starts a daemon passes it on.
    """

    queen: QueenSettings = msgspec.field(default_factory=QueenSettings)
    api: ApiSettings = msgspec.field(default_factory=ApiSettings)
    models: ModelSettings = msgspec.field(default_factory=ModelSettings)
    hive: HiveSettings = msgspec.field(default_factory=HiveSettings)
    worker: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    cache: CacheSettings = msgspec.field(default_factory=CacheSettings)
    paths: PathSettings = msgspec.field(default_factory=PathSettings)
    defaults: DefaultSettings = msgspec.field(default_factory=DefaultSettings)
    remote: RemoteSettings = msgspec.field(default_factory=RemoteSettings)
    hub: HubSettings = msgspec.field(default_factory=HubSettings)
    logs: LogSettings = msgspec.field(default_factory=LogSettings)
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    auth: AuthSettings = msgspec.field(default_factory=AuthSettings)
    source: str = "built-in defaults"
    file: str | None = None

    @property
    def state_dir(self) -> Path:
        return home.expanded(self.paths.state_dir)

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def token_file(self) -> Path:
        return home.expanded(self.auth.token_file) if self.auth.token_file else self.state_dir / "token"


_SECTIONS: Final[dict[str, type[_Section]]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if field.name not in ("source", "file")
}
_KEYS: Final = {section: kind.__struct_fields__ for section, kind in _SECTIONS.items()}


def quoted(text: str) -> str:
    """Return a basic string of TOML: as in JSON, but DEL is escaped too (toml.io/en/v1.0.0#string)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def absolute_environment() -> dict[str, str]:
    """Return this process's environment with its paths made absolute: daemons run in other folders than a command."""
    paths = {name: str(home.expanded(value).absolute()) for name in _PATHS if (value := os.environ.get(name))}
    return {**os.environ, **paths}


def load(
    flags: dict[str, dict[str, Any]] | None = None,
    *,
    file: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the settings; `flags` is section → key → value, `file` the `--config` option.

    Raises InvalidConfigurationError naming key, expected type and where the value was read.
    """
    settings = Settings(file=str(home.expanded(file).absolute()) if file else None)
    if (path := _find(file, environment)) is not None:
        settings.source = str(path)
        _merge(settings, _parse(path), f"in {path}")
    for section, kind in _SECTIONS.items():
        for key in kind.__struct_fields__:
            name = f"RBEE_{section}_{key}".upper()
            if (value := environment.get(name)) is not None:
                where = f"in the environment variable {name}"
                _merge(settings, {section: {key: _of_variable(key, value, section, where)}}, where, strict=False)
    for name, section, key in _SHORT_NAMES:
        if value := environment.get(name):
            _merge(settings, {section: {key: value}}, f"in the environment variable {name}")
    for section, values in (flags or {}).items():
        given = {key: value for key, value in values.items() if value is not None}
        _merge(settings, {section: given}, "on the command line")
    _check_aliases(settings)
    if home.folder() is None and settings.paths.models_dir == PathSettings().models_dir:
        settings.paths.models_dir = f"{settings.paths.state_dir}/models"  # where everything else of rbee's is
    return settings


def _check_aliases(settings: Settings) -> None:
    aliases = settings.models.aliases
    for name in aliases:
        try:
            alias_names.check_name(name)
            alias_names.check_chain(name, aliases)
        except InvalidRequestError as exc:
            message = f"models.aliases: {exc.message.removeprefix('field name: ')} ({settings.source})"
            raise InvalidConfigurationError(message, hint=exc.hint, key="models.aliases") from None


def _of_variable(key: str, value: str, section: str, where: str) -> str | list[str] | dict[str, str]:
    """Return what an environment variable holds.

    Lists are words or numbers, with blanks or commas between them; a table's are of the form name=value.
    """
    if key == "aliases":
        pairs = [word.partition("=") for word in value.replace(",", " ").split()]
        return {name: target for name, _, target in pairs}
    if key.endswith("_delays") or (section == "api" and key in ("origins", "hosts")):
        return value.replace(",", " ").split()
    return _words(value, f"{section}.{key}", where) if key == "command" else value


def _words(line: str, key: str, where: str) -> list[str]:
    """Split a command line as a shell would, so that a quoted path may hold spaces."""
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise InvalidConfigurationError(f"{key}: {str(exc).lower()} ({where})", key=key) from None


def _find(file: str | None, environment: Mapping[str, str]) -> Path | None:
    """Return the first configuration file that exists; one that was asked for by name must exist."""
    if asked := file or environment.get("RBEE_CONFIG"):
        path = home.expanded(asked)
        if file is None and not path.is_absolute():
            raise InvalidConfigurationError(f"RBEE_CONFIG must be an absolute path, and is {asked}", key="RBEE_CONFIG")
        if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for a folder that is closed to us)
            named = "--config" if file is not None else "RBEE_CONFIG"
            what = "is a folder" if os.path.isdir(path) else "does not exist"  # noqa: PTH112 (as below)
            raise InvalidConfigurationError(f"the settings file {path}, which {named} names, {what}")
        return path
    paths = [Path("/etc/rbee/config.toml")]
    if (folder := home.folder()) is not None:
        paths.insert(0, folder / ".config/rbee/config.toml")
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidConfigurationError(f"{path} is not valid TOML: {exc}") from None
    except OSError as exc:
        raise InvalidConfigurationError(f"{path} could not be read: {exc.strerror}") from exc


def _merge(settings: Settings, values: dict[str, Any], where: str, *, strict: bool = True) -> None:
    for section, keys in values.items():
        if (kind := _SECTIONS.get(section)) is None:
            raise InvalidConfigurationError(
                f"there is no section [{section}] ({where})", hint=like_section(section, _KEYS), key=section
            )
        if not isinstance(keys, dict):
            raise InvalidConfigurationError(f"{section} must be a table of settings ({where})", key=section)
        for key, value in keys.items():
            if key not in kind.__struct_fields__:
                raise InvalidConfigurationError(
                    f"there is no setting {section}.{key} ({where})", hint=like_key(section, key, _KEYS), key=key
                )
            field = msgspec.structs.fields(kind)[kind.__struct_fields__.index(key)]
            try:
                setattr(getattr(settings, section), key, msgspec.convert(value, field.type, strict=strict))
            except msgspec.ValidationError as exc:
                rule = with_value(str(exc).replace("`", "").lower(), None if section == "auth" else value)
                raise InvalidConfigurationError(f"{section}.{key}: {rule} ({where})", key=f"{section}.{key}") from None

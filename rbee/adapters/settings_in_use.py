"""What a running daemon was started with, and which settings have changed since."""

from __future__ import annotations

import hashlib
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rbee.adapters.config import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS_OWN: Final = frozenset(
    {
        *("defaults.model", "defaults.node", "queen.url", "paths.state_dir", "auth.token_file"),
        *("timeouts.busy_delays", "timeouts.ready_poll", "timeouts.ready_poll_most"),
        *("timeouts.start", "timeouts.call", "timeouts.call_delays"),
    }
)
"""What each command reads for itself, so that a change holds at once."""
VARIABLES: Final = (
    *("HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_CACHE", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "XDG_CACHE_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Variables of the environment that decide whether a model can be fetched; a daemon has those of its start."""
MAX_BYTES: Final = 2500
"""A lock file has no room for more; who has set so much is not told what has changed."""


class SettingsInUse(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a daemon was started with: `values` that are not the defaults, without its flags, by `section.key`.

    `flags` are the settings that flags have set. `variables` of the environment are hashed: some are secret.
    `is_named`: its file was named when it was started.
    """

    source: str
    values: dict[str, Any]
    variables: dict[str, str]
    is_named: bool = False
    flags: tuple[str, ...] = ()


class ChangedSetting(NamedTuple):
    """A setting, as the running daemon has it and as it is now."""

    key: str
    used: Any
    now: Any


def record(
    settings: Settings,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any] | None:
    """Return what to write down of a daemon's settings, read without its `flags`; None where that is too much."""
    is_named = settings.file is not None or bool(environment.get("RBEE_CONFIG"))
    hashes = {name: _hash(environment[name]) for name in VARIABLES if environment.get(name)}
    given = tuple(
        f"{section}.{key}" for section, values in flags.items() for key, value in values.items() if value is not None
    )
    found = SettingsInUse(settings.source, _values(settings), hashes, is_named, given)
    return msgspec.to_builtins(found) if len(msgspec.json.encode(found)) <= MAX_BYTES else None


def recorded(found: object) -> SettingsInUse | None:
    """Return what `record` has returned, from a lock file; None for what another version wrote."""
    try:
        return msgspec.convert(found, SettingsInUse)
    except msgspec.ValidationError:
        return None


def changed(used: SettingsInUse, settings: Settings) -> list[ChangedSetting]:
    """Return what is otherwise now than when the daemon was started, except of what its flags have set."""
    if used.is_named and used.source != settings.source:
        return []  # it was given settings of its own
    now, defaults = _values(settings), _flat(Settings())
    keys = [key for key in defaults if (key in used.values or key in now) and key not in used.flags]
    pairs = [ChangedSetting(key, used.values.get(key, defaults[key]), now.get(key, defaults[key])) for key in keys]
    return [one for one in pairs if one.used != one.now]


def changed_variables(used: SettingsInUse, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the variables that are set now, and were not, or otherwise, when the daemon was started."""
    return [name for name in VARIABLES if (value := environment.get(name)) and used.variables.get(name) != _hash(value)]


def _values(settings: Settings) -> dict[str, Any]:
    defaults = _flat(Settings())
    return {key: value for key, value in _flat(settings).items() if value != defaults[key]}


def _flat(settings: Settings) -> dict[str, Any]:
    sections: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))  # as a lock file gives them
    return {
        f"{section}.{key}": value
        for section, values in sections.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if f"{section}.{key}" not in COMMANDS_OWN
    }


def _hash(value: str) -> str:
    return hashlib.sha256(b"rbee variable " + value.encode("utf-8", "surrogateescape")).hexdigest()[:12]

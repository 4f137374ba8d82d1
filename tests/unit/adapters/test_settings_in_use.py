"""What is written down of a daemon's settings, and what has changed since."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from rbee.adapters import config, settings_in_use
from rbee.adapters.settings_in_use import ChangedSetting, SettingsInUse, changed, changed_variables, record, recorded

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def started(
    environment: dict[str, str], *, file: str | None = None, flags: dict[str, dict[str, object]] | None = None
) -> SettingsInUse:
    """Return what a lock file would hold of a daemon that was started with these variables."""
    found = record(config.load(file=file, environment=environment), environment, flags or {})
    used = recorded(msgspec.json.decode(msgspec.json.encode(found)))
    assert used is not None
    return used


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("RBEE_WORKER_SLOTS", "2", ChangedSetting("worker.slots", 4, 2)),
        ("RBEE_WORKER_CONTEXT", "512", ChangedSetting("worker.context", None, 512)),
        ("RBEE_PATHS_MODELS_DIR", "/srv", ChangedSetting("paths.models_dir", "~/.local/share/rbee/models", "/srv")),
        ("RBEE_HIVE_HOST", "0.0.0.0", ChangedSetting("hive.host", "127.0.0.1", "0.0.0.0")),
        ("RBEE_QUEEN_PORT", "8090", ChangedSetting("queen.port", 8080, 8090)),
        ("RBEE_TIMEOUTS_IDLE", "60", ChangedSetting("timeouts.idle", 300.0, 60.0)),
        ("RBEE_TIMEOUTS_CONNECT_DELAYS", "1 2", ChangedSetting("timeouts.connect_delays", [0, 0.2, 0.4], [1, 2])),
        ("RBEE_HUB_PRIVATE_REDIRECTS", "true", ChangedSetting("hub.private_redirects", False, True)),
        # Each command reads these for itself, and finds the queen by some of them.
        ("RBEE_WORKER_SLOTS", "4", None),
        ("RBEE_DEFAULTS_MODEL", "hf:o/r", None),
        ("RBEE_DEFAULTS_NODE", "attic", None),
        ("RBEE_QUEEN_URL", "http://attic:8080", None),
        ("RBEE_HOME", "/srv/state", None),
        ("RBEE_AUTH_TOKEN_FILE", "/srv/token", None),
        ("RBEE_TIMEOUTS_BUSY_DELAYS", "1", None),
        ("RBEE_TIMEOUTS_READY_POLL", "1", None),
        ("RBEE_TIMEOUTS_CALL", "9", None),
    ],
)
def test_what_has_changed(variable: str, value: str, expected: ChangedSetting | None) -> None:
    plain, other = config.load(environment={}), config.load(environment={variable: value})
    assert changed(started({}), other) == ([] if expected is None else [expected])
    assert changed(started({}), plain) == []
    back = [] if expected is None else [ChangedSetting(expected.key, expected.now, expected.used)]
    assert changed(started({variable: value}), plain) == back
    assert changed(started({variable: value}), other) == []


@pytest.mark.usefixtures("no_file")
def test_a_daemon_that_was_given_a_file_has_settings_of_its_own(tmp_path: Path) -> None:
    own, users = tmp_path / "own.toml", tmp_path / ".config" / "rbee" / "config.toml"
    own.write_text("[worker]\nslots = 2\n")
    used = started({}, file=str(own))
    assert changed(used, config.load(environment={})) == []
    own.write_text("[worker]\nslots = 3\n")
    assert changed(used, config.load(file=str(own), environment={})) == [ChangedSetting("worker.slots", 2, 3)]
    # While a file that appears where everyone looks is one that has changed.
    used = started({})
    users.parent.mkdir(parents=True)
    users.write_text("[worker]\nslots = 2\n")
    assert changed(used, config.load(environment={})) == [ChangedSetting("worker.slots", 4, 2)]


@pytest.mark.usefixtures("no_file")
def test_what_a_flag_has_set_is_not_the_settings_of_now() -> None:
    """`rbee up --keep 2h` is meant for this queen: no command says that it has another value than the file."""
    flags: dict[str, dict[str, object]] = {"queen": {"keep": 7200.0, "host": None, "port": 8090}}
    used = started({}, flags=flags)
    assert used.flags == ("queen.keep", "queen.port")
    assert changed(used, config.load(environment={})) == []
    assert changed(used, config.load(environment={"RBEE_QUEEN_KEEP": "60", "RBEE_QUEEN_PORT": "8080"})) == []
    now = config.load(environment={"RBEE_QUEEN_KEEP": "60", "RBEE_QUEEN_HOST": "0.0.0.0"})
    assert changed(used, now) == [ChangedSetting("queen.host", "127.0.0.1", "0.0.0.0")]


def test_variables_are_compared_and_not_kept() -> None:
    before = {"HF_TOKEN": "hf_secret", "HTTPS_PROXY": "http://me:secret@proxy"}
    used = started(before)
    assert "secret" not in str(used)
    assert changed_variables(used, before) == []
    assert changed_variables(used, {}) == [], "one that is not set here is no reason to ask for it"
    now = before | {"HF_TOKEN": "hf_other", "NO_PROXY": "x", "UNRELATED": "y", "HF_ENDPOINT": ""}
    assert changed_variables(used, now) == ["HF_TOKEN", "NO_PROXY"]


@pytest.mark.usefixtures("no_file")
@pytest.mark.parametrize("found", [None, "x", [], {}, {"source": 1}, {"source": "x", "values": [], "variables": {}}])
def test_what_another_version_wrote_is_passed_over(found: object) -> None:
    assert recorded(found) is None


@pytest.mark.usefixtures("no_file")
def test_too_much_for_a_lock_file_is_not_written_down() -> None:
    environment = {"RBEE_WORKER_COMMAND": "x" * settings_in_use.MAX_BYTES}
    assert record(config.load(environment=environment), environment) is None

"""Where settings come from, and what a wrong one says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rbee.adapters import config
from rbee.errors import InvalidConfigurationError

USER = Path(".config/rbee/config.toml")
SYSTEM = Path("/etc/rbee/config.toml")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(**how: Any) -> InvalidConfigurationError:
    with pytest.raises(InvalidConfigurationError) as caught:
        config.load(**how)
    assert "\n" not in caught.value.message
    return caught.value


def test_without_anything_the_defaults_hold(home: Path) -> None:
    settings = config.load()
    assert settings.queen.port == 8080
    assert settings.hive.port == 9200
    assert (settings.queen.host, settings.hive.host) == ("127.0.0.1", "127.0.0.1")
    assert settings.worker.slots == 4
    assert settings.worker.port_from == 8001
    assert settings.state_dir == home / ".rbee"
    assert settings.logs_dir == home / ".rbee/logs"
    assert settings.token_file == home / ".rbee/token"
    assert settings.paths.models == home / ".local/share/rbee/models"


def test_the_documented_timeouts_are_the_defaults(home: Path) -> None:
    assert msgspec.structs.asdict(config.load().timeouts) == {
        "ssh_connect": 10,
        "connect": 10,
        "connect_delays": (0, 0.2, 0.4),
        "call_delays": (0, 0.1, 0.2),
        "busy_delays": (1, 2, 4),
        "download_delays": (0.1, 0.2, 0.4, 0.8, 1.6),
        "download_stall": 60,
        "copy_stall": 10,
        "ready_poll": 0.1,
        "ready_poll_most": 2,
        "call": 5,
        "start": 30,
        "worker_ready": 30,
        "loading": 300,
        "inference": 0,
        "token": 60,
        "drain": 30,
        "acknowledge": 5,
        "unload": 10,
        "cascade": 30,
        "heartbeat": 10,
        "silent": 0.4,
        "stalled": 30,
        "health_interval": 30,
        "health": 5,
        "idle": 300,
        "orphan": 120,
    }


def test_each_source_wins_over_the_one_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / USER, "[queen]\nport = 1001\n[hive]\nport = 1001\n[worker]\nslots = 11\n")
    monkeypatch.setenv("RBEE_HIVE_PORT", "1002")
    monkeypatch.setenv("RBEE_WORKER_SLOTS", "12")
    settings = config.load({"worker": {"slots": 13}})
    assert (settings.queen.port, settings.hive.port, settings.worker.slots) == (1001, 1002, 13)
    assert settings.source == str(home / USER)


def test_a_flag_that_was_not_given_changes_nothing(home: Path) -> None:
    assert config.load({"queen": {"port": None, "host": None}}).queen.port == 8080


def test_the_file_named_by_the_environment_wins_over_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / USER, "[queen]\nport = 1001\n[hive]\nport = 1001\n")
    monkeypatch.setenv("RBEE_CONFIG", str(write(home / "other.toml", "[queen]\nport = 1002\n")))
    settings = config.load()
    assert (settings.queen.port, settings.hive.port) == (1002, 9200), "files are not mixed"


def test_the_file_of_the_flag_wins_over_all(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RBEE_CONFIG", str(write(home / "other.toml", "[queen]\nport = 1002\n")))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.toml", "[queen]\nport = 1003\n")
    assert config.load(file="mine.toml").queen.port == 1003


def test_the_systems_file_comes_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # /etc belongs to the machine: that the two places are looked at in this order is what can be seen without it.
    asked: list[Path] = []
    real = os.path.isfile

    def isfile(path: Path) -> bool:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "isfile", isfile)
    config.load()
    assert asked == [home / USER, SYSTEM]


def test_an_empty_variable_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBEE_CONFIG", "")
    monkeypatch.setenv("RBEE_HOME", "")
    assert config.load().state_dir == home / ".rbee"


def test_a_command_in_the_environment_is_split_as_a_shell_would(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBEE_WORKER_COMMAND", "'/my tools/worker' --name \"a b\" c\\ d")
    assert config.load().worker.command == ["/my tools/worker", "--name", "a b", "c d"]


def test_a_command_with_an_open_quote_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBEE_WORKER_COMMAND", "worker 'open")
    error = refused()
    assert error.message == "worker.command: no closing quotation (in the environment variable RBEE_WORKER_COMMAND)"
    assert error.details["key"] == "worker.command"


def test_home_moves_the_state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBEE_HOME", "/elsewhere")
    settings = config.load()
    assert (settings.state_dir, settings.token_file) == (Path("/elsewhere"), Path("/elsewhere/token"))


def test_home_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / USER, '[paths]\nstate_dir = "/in/file"\n[auth]\ntoken_file = "~/token"\n')
    monkeypatch.setenv("RBEE_HOME", "/elsewhere")
    settings = config.load()
    assert (settings.state_dir, settings.token_file) == (Path("/elsewhere"), home / "token")


@pytest.mark.parametrize("name", ["RBEE_HOME", "RBEE_CONFIG", "RBEE_PATHS_MODELS_DIR", "RBEE_AUTH_TOKEN_FILE"])
def test_a_relative_path_in_the_environment_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "here")
    message = refused().message
    assert name in message
    assert "absolute path" in message


def test_a_relative_path_in_a_file_is_refused(home: Path) -> None:
    path = write(home / USER, '[paths]\nstate_dir = "here"\n')
    assert refused().message == f'paths.state_dir: expected an absolute path, got "here" (in {path})'


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('[queen]\nport = "8080"\n', "queen.port", "expected int, got str"),
        ("[queen]\nport = 70000\n", "queen.port", "expected int <= 65535"),
        ("[queen]\nport = true\n", "queen.port", "expected int, got bool"),
        ("[queen]\nhost = 1\n", "queen.host", "expected str, got int"),
        ("[hive]\nport = -1\n", "hive.port", "expected int >= 0"),
        ("[hive]\nadvertise = []\n", "hive.advertise", "expected str | null, got array"),
        ("[worker]\nslots = 0\n", "worker.slots", "expected int >= 1"),
        ("[worker]\nslots = 65\n", "worker.slots", "expected int <= 64"),
        ("[worker]\ncontext = 15\n", "worker.context", "expected int >= 16"),
        ("[worker]\nthreads = 0.5\n", "worker.threads", "expected int | null, got float"),
        ('[worker]\ncommand = "x"\n', "worker.command", "expected array | null, got str"),
        ("[worker]\ncommand = [1]\n", "worker.command", "expected str, got int"),
        ("[timeouts]\nloading = 0\n", "timeouts.loading", "expected float > 0"),
        ("[timeouts]\nloading = nan\n", "timeouts.loading", "expected float > 0"),
        ("[timeouts]\nloading = inf\n", "timeouts.loading", "expected float <= 1000000"),
        ('[timeouts]\ncall = "5 s"\n', "timeouts.call", "expected float, got str"),
        ("[defaults]\nmodel = 1\n", "defaults.model", "expected str | null, got int"),
        ("[paths]\nmodels_dir = 1\n", "paths.models_dir", "expected str, got int"),
        ("[auth]\ntoken_file = false\n", "auth.token_file", "expected str | null, got bool"),
    ],
)
def test_a_wrong_value_names_key_type_and_file(home: Path, text: str, key: str, expected: str) -> None:
    path = write(home / USER, text)
    message = refused().message
    assert message.startswith(f"{key}: {expected}")
    assert message.endswith(f"(in {path})")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RBEE_QUEEN_PORT", "many", "queen.port: expected int, got str"),
        ("RBEE_QUEEN_PORT", "", "queen.port: expected int, got str"),
        ("RBEE_TIMEOUTS_BUSY_DELAYS", "1, two", "timeouts.busy_delays: expected float, got str"),
        ("RBEE_TIMEOUTS_CALL_DELAYS", "", "timeouts.call_delays: expected array of length >= 1"),
        ("RBEE_TIMEOUTS_LOADING", "-1", "timeouts.loading: expected float > 0"),
        ("RBEE_WORKER_SLOTS", "1.5", "worker.slots: expected int, got"),
    ],
)
def test_a_wrong_variable_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    message = refused().message
    assert message.startswith(expected)
    assert message.endswith(f"(in the environment variable {name})")


def test_a_wrong_flag_is_said_to_be_one(home: Path) -> None:
    message = refused(flags={"queen": {"port": 70000}}).message
    assert message == "queen.port: expected int <= 65535, got 70000 (on the command line)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[timeouts]\nidle = -1\n", "timeouts.idle: expected float > 0.0, got -1"),
        ("[timeouts]\nidle = nan\n", "timeouts.idle: expected float > 0.0, got NaN"),
        ("[timeouts]\nidle = 2026-01-01\n", 'timeouts.idle: expected float, got date "2026-01-01"'),
        ('[worker]\nslots = "many"\n', 'worker.slots: expected int, got str "many"'),
        ('[worker]\nslots = "\\u001b[2J"\n', 'worker.slots: expected int, got str "\\u001b[2J"'),
        ("[worker]\ncommand = [1, 2]\n", "worker.command: expected str, got int in [1, 2]"),
        (f'[paths]\nstate_dir = "{"x" * 500}"\n', f'paths.state_dir: expected an absolute path, got "{"x" * 59}…'),
        ('[auth]\ntoken_file = "rbee_secret"\n', "auth.token_file: expected an absolute path"),
    ],
)
def test_a_wrong_value_is_shown_but_for_what_may_be_a_secret(home: Path, text: str, said: str) -> None:
    path = write(home / USER, text)
    assert refused().message == f"{said} (in {path})"


def test_an_unknown_section_is_refused(home: Path) -> None:
    path = write(home / USER, "[quene]\nport = 1\n")
    assert refused().message == f"there is no section [quene] (in {path})"


def test_source_is_no_section(home: Path) -> None:
    write(home / USER, 'source = "x"\n')
    assert "there is no section [source]" in refused().message


def test_a_section_must_be_a_table(home: Path) -> None:
    path = write(home / USER, "queen = 1\n")
    assert refused().message == f"queen must be a table of settings (in {path})"


def test_an_unknown_key_is_refused_and_the_known_ones_are_named(home: Path) -> None:
    path = write(home / USER, "[queen]\nprot = 1\n")
    error = refused()
    assert error.message == f"there is no setting queen.prot (in {path})"
    assert error.hint == "did you mean port? [queen] has: host, port, url, max_waiting, keep"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[wroker]\nslots = 3\n", "did you mean [worker]?"),
        ("[Queen]\nport = 1\n", "did you mean [queen]?"),
        ("[time]\ncall = 1\n", "did you mean [timeouts]?"),
        ("slots = 3\n", "did you mean `slots` under [worker]?"),
        ("port = 3\n", "did you mean `port` under [queen] or `port` under [hive]?"),
        (
            "[lamp]\n",
            "there are: queen, api, models, hive, worker, cache, paths, defaults, remote, hub, logs, timeouts, auth",
        ),
        ("[logs]\nslots = 1\n", "did you mean `slots` under [worker]? [logs] has: max_bytes, kept_workers"),
        ("[queen]\nlamp = 1\n", "[queen] has: host, port, url, max_waiting, keep"),
    ],
)
def test_of_a_name_that_there_is_not_the_nearest_one_is_suggested(home: Path, text: str, hint: str) -> None:
    write(home / USER, text)
    assert refused().hint == hint


@pytest.mark.parametrize("content", [b"[queen\n", b"\xff\xfe", b"[queen]\nport = 1\nport = 2\n", b"= 1"])
def test_a_file_that_is_no_toml_is_named(home: Path, content: bytes) -> None:
    path = home / USER
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert refused().message.startswith(f"{path} is not valid TOML")


def test_a_byte_order_mark_is_no_part_of_the_settings(home: Path) -> None:
    path = home / USER
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xef\xbb\xbf[queen]\nport = 9\n")
    assert config.load().queen.port == 9


def test_a_file_asked_for_must_exist(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        refused(file="/nowhere.toml").message == "the settings file /nowhere.toml, which --config names, does not exist"
    )
    monkeypatch.setenv("RBEE_CONFIG", "/nothing.toml")
    assert refused().message == "the settings file /nothing.toml, which RBEE_CONFIG names, does not exist"


def test_a_path_that_can_be_none_is_refused(home: Path) -> None:
    with pytest.raises(InvalidConfigurationError, match="does not exist"):
        config.load(file="/" + "x" * 300)


OWN_VALUES: dict[str, tuple[str, Any]] = {
    "aliases": ("a=b, c=d=e", {"a": "b", "c": "d=e"}),
    "hosts": ("a b", ("a", "b")),
    "kv": ("q8_0", "q8_0"),
    "max_bytes": ("17000", 17000),
    "origins": ("a, b", ("a", "b")),
    "reasoning_field": ("reasoning", "reasoning"),
    "unknown_model": ("default", "default"),
}


def test_every_setting_has_a_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"bool": "true", "list": "a b", "float": "17.5", "int": "17", "str": "/x"}
    for section in set(config.Settings.__struct_fields__) - {"source", "file"}:
        kind = type(getattr(config.Settings(), section))
        for field in msgspec.structs.fields(kind):
            text = str(field.type)
            chosen, expected = OWN_VALUES.get(field.name, ("", None))
            chosen = chosen or next(v for name, v in values.items() if name in text)
            with monkeypatch.context() as patch:
                patch.setenv(f"RBEE_{section}_{field.name}".upper(), chosen)
                got = getattr(getattr(config.load(), section), field.name)
            if expected is None:
                expected = ["a", "b"] if chosen == "a b" else (17.5,) if type(got) is tuple else type(got)(chosen)
            assert got == expected, (section, field.name)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "{home}/.cache/rbee/prefixes"),
        ({"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/rbee/prefixes"),
        ({"XDG_CACHE_HOME": "relative"}, "{home}/.cache/rbee/prefixes"),
        ({"RBEE_CACHE": "/srv/bees"}, "/srv/bees/prefixes"),
        ({"RBEE_CACHE": "/srv/bees", "RBEE_CACHE_DIR": "~/kept"}, "{home}/kept"),
    ],
)
def test_prompts_are_kept_in_the_cache_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("XDG_CACHE_HOME", "RBEE_CACHE", "RBEE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(config.load().cache.folder) == folder.format(home=home)


def test_loading_twice_shares_nothing(home: Path) -> None:
    one = config.load({"queen": {"port": 1}})
    assert config.load().queen.port == 8080
    assert one.queen.port == 1


@pytest.mark.parametrize("name", ["RBEE_HOME", "RBEE_CONFIG", "RBEE_PATHS_MODELS_DIR", "RBEE_AUTH_TOKEN_FILE"])
def test_a_relative_path_is_made_absolute_and_the_environment_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv(name, "here")
    monkeypatch.setenv("OTHER", "there")
    environment = config.absolute_environment()
    assert (environment[name], environment["OTHER"]) == (str(home / "here"), "there")
    assert os.environ[name] == "here"
    if name == "RBEE_HOME":
        assert config.load(environment=environment).state_dir == home / "here"


def test_a_home_folder_in_the_environment_is_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBEE_HOME", "~/bees")
    assert config.absolute_environment()["RBEE_HOME"] == str(home / "bees")


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ("~/my models/x.gguf", "file:{home}/my models/x.gguf"),
        ("/srv/x (1).gguf", "file:/srv/x (1).gguf"),
        ("hf:o/r:Q4_K_M", "hf:o/r:Q4_K_M"),
        ("./x.gguf", "./x.gguf"),
    ],
)
def test_the_default_model_may_be_a_path(home: Path, model: str, reference: str) -> None:
    write(home / USER, f'[defaults]\nmodel = "{model}"\n')
    assert config.load().defaults.reference == reference.format(home=home)

"""The home folder, which may be missing in several ways."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rbee.adapters import config
from rbee.adapters.download import hub, hub_cache
from rbee.adapters.files import home, private
from rbee.adapters.ssh import known_hosts
from rbee.errors import InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[None, "", "relative", "~"])
def homeless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without an entry in passwd, whose HOME is no folder's name."""

    def fail(_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", fail)
    monkeypatch.setattr(pwd, "getpwnam", fail)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if request.param is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", request.param)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("~", home.HINT),
        ("~/.rbee", home.HINT),
        ("~/.local/share/rbee/models", home.HINT),
        ("~/.config/rbee/config.toml", "set HOME, or write the whole path in place of ~/.config/rbee/config.toml"),
        (Path("~/x"), "set HOME, or write the whole path in place of ~/x"),
    ],
)
def test_without_a_home_what_lies_in_it_is_refused_in_one_sentence(path: str | Path, hint: str) -> None:
    with pytest.raises(InvalidConfigurationError, match="there is no home folder for ~") as caught:
        home.expanded(path)
    assert caught.value.hint == hint
    assert not home.found(path).exists()


@pytest.mark.usefixtures("homeless")
def test_what_lies_elsewhere_needs_no_home(tmp_path: Path) -> None:
    assert home.expanded(tmp_path / "~") == tmp_path / "~"
    assert home.expanded("relative/~x") == Path("relative/~x")
    assert private.shown(tmp_path) == str(tmp_path)


@pytest.mark.usefixtures("homeless")
def test_the_settings_go_on_where_the_state_has_a_folder(tmp_path: Path) -> None:
    settings = config.load(environment={"RBEE_HOME": str(tmp_path)})
    assert settings.state_dir == tmp_path
    assert settings.paths.models == tmp_path / "models"
    elsewhere = {"RBEE_HOME": str(tmp_path), "RBEE_PATHS_MODELS_DIR": "/srv/models"}
    assert config.load(environment=elsewhere).paths.models == Path("/srv/models")
    with pytest.raises(InvalidConfigurationError, match="no home folder"):
        _ = config.load(environment={}).state_dir


@pytest.mark.usefixtures("homeless")
def test_files_of_other_tools_are_then_not_there() -> None:
    assert hub.token() is None
    assert list(hub_cache.repositories("bees/model")) == []
    assert known_hosts.find("host", [Path("~/.ssh/known_hosts")]).keys == known_hosts.Known().keys


@pytest.mark.parametrize("name", ["HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_home_of_nobody_in_the_variables_of_other_tools(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "~nobody-of-that-name/x")
    assert hub.token() is None
    assert list(hub_cache.repositories("bees/model")) == []


@pytest.mark.parametrize("name", ["RBEE_HOME", "RBEE_CONFIG", "RBEE_PATHS_MODELS_DIR", "RBEE_TOKEN_FILE"])
def test_a_home_of_nobody_in_a_variable_of_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "~nobody-of-that-name/x")
    with pytest.raises(InvalidConfigurationError, match="there is no user nobody-of-that-name"):
        config.load(environment=config.absolute_environment())


def test_home_is_the_variables_else_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home.expanded("~/x") == tmp_path / "x"
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(("bee", "x", 1, 1, "", "/home/bee", "/bin/sh")))
    given: list[Callable[[], None]] = [
        lambda: monkeypatch.delenv("HOME"),
        lambda: monkeypatch.setenv("HOME", ""),
        lambda: monkeypatch.setenv("HOME", "."),
    ]
    for change in given:
        change()
        assert home.expanded("~/x") == Path("/home/bee/x")

"""How a folder comes into PATH, as the shells themselves see it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rbee.keeper.install import shell

HOME = Path("/home/u")


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("/bin/bash", ['export PATH="$HOME/bin:$PATH"', "echo 'export PATH=\"$HOME/bin:$PATH\"' >> ~/.bashrc"]),
        ("/usr/bin/zsh", ['export PATH="$HOME/bin:$PATH"', "echo 'export PATH=\"$HOME/bin:$PATH\"' >> ~/.zshrc"]),
        ("/bin/sh", ['export PATH="$HOME/bin:$PATH"', "echo 'export PATH=\"$HOME/bin:$PATH\"' >> ~/.profile"]),
        ("", ['export PATH="$HOME/bin:$PATH"', "echo 'export PATH=\"$HOME/bin:$PATH\"' >> ~/.profile"]),
        ("/usr/bin/tcsh", ['setenv PATH "$HOME/bin:$PATH"', "echo 'setenv PATH \"$HOME/bin:$PATH\"' >> ~/.tcshrc"]),
        ("/usr/bin/fish", ['fish_add_path "$HOME/bin"']),
    ],
)
def test_each_shell_has_its_own_commands(kind: str, lines: list[str]) -> None:
    assert shell.path_lines(HOME / "bin", HOME, kind) == lines


def test_a_folder_elsewhere_is_named_in_full() -> None:
    assert shell.path_lines(Path("/usr/local/bin"), HOME, "/bin/bash")[0] == 'export PATH="/usr/local/bin:$PATH"'


@pytest.mark.parametrize("kind", ["bash", "dash", "zsh"])
@pytest.mark.parametrize("folder", ["bin", "with space", "it's", 'a "b" $HOME `c` \\', "ünï*"])
@pytest.mark.parametrize("is_inside", [True, False])
def test_a_shell_that_runs_the_lines_finds_the_folder(tmp_path: Path, kind: str, folder: str, is_inside: bool) -> None:
    if (program := shutil.which(kind)) is None:
        pytest.skip(f"there is no {kind} here")
    home = tmp_path / "home"
    home.mkdir()
    wanted = (home if is_inside else tmp_path) / folder
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def path_after(script: str) -> str:
        done = subprocess.run([program, "-c", script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    now, for_ever = shell.path_lines(wanted, home, program)
    assert path_after(f'{now}\nprintf %s "$PATH"') == f"{wanted}:{os.environ['PATH']}"
    path_after(for_ever)
    (file,) = home.iterdir()
    assert path_after(f'. {file}\nprintf %s "$PATH"') == f"{wanted}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a/bin:/usr/bin", True), ("/usr/bin:/a/bin/", True), ("/a/bin2:/b/a/bin", False), ("", False), ("::", False)],
)
def test_a_folder_is_in_path(path: str, expected: bool) -> None:
    assert shell.is_in_path(Path("/a/bin"), path) == expected

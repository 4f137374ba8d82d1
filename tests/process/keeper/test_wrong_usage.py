"""A wrong value of an option is wrong usage: named as the user wrote it, and nothing is started to find it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rbee.errors import InvalidRequestError
from rbee.keeper.command_line import checked
from rbee.keeper.command_line.options import parse
from tests.kit.keeper_driver import Keeper

if TYPE_CHECKING:
    from pathlib import Path

NAME = "this is expected: a letter or digit, then up to 62 letters, digits, dots, dashes or underscores"
ADD = "setup add-node --ssh-host h --ssh-user u --name"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("infer -p x --node", f"--node: {NAME}"),
        ("infer -p x --node local --backend", f"--backend: {NAME}"),
        ("logs --node", f"--node: {NAME}"),
        ("workers health --node", f"--node: {NAME}"),
        ("models list --node", f"--node: {NAME}"),
        ("models rm m --node", f"--node: {NAME}"),
        ("models show builtin:bee-stories --node", f"--node: {NAME}"),
        ("models pull hf:o/r --node", f"--node: {NAME}"),
        ("setup install --node", f"--node: {NAME}"),
        ("setup remove-node --name", f"--name: {NAME}"),
        ("setup update-node --name", f"--name: {NAME}"),
        (ADD, f"--name: {NAME}"),
        (f"{ADD} n --git-branch", "--git-branch: this is expected: a branch's name: "),
        (f"{ADD} n --accept-host-key", "--accept-host-key: this is expected: a fingerprint as `ssh-keygen"),
        (f"{ADD} n --install-path", "--install-path: this is expected: an absolute path, or one that begins with ~/"),
        (f"{ADD} n --git-repo", "--git-repo: this is expected: a Git repository: "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_wrong_usage(tmp_path: Path, line: str, message: str) -> None:
    keeper = Keeper(tmp_path)
    code, out, err = keeper.run(*line.split(), "a b?")
    assert (code, out) == (2, "")
    assert err.startswith(f"rbee: {message}")
    assert err.count("\nhint: `rbee ") == 1
    assert not keeper.state.exists(), "nothing has been started"


def test_other_wrong_usage(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    for line, message in (
        ("infer --prompt=", "the prompt is empty (--prompt)"),
        ("infer -p x --stop=", "--stop: at least 1 character expected"),
        ("infer -p x" + " --stop y" * 17, "--stop: it can be given 16 times at most"),
        ("models pull file:/m.gguf", "file:/m.gguf cannot be fetched: only models of the Hugging Face hub can"),
        ("models pull builtin:bee-stories", "builtin:bee-stories cannot be fetched: only models of"),
    ):
        code, out, err = keeper.run(*line.split())
        assert (code, out) == (2, "")
        assert err.startswith(f"rbee: {message}")
    assert not keeper.state.exists()


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ("infer", "max_tokens", "--max-tokens: at most 9"),
        ("infer", "stop[3]", "--stop: at most 9"),
        ("infer", "model_ref", "--model: at most 9"),
        ("setup install --node n", "node_name", "--node: at most 9"),
        ("setup remove-node --name n", "node_name", "--name: at most 9"),
        ("infer", "grammar", "grammar: at most 9"),
        ("infer", "a_new_field", "a new field: at most 9"),
    ],
)
def test_what_a_daemon_refuses_is_called_as_the_user_did(line: str, field: str, message: str) -> None:
    error = InvalidRequestError(f"field {field}: at most 9", field=field, rule="at most 9")
    checked.name_option(error, parse(line.split()))
    assert error.message == message

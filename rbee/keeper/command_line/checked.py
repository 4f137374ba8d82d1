"""Checks the values of options as the daemons would, before anything is started, and names the option that is wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from rbee.adapters.arguments import UsageError
from rbee.errors import InvalidRequestError

if TYPE_CHECKING:
    from argparse import Namespace

T = TypeVar("T")

_NAMES: Final = {
    "node_name": ("--name", "--node"),
    "ssh_key_path": ("--ssh-key",),
    "git_repo_url": ("--git-repo",),
    "wait_s": ("--wait",),
    "worker_id": ("--id",),
    "model_ref": ("--model",),
}
"""Field of a message → the options that it may come from, where its name does not say so."""
_FIELD: Final = re.compile(r"^field (?P<name>[\w.\[\]]+): ", re.ASCII)
"""How daemons name what a request has wrong."""
_LENGTH: Final = re.compile(r"expected (?P<what>str|array) of length (?P<sign>>=|<=) (?P<count>\d+)")


class WrongValueError(Exception):
    """An option has a value that no daemon takes."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field)
        self.field = field
        self.rule = rule


def convert(values: object, kind: type[T], *, strict: bool = False) -> T:
    """Return the message that the options make. Raises WrongValueError."""
    from rbee.wire import decode  # not for --help, which needs no messages

    try:
        return decode.convert(values, kind, strict=strict)
    except InvalidRequestError as exc:
        raise WrongValueError(str(exc.details["field"]), str(exc.details["rule"])) from None


def usage_error(error: WrongValueError, options: Namespace) -> UsageError:
    """Return what the user is told: the option, and what it takes."""
    name = _option(error.field, options)
    return UsageError(f"{name}: {_in_words(error.rule)}", f"`{options.parser.prog} --help` shows what it takes")


def name_option(error: InvalidRequestError, options: Namespace) -> None:
    """Put the option in place of the field of a request that a daemon has refused, where there is one."""
    error.message = _FIELD.sub(lambda found: f"{_option(found['name'], options)}: ", error.message)


def _option(field: str, options: Namespace) -> str:
    name = re.split(r"[\[.]", field)[0]
    for option in (*_NAMES.get(name, ()), f"--{name.replace('_', '-')}"):
        if options.parser.takes_value(option) is not None:
            return option
    return name.replace("_", " ")


def _in_words(rule: str) -> str:
    if (length := _LENGTH.fullmatch(rule)) is None:
        return rule if rule.startswith("expected") else f"this is expected: {rule}"
    count = int(length["count"])
    if length["what"] == "array":
        return f"it can be given {count} times at most"
    return f"{'at least' if length['sign'] == '>=' else 'at most'} {count:,} character{'s' * (count != 1)} expected"

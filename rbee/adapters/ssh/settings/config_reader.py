"""Reads ssh's settings for one machine, as OpenSSH does: the first value counts, of files one after the other."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import home, regular
from rbee.adapters.ssh.settings import config_lines, keywords

if TYPE_CHECKING:
    from collections.abc import Sequence

USER: Final = Path("~/.ssh/config")
SYSTEM: Final = Path("/etc/ssh/ssh_config")
MAX_DEPTH: Final = 16
"""Of files that include each other, as in OpenSSH (readconf.c)."""

_REPEATED: Final = ("identityfile", "certificatefile")
"""Each line of these adds to those before."""
_RAW: Final = ("proxycommand", "knownhostscommand", "refuseconnection")
"""What follows is one value, as it stands: a command line."""
_MAY_OPEN: Final = tuple('hHmM"')
"""How lines begin that may end a block of which nothing counts: Host and Match."""
_CRITERIA: Final = ("host", "originalhost", "user", "localuser", "tagged")
"""The criteria of Match that can be decided by what is known here; each has an argument."""


class ConfigReader:
    """The settings for the machine `name`; `options` has all arguments of each keyword, in lower case."""

    def __init__(self, name: str, user: str | None, local_user: str) -> None:
        self.options: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self._name = name
        self._local_user = local_user
        self._user = user
        self._is_final = False
        self._is_users = True
        self._wants_final = False

    def read(self, files: Sequence[Path]) -> None:
        """Read the files; those that are not there say nothing."""
        self._read_all(files)
        if self._wants_final:
            self._is_final = True
            self._read_all(files)

    @property
    def _pattern_name(self) -> str:
        """What the patterns of Host are compared with: in the second reading the host that was found (ssh.c)."""
        return self.host.lower() if self._is_final else self._name

    @property
    def host(self) -> str:
        """HostName with its tokens replaced, or the name itself."""
        if "hostname" not in self.options:
            return self._name
        host = self.options["hostname"][0]
        return host.replace("%%", "\0").replace("%h", self._name).replace("\0", "%")

    def _read_all(self, files: Sequence[Path]) -> None:
        for file in files:
            base = home.found(file).parent
            self._is_users = file != SYSTEM
            self._file(file, home.found(file), base, is_active=True, depth=0)

    def _file(self, shown: Path, path: Path, base: Path, *, is_active: bool, depth: int) -> None:
        try:
            with regular.opened(path) as source:
                found = os.fstat(source.fileno())
                is_foreign = found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
                if self._is_users and is_foreign:
                    # As ssh, which refuses to go on: a program that it names would run as this user.
                    self.note(f"{shown} is passed over, because others may write to it (`chmod go-w {shown}`)")
                    return
                lines = source.read().decode("utf-8-sig", "replace").split("\n")
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError) as exc:
            self.note(f"{shown} is passed over: {getattr(exc, 'strerror', None) or exc}")
            return
        is_outer_active = is_active
        for number, line in enumerate(lines, 1):
            if not is_active and line.lstrip()[:1] not in _MAY_OPEN:
                continue
            keyword, rest = config_lines.keyword(line)
            if not keyword or not (keyword in ("host", "match") or is_active):
                continue
            place = f"{shown} line {number}"
            try:
                if keyword == "host":
                    is_active = is_outer_active and config_lines.matches_list(
                        self._pattern_name, config_lines.arguments(rest)
                    )
                elif keyword == "match":
                    is_active = is_outer_active and self._match(config_lines.arguments(rest))
                elif keyword == "include":
                    self._include(config_lines.arguments(rest), base, depth)
                else:
                    self._take(keyword, rest)
            except ValueError as exc:
                is_active = is_active and keyword not in ("host", "match")
                self.note(f"{place} is passed over: {exc}")

    def _take(self, keyword: str, rest: str) -> None:
        keyword = keywords.ALIASES.get(keyword, keyword)
        if keyword not in keywords.TAKEN:
            ignored = ",".join(self.options.get("ignoreunknown", [])).lower().split(",")
            if keyword not in keywords.NAMES and not config_lines.matches_list(keyword, ignored):
                raise ValueError(f"{keyword} is no keyword that is known here")
            return
        values = [rest] if keyword in _RAW else config_lines.arguments(rest)
        if not values or not values[0]:
            raise ValueError(f"{keywords.NAMES[keyword]} has no value")
        if keyword in _REPEATED:
            known = self.options.setdefault(keyword, [])
            known += [value for value in values[:1] if value not in known]
        elif keyword == "proxyjump" and "proxycommand" in self.options:
            return  # the first of the two counts
        elif keyword == "proxycommand" and "proxyjump" in self.options:
            return
        elif keyword == "port" and not (values[0].isdecimal() and 1 <= int(values[0]) <= 65535):
            raise ValueError(f"{values[0]} is no port")
        elif (keyword, values[0].lower()) != ("connecttimeout", "none"):  # which leaves it to the next one
            self.options.setdefault(keyword, values)

    def _include(self, names: list[str], base: Path, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise ValueError("too many files include each other")
        for name in names:
            pattern = os.path.expanduser(name)  # noqa: PTH111 (a pattern)
            if not os.path.isabs(pattern):  # noqa: PTH117
                pattern = str(base / pattern)
            for file in sorted(glob.glob(pattern)):  # noqa: PTH207
                self._file(Path(file), Path(file), base, is_active=True, depth=depth + 1)

    def _match(self, words: list[str]) -> bool:
        """Whether all criteria of a Match line hold; one that cannot be decided counts as one that does not."""
        rest = iter(words)
        is_match = True
        for word in rest:
            attribute, is_negated = word.lower().removeprefix("!"), word.startswith("!")
            attribute, _, joined = attribute.partition("=")
            if attribute == "all":
                continue
            if attribute in ("canonical", "final"):
                self._wants_final = self._wants_final or attribute == "final"
                is_match = is_match and self._is_final != is_negated
                continue
            argument = joined or next(rest, None)
            if argument is None:
                raise ValueError(f"Match {attribute} has no argument")
            if not is_match:
                continue
            if attribute not in _CRITERIA:
                raise ValueError(f"`Match {attribute}` is not decided here")
            is_match = config_lines.matches_list(self._value(attribute), argument.split(",")) != is_negated
        return is_match and bool(words)

    def _value(self, attribute: str) -> str:
        user = self._user or self.options.get("user", [self._local_user])[0]
        values = {
            "host": self.host,
            "originalhost": self._name,
            "user": user,
            "localuser": self._local_user,
            "tagged": self.options.get("tag", [""])[0],
        }
        return values[attribute]

    def note(self, words: str) -> None:
        """Note what is passed over, once."""
        if words not in self.notes:
            self.notes.append(words)

    def passed_over(self, names: Sequence[str]) -> list[str]:
        """Return the keywords of `names` that ask for what is not done."""
        found = ((name, self.options.get(name.lower())) for name in names)
        return [name for name, values in found if values and keywords.asks(name.lower(), values[0])]

"""Parses command lines with argparse, and gives every wrong usage one form."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rbee.adapters import numbers
from rbee.adapters.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRONG_USAGE: Final = 2
"""The exit code."""
_UNKNOWN: Final = re.compile(
    r"(?:argument )?(?P<what>[\w-]+): invalid choice: '(?P<word>.*?)' \(choose from", re.DOTALL
)


_NEEDLESS: Final = re.compile(r"(?:argument )?(--[\w-]+): ignored explicit argument '(.*)'", re.DOTALL)


GIVEN: Final = "given_once"
"""Where a namespace notes the options of the kind `Once` that it has a value of, until it is parsed."""


_GOES_ON: Final = re.compile(r"\S.*[^.:\s]$")
"""A line that ends within a sentence, which the next line goes on with."""


_NO_LIMIT: Final = ("-1", "0", "all", "inf", "infinite", "infinity", "max", "none", "unlimited")
"""How other tools have it that there is no limit."""


_START: Final = "`{}` alone runs in the foreground; `rbee up` starts a queen in the background, which starts hives"
_STOP: Final = "`rbee down` ends the queen that runs in the background, with all that it has started"
_SERVICE_WORDS: Final = {
    "start": _START, "up": _START, "run": _START, "serve": _START, "stop": _STOP, "down": _STOP, "kill": _STOP,
    "restart": "`rbee down; rbee up` does it", "status": "`rbee status` shows what runs",
    "logs": "`rbee logs` shows them", "log": "`rbee logs` shows it",
}  # fmt: skip
"""Words behind the name of a daemon, as `systemctl` and the like have them → what to do instead."""


class UsageError(Exception):
    """The command line is wrong."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class HelpRequest(Exception):
    """The user asked for a help text; it goes to stdout."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class HelpAction(argparse.Action):
    """`--help`, raised instead of printed: writing is the terminal's."""

    def __init__(self, option_strings: Sequence[str], **_: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help="show this help and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise HelpRequest(parser.format_help())


class Once(argparse.Action):
    """An option whose second value is refused: the first one would be dropped in silence."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, name: str | None = None
    ) -> None:
        given = namespace.__dict__.setdefault(GIVEN, set())
        if self.dest in given:
            raise UsageError(f"{name} is given twice", f"`{parser.prog}` takes one {self.metavar}")
        given.add(self.dest)
        setattr(namespace, self.dest, value)


def _shown(action: argparse.Action) -> str:
    return " ".join([*action.option_strings, *([] if action.nargs == 0 else [str(action.metavar)])])


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Fits descriptions to the terminal; lines that are indented, as examples are, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        lines: list[str] = []
        for line in text.splitlines():
            if line[:1].strip() and lines and _GOES_ON.match(lines[-1]):
                lines[-1] += f" {line}"
            else:
                lines.append(line)
        fitted = (line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)
        return "".join(f"{indent}{line}\n" for line in fitted)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises what argparse would print."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        # Abbreviated options break scripts on the day a second option begins alike.
        super().__init__(**options, add_help=False, allow_abbrev=False)
        self._positionals.title = "arguments"

    @property
    def commands(self) -> dict[str, Parser]:
        """The commands that follow, by their names."""
        found = (action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next((dict(choices) for choices in found if choices), {})

    @property
    def takes_words(self) -> bool:
        """Whether it has arguments that are no options."""
        return self.most_words > 0

    @property
    def most_words(self) -> int:
        """How many arguments it has that are no options."""
        words = [action for action in self._actions if not action.option_strings]
        return sys.maxsize if any(action.nargs == "*" for action in words) else len(words)

    def requires(self, option: str) -> bool:
        """Whether the option must be given."""
        return self._option_string_actions[option].required

    def takes_value(self, word: str) -> bool | None:
        """Return whether the next word belongs to this one, an option; None for an option that there is not."""
        known = self._option_string_actions
        option, is_assigned, _ = word.partition("=")
        if word.startswith("--") or option in known:
            return None if option not in known else known[option].nargs is None and not is_assigned
        # A letter with its value, or several letters.
        flags = [known.get(f"-{letter}") for letter in option[1:]]
        if not flags or flags[0] is None or (flags[0].nargs is not None and None in flags):
            return None
        return False

    def format_help(self) -> str:
        self.usage = self.usage or " ".join([self.prog, *self._required(), "[options]"])
        return super().format_help()

    def _required(self) -> list[str]:
        found = [_shown(action) for action in self._actions if action.required]
        groups = [group for group in self._mutually_exclusive_groups if group.required]
        return found + [f"({' | '.join(map(_shown, group._group_actions))})" for group in groups]

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument -\w/(--)", r"argument \1", message)
        hint = f"`{self.prog} --help` shows what it takes"
        if lacks := re.match(r"argument (--[\w-]+): expected one argument", message):
            value = self._option_string_actions[lacks[1]].metavar or "VALUE"
            hint = f"write {lacks[1]} {value}, or {lacks[1]}={value} if {value} begins with a dash"
        if needless := _NEEDLESS.match(message):
            raise UsageError(f"{needless[1]} takes no value, and was given '{needless[2]}'", hint)
        if found := _UNKNOWN.match(message):
            what, word = found["what"], found["word"]
            raise UsageError(f"there is no {what} '{word}'", self._suggest(what, word) or hint)
        if required := re.match(r"the following arguments are required: (.*)", message):
            message = f"{required[1]} {'are' if ', ' in required[1] else 'is'} missing"
        if one_of := re.match(r"one of the arguments (.*) is required", message):
            message = f"{' or '.join(one_of[1].split())} is missing"
        raise UsageError(message.removeprefix("argument "), hint)

    def refuse(self, extra: str) -> NoReturn:
        """Refuse an argument that nothing takes."""
        hint = f"`{self.prog} --help` shows what it takes"
        if not extra.startswith("-"):
            takes_prompt = "--prompt" in self._option_string_actions
            raise UsageError(
                f"unexpected argument '{extra}'",
                'the prompt is given in quotes: --prompt "…"' if takes_prompt else hint,
            )
        option = extra.partition("=")[0]
        near = " or ".join(self.near(option))
        raise UsageError(f"there is no option {extra}", f"did you mean {near}?" if near else hint)

    def near(self, option: str) -> list[str]:
        """Return the options that one which does not exist may mean."""
        # Without the dashes, which would make all options alike.
        names = [
            name.removeprefix("--")
            for name, action in self._option_string_actions.items()
            if name.startswith("--") and action.help is not argparse.SUPPRESS
        ]
        return [f"--{name}" for name in nearest(option.lstrip("-").replace("_", "-"), names)]

    def _suggest(self, what: str, word: str) -> str | None:
        names = [name for action in self._actions if action.choices for name in action.choices]
        before = what if what.startswith("-") else self.prog
        near = " or ".join(f"`{before} {name}`" for name in nearest(word, names))
        return f"did you mean {near}?" if near else None


def read(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Return a daemon's options. Raises SystemExit once it has shown its help, or said what is wrong."""
    try:
        options, extra = parser.parse_known_args(argv)
        if extra:
            _refuse_for_daemon(parser, extra[0])
    except HelpRequest as request:
        sys.stdout.write(request.text)
        raise SystemExit(0) from None
    except UsageError as exc:
        sys.stderr.write(f"rbee: {exc.message}\nhint: {exc.hint}\n")
        raise SystemExit(WRONG_USAGE) from None
    return options


def _refuse_for_daemon(parser: Parser, word: str) -> NoReturn:
    if (hint := _SERVICE_WORDS.get(word)) is not None:
        raise UsageError(f"unexpected argument '{word}'", hint.format(parser.prog))
    parser.refuse(word)


def whole(low: int, high: int, *, without: str = "") -> Callable[[str], int]:
    """Return an argparse type: a whole number within bounds; `without` says what holds if the option is left out."""

    def convert(text: str) -> int:
        # int() would also take "1_000" and other scripts' digits.
        if re.fullmatch(r"-?[0-9]{1,10}", text) and low <= (value := int(text)) <= high:
            return value
        meant = numbers.whole(text)
        more = f"; did you mean {meant}?" if meant is not None and low <= meant <= high else ""
        if without and text.lower() in _NO_LIMIT:
            more = f"; {without}"
        raise argparse.ArgumentTypeError(f"a whole number from {low} to {high} is expected{more}")

    return convert


def fraction(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """Return an argparse type: a number within bounds; with `above` the lower bound itself is refused."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if low <= value <= high and not (above and value == low):
            return value
        bounds = f"above {low:g}, at most {high:g}," if above else f"from {low:g} to {high:g}"
        meant = numbers.fraction(text)
        more = f" did you mean {meant:g}?" if meant is not None and low <= meant <= high else ""
        raise argparse.ArgumentTypeError(f"a number {bounds} is expected{';' * bool(more)}{more}")

    return convert


def time_up_to(most: float) -> Callable[[str], float]:
    """Return an argparse type: a time of at most so many seconds, which may have a unit."""

    def convert(text: str) -> float:
        if (seconds := numbers.seconds(text)) is not None and 0 <= seconds <= most:
            return seconds
        raise argparse.ArgumentTypeError(f"0 to {most:g} seconds are expected, or for example 90s or 10m")

    return convert


def duration(text: str) -> float:
    """The type of an option that takes a time: seconds, or a number with s, m, h or d; "forever" is ten years."""
    from rbee.wire.common import FOREVER  # with msgspec, which --help does without

    if text == "forever":
        return FOREVER
    seconds = numbers.seconds(text)
    if seconds is None or not 0 <= seconds <= FOREVER:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: seconds, or for example 90s, 30m, 2h, 1d or forever")
    return seconds

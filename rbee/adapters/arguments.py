"""Parses command lines with argparse, and gives every wrong usage one form."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRONG_USAGE: Final = 2
"""The exit code."""
_UNKNOWN: Final = re.compile(
    r"(?:argument )?(?P<what>[\w-]+): invalid choice: '(?P<word>.*?)' \(choose from", re.DOTALL
)


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


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises what argparse would print."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # Abbreviated options break scripts on the day a second option begins alike.
        super().__init__(**options, add_help=False, allow_abbrev=False)
        self._positionals.title = "arguments"
        self.synonyms: dict[str, str] = {}
        """What other programs call a command → the whole command here."""

    def error(self, message: str) -> NoReturn:
        hint = f"`{self.prog} --help` shows what it takes"
        if found := _UNKNOWN.match(message):
            raise UsageError(f"there is no {found['what']} '{found['word']}'", self._suggest(found["word"]) or hint)
        if required := re.match(r"the following arguments are required: (.*)", message):
            message = f"{required[1]} {'are' if ', ' in required[1] else 'is'} missing"
        raise UsageError(message.removeprefix("argument "), hint)

    def refuse(self, extra: str) -> NoReturn:
        """Refuse an argument that nothing takes."""
        hint = f"`{self.prog} --help` shows what it takes"
        if not extra.startswith("-"):
            takes_prompt = "--prompt" in self._option_string_actions
            raise UsageError(
                f"unexpected argument '{extra}'", 'a prompt is given as --prompt "…"' if takes_prompt else hint
            )
        import difflib

        near = difflib.get_close_matches(extra.partition("=")[0], self._option_string_actions, n=1)
        raise UsageError(f"there is no option {extra}", f"did you mean {near[0]}?" if near else hint)

    def _suggest(self, word: str) -> str | None:
        if word in self.synonyms:
            return f"that is `{self.synonyms[word]}` here"
        import difflib

        names = [name for action in self._actions if action.choices for name in action.choices]
        near = difflib.get_close_matches(word, names, n=1)
        return f"did you mean `{self.prog} {near[0]}`?" if near else None


def read(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Return a daemon's options. Raises SystemExit once it has shown its help, or said what is wrong."""
    try:
        options, extra = parser.parse_known_args(argv)
        if extra:
            parser.refuse(extra[0])
    except HelpRequest as request:
        sys.stdout.write(request.text)
        raise SystemExit(0) from None
    except UsageError as exc:
        sys.stderr.write(f"rbee: {exc.message}\nhint: {exc.hint}\n")
        raise SystemExit(WRONG_USAGE) from None
    return options


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number within bounds."""

    def convert(text: str) -> int:
        # int() would also take "1_000" and other scripts' digits.
        if re.fullmatch(r"-?[0-9]{1,10}", text) and low <= (value := int(text)) <= high:
            return value
        raise argparse.ArgumentTypeError(f"a whole number from {low} to {high} is expected")

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
        raise argparse.ArgumentTypeError(f"a number {bounds} is expected")

    return convert

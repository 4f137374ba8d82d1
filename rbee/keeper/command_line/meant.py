"""Says what the words of another tool's command line, or the same in another order, are here (PURE)."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from rbee.keeper.command_line import habits

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_ANY: Final = ("ID", "NAME", "FILE", "HOST")
_PROMPT: Final = '"…"'
_HUB: Final = re.compile(r"^(?:https?://)?(?:hf\.co|huggingface\.co)/")
_WORKER: Final = re.compile(r"(?:worker-)?[0-9a-fA-F-]{8,}(?:\.log)?")


def command(prog: str, words: Sequence[str], commands: Collection[str]) -> str | None:
    """Return the hint for words that begin with no command of `prog`; None where nobody can tell what is meant."""
    word, after = words[0], words[1:]
    if prog == "rbee":
        second = after[0] if after else ""
        if (ours := habits.PHRASES.get(word, {}).get(second)) is not None:
            return _that_is(ours, after[1:])
        if (alias := habits.ALIASES.get(word)) in commands and second and not second.startswith("-"):
            group = f"rbee {alias}"
            ours = habits.COMMANDS.get(group, {}).get(second)
            return _that_is(ours, after[1:]) if ours is not None else f"that is `{group} {shlex.join(after)}` here"
        if word in habits.NOTES:
            return habits.NOTES[word]
        if word in habits.OF_ONE and second and not second.startswith("-"):
            return f"{_that_is(habits.OF_ONE[word], after)}; `rbee workers list` shows the ids"
    ours = habits.COMMANDS.get(prog, {}).get(word)
    return None if ours is None else _that_is(ours, after)


def is_worker(word: str) -> bool:
    """Whether a word may be the id of a worker, or its beginning, or the name of its log."""
    return _WORKER.fullmatch(word) is not None


def _that_is(ours: str, after: Sequence[str]) -> str:
    return f"that is `{filled(ours, after)}` here"


def filled(ours: str, after: Sequence[str]) -> str:
    """Return a command with what the user has given it; what is left open stands in capital letters.

    Names of models in other tools are none here: only what looks like a reference or a file takes the place of one.
    """
    given = [word for word in after if not word.startswith("-")]
    found: list[str] = []
    for part in ours.split(" "):
        if part == "ID" and ours.startswith("rbee workers") and given and not is_worker(given[0]):
            found.append(part)  # the name of a model, as others have it there
        elif part in _ANY and given:
            found.append(shlex.quote(given.pop(0)))
        elif part == "REF" and given:
            word = _HUB.sub("hf:", given.pop(0))
            is_reference = word.startswith(("hf:", "file:", "builtin:", "/", "./", "~/")) or word.endswith(".gguf")
            found.append(shlex.quote(word) if is_reference else part)
        elif part == _PROMPT and given:
            found.append(shlex.quote(" ".join(given)))
            given.clear()
        else:
            found.append(part)
    return " ".join(found)

"""The little grammar of the text files: alternatives in brackets, and slots in braces."""

import re
from collections.abc import Mapping
from random import Random

INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


def expand(template: str, slots: Mapping[str, str], random: Random) -> str:
    """Write out a template.

    `[a|b|c]` becomes one of its parts, and may hold others; `{word}` becomes the slot of that name,
    `{Word}` the same with a capital letter. A slot may hold choices and slots itself. A slot that
    does not exist raises KeyError.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in slots:
            return slots[name]
        value = slots[name[0].lower() + name[1:]]
        return value[0].upper() + value[1:]

    while True:
        text = INNERMOST_CHOICE.sub(lambda match: random.choice(match[1].split("|")), template)
        text = SLOT.sub(fill, text)
        if text == template:
            return text.replace("\\n", "\n")
        template = text


def with_article(noun: str) -> str:
    """Return the noun after its indefinite article."""
    sounds_open = noun.startswith(("a", "e", "i", "o", "honest", "ugly"))
    return f"{'an' if sounds_open else 'a'} {noun}"


def split_paragraphs(text: str) -> list[list[str]]:
    """Return the lines of each paragraph."""
    return [block.splitlines() for block in text.strip().split("\n\n")]

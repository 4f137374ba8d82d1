"""The names of the files of a split model, as llama.cpp's tools/gguf-split writes them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_PARTS: Final = 999
_FORM: Final = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<parts>\d{5})(?P<ending>\.gguf)", re.IGNORECASE | re.ASCII | re.DOTALL
)


class SplitName(NamedTuple):
    """The name of file `number` of `parts`, counted from 1; `ending` is `.gguf` as it is written there."""

    stem: str
    number: int
    parts: int
    ending: str

    @classmethod
    def parse(cls, name: str) -> SplitName | None:
        """Return what a file's name says; None where it is not that of a part."""
        if (found := _FORM.fullmatch(name)) is None:
            return None
        return cls(found["stem"], int(found["number"]), int(found["parts"]), found["ending"])

    def all(self) -> list[str]:
        """Return the names of all files of the model, in order."""
        return [f"{self.stem}-{number:05d}-of-{self.parts:05d}{self.ending}" for number in range(1, self.parts + 1)]

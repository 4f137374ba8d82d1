"""Writes a conversation into a file of the user's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rbee.adapters.files import home
from rbee.errors import InvalidRequestError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.keeper.chat.dialogue import Dialogue


def save(dialogue: Dialogue, file: str, model: str, *, known: Path | None) -> Path:
    """Write it as Markdown, or as JSON into a file of that ending; returns the path.

    A file that exists is written over only if it is the `known` one, into which this chat was saved before.
    Raises InvalidRequestError or StorageError.
    """
    path = home.expanded(file).absolute()
    if path.suffix.lower() == ".json":
        text = json.dumps({"model": model, "messages": dialogue.to_messages()}, ensure_ascii=False, indent=2) + "\n"
    else:
        text = dialogue.to_markdown(model)
    try:
        with path.open("w" if path == known else "x", encoding="utf-8", errors="replace") as target:
            target.write(text)
    except FileExistsError:
        hint = "choose another name, or remove that file first"
        raise InvalidRequestError(f"{path} exists already", hint=hint, field="file", rule="a new file") from None
    except OSError as exc:
        raise StorageError(f"{path} could not be written: {exc.strerror or exc}") from exc
    return path

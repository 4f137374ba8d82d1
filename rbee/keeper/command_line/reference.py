"""Takes what a user has typed for a model: a reference, or the path of a file; suggests one if it is neither."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from rbee.adapters import model_aliases
from rbee.errors import InvalidRequestError
from rbee.keeper.command_line import known_models
from rbee.wire import model_ref
from rbee.wire.administration import alias_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Settings
    from rbee.wire.model_ref import ModelRef

MOST_SHOWN: Final = 5
"""Files of a folder that are named."""
_HUB: Final = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/")
_PAGE: Final = re.compile(r"/(?:blob|resolve|tree)/[^/]+")
"""The part between repository and file in the address of a page."""
_OTHERS: Final = ("hf:", "builtin:")


def parse(text: str, models_dir: str | os.PathLike[str] | None = None) -> ModelRef:
    """Return the reference that `text` is, or that of the file whose path it is.

    Raises InvalidRequestError, whose hint begins with what was meant, if that can be told; `models_dir` holds the
    models that have been fetched to this machine.
    """
    if (path := _path(text)) is not None:
        return _file(path, text)
    try:
        return model_ref.parse(text)
    except InvalidRequestError as exc:
        if (suggestion := known_models.near(text, models_dir) or _hub(text)) is not None:
            exc.hint = f"did you mean {model_ref.quoted(suggestion)}?\n{exc.hint}"
        raise


def chosen(text: str | None, settings: Settings) -> str:
    """Return the model that an option names, or else the settings, or else the bundled one: its reference, or a name.

    A name is left to the queen. Raises InvalidRequestError.
    """
    default = settings.defaults.model
    name = text or default or model_ref.BUILTIN
    try:
        return name if is_name(name, settings) else str(parse(name, settings.paths.models))
    except InvalidRequestError as exc:
        if text is None:
            exc.message = f"`model` under [defaults] ({default}, from {settings.source}): {exc.message}"
        if _path(name) is None:
            exc.hint = f"{exc.hint}\n`rbee models list` shows the models and aliases that there are"
        raise


def is_alias(name: str, settings: Settings) -> bool:
    """Whether the queen knows a model by this name; of one on another machine it is not known, and may be."""
    if known_models.is_reference(name):
        return False
    rest, at, _ = name.rpartition("@")
    names = (name, rest) if at else (name,)
    aliases = settings.models.aliases | model_aliases.load(settings.state_dir)
    if any(alias_names.named(one, aliases) is not None for one in names):
        return True
    return settings.queen.url is not None and _path(name) is None and alias_names.is_name(names[-1])


def is_name(name: str, settings: Settings) -> bool:
    """Whether the queen may know a model by this name: an alias, or a short one.

    Where no queen has run yet there is no model but the bundled one, and what is wrong is told before one starts.
    """
    if is_alias(name, settings):
        return True
    name = name.rpartition("@")[0] or name
    if known_models.is_reference(name) or _path(name) is not None or not alias_names.is_name(name):
        return False
    if "/" in name:  # as the hub's repositories are called, of which most are not here
        return known_models.has_part(name, settings.paths.models)
    if name.lower() in model_ref.BUILTIN_FILES:
        return True
    return os.path.exists(os.path.join(settings.state_dir, "beehives.db"))  # noqa: PTH110, PTH118


def parse_or_id(text: str, folders: Sequence[str | os.PathLike[str]] | None) -> str:
    """Return a reference as `parse` does, or a word that may be an id of a model of the first of `folders`, or another.

    None stands for another machine, whose ids are not known here. Raises InvalidRequestError.
    """
    try:
        return str(parse(text, folders[0] if folders else None))
    except InvalidRequestError:
        is_word = "/" not in text and _path(text) is None
        if is_word and (folders is None or known_models.may_be_id(text, *folders)):
            return text
        raise


def is_path(text: str) -> bool:
    """Whether this is the path of a file of this machine, which need not be there."""
    return _path(text) is not None


def _path(text: str) -> str | None:
    """Return the absolute path of a file of this machine that `text` names, or None if it is no path.

    Links in it stay: a model that is replaced by changing a link keeps its reference.
    """
    if text.startswith(_OTHERS) or not text or "\0" in text:
        return None
    rest = text.removeprefix("file:")
    if rest.startswith("//localhost/"):
        rest = rest.removeprefix("//localhost")
    rest = os.path.expanduser(rest)  # noqa: PTH111 (pathlib is slow to import)
    if rest.startswith("~/"):
        from rbee.adapters.files import home

        rest = str(home.expanded(rest))  # says why not
    path = os.path.abspath(re.sub("^/+", "/", rest))  # noqa: PTH100
    if not os.path.exists(path) and "%" in rest and text.startswith("file:/"):  # noqa: PTH110
        # As file managers and browsers write the addresses of files.
        plain = os.path.abspath(unquote(re.sub("^/+", "/", rest)))  # noqa: PTH100
        path = plain if os.path.exists(plain) else path  # noqa: PTH110
    if text.startswith(("file:", "/", "./", "../", "~")) or text in (".", ".."):
        return path
    is_address = "://" in text or _HUB.match(text) is not None
    if text.lower().endswith(".gguf") and not is_address:
        return path
    return path if os.path.isfile(path) or ("/" in text and os.path.exists(path)) else None  # noqa: PTH110, PTH113


def _file(path: str, text: str) -> ModelRef:
    """Return the reference of the file at `path`; a file of another machine may have an absolute one.

    Raises InvalidRequestError.
    """
    if os.path.isdir(path):  # noqa: PTH112
        raise _refused(f"{path} is a folder", _in_folder(path))
    is_there = os.path.isfile(path)  # noqa: PTH113
    if is_there and not path.lower().endswith(".gguf"):
        raise _refused(f"{path} has another ending", _ending(path))
    if not is_there and not text.removeprefix("file:").startswith("/"):
        if os.path.lexists(path):
            raise _refused(_no_file(path), None)
        raise _refused(f"there is no file {path} on this machine", _like(path, text))
    return model_ref.parse(f"file:{path}")


def _no_file(path: str) -> str:
    """Return what is at a path at which something is that can be no model."""
    if os.path.exists(path):  # noqa: PTH110
        return f"{path} is a pipe, a socket or a device, and no file"
    return f"{path} is a link to {os.readlink(path)}, where nothing is"  # noqa: PTH115


def _ending(path: str) -> str:
    """Return what to do about a file whose name does not end in .gguf."""
    hint = "models are GGUF files, whose names end in .gguf"
    with contextlib.suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
        if file.read(4) == b"GGUF":
            # As other programs keep them, under the hash of their content.
            hint += f", and this is one: `ln -s {model_ref.quoted(path)} ./model.gguf` gives it such a name"
    return hint


def _in_folder(path: str) -> str | None:
    names = _models_in(path)
    if not names:
        return None
    shown = " or ".join(model_ref.quoted(f"{path.rstrip('/')}/{name}") for name in names[:MOST_SHOWN])
    more = f", or one of {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"did you mean {shown}{more}?"


def _like(path: str, text: str) -> str | None:
    """Return a suggestion of a file in the same folder, or of one of the hub."""
    from difflib import get_close_matches

    folder, name = os.path.split(path)
    near = get_close_matches(name, _models_in(folder), 1, known_models.LEAST_LIKENESS)
    # ORG/REPO/FILE.gguf may be one of the hub.
    meant = os.path.join(folder, near[0]) if near else _hub(text) if text.count("/") > 1 else None  # noqa: PTH118
    return f"did you mean {model_ref.quoted(meant)}?" if meant is not None else None


def _models_in(folder: str) -> list[str]:
    try:
        names = (name for name in os.listdir(folder) if name.lower().endswith(".gguf"))  # noqa: PTH208
        paths = {name: os.path.join(folder, name) for name in names}  # noqa: PTH118
        return sorted(
            name
            for name, path in paths.items()
            if os.path.isfile(path) and known_models.is_reference(f"file:{path}")  # noqa: PTH113
        )
    except OSError:
        return []


def _refused(why: str, suggestion: str | None) -> InvalidRequestError:
    error = model_ref.refused(why)
    if suggestion is not None:
        error.hint = f"{suggestion}\n{error.hint}"
    return error


def _hub(text: str) -> str | None:
    """Return a suggestion if `text` is a repository's name or a page of the hub."""
    address = _PAGE.sub("", _HUB.sub("", text)).partition("?")[0]
    name = f"hf:{unquote(address)}"
    return name if known_models.is_reference(name) else None

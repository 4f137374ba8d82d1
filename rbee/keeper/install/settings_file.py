"""Composes the settings file of a new installation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import rbee.data

_TEMPLATE: Final = "config.toml"
_MODELS: Final = '# models_dir = "~/.local/share/rbee/models"'


def text(models: Path | None = None) -> str:
    """Return every setting with its default, commented out; `models`, if given, is set as the models' folder."""
    template = (Path(rbee.data.__path__[0]) / _TEMPLATE).read_text(encoding="utf-8")
    if models is None:
        return template
    assert _MODELS in template
    return template.replace(_MODELS, f"models_dir = {_quote(str(models))}")


def _quote(value: str) -> str:
    """Return a basic string of TOML: as in JSON, but DEL is escaped too (toml.io/en/v1.0.0#string)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Composes the settings file of a new installation."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import rbee.data
from rbee.adapters import config

_TEMPLATE: Final = "config.toml"
_MODELS: Final = '# models_dir = "~/.local/share/rbee/models"'


def text(models: Path | None = None) -> str:
    """Return every setting with its default, commented out; `models`, if given, is set as the models' folder."""
    template = (Path(rbee.data.__path__[0]) / _TEMPLATE).read_text(encoding="utf-8")
    if models is None:
        return template
    assert _MODELS in template
    return template.replace(_MODELS, f"models_dir = {config.quoted(str(models))}")

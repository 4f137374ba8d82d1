"""Changes llama.cpp's source before it is compiled; each change has a module of its own, which says what for."""

from pathlib import Path

import patch_attention
import patch_barrier
import patch_clear
from progress import StepFailed

REPLACEMENTS = {patch.FILE: patch.REPLACEMENTS for patch in (patch_barrier, patch_attention, patch_clear)}
"""File -> what stands in it once -> what takes its place."""


def apply(tree: Path) -> None:
    """Change the source of llama.cpp in `tree`. Raises StepFailed where it is not the source that this was made for."""
    changed = {tree / name: _changed(name, (tree / name).read_text("utf-8")) for name in REPLACEMENTS}
    for path, text in changed.items():
        path.write_text(text, "utf-8")


def _changed(name: str, text: str) -> str:
    for old, new in REPLACEMENTS[name].items():
        if text.count(old) != 1:
            raise StepFailed(
                f"the engine's source has changed: what build/engine_patch.py replaces is not in {name} once:\n{old}",
                "adapt the patches of build/engine_patch.py to the version in build/locks/llama.txt",
            )
        text = text.replace(old, new)
    return text

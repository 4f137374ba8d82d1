"""Changes llama.cpp's source before it is compiled; each change has a module of its own, which says what for."""

from pathlib import Path

import patch_attention
import patch_barrier
import patch_clear
import patch_panels
from progress import StepFailed

_PATCHES = (patch_barrier, patch_attention, patch_clear, patch_panels)
REPLACEMENTS = {
    name: {old: new for patch in _PATCHES if name == patch.FILE for old, new in patch.REPLACEMENTS.items()}
    for name in sorted({patch.FILE for patch in _PATCHES})
}
"""File -> what stands in it once -> what takes its place."""
ADDED = patch_panels.ADDED
"""New file -> its text."""


def apply(tree: Path) -> None:
    """Change the source of llama.cpp in `tree`. Raises StepFailed where it is not the source that this was made for."""
    changed = {tree / name: _changed(name, (tree / name).read_text("utf-8")) for name in REPLACEMENTS}
    for path, text in (changed | {tree / name: text for name, text in ADDED.items()}).items():
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

"""Copies a file into a folder, as `rbee install` does; started by tests that stop it in the middle.

python placing_child.py FOLDER SOURCE NAME
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rbee.adapters.files.atomic import AtomicFolder

folder, source, name = sys.argv[1:]
with AtomicFolder(Path(folder), lambda: None) as place:
    sys.stdout.write("holding\n")
    sys.stdout.flush()
    place.copy(Path(source), name, mode=0o755)

"""Runs a program on this machine that sees some folders of the system as a test wants them, and may write there.

/etc, /usr/local and /var/lib are in use by all of the machine while a test runs. So the program runs in a mount
namespace of its own, in which an overlay covers each of them: the machine's own files, under those of the test.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT: Final = """
set -e
layer=$1 scratch=$2
shift 2
# What is above in an overlay must not be on one itself, as a container's folders are.
mount -t tmpfs tmpfs "$scratch"
for folder in etc usr/local var/lib; do
    mkdir -p "$layer/$folder" "$scratch/upper/$folder" "$scratch/work/$folder"
    cp -a "$layer/$folder/." "$scratch/upper/$folder/"
    mount -t overlay overlay "/$folder" \
        -o "lowerdir=/$folder,upperdir=$scratch/upper/$folder,workdir=$scratch/work/$folder"
done
code=0
"$@" || code=$?
cp -a "$scratch/upper/." "$layer/"
exit $code
"""


def prefix(layer: Path, scratch: Path) -> list[str]:
    """Return what to put before a command line; `layer` holds the test's etc, usr/local and var/lib, also afterwards.

    `scratch` is an empty folder.
    """
    scratch.mkdir(exist_ok=True)
    become = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", *become, "--", "sh", "-c", _SCRIPT, "sh", str(layer), str(scratch)]


def why_not(layer: Path, scratch: Path) -> str | None:
    """Say why no program can be run so here; None where one can."""
    try:
        done = subprocess.run([*prefix(layer, scratch), "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "needs unshare(1)"
    return None if done.returncode == 0 else f"needs mount namespaces and overlays: {' '.join(done.stderr.split())}"

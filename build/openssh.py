"""Makes sure that OpenSSH's server is installed: the tests start their own, on loopback addresses."""

import os
import shutil
import subprocess

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PACKAGE = "openssh-server"


def ensure() -> str | None:
    """Installs the server with apt if it is missing; returns what the user has to do, or None if it is there."""
    if shutil.which("sshd", path=PATH):
        return None
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "the tests need OpenSSH's server: apt install openssh-server (Debian, Ubuntu; dnf on Fedora)"
    print(f"installing {PACKAGE} with apt", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["-y", "install", "--no-install-recommends", PACKAGE]):
        command = ["apt-get", "-q", *words]
        done = subprocess.run(command, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return f"apt could not install {PACKAGE}: {' '.join(last)}"
    return None

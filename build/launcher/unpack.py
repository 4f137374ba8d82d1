"""Unpacks the zipapp into the user's cache folder, or restores what is missing there."""

import contextlib
import errno
import fcntl
import io
import os
import re
import shutil
import time
import zipfile

PREFIX = "site-packages/"
BUILD_NAME = re.compile(r"[0-9a-f]{16}")
TURN_SECONDS = 3600
"""A build that is wanted again so soon after another one took its place is used in turn with that."""


def unpack(file, archive_size, root, home):
    """Completes `home`. Returns None, or in one line why that failed.

    `file` begins with the archive that shiv packed, `archive_size` bytes long. Several processes may do this at once:
    the first one unpacks, the others wait for it.
    """
    with open(file, "rb") as whole:
        archive = zipfile.ZipFile(io.BytesIO(whole.read(archive_size)))
    members = [member for member in archive.infolist() if member.filename.startswith(PREFIX)]
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        if os.stat(root).st_uid not in (0, os.geteuid()):
            return advise(root, "it belongs to another user")
        if os.statvfs(root).f_flag & os.ST_NOEXEC:
            return advise(root, "programs may not be run from there (it is mounted noexec)")
        with open(os.path.join(root, ".lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.isdir(home):
                fill(archive, members, home)
            else:
                write_new(archive, members, root, home)
            note_turns(root, home)
            remove_old(root, home)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = sum(member.file_size for member in members) >> 20
            return advise(root, "the disk is full (%d MB are needed)" % (size + 1))
        return advise(root, os.strerror(error.errno) if error.errno else str(error))
    return None


def tidy(root, home):
    """Removes what other builds have left, unless a process runs from it, or another one unpacks just now."""
    with contextlib.suppress(OSError), open(os.path.join(root, ".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_unfinished(root)
        remove_old(root, home)


def advise(root, reason):
    """One line: what failed, why, and what to do."""
    return "cannot unpack into %s: %s; set RBEE_CACHE to a folder that can be used" % (root, reason)


def write_new(archive, members, root, home):
    """Unpacks into a folder beside `home` and renames it, so that `home` is never incomplete."""
    remove_unfinished(root)
    fresh = os.path.join(root, ".new-%d" % os.getpid())
    try:
        os.mkdir(fresh, 0o700)
        fill(archive, members, fresh)
        os.rename(fresh, home)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def remove_unfinished(root):
    """Removes the folders of processes that died: nobody else unpacks while we hold the lock."""
    for name in os.listdir(root):
        if name.startswith(".new-"):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)


def fill(archive, members, home):
    """Writes each file that is missing or has the wrong size. The others stay: a running process may have them open."""
    folders = set()
    for member in members:
        path = os.path.join(home, member.filename)
        folder = os.path.dirname(path)
        if folder not in folders:
            # Python would make __pycache__ later, and by that change the time of the folder.
            os.makedirs(os.path.join(folder, "__pycache__"), exist_ok=True)
            folders.add(folder)
        with contextlib.suppress(OSError):
            if os.stat(path).st_size == member.file_size:
                continue
        partial = path + ".new"
        with open(partial, "wb") as target:
            target.write(archive.read(member))
        os.rename(partial, path)
    with open(os.path.join(home, "lock"), "a"):
        pass
    write_folders(home)


def write_folders(home):
    """Records each folder's time of change, by which the next start sees that nothing was removed."""
    lines = []
    for folder, subfolders, _files in os.walk(os.path.join(home, PREFIX)):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        lines.append("%d %s\n" % (os.stat(folder).st_mtime_ns, os.path.relpath(folder, home)))
    partial = os.path.join(home, "folders.new")
    with open(partial, "w") as folders:
        folders.writelines(sorted(lines))
    os.rename(partial, os.path.join(home, "folders"))


def note_turns(root, home):
    """Notes by the time of `.turns` that a build was unpacked which had been removed a moment ago."""
    if is_recent(os.path.join(root, ".was-" + os.path.basename(home))):
        with contextlib.suppress(OSError), open(os.path.join(root, ".turns"), "a") as turns:
            os.utime(turns.fileno())


def is_recent(path):
    """Whether a file was written within the time of a turn."""
    try:
        return abs(time.time() - os.stat(path).st_mtime) < TURN_SECONDS
    except OSError:
        return False


def remove_old(root, home):
    """Removes all other builds, and none that a process is running from: a later start does that.

    Of two that are used in turn the other one stays: 70 MB would be written at each start. `.was-…` tells of a removal.
    """
    others = [name for name in os.listdir(root) if BUILD_NAME.fullmatch(name) and name != os.path.basename(home)]
    others.sort(key=lambda name: os.stat(os.path.join(root, name)).st_mtime)
    if is_recent(os.path.join(root, ".turns")):
        others = others[:-1]
    for name in os.listdir(root):
        if name.startswith(".was-") and not is_recent(os.path.join(root, name)):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(root, name))
    for name in others:
        build = os.path.join(root, name)
        lock = os.path.join(build, "lock")
        # In use, or on a file system without locks, where that cannot be told.
        with contextlib.suppress(OSError), open(lock) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(lock)
            shutil.rmtree(build, ignore_errors=True)
            with open(os.path.join(root, ".was-" + name), "a") as gone:
                os.utime(gone.fileno())

"""Starts rbee from the zipapp: turns away what it cannot run on, and enters the unpacked package.

This runs at every start. Old Pythons must be able to parse it, so that it can report that they are too old.

A file that has gone from the unpacked folder is noticed by a look at the folders alone: `folders` lists each with its
time of change. What Python itself adds goes into __pycache__ folders, which are not listed.
"""

import os
import sys

# Filled in by build/zipapp.py.
BUILD_ID = "@BUILD_ID@"
ARCHIVE_SIZE = int("@ARCHIVE_SIZE@")
GLIBC = "@GLIBC@"
TURN_SECONDS = 3600  # as in unpack.py


def main():
    """Runs the role that the arguments name; returns the exit code."""
    misfit = find_misfit()
    if misfit:
        sys.stderr.write(
            "rbee: CPython 3.11 to 3.14 on x86-64 Linux with glibc %s or newer is needed; this is %s\n"
            % (GLIBC, misfit)
        )
        return 1
    cache = cache_folder()
    if cache is None:
        sys.stderr.write(
            "rbee: there is no home folder: HOME is not set, and user %d has no entry in /etc/passwd\n"
            "hint: set HOME; or RBEE_CACHE for rbee's program and RBEE_HOME for its state, to folders that can be "
            "written\n" % os.getuid()
        )
        return 1
    root = os.path.join(cache, "pyz")
    home = os.path.join(root, BUILD_ID)
    try:
        if not is_whole(home) or hold(home) is None:
            import unpack

            problem = unpack.unpack(sys.path[0], ARCHIVE_SIZE, root, home)
            if problem:
                sys.stderr.write("rbee: %s\n" % problem)
                return 1
            hold(home)
        elif has_unused(root):
            import unpack

            unpack.tidy(root, home)
        # The name it was called by stays: the links to the file are roles.
        sys.argv[0] = os.path.abspath(sys.argv[0])
        sys.path[0] = os.path.join(home, "site-packages")
        # The folder is ours to fill, whatever PYTHONDONTWRITEBYTECODE says: without compiled modules each daemon of a
        # cold start compiles all of them again, and that takes 4.1 s instead of 1.5 s.
        sys.dont_write_bytecode = False
        from rbee.entry import main as enter
    except KeyboardInterrupt:
        sys.stderr.write("\nCancelled.\n")
        return 130
    return enter()


def find_misfit():
    """Names this Python and platform if the file's extension modules and engine cannot run on them."""
    implementation = getattr(sys, "implementation", None)
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(getattr(implementation, "name", "cpython"), "another Python")
    version = "%s %d.%d" % ((name,) + tuple(sys.version_info[:2]))
    if name != "CPython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return version
    if "t" in getattr(sys, "abiflags", ""):
        return version + " (free-threaded)"
    if not sys.platform.startswith("linux"):
        return "%s on %s" % (version, sys.platform)
    machine = os.uname()[4]
    if machine != "x86_64" or sys.maxsize < 2**32:
        return "%s on %s%s" % (version, machine, "" if sys.maxsize > 2**32 else ", 32 bits")
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        library = ""
    if not library.startswith("glibc "):
        return version + " on Linux without glibc"
    found = tuple(int(part) for part in library.split()[1].split(".")[:2])
    if found < tuple(int(part) for part in GLIBC.split(".")):
        return "%s on %s" % (version, library)
    return None


def cache_folder():
    """The cache folder, which rbee fills and the user may empty; None where there is no home folder for it."""
    own = os.environ.get("RBEE_CACHE")
    if own:
        # For the daemons too, which work in another folder and must find the same one.
        own = os.environ["RBEE_CACHE"] = os.path.abspath(own)
        return own
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # to be ignored, says the XDG base directory specification
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            import pwd

            try:
                home = pwd.getpwuid(os.getuid()).pw_dir
            except KeyError:
                return None
        base = os.path.join(home, ".cache")
    return os.path.join(base, "rbee")


def is_whole(home):
    """Whether `home` holds all of the file's content, unpacked, with nothing removed since, and it may be executed."""
    try:
        with open(os.path.join(home, "folders")) as folders:
            for line in folders:
                changed, folder = line.rstrip("\n").split(" ", 1)
                if os.stat(os.path.join(home, folder)).st_mtime_ns != int(changed):
                    return False
        return not os.statvfs(home).f_flag & os.ST_NOEXEC
    except (OSError, ValueError):
        return False


def has_unused(root):
    """Whether another build's folder is there that no process runs from: an upgrade left it, whose daemons have ended.

    It costs a look at the folder's names, and a lock for each other build.
    """
    import fcntl
    import time

    try:
        # Two builds are used in turn: as long as that lasts, unpack.py keeps both.
        if abs(time.time() - os.stat(os.path.join(root, ".turns")).st_mtime) < TURN_SECONDS:
            return False
    except OSError:
        pass
    try:
        names = os.listdir(root)
    except OSError:
        return False
    for name in names:
        if name.startswith(".new-"):
            return True
        if name not in (BUILD_ID, ".lock"):
            try:
                with open(os.path.join(root, name, "lock")) as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # it is in use, or none of ours
            return True
    return False


def hold(home):
    """Keeps `home` from being removed while this process runs; None if its removal has begun."""
    import fcntl

    try:
        handle = os.open(os.path.join(home, "lock"), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        return handle  # a file system without locks: then nothing is removed from it either
    if os.fstat(handle).st_nlink == 0:
        os.close(handle)
        return None
    return handle


if __name__ == "__main__":
    sys.exit(main())

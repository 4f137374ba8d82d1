#!/usr/bin/env python3
"""Runs rbee from a checkout: makes .venv on first use, then hands over to rbee.entry.

Old Pythons must be able to parse this file, so that it can report that they are too old.
"""

import os
import sys

ROOT = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.join(ROOT, ".venv")


def main():
    """Runs the role that the arguments name; returns the exit code."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return refuse("CPython 3.11 to 3.14 is needed; this is Python %d.%d" % sys.version_info[:2])
    if not sys.platform.startswith("linux"):
        return refuse("Linux is needed; this is %s" % sys.platform)
    if os.path.realpath(sys.prefix) == VENV:
        return run()
    return hand_over()


def refuse(message):
    """Reports in one line what rbee needs instead."""
    sys.stderr.write("rbee: %s\n" % message)
    return 1


def hand_over():
    """Replaces this process by .venv's Python running this file; makes .venv first if needed."""
    sys.path.insert(0, os.path.join(ROOT, "build"))
    import stamp

    # -P: the folder of this file holds more than the package, and must not shadow libraries.
    command = [stamp.PYTHON, "-P", os.path.abspath(sys.argv[0])] + sys.argv[1:]
    if stamp.is_current():
        try:
            os.execv(stamp.PYTHON, command)
        except OSError:
            pass  # the interpreter that .venv was made from is gone: make it again
    import environment

    code = environment.set_up()
    if code == 0:
        os.execv(stamp.PYTHON, command)
    return code


def run():
    """Runs the checkout's own package in this interpreter."""
    if ROOT not in sys.path:
        sys.path.append(ROOT)
    from rbee.entry import main as enter

    return enter()


if __name__ == "__main__":
    sys.exit(main())

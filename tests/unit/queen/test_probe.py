"""What another machine reports about itself, and what follows from it."""

from __future__ import annotations

import pytest

from rbee.queen.hives.remote.probe import Machine, Python

FITS = Python("cpython", (3, 12, 4), "/usr/bin/python3.12")


def machine(**changes: object) -> Machine:
    made = Machine("/home/bee", "Linux", "x86_64", "glibc 2.36", [FITS], [])
    return made._replace(**changes)  # type: ignore[arg-type]


def test_a_machine_without_obstacles() -> None:
    assert machine().obstacles() == []
    assert machine(libc="glibc 2.34").obstacles() == []
    assert machine(libc="glibc 3.0").obstacles() == []


@pytest.mark.parametrize(
    ("changes", "words", "helps"),
    [
        ({"architecture": "aarch64"}, "Linux on aarch64", False),
        ({"system": "Darwin"}, "Darwin on x86_64", False),
        ({"libc": "glibc 2.31"}, "glibc 2.31, and rbee.pyz needs glibc 2.34 or newer", True),
        ({"libc": "glibc 2.28"}, "glibc 2.28, and rbee.pyz needs glibc 2.34 or newer", True),
        ({"libc": "glibc 2.27"}, "glibc 2.27", False),
        ({"libc": ""}, "its C library is unknown", False),
        ({"libc": "glibc 99999999999999.1"}, "its C library is glibc 9999", False),
        ({"pythons": []}, "no CPython from 3.11 to 3.14; found: none", False),
        ({"pythons": [FITS._replace(version=(3, 10, 2))] * 2}, "found: cpython 3.10.2", False),
        ({"pythons": [FITS._replace(version=(3, 15, 0))]}, "found: cpython 3.15.0", False),
        ({"pythons": [FITS._replace(implementation="pypy")]}, "found: pypy 3.12.4", False),
        ({"pythons": [FITS._replace(lacks=("sqlite3", "ssl"))]}, "cpython 3.12.4 without sqlite3 and ssl", False),
    ],
)
def test_obstacles_are_named_and_whether_a_build_there_helps(
    changes: dict[str, object], words: str, helps: bool
) -> None:
    (found,) = machine(**changes).obstacles()
    assert words in found
    assert "/" not in found, "no path of that machine"
    assert (machine(**changes).obstacles(from_source=True) == []) == helps


def test_the_newest_python_that_fits_is_taken() -> None:
    others = [(3, 9, 1), (3, 11, 2), (3, 14, 0), (3, 15, 0)]
    pythons = [FITS._replace(version=version, path=f"/{version[1]}") for version in others]
    found = machine(pythons=[*pythons, FITS._replace(implementation="pypy", version=(3, 14, 9))]).python()
    assert found is not None
    assert found.path == "/14"


def test_only_a_tilde_with_a_slash_stands_for_the_home_folder() -> None:
    assert machine().absolute("~/rbee") == "/home/bee/rbee"
    assert machine(home="/").absolute("~/rbee") == "/rbee"
    assert machine().absolute("/srv/~/rbee") == "/srv/~/rbee"


def test_backends_are_those_with_devices() -> None:
    assert (machine().backends, machine().devices) == (["cpu"], {"cpu": 1})
    cards = machine(gpus=["one", "two"])
    assert (cards.backends, cards.devices) == (["cpu", "cuda"], {"cpu": 1, "cuda": 2})

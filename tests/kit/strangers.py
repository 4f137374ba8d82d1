"""Another user of this machine, as far as the system shows: what is made in the block belongs to somebody else."""

from __future__ import annotations

import encodings.idna  # noqa: F401 (that user may not be able to read it later)
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

NOBODY: Final = 65534


@contextmanager
def as_stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have sockets that the block makes belong to another user than the test's."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    yield
    # Without root's rights it is the test that becomes somebody else, from here on.
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)

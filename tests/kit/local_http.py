"""How tests ask daemons by HTTP."""

from __future__ import annotations

from typing import Any, Final

LOCAL: Final[dict[str, Any]] = {"trust_env": False, "verify": False}
"""Options of httpx: no proxy is asked, and no certificates are read, which takes each new client 20 ms."""

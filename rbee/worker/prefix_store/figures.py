"""What the store tells Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http.metrics import Counter, Gauge

if TYPE_CHECKING:
    from rbee.worker.prefix_store.store import PrefixStore


def figures(store: PrefixStore) -> list[Gauge]:
    """Return what the store holds and has found, from any thread."""
    now = store.figures()
    return [
        Gauge(
            "rbee_worker_prefix_bytes",
            "Bytes that are kept of prompts, for this model.",
            "in",
            {"ram": now.ram_bytes, "disk": now.disk_bytes},
        ),
        Counter(
            "rbee_worker_prefix_lookups",
            "Prompts of which a beginning was kept, or none.",
            "result",
            {"hit": now.hits, "miss": now.misses},
        ),
        Counter(
            "rbee_worker_prefix_parts",
            "Parts of prompts that were read, or found damaged.",
            "from",
            {"ram": now.from_ram, "disk": now.from_disk, "damaged": now.damaged},
        ),
    ]

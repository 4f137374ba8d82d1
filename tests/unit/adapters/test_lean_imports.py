"""What libraries would import in vain is left out, and what is hardly ever needed comes when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
from rbee.adapters import lean_imports
lean_imports.arrange(serves=True)
import rbee.hive.daemon, rbee.keeper.commands.infer
from hypercorn.config import Config
from hypercorn.protocol import h11
before = [name for name in ("anyio", "h2.connection", "wsproto", "rich") if sys.modules.get(name)]
class Context: event_class = object
made = [h11.WSStream(None, Config(), Context, *[None] * 6) for _ in range(2)]
after = [name for name in ("h2.connection", "wsproto") if name in sys.modules]
print(json.dumps([before, after, [type(found).__module__ for found in made]]))
"""


def test_a_start_imports_neither_and_a_call_only_what_it_calls() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, made = json.loads(done.stdout)
    assert before == []
    assert after == ["wsproto"]
    assert made == ["hypercorn.protocol.ws_stream"] * 2

"""Libraries and variables of other programs, which must not get into the engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rbee.worker.llama.gguf_file import libraries
from tests.kit.models import make
from tests.kit.worker_child import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOAD = """
import json, os
from rbee.worker.llama import gguf_file, library
gguf_file.library()
library.load()
maps = {line.split()[-1] for line in open("/proc/self/maps") if "/lib" in line and ("ggml" in line or "llama" in line)}
names = [name for name in os.environ if name.startswith(("GGML_", "LLAMA_"))]
print(json.dumps({"maps": sorted(maps), "names": sorted(names)}))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of another program, with libraries that have the names of ours and other things in them."""
    folder = tmp_path / "foreign lib"
    folder.mkdir()
    for name in ("libggml-base.so.0", "libggml.so.0", "libllama.so.0", "libllama.so", "libggml-cpu-haswell.so"):
        shutil.copy(libraries() / "libggml-base.so.0", folder / name)
    return folder


def load(**environment: str) -> tuple[dict[str, Any], str]:
    """Load the engine in a process with these variables; returns what it has loaded, and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


def check(found: dict[str, Any]) -> None:
    assert found["maps"]
    assert [path for path in found["maps"] if not path.startswith(str(libraries()))] == []


@pytest.mark.parametrize(
    "kept", [["libggml.so.0"], ["libggml-base.so.0"], ["libllama.so.0", "libllama.so"], ["libggml-cpu-haswell.so"], []]
)
def test_libraries_in_the_path_of_the_loader_are_left_alone(foreign: Path, kept: list[str]) -> None:
    for path in foreign.iterdir():
        if kept and path.name not in kept:
            path.unlink()
    found, said = load(LD_LIBRARY_PATH=f"/nowhere:{foreign}")
    check(found)
    assert said == ""


def test_what_another_program_is_told_is_not_for_us(foreign: Path) -> None:
    variables = {
        "GGML_BACKEND_PATH": str(foreign / "libggml.so.0"),
        "LLAMA_CPP_LIB_PATH": str(foreign),
        "GGML_SCHED_DEBUG": "2",
        "GGML_CPU_DISABLE_FUSION": "1",
        "GGML_NO_BACKTRACE": "0",
        "LLAMA_ATTN_ROT_DISABLE": "1",
        "LLAMA_GRAPH_REUSE_DISABLE": "1",
        "LLAMA_ARG_CTX_SIZE": "17",
    }
    found, said = load(**variables, GGML_CUDA_VISIBLE="0", GGML_VK_VISIBLE_DEVICES="1")
    check(found)
    assert found["names"] == ["GGML_CUDA_VISIBLE", "GGML_NO_BACKTRACE", "GGML_VK_VISIBLE_DEVICES"]
    assert "are not for this program, and are ignored: " in said
    assert [name for name in variables if name not in said] == []
    assert str(foreign) not in said, "a value may be anything"


def test_a_models_header_is_read_by_our_library(foreign: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rbee", "model-header", str(make(tmp_path / "model.gguf"))],
        cwd=ROOT,
        env=os.environ | {"LD_LIBRARY_PATH": str(foreign), "LLAMA_CPP_LIB_PATH": "/nowhere"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["architecture"] == "llama"

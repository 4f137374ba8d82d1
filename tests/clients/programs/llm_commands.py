"""Simon Willison's llm, from PyPI, by its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs import MODEL, URL, run

HOME = Path(tempfile.mkdtemp(dir=os.environ["HOME"]))
CONFIGURATION = f"""\
- model_id: bee
  model_name: {MODEL!r}
  api_base: {URL}
  supports_tools: true
  supports_schema: true
- model_id: bee-text
  model_name: {MODEL!r}
  api_base: {URL}
  completion: true
"""
(HOME / "extra-openai-models.yaml").write_text(CONFIGURATION)
FEW = ("-o", "max_tokens", "10", "-o", "temperature", "0")


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        env=os.environ | {"LLM_USER_PATH": str(HOME), "OPENAI_API_KEY": "sk-none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def whole() -> str:
    text = llm("-m", "bee", "--no-stream", "Tell me of a bee.", *FEW)
    assert text.strip()
    return repr(text)


def streamed() -> str:
    text = repr(llm("-m", "bee", "Tell me of a bee.", *FEW))
    assert text == whole()
    return text


def conversation() -> str:
    return repr(llm("-m", "bee", "-c", "And then?", *FEW))


def schema() -> str:
    asked = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    asked["additionalProperties"] = False
    found = json.loads(llm("-m", "bee", "--schema", json.dumps(asked), "Where is it warm?", "-o", "max_tokens", "60"))
    assert found["city"] in ("Oslo", "Rome")
    return repr(found)


def tool() -> str:
    """Whether a small model calls a tool that it may call is open."""
    return repr(llm("-m", "bee", "-T", "llm_version", "--td", "Which version is it?", *FEW))


run(
    {
        "whole": ("a prompt, --no-stream", whole),
        "stream": ("a prompt", streamed),
        "conversation": ("--continue", conversation),
        "schema": ("--schema", schema),
        "tool": ("--tool, which the model may call", tool),
        "completions": ("a model for completions", lambda: repr(llm("-m", "bee-text", "A bee", *FEW))),
        "models": ("llm models", lambda: " ".join(llm("models", "list", "--query", "bee").split())),
    }
)

"""Measures how long a conversation of 50 messages takes to be rendered, over the process that does so.

python3 build/bench/chat_template.py        after `python3 build/test.py --setup-only`

The templates are those of llama.cpp's source. A rendering begins with the conversation as it came over the wire, and
ends with the text whose tokens the model reads: with control tokens in each message of the user, which have to be cut.
Between two of them is a pause, as between requests: the processor's caches are not those of a loop.
"""

import statistics
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

import trio  # noqa: E402

import llama  # noqa: E402
from rbee.wire.chat.conversation import ChatMessage, Conversation, TextPart, Tool, ToolCall  # noqa: E402
from rbee.worker.chat.chat import open_chat  # noqa: E402

RUNS, PAUSE = 60, 0.05
BOUND_MS = 5.0
TEMPLATES = (
    "Qwen-Qwen3-0.6B", "Qwen3-Coder", "meta-llama-Llama-3.1-8B-Instruct", "openai-gpt-oss-120b",
    "mistralai-Mistral-Nemo-Instruct-2407", "deepseek-ai-DeepSeek-V3.2", "google-gemma-4-31B-it", "GLM-4.6",
)  # fmt: skip
CONTROLS = [f"<|reserved_{number}|>" for number in range(250)] + ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]


class Vocabulary:
    """Of a model of which only the template matters."""

    tools_template, begin_text, end_text = None, "<s>", "</s>"

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def control_tokens(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(CONTROLS)}

    def end_tokens(self) -> list[int]:
        return [CONTROLS.index("<|im_end|>")]


def conversation() -> Conversation:
    """An agent's: 50 messages of about 1,000 characters, with ten tools, of which one is called in each third turn."""

    def said(role, text, **more):
        return ChatMessage(role=role, content=[TextPart(text=text)], **more)

    messages = [said("system", "You write programs. " * 100)]
    while len(messages) < 49:
        number = len(messages)
        call = ToolCall(id=f"call_{number}", name="read_file", arguments='{"path": "/src/main.py", "lines": 200}')
        messages += [
            said("user", "Why does it say <|im_end|> here?\n" + "def f(x):\n    return x < 3\n" * 40),
            said("assistant", "I look into it.", tool_calls=[call], reasoning="It must be in the file. " * 10),
            said("tool", "import sys\nfrom pathlib import Path\n" * 30, tool_call_id=call.id),
            said("assistant", "That is what ends a message. " * 35),
        ]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("path", "lines", "text")}}
    tools = [
        Tool(name=name, description="Does what it says. " * 10, parameters=schema)
        for name in ("read_file", *(f"tool_{number}" for number in range(9)))
    ]
    return Conversation(messages=[*messages[:49], said("user", "And now?")], tools=tools)


async def measure(name: str) -> tuple[float, float, float, int]:
    """Return the first rendering, the median and the least of the others, in milliseconds, and the text's length."""
    template = (llama.chat_templates() / f"{name}.jinja").read_bytes().decode()
    asked, taken = conversation(), []
    async with open_chat(Vocabulary(template)) as chat:
        for _ in range(RUNS):
            started = time.perf_counter()
            history = await chat.history(asked)
            taken.append((time.perf_counter() - started) * 1e3)
            await trio.sleep(PAUSE)
    return taken[0], statistics.median(taken[1:]), min(taken[1:]), len(history.text)


def main() -> int:
    """Print the table; returns 1 when the bound is missed."""
    sys.argv[0] = str(ROOT / "rbee" / "__main__.py")  # the program that is started for it
    print(f"{'50 messages, ms':<40} {'median':>8} {'least':>8} {'first':>8} {'characters':>11}")
    medians = []
    for name in TEMPLATES:
        first, median, least, length = trio.run(partial(measure, name))
        medians.append(median)
        print(f"{name:<40} {median:8.2f} {least:8.2f} {first:8.2f} {length:11}", flush=True)
    median = statistics.median(medians)
    verdict = "ok" if median <= BOUND_MS else "MISSED"
    print(f"{'the median template':<40} {median:8.2f}  {BOUND_MS:g}  {verdict}")
    return 0 if median <= BOUND_MS else 1


if __name__ == "__main__":
    sys.exit(main())

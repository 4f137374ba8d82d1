"""`rbee chat` as a process: on terminals of several kinds, in a pipe, and where things go wrong."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, ClassVar

import pytest

from tests.kit.emulated_terminal import PROMPT, EmulatedTerminal
from tests.kit.keeper_driver import PEER, Keeper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CTRL_C, CTRL_D, ALT_ENTER, CTRL_J, TAB, UP = "\x03", "\x04", "\x1b\r", "\n", "\t", "\x1b[A"


class Terminal(EmulatedTerminal):
    """A terminal in which a chat runs, whose peers do as `plan` says."""

    running: ClassVar[list[EmulatedTerminal]] = []

    def __init__(self, keeper: Keeper, *arguments: str, columns: int = 80, rows: int = 24, **plan: object) -> None:
        env = {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | keeper.env | {"PEER": json.dumps(plan)}
        command = [sys.executable, PEER, *(arguments or ("chat",))]
        super().__init__(command, env, columns=columns, rows=rows)
        self.running.append(self)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    keeper.env.pop("NO_COLOR", None)
    yield keeper
    while Terminal.running:
        Terminal.running.pop().kill()


def conversations(keeper: Keeper) -> list[list[tuple[str, str]]]:
    """Return the messages of each request that a worker got."""
    return [
        [(one["role"], "".join(part["text"] for part in one["content"])) for one in body["conversation"]["messages"]]
        for _, path, body in keeper.calls()
        if path == "/v1/inference"
    ]


LAST_LINE = (
    "Generated 3 tokens at 40.0 tokens/s with builtin:bee-stories on local; prompt: 12 tokens (8 cached), "
    "first token after 0.13 s"
)


def test_a_conversation(keeper: Keeper) -> None:
    answers = [["**Bees", "** hum", ".\n\n- a\n- b"], ["Yes", "."]]
    chat = Terminal(keeper, "chat", "--system", "Be brief.", answers=answers, usage={"cached_tokens": 8})
    chat.say("What do bees do?")
    shown = chat.wait("first token after 0.13 s")
    assert "> What do bees do?\nBees hum.\n\n • a\n • b\nGenerated 3 tokens at 40.0 tokens/s with" in shown
    assert " ".join(LAST_LINE.split()) in " ".join(shown.split())
    assert b"\x1b[1mBees\x1b[0m hum." in chat.raw
    chat.say("Always?")
    chat.wait("Yes.\nGenerated 2 tokens")
    chat.say("/stats")
    chat.wait("text: 5 tokens, 30.0 tokens/s")
    assert (
        "conversation: 2 questions, 14 tokens\nanswers: 2\nprompts: 24 tokens, 16 of them cached\ntext: 5" in chat.text
    )
    chat.say("/exit")
    assert chat.finish() == 0
    first = [("system", "Be brief."), ("user", "What do bees do?")]
    assert conversations(keeper) == [
        first,
        [*first, ("assistant", "**Bees** hum.\n\n- a\n- b"), ("user", "Always?")],
    ]
    assert keeper.running() == []


ROW = {
    "id": "m",
    "model_ref": "hf:o/r:Q4",
    "provider": "hf",
    "reference": "o/r",
    "variant": "Q4",
    "local_path": "/m",
    "size_bytes": 1,
    "sha256": None,
    "downloaded_at_unix": 1.0,
    "last_used_unix": None,
}
ALIAS = {"name": "coder", "target": "hf:o/r:Q4", "source": "command", "model": "hf:o/r:Q4"}


def test_commands(keeper: Keeper) -> None:
    chat = Terminal(keeper, models=[ROW], aliases=[ALIAS])
    chat.say("/regenerate")
    chat.wait("Nothing was asked yet.")
    chat.say("/hlep")
    chat.wait("rbee: there is no command /hlep\nhint: did you mean /help?")
    chat.say("/model bees")
    chat.wait("hint: did you mean builtin:bee-stories?")
    chat.say("/model")
    chat.wait("chooses another one.\n  builtin:bee-stories\n  hf:o/r:Q4\n  coder → hf:o/r:Q4\n")
    chat.wait(lambda text: text.endswith(PROMPT))
    chat.type(f"/model h{TAB}")
    chat.wait("> /model hf:o/r:Q4")
    chat.type(CTRL_C)
    chat.say("/model hf:o/r:Q4")
    chat.wait("hf:o/r:Q4 answers from now on.")
    chat.say("/system Be kind.")
    chat.wait("System prompt: Be kind.")
    chat.say("one?")
    chat.wait("Generated 3 tokens")
    chat.say("/again")
    chat.wait(lambda text: text.count("Generated 3 tokens") == 2)
    chat.say(f"/save {keeper.home}/said.md")
    chat.wait("Saved in ")
    chat.say("/clear")
    chat.wait("The conversation is cleared.")
    chat.say("/system none")
    chat.wait("There is no system prompt.")
    chat.say("two?")
    chat.wait(lambda text: text.count("Generated 3 tokens") == 3)
    chat.say(f"/save {keeper.home}/calls")
    chat.wait(lambda text: "exists already" in " ".join(text.split()))  # a long path has it wrapped
    chat.type(CTRL_D)
    assert chat.finish() == 0
    asked = [("system", "Be kind."), ("user", "one?")]
    assert conversations(keeper) == [asked, asked, [("user", "two?")]]
    assert {body["model"] for _, path, body in keeper.calls() if path == "/v2/tasks"} == {"hf:o/r:Q4"}
    assert (keeper.home / "said.md").read_text().endswith("## You\n\none?\n\n## Model\n\nOnce upon a time\n")


def test_lines_completion_and_a_history_that_outlives_the_chat(keeper: Keeper) -> None:
    chat = Terminal(keeper)
    chat.wait(PROMPT)
    chat.type(f"one\\\rtwo{ALT_ENTER}three{CTRL_J}four")
    chat.wait("> one\n  two\n  three\n  four")
    chat.type("\r")
    chat.wait("Generated 3 tokens")
    chat.say('"""')
    chat.type('five\r"""\r')
    chat.wait(lambda text: text.count("Generated 3 tokens") == 2)
    chat.wait(lambda text: text.endswith(PROMPT))
    chat.type("\x1b[200~six\nseven\x1b[201~")  # pasted: its line end sends nothing
    chat.wait("> six\n  seven")
    chat.type("\r")
    chat.wait(lambda text: text.count("Generated 3 tokens") == 3)
    chat.wait(lambda text: text.endswith(PROMPT))
    chat.type(f"/mo{TAB}")
    chat.wait("> /model")
    chat.type(f"b{TAB}")
    chat.wait("> /model builtin:bee-stories")
    chat.type(CTRL_C)
    chat.wait(lambda text: text.endswith(PROMPT))
    chat.type(CTRL_C)
    chat.wait("Ctrl+D or /exit leaves")
    chat.type(CTRL_D)
    assert chat.finish() == 0
    assert "a message, or /help" not in chat.text, "what stands where nothing is typed is gone with the line"
    questions = [conversation[-1][1] for conversation in conversations(keeper)]
    assert questions == ["one\ntwo\nthree\nfour", "five", "six\nseven"]
    assert (keeper.state / "chat_history").stat().st_mode & 0o777 == 0o600
    again = Terminal(keeper)
    again.wait(PROMPT)
    again.type(UP)
    again.wait("> six\n  seven")
    again.type(CTRL_C)
    again.say("x" * 10_001)
    again.wait("Generated 3 tokens")
    again.type(CTRL_D)
    assert again.finish() == 0
    assert "xxx" not in (keeper.state / "chat_history").read_text(), "a file that was pasted is not kept"


def test_ctrl_c_ends_the_answer_and_not_the_chat(keeper: Keeper) -> None:
    chat = Terminal(keeper, answers=[["Bees", " hum", " and"], ["More", ", and", " more."]], hang_after=2, token_s=0.1)
    chat.say("one?")
    chat.wait("Bees hum")
    chat.type(f"dropped{CTRL_C}")
    chat.wait("Stopped; /regenerate asks again.")
    chat.say("two?")
    chat.wait("More")
    chat.type("typed ahead\r")
    chat.wait(lambda text: text.count("more.\nGenerated 3 tokens") == 2)
    chat.say("/exit")
    assert chat.finish() == 0
    assert "dropped" not in chat.text
    assert chat.text.count("typed ahead") == 1, "what is typed meanwhile is shown when it is its turn"
    first = [("user", "one?"), ("assistant", "Bees hum"), ("user", "two?")]
    answer = ("assistant", "More, and more.")
    assert conversations(keeper)[1:] == [first, [*first, answer, ("user", "typed ahead")]]
    assert [path for method, path, _ in keeper.calls() if method == "DELETE" and path.startswith("/v1/inference/")]
    assert keeper.running() == []


FIRE = [500, "INTERNAL_ERROR", "the engine is on fire", {}]
OVERFLOW = [
    *(400, "INVALID_REQUEST", "prompt is too long: 5000 tokens > 4096 maximum"),
    {"field": "prompt", "kind": "context_length_exceeded", "tokens": 5000, "context": 4096},
]


def test_an_error_does_not_end_the_chat_and_the_turn_can_be_tried_again(keeper: Keeper) -> None:
    chat = Terminal(keeper, failures=[FIRE, OVERFLOW])
    chat.say("one?")
    chat.wait("rbee: the engine is on fire")
    chat.wait("/regenerate asks again")
    chat.say("/regenerate")
    chat.wait(
        "rbee: the conversation is longer than the model's context of 4096 tokens\nhint: a shorter question takes"
    )
    chat.say("/retry")
    chat.wait("Once upon a time\nGenerated 3 tokens")
    chat.say("/exit")
    assert chat.finish() == 0
    assert conversations(keeper) == [[("user", "one?")]] * 3


def test_a_queen_that_ends_meanwhile_is_followed_by_another(keeper: Keeper) -> None:
    chat = Terminal(keeper, leaves="before")
    chat.say("one?")
    chat.wait("rbee: ")
    chat.say("/stats")
    chat.wait("conversation: 1 question")
    chat.type(CTRL_D)
    assert chat.finish() == 0
    assert len([path for _, path, _ in keeper.calls() if path == "/v2/tasks"]) >= 2
    assert keeper.running() == []


def test_what_the_model_thinks_is_dimmed(keeper: Keeper) -> None:
    chat = Terminal(keeper, thoughts=["Hm,", " bees."], usage={"reasoning_tokens": 2})
    chat.say("one?")
    chat.wait("Hm, bees.\n\nOnce upon a time\nGenerated")
    assert b"\x1b[2mHm,\x1b[0m\x1b[2m bees.\x1b[0m" in chat.raw
    chat.say("/stats")
    chat.wait("thinking: 2 tokens of those")
    chat.type(CTRL_D)
    assert chat.finish() == 0


@pytest.mark.parametrize("columns", [24, 40, 100])
def test_it_fits_narrow_terminals_which_may_change_their_size(keeper: Keeper, columns: int) -> None:
    answer = ["The **queen** of 蜜蜂 lays eggs", " in the hive all day long", ".\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"]
    chat = Terminal(keeper, columns=columns, rows=12, answers=[answer])
    chat.say("What do bees do all day long in their hive?")
    shown = chat.wait("0.13 s")
    assert " 1  2" in shown
    assert "of 蜜" in shown
    words = " ".join(shown.replace("\n", " ").split())
    assert "builtin:bee-stories on local; prompt: 12 tokens at 120.0 tokens/s, first token after 0.13 s" in words
    chat.resize(50, 12)
    chat.say("/help")
    chat.wait("begin a message that begins with a slash")
    chat.type(CTRL_D)
    assert chat.finish() == 0


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"LANG": "C", "LC_ALL": "C"}])
def test_other_terminals(keeper: Keeper, env: dict[str, str]) -> None:
    keeper.env |= env
    evil = "\x1b[2J\x1b]0;title\x07**bee**"
    chat = Terminal(keeper, answers=[["Süß: ", evil]], thoughts=["Hm."])
    chat.say("Grüße?")
    chat.wait("Generated 2 tokens")
    assert "Süß: �[2J�]0;title�" in chat.text
    assert "\x1b]0;" not in chat.raw.decode()
    is_plain = "LANG" not in env
    assert ("**bee**" in chat.text) is is_plain
    assert ("(thinking) Hm." in chat.text) is is_plain
    if "TERM" in env:
        assert b"\x1b" not in chat.raw
    chat.say('"""')
    chat.type('two\rlines"""\r')
    chat.wait(lambda text: text.count("Generated 2 tokens") == 2)
    chat.type(CTRL_D)
    assert chat.finish() == 0
    assert [conversation[-1][1] for conversation in conversations(keeper)] == ["Grüße?", "two\nlines"]


def test_ctrl_c_on_a_terminal_that_can_do_nothing_drops_the_line(keeper: Keeper) -> None:
    keeper.env["TERM"] = "dumb"
    chat = Terminal(keeper, hang_after=1)
    chat.wait(lambda text: text.endswith(">"))
    chat.type(CTRL_C)
    chat.wait("> ^C\n>")
    chat.type("one?\r")
    chat.wait("Once")
    chat.type(CTRL_C)
    chat.wait("Stopped")
    chat.type(CTRL_D)
    assert chat.finish() == 0


def test_each_line_of_a_pipe_is_a_message_and_the_answers_are_plain(keeper: Keeper) -> None:
    data = b'one?\n\n"""\ntwo\nlines\n"""\n/exit\nthree?\n'
    code, out, err = keeper.run("chat", data=data, answers=[["\n**A**", "\x1b[1m"], ["B"]], thoughts=["Hm."])
    assert (code, out) == (0, "**A**\x1b[1m\nB\n")
    assert "Hm." not in out + err
    assert err.count("Generated") == 2
    assert [conversation[-1][1] for conversation in conversations(keeper)] == ["one?", "two\nlines"]


def test_an_error_ends_a_chat_in_which_nobody_sits(keeper: Keeper) -> None:
    code, out, err = keeper.run("chat", data=b"one?\ntwo?\n", failures=[FIRE])
    assert (code, out) == (1, "")
    assert "rbee: the engine is on fire\n" in err
    assert len(conversations(keeper)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model", "nonsense"], 1, "rbee: model reference: a bare word names no model"),
        (["--node", "at tic"], 2, "rbee: --node: "),
        (["--model", "/nowhere/x"], 1, "rbee: model reference: "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    keeper: Keeper, arguments: list[str], code: int, said: str
) -> None:
    ended = keeper.run("chat", *arguments, data=b"one?\n")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(said)
    assert keeper.calls() == []


def test_run_answers_once_or_talks(keeper: Keeper) -> None:
    code, out, _ = keeper.run("run", "builtin:bee-stories", "why", "--seed", "1", "bees?")
    assert (code, out) == (0, "Once upon a time, the bée\nsang.\n")
    assert keeper.run("run", "builtin:bee-stories", "Review:", data=b"a diff\n").code == 0
    assert keeper.run("run", "builtin:bee-stories", data=b"what?\n").code == 0
    prompts = [body["prompt"] for _, path, body in keeper.calls() if path == "/v1/inference"]
    assert prompts == ["why bees?", "Review:\n\na diff", "what?"]
    chat = Terminal(keeper, "run", "builtin:bee-stories")
    chat.say("one?")
    chat.wait("Once upon a time\nGenerated 3 tokens")
    chat.type(CTRL_D)
    assert chat.finish() == 0


def test_quiet_leaves_what_was_asked_for(keeper: Keeper) -> None:
    code, out, err = keeper.run("chat", "--quiet", data=b"one?\n/stats\n/system Be\x1b[2J kind.\n")
    assert (code, out) == (0, "Once upon a time\n")
    assert err.startswith("model: builtin:bee-stories\nconversation: 1 question, 15 tokens\n")
    assert err.endswith("System prompt: Be�[2J kind.\n")


def test_a_signal_ends_the_chat_and_leaves_the_terminal_as_it_was(keeper: Keeper) -> None:
    chat = Terminal(keeper)
    chat.wait(PROMPT)
    chat.process.terminate()
    assert chat.finish() == 143
    assert b"\x1b[?2004l" in chat.raw, "what is pasted is text again"
    assert keeper.running() == []


def test_keys_are_kept_off_the_screen_after_ctrl_z_too(keeper: Keeper, tmp_path: Path) -> None:
    program = tmp_path / "answer.py"
    program.write_text(
        "import os, termios\n"
        "from rbee.keeper.chat.keys import unechoed\n"
        "with unechoed(lasts=True):\n"
        "    print('it answers', flush=True)\n"
        "    key = os.read(0, 1)\n"
        "    print('key', key, 'echo', termios.tcgetattr(0)[3] & termios.ECHO, flush=True)\n"
    )
    shell = EmulatedTerminal(["/bin/bash", "--norc", "--noprofile", "-i"], keeper.env | {"PS1": "$ "}, columns=200)
    Terminal.running.append(shell)
    shell.wait("$")
    shell.type(f"{sys.executable} {program}\r")
    shell.wait("it answers")
    shell.type("\x1a")
    shell.wait("Stopped")
    shell.type("fg\r")
    shell.wait(lambda text: text.partition("fg\n")[2].count("answer.py") == 1)
    shell.type("k")
    shell.wait("key b'k' echo 0")
    shell.wait(lambda text: text.endswith("$"))
    shell.type("exit\r")
    assert shell.finish() == 0


def test_ctrl_z_stops_it_and_it_goes_on_in_the_same_line(keeper: Keeper) -> None:
    """With the shell between, which makes the terminal its own, and another's again before that goes on."""
    env = {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | keeper.env | {"PS1": "$ "}
    shell = EmulatedTerminal(["/bin/bash", "--norc", "--noprofile", "-i"], env, columns=100)
    Terminal.running.append(shell)
    shell.wait("$")
    shell.type(f"{sys.executable} {PEER} chat\r")
    shell.wait(PROMPT)
    shell.type("half\x1a")
    shell.wait("Stopped")
    shell.type("fg\r")
    shell.wait(lambda text: text.endswith("> half"))
    shell.type(" a question\r")
    shell.wait("Once upon a time\nGenerated 3 tokens")
    shell.wait(lambda text: text.endswith(PROMPT))
    shell.type(CTRL_D)
    shell.wait(lambda text: text.endswith("$"))
    shell.type("exit\r")
    assert shell.finish() == 0
    assert conversations(keeper) == [[("user", "half a question")]]

"""Steps that run `rbee infer` and look at what it prints."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

from pytest_bdd import parsers, then, when

from features.lab.machine import find_python, letters
from features.steps.failing import ALPHABET
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from features.lab.machine import Machine
    from features.lab.seen import Seen

INVALID = b"Once \xff\xfe upon"
NUL = b"Once \x00 upon"
EVERY_OPTION = (
    *("infer", "--node", "local", "--model", "builtin:bee-stories", "--prompt", "The queen bee"),
    *("--max-tokens", "30", "--temperature", "0.9", "--backend", "cpu", "--device", "0", "--top-p", "0.9"),
    *("--top-k", "50", "--min-p", "0.02", "--seed", "7", "--stop", "THE END", "--raw"),
)


@when("the user runs infer under each CPython from 3.11 to 3.14 that is here")
def _infer_each_python(machine: Machine, seen: Seen, record_property: Callable[[str, object], None]) -> None:
    pythons = filter(None, (find_python(version) for version in ("3.11", "3.12", "3.13", "3.14")))
    seen.of_pythons = []
    for machine.python in pythons:
        done = machine.run("infer", "--prompt", "Once upon a time", "--seed", "1")
        seen.of_pythons.append((machine.python, done, machine.processes()))
        version = subprocess.run(
            [machine.python, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        record_property("cell", ("rbee.pyz infer", version, "exit code", str(done.returncode)))


@then("each printed the text and one newline, and left no process")
def _each_python(seen: Seen) -> None:
    assert seen.of_pythons
    for python, done, left in seen.of_pythons:
        assert done.returncode == 0, (python, done.stderr.decode())
        assert left == {}
    assert len({done.stdout for _, done, _ in seen.of_pythons}) == 1, "the same seed gives the same text everywhere"
    seen.done = seen.of_pythons[0][1]
    _text(seen)


@when(parsers.re(r'the user runs infer with the prompt "(?P<prompt>[^"]*)"( and (?P<count>\d+) tokens)?'))
def _infer(machine: Machine, seen: Seen, prompt: str, count: str | None) -> None:
    seen.done = machine.run("infer", "--prompt", prompt, *(() if count is None else ("--max-tokens", count)))


@when(parsers.re("the user runs infer on local with every option(, and (?P<more>--quiet|--json))?"))
def _infer_every_option(machine: Machine, seen: Seen, more: str | None) -> None:
    if hasattr(seen, "done") and not hasattr(seen, "before"):
        seen.before = seen.done
    seen.done = machine.run(*EVERY_OPTION, *([more] if more else []))


@when(parsers.parse('the user pipes "{prompt}" into infer'))
def _infer_piped(machine: Machine, seen: Seen, prompt: str) -> None:
    seen.done = machine.run("infer", stdin=prompt.encode())


@when(parsers.parse('the user runs infer with the model "{reference}"'))
def _infer_model(machine: Machine, seen: Seen, reference: str) -> None:
    seen.done = machine.run("infer", "--model", reference, "--prompt", "Hello")


@when(parsers.re("the user runs infer with (?P<what>invalid UTF-8|a NUL) (?P<way>as an argument|on standard input)"))
def _infer_no_text(machine: Machine, seen: Seen, what: str, way: str) -> None:
    prompt = NUL if what == "a NUL" else INVALID
    if way == "as an argument":
        seen.done = machine.run("infer", "--prompt", prompt)
    else:
        seen.done = machine.run("infer", stdin=prompt)


@when("the user starts infer and kills the keeper while it waits")
def _kill_keeper(machine: Machine) -> None:
    keeper = machine.start("infer", "--prompt", "Once upon a time", "--max-tokens", "400", stdout=subprocess.DEVNULL)
    wait_until(lambda: len(machine.processes()) > 2)
    keeper.send_signal(signal.SIGKILL)
    keeper.wait()


@when(parsers.parse("the user starts infer with that model and {count:d} tokens"))
def _start_infer(machine: Machine, seen: Seen, count: int) -> None:
    options = ("--prompt", "A", "--temperature", "0", "--max-tokens", str(count))
    seen.infer = machine.start("infer", "--model", seen.model, *options)


@then("the first letters are there while the worker is busy")
def _live(machine: Machine, seen: Seen) -> None:
    seen.text = letters(seen.infer, 3)
    (seen.row,) = machine.workers()
    assert seen.row["state"] == "busy"


@then(parsers.parse("infer ends with 0 and has printed {count:d} letters and one newline"))
def _whole(seen: Seen, count: int) -> None:
    stdout, stderr = seen.infer.communicate(timeout=PATIENCE)
    assert seen.infer.returncode == 0, stderr
    assert seen.text + stdout.decode() == (ALPHABET * count)[:count] + "\n"


@then("the worker is idle again")
def _idle_again(machine: Machine, seen: Seen) -> None:
    assert machine.wait_for_worker("idle")["id"] == seen.row["id"]


@then(parsers.parse("it exits with {code:d}"))
def _exits(seen: Seen, code: int) -> None:
    done = seen.done
    assert done.returncode == code, done


@then("stdout holds the text and one newline")
def _text(seen: Seen) -> None:
    text = seen.done.stdout.decode()
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert len(text.split()) > 3
    assert text.isprintable() or "\x1b" not in text


@then("the text is the same as before")
def _same(seen: Seen) -> None:
    assert seen.done.stdout == seen.before.stdout


@then("the text is the same as before, and nothing else was reported")
def _quiet(seen: Seen) -> None:
    _same(seen)
    assert seen.done.stderr == b""


@then("stdout is an object with the same text")
def _object(seen: Seen) -> None:
    found = json.loads(seen.done.stdout)
    assert found["text"] == seen.before.stdout.decode().removesuffix("\n")
    assert (found["node"], found["model"]) == ("local", "builtin:bee-stories")


@then(parsers.parse('stderr says "{words}"'))
def _stderr(seen: Seen, words: str) -> None:
    text = seen.done.stderr.decode()
    assert words in text
    assert "Traceback" not in text

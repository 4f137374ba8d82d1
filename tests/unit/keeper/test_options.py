"""How the command line is parsed."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from rbee.adapters.arguments import HelpRequest, Parser, UsageError
from rbee.keeper.command_line import command_table, habits, slips, typed
from rbee.keeper.command_line.command_table import HELP
from rbee.keeper.command_line.options import _parser, parse


def test_defaults() -> None:
    options = parse(["infer"])
    assert (options.max_tokens, options.temperature, options.raw, options.json) == (None, 0.7, False, False)
    assert (options.config, options.quiet, options.debug) == (None, False, False)
    for name in ("prompt", "model", "node", "stop", "top_p", "top_k", "min_p", "seed", "backend", "device"):
        assert getattr(options, name) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "f", "-q", "workers", "--debug", "list"],
        ["workers", "list", "--config", "f", "--quiet", "--debug"],
    ],
)
def test_general_options_stand_anywhere(arguments: list[str]) -> None:
    options = parse(arguments)
    assert (options.config, options.quiet, options.debug) == (str(Path("f").absolute()), True, True)
    assert options.module == "rbee.keeper.commands.workers_list"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run m", []),
        ("run m why do bees dance", ["why", "do", "bees", "dance"]),
        ("run m why --seed 1 do bees --temperature 0 dance", ["why", "do", "bees", "dance"]),
        ("run --seed 1 m why", ["why"]),
    ],
)
def test_the_words_of_a_prompt_stand_between_options(line: str, words: list[str]) -> None:
    options = parse(line.split())
    assert (options.model, options.words) == ("m", words)


NODE = "--ssh-port 22 --ssh-user u --ssh-key k --install-path /p --git-repo r --git-branch b"
SAMPLING = "--temperature 0.5 --top-k 4 --top-p 0.5 --min-p 0.1 --seed 1"


@pytest.mark.parametrize(
    ("least", "most"),
    [
        (
            "infer",
            f"--prompt p --model m --max-tokens 9 --stop a --stop b --raw {SAMPLING} --node n --backend cpu --json",
        ),
        ("infer", "--device 1 --wait 2.5"),
        ("status", "--watch --json"),
        ("logs", "--node n --follow --lines 3 --json"),
        ("detect", "--json"),
        ("up", ""),
        ("down", ""),
        ("token", ""),
        ("install", "--system --prefix p --systemd"),
        ("uninstall", "--system --prefix p --models --state --all"),
        ("workers list", "--json"),
        ("workers health", "--node n --json"),
        ("workers shutdown --id 01234567", "--json"),
        ("models list", "--node n --json"),
        ("models show m", "--node n --json"),
        ("models pull m", "--node n --json"),
        ("models rm i", "--node n --json"),
        ("setup add-node --name n --ssh-host h --ssh-user u", f"{NODE} --tunnel auto --accept-host-key SHA256:x"),
        ("setup update-node --name n", f"--ssh-host h {NODE} --tunnel auto --accept-host-key SHA256:x"),
        ("setup list-nodes", "--json"),
        ("setup remove-node --name n", ""),
        ("setup install --node n", "--from-source"),
        ("setup install --node n", "--rollback"),
    ],
)
def test_the_options_of_a_command_are_of_the_type_that_it_names(least: str, most: str) -> None:
    for line in (least, f"{least} {most} --config f --quiet --debug"):
        options = parse(line.split())
        hints = importlib.import_module(options.module).run.__annotations__
        types = get_type_hints(getattr(typed, next(iter(hints.values()))))
        values = {name: value for name, value in vars(options).items() if name not in ("parser", "module")}
        assert values.keys() == types.keys()
        for name, value in values.items():
            assert msgspec.convert(value, types[name], strict=True) == value


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["-q"]])
def test_without_a_command_there_is_help(arguments: list[str]) -> None:
    with pytest.raises(HelpRequest) as request:
        parse(arguments)
    assert request.value.text == HELP


def test_a_command_explains_itself() -> None:
    with pytest.raises(HelpRequest) as request:
        parse(["infer", "--help"])
    for part in ("--temperature X", "builtin:bee-stories", 'rbee infer --prompt "Once upon a time"'):
        assert part in request.value.text


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("infer", "rbee infer [options]"),
        ("workers", command_table.WORKERS_USAGE),
        ("workers shutdown", "rbee workers shutdown --id ID [options]"),
        ("models show", "rbee models show REF [options]"),
        ("models rm", "rbee models rm ID [options]"),
        ("setup add-node", "rbee setup add-node --name NAME --ssh-host HOST [options]"),
        ("setup update-node", "rbee setup update-node --name NAME [options]"),
        ("setup install", "rbee setup install (--node NAME | --all) [options]"),
    ],
)
def test_the_usage_names_what_is_required(words: str, usage: str) -> None:
    with pytest.raises(HelpRequest) as request:
        parse([*words.split(), "--help"])
    assert request.value.text.startswith(f"usage: {usage}\n\n")


@pytest.mark.parametrize(
    "words",
    [
        ["-qv", "infer"], ["infer", "-pOnce"], ["infer", "-p", "--", "-q"], ["infer", "--prompt=--node"],
        ["infer", "-mhf:a/b"], ["infer", "-p", "-"], ["infer", "--stop", "infer"], ["logs", "-fq"],
        ["--config", "infer", "infer"], ["--", "infer"],
    ],
)  # fmt: skip
def test_what_argparse_takes_is_no_slip(words: list[str]) -> None:
    with suppress(UsageError):
        assert parse(words).module
    slips.check(_parser(), words)


@pytest.mark.parametrize("text", ["01234567", "0123456A", "worker-01234567", "worker-01234567.log"])
def test_a_worker_s_id_is_taken_as_logs_and_lists_show_it(text: str) -> None:
    found = text.lower().removeprefix("worker-").removesuffix(".log")
    assert parse(["workers", "shutdown", "--id", text]).id == found


def test_every_command_is_in_the_help() -> None:
    from rbee.keeper.command_line.command_table import COMMANDS

    for name in ("workers", *(command.name for command in COMMANDS)):
        assert f"  {name} " in HELP


@pytest.mark.parametrize("room", [50, 80, 120])
def test_help_fits_the_terminal(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rbee.keeper.command_line.command_table import COMMANDS, GROUPS

    monkeypatch.setenv("COLUMNS", str(room))
    names = [*(command.name for command in COMMANDS), *(f"{g.name} {c.name}" for g in GROUPS for c in g.commands)]
    for name in names:
        with pytest.raises(HelpRequest) as request:
            parse([*name.split(), "--help"])
        sentences = request.value.text.partition("\n\n")[2].partition("\n\noptions:")[0].partition("\n\ngeneral:")[0]
        assert max(map(len, sentences.splitlines())) <= room, (name, sentences)
    assert max(map(len, HELP.splitlines())) <= 80


def test_sentences_are_filled_and_examples_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "42")
    parser = Parser(
        prog="x", description="One two three four five six seven eight\nnine. Ten:\n\n  as it is\nEnd.\nLast."
    )
    assert parser.format_help().rstrip().split("\n\n", 1)[1] == (
        "One two three four five six seven eight\nnine. Ten:\n\n  as it is\nEnd.\nLast."
    )
    monkeypatch.setenv("COLUMNS", "22")
    assert "One two three four\nfive six seven eight\nnine. Ten:\n" in parser.format_help()


def test_names_of_other_programs_lead_to_commands_that_exist() -> None:
    commands = set()
    for prog, synonyms in habits.COMMANDS.items():
        for theirs, ours in synonyms.items():
            with pytest.raises(UsageError) as error:
                parse([*prog.split()[1:], theirs])
            assert error.value.hint == f"that is `{ours}` here"
            lines = [line.removeprefix("rbee ").partition(" --")[0] for line in ours.split("; ")]
            commands |= {tuple(word for word in line.split() if not word.isupper()) for line in lines}
    for words in sorted(commands):
        with pytest.raises(HelpRequest):
            parse([*words, "--help"])


def test_options_of_other_programs_are_none_of_ours() -> None:
    for prog, options in habits.OPTIONS.items():
        for option, hint in options.items():
            with pytest.raises(UsageError) as error:
                parse([*prog.split()[1:], option])
            assert (error.value.message, error.value.hint) == (f"there is no option {option}", hint)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["infre"], "there is no command 'infre'", "did you mean `rbee infer`?"),
        (["xyzzy"], "there is no command 'xyzzy'", "`rbee --help` shows what it takes"),
        (["workers", "lst"], "there is no command 'lst'", "did you mean `rbee workers list`?"),
        (["generate", "x"], "there is no command 'generate'", "that is `rbee infer --prompt x` here"),
        (["run"], "MODEL is missing", "`rbee run --help` shows what it takes"),
        (["run", "m", "--bogus"], "there is no option --bogus", "`rbee run --help` shows what it takes"),
        (["chat", "m"], "unexpected argument 'm'", "did you mean --model m?"),
        (["stop"], "there is no command 'stop'", "that is `rbee down` here"),
        (["workers", "stop"], "there is no command 'stop'", "that is `rbee workers shutdown --id ID` here"),
        (["models", "remove", "x"], "there is no command 'remove'", "that is `rbee models rm x` here"),
        (
            ["workers"],
            "rbee workers needs a command",
            "`rbee workers list`, `rbee workers health` or `rbee workers shutdown`; "
            "`rbee workers --help` explains them",
        ),
        (["setup", "install"], "--node or --all is missing", "`rbee setup install --help` shows what it takes"),
        (["setup", "add-node", "--name", "attic"], "--ssh-host is missing", None),
        (["node", "list"], "there is no command 'node'", "that is `rbee setup list-nodes` here"),
        (["noodles"], "there is no command 'noodles'", "`rbee --help` shows what it takes"),
        (["stat"], "there is no command 'stat'", "did you mean `rbee status`?"),
        (["infer", "--max-token", "3"], "there is no option --max-token", "did you mean --max-tokens?"),
        (["infer", "--max", "5"], "there is no option --max", "did you mean --max-tokens?"),
        (["infer", "--temp=1"], "there is no option --temp=1", "did you mean --temperature?"),
        (["infer", "--top", "1"], "there is no option --top", "did you mean --top-k or --top-p?"),
        (["infer", "--promt", "a"], "there is no option --promt", "did you mean --prompt?"),
        (["infer", "--stream"], "there is no option --stream", habits.OPTIONS["rbee infer"]["--stream"]),
        (["infer", "-qx"], "there is no option -qx", "`rbee infer --help` shows what it takes"),
        (["infer", "-"], "there is no option -", "`rbee infer --help` shows what it takes"),
        (
            ["setup", "update-node", "--tunnel", "alway"],
            "there is no --tunnel 'alway'",
            "did you mean `--tunnel always`?",
        ),
        (["status", "--node", "x"], "there is no option --node", habits.OPTIONS["rbee status"]["--node"]),
        (["models", "rm", "--id", "x"], "there is no option --id", "it is an option of `rbee workers shutdown`"),
        (["status", "--lines=5"], "there is no option --lines", "it is an option of `rbee logs` and `rbee requests`"),
        (
            ["workers", "shutdown", "--all"],
            "there is no option --all",
            habits.OPTIONS["rbee workers shutdown"]["--all"],
        ),
        (
            ["--node", "attic", "infer", "-p", "x"],
            "--node stands before the command",
            "options follow it: `rbee infer --node attic`",
        ),
        (
            ["--node", "infer", "infer"],
            "--node stands before the command",
            "options follow it: `rbee infer --node infer`",
        ),
        (
            ["-p", "a b", "--node=x", "infer"],
            "-p stands before the command",
            "options follow it: `rbee infer -p 'a b' --node=x`",
        ),
        (
            ["-q", "--node", "x", "models", "list"],
            "--node stands before the command",
            "options follow it: `rbee models list --node x`",
        ),
        (
            ["workers", "--json", "list"],
            "--json stands before the command",
            "options follow it: `rbee workers list --json`",
        ),
        (
            ["setup", "--name", "x", "add-node"],
            "--name stands before the command",
            "options follow it: `rbee setup add-node --name x`",
        ),
        (["--prompt", "x"], "the command before --prompt is missing", "did you mean `rbee infer --prompt x`?"),
        (["--max_tokens", "5", "infer"], "there is no option --max_tokens", "`rbee --help` shows what it takes"),
        (["infer", "--max_tokens", "5"], "there is no option --max_tokens", "did you mean --max-tokens?"),
        (["workers", "shutdown", "01234567"], "unexpected argument '01234567'", "did you mean --id 01234567?"),
        (["setup", "install", "attic"], "unexpected argument 'attic'", "did you mean --node attic?"),
        (["setup", "remove-node", "attic"], "unexpected argument 'attic'", "did you mean --name attic?"),
        (["logs", "attic"], "unexpected argument 'attic'", "did you mean --node attic?"),
        (["infer", "-5"], "there is no option -5", "`rbee infer --help` shows what it takes"),
        (["--json", "status"], "--json stands before the command", "options follow it: `rbee status --json`"),
        (["infer", "hello"], "unexpected argument 'hello'", 'the prompt is given in quotes: --prompt "…"'),
        (["infer", "--prompt", "a", "b"], "unexpected argument 'b'", 'the prompt is given in quotes: --prompt "…"'),
        (["status", "now"], "unexpected argument 'now'", habits.WORDS["rbee status"].replace("NAME", "now")),
        *(
            (
                ["infer", "--prompt", *value],
                "--prompt: expected one argument",
                "write --prompt TEXT, or --prompt=TEXT if TEXT begins with a dash",
            )
            for value in ([], ["--hello"])
        ),
        (["infer", "-p", "a", "--prompt", "a"], "--prompt is given twice", "`rbee infer` takes one TEXT"),
        (["infer", "-m", "a", "-m", "b"], "-m is given twice", "`rbee infer` takes one REF"),
        (
            ["workers", "shutdown", "--id", "01234567", "--id=01234568"],
            "--id is given twice",
            "`rbee workers shutdown` takes one ID",
        ),
        (["logs", "--node", "a", "--node", "b"], "--node is given twice", "`rbee logs` takes one NAME"),
        (["setup", "install", "--node", "a", "--node", "b"], "--node is given twice", None),
        (["models", "push", "m.gguf", "--node", "a", "--node", "b"], "--node is given twice", None),
        (["setup", "remove-node", "--name", "a", "--name", "b"], "--name is given twice", None),
        (["workers", "shutdown", "--id", "abcd"], "--id: at least the first 8 characters of an id are expected", None),
        (["workers", "shutdown", "--id", "attic"], "--id: at least the first 8 characters of an id are expected", None),
        (
            ["workers", "shutdown", "--id", "worker-a"],
            "--id: at least the first 8 characters of an id are expected",
            None,
        ),
        (["workers", "shutdown", "--id", "builtin:bee"], "--id: digits, letters a to f and dashes are expected", None),
        (["infer", "--temperature", "nan"], "--temperature: a number from 0 to 2 is expected", None),
        (["infer", "--temperature", "2.1"], "--temperature: a number from 0 to 2 is expected", None),
        (["infer", "--top-p", "0"], "--top-p: a number above 0, at most 1, is expected", None),
        (["infer", "--max-tokens", "+5"], "--max-tokens: a whole number from 1 to 2147483647 is expected", None),
        (["infer", "--keep="], "the value of --keep is empty", None),
        (
            ["infer", "--max-tokens", "0"],
            "--max-tokens: a whole number from 1 to 2147483647 is expected; without it there is no limit",
            None,
        ),
        (["infer", "--max-tokens", "1_0"], "--max-tokens: a whole number from 1 to 2147483647 is expected", None),
        (["infer", "--seed", "-1"], "--seed: a whole number from 0 to 4294967294 is expected", None),
        (["infer", "--device", "٣"], "--device: a whole number from 0 to 1023 is expected", None),
    ],
)
def test_wrong_usage_is_reported_in_one_form(arguments: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as error:
        parse(arguments)
    assert error.value.message == message
    assert error.value.hint == hint or hint is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172_800), ("forever", 315_360_000)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert parse(["infer", "--keep", text]).keep == seconds
    assert parse(["up", f"--keep={text}"]).keep == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "h 1", "1w", "1 week", "1e3", "nan", "inf", "3651d", "٣m", "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["infer", f"--keep={text}"])
    assert f"--keep: '{text}' is no time: seconds, or for example 90s, 30m, 2h, 1d or forever" in str(caught.value)

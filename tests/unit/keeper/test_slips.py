"""What users type by habit, in another order, or with a part missing, is answered with what was meant."""

from __future__ import annotations

import shlex

import pytest

from rbee.adapters.arguments import Parser, UsageError, read
from rbee.keeper.command_line.options import parse

ALL = "`rbee status` shows all nodes"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ps -a", "that is `rbee workers list` here"),
        ("pull llama3.2:1b", "that is `rbee models pull REF` here"),
        ("pull hf.co/bees/model:Q4_K_M", "that is `rbee models pull hf:bees/model:Q4_K_M` here"),
        ("serve --port 9000", "that is `rbee up` here"),
        ("stop llama3.2", "that is `rbee workers shutdown --id ID` here; `rbee workers list` shows the ids"),
        ("stop", "that is `rbee down` here"),
        ("rm llama3.2", "that is `rbee models rm llama3.2` here"),
        ("show builtin:bee-stories", "that is `rbee models show builtin:bee-stories` here"),
        ("cp a b", "a model is used from where it is: `rbee infer --model ./FILE.gguf`"),
        ("create m -f Modelfile", "a model is a GGUF file, and needs no recipe: `rbee infer --model ./FILE.gguf`"),
        ("push m.gguf", "that is `rbee models push m.gguf --node NAME` here"),
        ("node list", "that is `rbee setup list-nodes` here"),
        ("nodes ls", "that is `rbee setup list-nodes` here"),
        ("node add attic", "that is `rbee setup add-node --name attic --ssh-host HOST` here"),
        ("node rm attic", "that is `rbee setup remove-node --name attic` here"),
        ("remove node attic", "that is `rbee setup remove-node --name attic` here"),
        ("add node attic", "that is `rbee setup add-node --name attic --ssh-host HOST` here"),
        ("list nodes", "that is `rbee setup list-nodes` here"),
        ("list workers", "that is `rbee workers list` here"),
        ("show models", "that is `rbee models list` here"),
        ("worker list", "that is `rbee workers list` here"),
        ("worker kill 01234567", "that is `rbee workers shutdown --id 01234567` here"),
        ("model pull hf:o/r", "that is `rbee models pull hf:o/r` here"),
        ("model rm x", "that is `rbee models rm x` here"),
        ("kill llama", "that is `rbee workers shutdown --id ID` here"),
        ("update", "`rbee install`, run from the new file, updates this machine; `rbee setup install --all` the nodes"),
        ("search llama", "models are found on huggingface.co: `rbee models pull hf:ORG/REPO`"),
        (
            "--node attic status",
            f"{ALL}; `rbee workers health --node NAME` shows the workers of one node",
        ),
        (
            "status attic",
            f"{ALL}; `rbee workers health --node attic` shows the workers of one node",
        ),
        ("workers list attic", "`rbee workers health --node attic` shows the workers of one node"),
        ("workers shutdown attic", "`rbee workers list` shows the ids of the workers"),
        ("install attic", "`rbee setup install --node attic` installs rbee on a node"),
        ("install --all", "`rbee setup install --all` installs rbee on all nodes"),
        ("detect --all", "`rbee detect` shows all of this machine"),
        ("down attic", "`rbee down` ends everything that the queen started, on all nodes"),
        ("setup add-node bee@attic", "did you mean --ssh-host bee@attic?"),
        ("setup add-node --name attic 192.168.1.5", "did you mean --ssh-host 192.168.1.5?"),
        ("models push m.gguf attic", "did you mean --node attic?"),
        ("models push attic m.gguf", "did you mean `rbee models push m.gguf --node attic`?"),
        ("models pull hf:a/b hf:c/d", "one at a time: `rbee models pull hf:c/d` is another command"),
        ("up --keep 5 minutes", "write --keep 5minutes"),
        ("status --watch 2", "--watch takes no value"),
        ("infer -p x --model=", "maybe it is that of a shell's variable which is not set"),
        ("infer -p x --node ''", "maybe it is that of a shell's variable which is not set"),
        ("infer --node --prompt x", "write --node NAME, or --node=NAME if NAME begins with a dash"),
    ],
)
def test_what_was_meant_is_said(line: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(shlex.split(line))
    assert caught.value.hint == hint


COUNT = "--max-tokens: a whole number from 1 to 2147483647 is expected"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max-tokens 5k", f"{COUNT}; did you mean 5000?"),
        ("--max-tokens=1,000", f"{COUNT}; did you mean 1000?"),
        ("--max-tokens -1", f"{COUNT}; without it there is no limit"),
        ("--max-tokens unlimited", f"{COUNT}; without it there is no limit"),
        ("--max-tokens ten", COUNT),
        ("--temperature 0,7", "--temperature: a number from 0 to 2 is expected; did you mean 0.7?"),
        ("--top-p 90%", "--top-p: a number above 0, at most 1, is expected; did you mean 0.9?"),
        ("--temperature hot", "--temperature: a number from 0 to 2 is expected"),
        ("--seed 0x10", "--seed: a whole number from 0 to 4294967294 is expected; did you mean 16?"),
        ("--device cpu:0", "--device: the index alone is expected: --backend cpu --device 0"),
        ("--device cuda", "--device: the index of a device is expected; --backend cuda chooses a backend"),
        ("--device 0,1", "--device: a whole number from 0 to 1023 is expected"),
        ("--wait 2h", "--wait: 0 to 3600 seconds are expected, or for example 90s or 10m"),
        ("--raw=yes", "--raw takes no value, and was given 'yes'"),
        ("--model=", "the value of --model is empty"),
    ],
)
def test_a_number_in_another_form_is_named_as_it_is_written_here(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(["infer", "-p", "x", *line.split()])
    assert caught.value.message == message


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("10m", 600), ("1h", 3600), ("5 min", 300), ("0", 0)])
def test_times_may_have_units(text: str, seconds: float) -> None:
    options = parse(["infer", "--wait", text, "--keep", text, "--backend", "CPU"])
    assert (options.wait, options.keep, options.backend) == (seconds, seconds, "cpu")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["start"], "`rbee queen` alone runs in the foreground; `rbee up` starts a queen in the background"),
        (["stop"], "`rbee down` ends the queen that runs in the background"),
        (["restart"], "`rbee down; rbee up` does it"),
        (["status"], "`rbee status` shows what runs"),
        (["now"], "`rbee queen --help` shows what it takes"),
    ],
)
def test_a_daemon_is_no_service_to_be_started_by_a_word(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(Parser(prog="rbee queen"), words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rbee: unexpected argument '{words[0]}'\nhint: {hint}")

"""What is shown when, what ends an answer, and what is thought."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.wire.chat.answer import TextDelta, ToolCallBegan, ToolCallDelta
from rbee.worker.output.families import ModelFamily, families
from tests.kit.joined_answers import Joined, bytewise, meant, numbered, parse, tool

FAMILIES = {family.name: family for family in families()}
HERMES, CODER = FAMILIES["hermes"], FAMILIES["qwen3-coder"]
TOOLS = [tool("write", path={"type": "string"}, text={"type": "string"}, mode={"type": "integer"}), tool("now")]
NOW = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'


def read(family: ModelFamily, written: str, **options: Any) -> Joined:
    whole = parse(family, [written], TOOLS, **options)
    assert parse(family, written, TOOLS, **options) == parse(family, bytewise(written), TOOLS, **options) == whole
    return whole


def shown(family: ModelFamily, *pieces: str, **options: Any) -> list[list[str]]:
    """Return what is shown after each piece, and at the end."""
    parser = family.parser(TOOLS, new_id=numbered, **options)
    events = [*(parser.feed(piece) for piece in pieces), parser.finish()]
    return [[str(getattr(event, "arguments", getattr(event, "text", "")) or "call") for event in row] for row in events]


def test_text_is_held_back_only_while_it_may_be_a_marker() -> None:
    assert shown(HERMES, "Once", " upon", " a <", "b>", " <tool", "s", " <tool_call", "x") == [
        ["Once"],
        [" upon"],
        [" a"],
        [" <b>"],
        [],
        [" <tools"],
        [],
        [" <tool_callx"],
        [],
    ]


def test_json_is_told_to_be_none_as_soon_as_that_is_sure() -> None:
    assert shown(HERMES, "{", '"title"', ': "x"', "}") == [[], [], ['{"title": "x"'], ["}"], []]


def test_arguments_are_passed_on_while_they_are_written() -> None:
    pieces = [
        '<tool_call>\n{"name": "wri',
        'te", "arguments": {',
        '"path": ',
        '"a\\',
        'nb"',
        ', "mode": 1',
        "2}",
        "}",
        "</tool_call>",
    ]
    assert shown(HERMES, *pieces) == [
        [],
        [],
        ["call", '{"path": '],
        ['"a'],
        ['\\nb"'],
        [', "mode": '],
        ["12}"],
        [],
        [],
        [],
    ]
    pieces = [
        "<tool_call>\n<function=write>\n<parameter=path>",
        "\nab",
        "c\n",
        "d",
        "\n</para",
        "meter>\n",
        "<parameter=mode>\n1",
        "2\n</parameter>\n</function>",
    ]
    assert shown(CODER, *pieces) == [
        ["call", "{"],
        ['"path": "ab'],
        ["c"],
        ["\\nd"],
        [],
        [],
        ['", '],
        ['"mode": 12}'],
        [],
    ]


def test_the_pieces_are_events_of_the_choice() -> None:
    parser = HERMES.parser(TOOLS, choice=3, new_id=numbered)
    assert parser.feed(f"Well {NOW}") == [
        TextDelta(choice=3, text="Well"),
        ToolCallBegan(choice=3, index=0, id="call_0", name="now"),
        ToolCallDelta(choice=3, index=0, arguments="{}"),
    ]
    assert parser.calls == 1


def test_thoughts() -> None:
    assert read(HERMES, "<think>\nso\n\n</think>\n\nWell") == [("reasoning", "so"), ("text", "Well")]
    assert read(HERMES, "\n<think>\n\n</think>\n\nWell") == [("text", "Well")]
    assert read(HERMES, "so\n</think>\nWell", forced_open=True) == [("reasoning", "so"), ("text", "Well")]
    assert read(HERMES, "<think>so</think>Well", forced_open=True) == [("reasoning", "so"), ("text", "Well")]
    assert read(HERMES, "</think>\n\nWell") == [("text", "Well")]
    assert read(HERMES, "so, to the", forced_open=True) == [("reasoning", "so, to the")]
    assert meant(read(HERMES, f"so</think>{NOW}", forced_open=True)) == [("reasoning", "so"), ("now", {})]


def test_white_space_before_a_call_is_shown_if_text_goes_on_behind_it() -> None:
    parts = meant(read(HERMES, f"a\n\n{NOW}\n{NOW} b{NOW}c \n"))
    assert parts == [("text", "a"), ("now", {}), ("now", {}), ("text", "\n\nb"), ("now", {}), ("text", "c \n")]
    assert meant(read(HERMES, f"\n{NOW}\n")) == [("now", {})]


def test_a_call_that_is_only_thought_of_is_none() -> None:
    written = f"I could write {NOW}, or not.</think>Well"
    assert read(HERMES, written, forced_open=True) == [
        ("reasoning", f"I could write {NOW}, or not."),
        ("text", "Well"),
    ]
    assert read(HERMES, f"so {NOW}</think>", forced_open=True) == [("reasoning", f"so {NOW}")]


@pytest.mark.parametrize("end", ["", "\n"])
def test_thoughts_that_end_with_a_call_mean_it(end: str) -> None:
    assert meant(read(HERMES, f"so\n{NOW}\n{NOW}{end}", forced_open=True)) == [
        ("reasoning", "so"),
        ("now", {}),
        ("now", {}),
    ]
    half = '<tool_call>{"name": "write", "arguments": {"path": "a'
    assert read(HERMES, f"so {half}", forced_open=True) == [("reasoning", f"so {half}")]
    coder = "<tool_call><function=write><parameter=path>a</parameter></function></tool_call>"
    assert meant(read(CODER, f"so {coder}{end}", forced_open=True)) == [("reasoning", "so"), ("write", {"path": "a"})]
    assert read(CODER, "so <function=write><parameter=path>a", forced_open=True)[0][0] == "reasoning"


def test_whether_a_prompt_ends_inside_the_thoughts() -> None:
    assert HERMES.opens_thoughts("<|im_start|>assistant\n<think>\n")
    assert not HERMES.opens_thoughts("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not HERMES.opens_thoughts("What does <think> mean?<|im_start|>assistant\n")
    assert FAMILIES["gpt-oss"].opens_thoughts("<|start|>assistant<|channel|>analysis<|message|>")


def test_stop_strings_end_the_answer_and_nothing_else() -> None:
    stops = ["##", "\n\n"]
    assert read(HERMES, "<think>a ## b\n\nc</think>\n\nWell # so## and", stops=stops) == [
        ("reasoning", "a ## b\n\nc"),
        ("text", "Well # so"),
    ]
    call = '<tool_call>{"name": "write", "arguments": {"text": "##"}}</tool_call>'
    assert meant(read(HERMES, f"Well #{call}# so ## and", stops=stops)) == [
        ("text", "Well #"),
        ("write", {"text": "##"}),
        ("text", "# so "),
    ]


def test_a_stop_string_is_named_and_what_follows_is_dropped() -> None:
    parser = HERMES.parser(TOOLS, stops=["###", "##"])
    assert parser.feed("a #") == [TextDelta(text="a")]
    assert not parser.is_done
    assert parser.feed(f"# b {NOW}") == []
    assert parser.is_done
    assert parser.stop_string == "##"
    assert parser.feed("c") == []
    assert parser.finish() == [TextDelta(text=" ")]


def test_one_call_is_enough_where_only_one_is_wanted() -> None:
    parser = HERMES.parser(TOOLS, single_call=True, new_id=numbered)
    assert len(parser.feed(f"{NOW}\n{NOW} and")) == 2
    assert parser.is_done
    assert parser.finish() == []
    assert parser.stop_string is None


def test_the_channel_tells_what_the_text_belongs_to() -> None:
    parser = HERMES.parser(TOOLS)
    channels = []
    for piece in ("<think>", "so", "</think>", "Well", NOW[:50], NOW[50:], " then"):
        parser.feed(piece)
        channels.append(parser.channel)
    assert channels == ["reasoning", "reasoning", "text", "text", "call", "call", "text"]


def hermes_call(path: str, name: str = "write") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {{"path": "{path}"}}}}</tool_call>\n'


def test_a_call_that_was_made_before_ends_an_answer_that_may_not_repeat_one() -> None:
    different = hermes_call("xy") + hermes_call("xyz") + NOW
    written = different + hermes_call("xy") + hermes_call("other")
    first = [("write", {"path": "xy"}), ("write", {"path": "xyz"}), ("now", {})]
    assert meant(read(HERMES, written, unrepeated=True)) == first
    assert meant(read(HERMES, written))[3:] == [("write", {"path": "xy"}), ("write", {"path": "other"})]
    parser = HERMES.parser(TOOLS, unrepeated=True)
    parser.feed(written)
    assert (parser.is_done, parser.calls) == (True, 3)


def test_what_may_yet_be_a_repeated_call_is_held_back() -> None:
    again = '<tool_call>{"name": "write", "arguments": {"path": "x'
    pieces = [hermes_call("xy"), again, "w", '"}}</tool_call>']
    assert shown(HERMES, *pieces, unrepeated=True)[1:] == [[], ["call", '{"path": "xw'], ['"}'], []]
    assert read(HERMES, hermes_call("xy") + again, unrepeated=True) == read(HERMES, hermes_call("xy") + again)

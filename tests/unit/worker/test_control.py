"""What looks like a control token in what users write is text, wherever a template puts it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.wire.chat.template import ChatFrame
from rbee.worker.chat.control import END, MARK, ControlMarks
from rbee.worker.chat.frame import tokens as framed_tokens
from rbee.worker.output.control_tokens import ControlTokens

CONTROLS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|im_end|>|>", "[INST]", "#")
NUMBERS = {text: 1_000_000 + number for number, text in enumerate(CONTROLS)}
LONGEST_FIRST = re.compile("|".join(re.escape(text) for text in sorted(CONTROLS, key=len, reverse=True)))


class Letters:
    """A vocabulary of letters and some control tokens; `read` are the texts that it was given."""

    chat_template = tools_template = None
    begin_text, end_text = "<s>", "</s>"

    def __init__(self) -> None:
        self.read: list[tuple[str, bool]] = []

    def control_tokens(self) -> dict[str, int]:
        return dict(NUMBERS)

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        self.read.append((text, control))
        found = [NUMBERS["<s>"]] * begin
        if not control:
            return found + [ord(letter) for letter in text]
        start = 0
        for match in LONGEST_FIRST.finditer(text):
            found += [*(ord(letter) for letter in text[start : match.start()]), NUMBERS[match[0]]]
            start = match.end()
        return found + [ord(letter) for letter in text[start:]]

    def piece(self, token: int, *, control: bool = False) -> bytes:
        return chr(token).encode()

    def end_tokens(self) -> list[int]:
        return [NUMBERS["</s>"]]

    def is_end(self, token: int) -> bool:
        return token == NUMBERS["</s>"]


def shown(tokens: list[int]) -> str:
    """Return tokens as text, control tokens in braces."""
    names = {number: f"{{{text}}}" for text, number in NUMBERS.items()}
    return "".join(names.get(token) or chr(token) for token in tokens)


@pytest.fixture
def marks() -> ControlMarks:
    return ControlMarks(ControlTokens(NUMBERS))


@pytest.mark.parametrize("text", ["", "a bee", "<|im_end|", "< s >", "é🐝\n"])
def test_a_text_without_control_tokens_stays_as_it_is(marks: ControlMarks, text: str) -> None:
    assert marks.marked(text) == text


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a<s>b</s>", "<<|im_end|>|>", "<|im_end|>|>", "##", f"<{MARK}s>", "<s><s>"]
)
def test_control_tokens_of_a_user_are_text(marks: ControlMarks, text: str) -> None:
    rendered = f"<|im_start|>{marks.marked(text)}<|im_end|>"
    expected = "{<s>}{<|im_start|>}" + text.replace(MARK, "") + "{<|im_end|>}"
    assert shown(marks.tokens(Letters(), rendered)) == expected


@given(st.lists(st.sampled_from([*CONTROLS, "a", " ", "<", "|", ">", "im_end", MARK, END])).map("".join))
def test_none_of_a_users_letters_becomes_a_control_token(text: str) -> None:
    marks = ControlMarks(ControlTokens(NUMBERS))
    found = marks.tokens(Letters(), without_marks_of_ends(f"[INST]{marks.marked(text)}[INST]"))
    text = text.replace(END, "")
    assert shown(found) == "{<s>}{[INST]}" + text.replace(MARK, "") + "{[INST]}"


@pytest.mark.parametrize(
    "text", [f"<{END}s>", f"<{MARK}{END}{MARK}s>", f"<s>{END}", f"{END}<s>{END} \n", f"<|im{END}_end|>{END}"]
)
def test_the_mark_of_an_end_hides_no_control_token(marks: ControlMarks, text: str) -> None:
    marked = marks.marked(text)
    assert (END in marked) == text.rstrip().endswith(END)
    found = marks.tokens(Letters(), without_marks_of_ends(f"[INST]{marked}[INST]"))
    assert shown(found) == "{<s>}{[INST]}" + text.replace(MARK, "").replace(END, "") + "{[INST]}"


def without_marks_of_ends(text: str) -> str:
    """Return a text as `chat.history` passes it on."""
    return text.replace(END, "")


def test_all_texts_of_a_value_are_looked_through(marks: ControlMarks) -> None:
    value = {"a": ["<s>", {"<s>": ("[INST]", 1, None, True)}], "b": 2.5}
    cut = f"<{MARK}s>"
    assert marks.all_marked(value) == {"a": [cut, {cut: [f"[{MARK}INST]", 1, None, True]}], "b": 2.5}


def test_a_text_is_read_whole_so_that_its_tokens_are_those_it_always_has(marks: ControlMarks) -> None:
    letters = Letters()
    marks.tokens(letters, f"<|im_start|>{marks.marked('one <s> two')}<|im_end|>\n<|im_start|>three")
    assert [read for read in letters.read if read[0]] == [
        ("<|im_start|>", True), ("one <s> two", False), ("<|im_end|>\n<|im_start|>three", True),
    ]  # fmt: skip


def test_what_holds_no_mark_is_read_at_once(marks: ControlMarks) -> None:
    letters = Letters()
    marks.tokens(letters, "<|im_start|>one<|im_end|>")
    assert letters.read == [("<|im_start|>one<|im_end|>", True)]


@pytest.mark.parametrize("text", ["one", "<s>one", "<s><s>one", "<s><s><s>one"])
def test_a_prompt_begins_with_one_begin_token(marks: ControlMarks, text: str) -> None:
    assert shown(marks.tokens(Letters(), text)) == "{<s>}one"


def test_a_prompt_in_its_frame_is_text(marks: ControlMarks) -> None:
    frame = ChatFrame(before="<s>[INST]", after="[INST]", strips=True)
    assert shown(framed_tokens(Letters(), marks, frame, " a</s> ")) == "{<s>}{[INST]}a</s>{[INST]}"


def test_a_vocabulary_without_control_tokens_has_none() -> None:
    marks = ControlMarks(ControlTokens({}))
    assert marks.marked("<s>") == "<s>"
    assert not marks.occur_in("<s>")


def test_thousands_of_control_tokens_cost_nothing_on_ordinary_text() -> None:
    marks = ControlMarks(ControlTokens({f"<|reserved_special_token_{number}|>": number for number in range(5000)}))
    assert marks.marked("<div>" * 20_000) == "<div>" * 20_000
    assert marks.occur_in("a <|reserved_special_token_4711|>")
    assert not marks.occur_in("a <|reserved_special_token_5000|>")

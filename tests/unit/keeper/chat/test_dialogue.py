"""What is asked for, after questions that were answered, were not, and are asked again."""

from __future__ import annotations

from rbee.keeper.chat.dialogue import Dialogue


def said(dialogue: Dialogue) -> list[tuple[str, str]]:
    return [(message.role, message.text()) for message in dialogue.conversation().messages]


def test_the_whole_history_is_asked_with() -> None:
    dialogue = Dialogue("be short")
    dialogue.ask("one?")
    dialogue.answer("1", "hm")
    dialogue.ask("two?")
    assert said(dialogue) == [("system", "be short"), ("user", "one?"), ("assistant", "1"), ("user", "two?")]
    assert dialogue.conversation().messages[2].reasoning == "hm"
    assert (dialogue.is_waiting, dialogue.questions) == (True, 2)


def test_a_question_without_an_answer_is_replaced_by_the_next_one() -> None:
    dialogue = Dialogue()
    dialogue.ask("one?")
    dialogue.ask("two?")
    assert said(dialogue) == [("user", "two?")]


def test_an_answer_is_taken_back_with_all_that_follows_from_it() -> None:
    dialogue = Dialogue()
    assert not dialogue.take_back(), "there is nothing to ask"
    dialogue.ask("one?")
    assert dialogue.take_back(), "it has no answer yet"
    dialogue.answer("1")
    assert dialogue.take_back()
    assert said(dialogue) == [("user", "one?")]


def test_what_is_told_beforehand_outlives_a_clearing() -> None:
    dialogue = Dialogue("be short")
    dialogue.ask("one?")
    dialogue.clear()
    assert (said(dialogue), dialogue.is_waiting) == ([("system", "be short")], False)


def test_it_is_written_for_people_and_for_programs() -> None:
    dialogue = Dialogue("be short")
    dialogue.ask("one?")
    dialogue.answer("\n1\n", "hm")
    text = "# A conversation with m\n\n*System:* be short\n\n## You\n\none?\n\n## Model\n\n1\n"
    assert dialogue.to_markdown("m") == text
    assert [message["role"] for message in dialogue.to_messages()] == ["system", "user", "assistant"]

"""By what the queen knows the beginning of a prompt again, without tokens and without a template."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.scheduling.prompt_links import BLOCK, CHARACTERS_PER_TOKEN, MAX_LINKS, prompt_links
from rbee.wire.chat.conversation import ChatMessage, Conversation, ImagePart, TextPart, Tool, ToolCall
from rbee.wire.worker import GenerationSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.queen.scheduling.prompt_links import PromptLinks

REF = "hf:org/repo"


def said(role: Any, text: str, **more: Any) -> ChatMessage:
    return ChatMessage(role=role, content=[TextPart(text=text)], **more)


def talk(*messages: ChatMessage, **more: Any) -> GenerationSpec:
    return GenerationSpec(conversation=Conversation(messages=list(messages), **more))


def links(spec: GenerationSpec, salt: str = "", session: str = "", model: str = REF) -> PromptLinks:
    found = prompt_links(spec, model, salt, session)
    assert found is not None
    return found


def shared(one: PromptLinks, other: PromptLinks) -> int:
    return len({link.digest for link in one.links} & {link.digest for link in other.links})


SYSTEM, USER = said("system", "Be brief."), said("user", "Hi")


def test_the_next_turn_begins_with_what_the_one_before_was() -> None:
    before = links(talk(SYSTEM, USER))
    after = links(talk(SYSTEM, USER, said("assistant", "Hello"), said("user", "More")))
    assert after.links[:2] == before.links
    assert [link.length for link in before.links] == [len("systemBe brief."), len("systemBe brief.userHi")]
    assert (len(after.links), after.length) == (4, after.links[-1].length)


def test_what_clients_leave_out_or_number_anew_is_no_difference() -> None:
    call = ToolCall(id="1", name="look", arguments="{}")
    thought = said("assistant", "", reasoning="Hm", tool_calls=[call])
    again = said("assistant", "", tool_calls=[ToolCall(id="2", name="look", arguments="{}")])
    assert links(talk(USER, thought)) == links(talk(USER, again))


def test_what_is_read_otherwise_has_no_link_in_common() -> None:
    one = links(talk(SYSTEM, USER))
    others = [
        links(talk(SYSTEM, USER), salt="a key's"),
        links(talk(SYSTEM, USER), model="hf:org/other"),
        links(talk(SYSTEM, USER, tools=[Tool(name="look")])),
        links(talk(said("user", "Be brief."), USER)),
        links(GenerationSpec(prompt="Be brief." * 100)),
        links(talk(ChatMessage(role="system", content=[ImagePart(media_type="image/png", data=b"Be brief.")]))),
    ]
    assert [shared(one, other) for other in others] == [0] * len(others)


def test_where_one_message_ends_makes_a_difference() -> None:
    assert shared(links(talk(said("user", "ab"), said("user", "c"))), links(talk(said("user", "a\0")))) == 0
    parts = ChatMessage(role="user", content=[TextPart(text="a"), TextPart(text="b")])
    assert shared(links(talk(parts)), links(talk(said("user", "a\0b")))) == 0


@given(st.integers(0, 5 * BLOCK), st.integers(0, 5 * BLOCK), st.integers(0, 5 * BLOCK))
def test_texts_have_the_whole_blocks_in_common_that_they_begin_with(common: int, one: int, other: int) -> None:
    first, second = ("x" * common + end * count for end, count in (("y", one), ("z", other)))
    for build in (lambda text: {"prompt": text or "-"}, lambda text: {"tokens": [ord(each) for each in text] or [0]}):
        size = BLOCK if "prompt" in build("") else BLOCK // CHARACTERS_PER_TOKEN
        begun = common if one and other else min(len(first), len(second))
        assert shared(*(links(GenerationSpec(**build(text))) for text in (first, second))) == min(
            begun // size, MAX_LINKS
        )


def test_a_token_that_no_model_has_ends_the_links() -> None:
    assert len(links(GenerationSpec(tokens=[1] * 128 + [10**30] * 128)).links) == 1


def test_a_session_is_named_apart_and_belongs_to_its_caller() -> None:
    ones, others = links(talk(USER), session="s"), links(talk(USER), salt="a key's", session="s")
    assert ones.session is not None
    assert ones.session not in (None, others.session, links(talk(USER), session="t").session)
    assert links(talk(USER)).session is None
    assert links(talk(said("user", "\ud800")), session="\ud800").session is not None


def test_what_is_not_kept_is_not_known() -> None:
    assert prompt_links(GenerationSpec(prompt="x" * 1000, cache=False), REF, "", "") is None


def test_the_cost_is_bounded() -> None:
    def best(of: Callable[[], object], tries: int) -> float:
        def once() -> float:
            began = time.perf_counter()
            of()
            return time.perf_counter() - began

        return min(once() for _ in range(tries))

    usual = talk(*(said("user", "word " * 120) for _ in range(11)))
    assert best(lambda: links(usual), 100) < 200e-6, "30 microseconds on a quiet machine"
    huge = [
        talk(*(said("user", "word " * 320) for _ in range(10_000))),
        talk(*(said("user", "word " * 20_000) for _ in range(160))),
        talk(said("user", "word " * 3_200_000)),
        GenerationSpec(prompt="word " * 200_000),
        GenerationSpec(tokens=[7] * 1_000_000),
    ]
    for spec in huge:
        assert len(links(spec).links) <= MAX_LINKS
        assert best(lambda spec=spec: links(spec), 10) < 5e-3, "a millisecond on a quiet machine"

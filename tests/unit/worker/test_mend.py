"""Histories that a template would refuse, or show a part of, are put another way."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from rbee.errors import InvalidRequestError
from rbee.wire.chat.conversation import ChatMessage, ImagePart, TextPart, ToolCall, ToolChoice
from rbee.wire.chat.template import TemplateHabits
from rbee.worker.chat import mend
from tests.kit.histories import (
    CALL,
    CLOCK,
    SECOND,
    WEATHER,
    Loaded,
    assistant,
    rendered,
    result,
    system,
    talk,
    user,
)

EACH = "{% for m in messages %}"
NEXT = "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
PLAIN = EACH + "[{{ m.role }}:{{ m.content }}]" + NEXT
NO_SYSTEM = (
    EACH
    + "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}[{{ m.role }}:{{ m.content }}]"
    + NEXT
)
DROPS_SYSTEM = EACH + "{% if m.role != 'system' %}[{{ m.role }}:{{ m.content }}]{% endif %}" + NEXT
FIRST_SYSTEM = (
    EACH + "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "[{{ m.role }}:{{ m.content }}]" + NEXT
)
ALTERNATES = (
    "{% set ns = namespace(n=0) %}" + EACH + "{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set ns.n = ns.n + 1 %}[{{ m.role }}:{{ m.content }}]" + NEXT
)
TOOLS = "{% if tools %}({% for t in tools %}{{ t.function | tojson }}{% endfor %}){% endif %}"
CALLS = (
    TOOLS + EACH + "[{{ m.role }}:{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}!{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}]" + NEXT
)
TEXT_CALLS = CALLS.replace("| tojson }}{% endfor %}]", "}}{% endfor %}]")
EITHER_CALLS = (
    TOOLS + EACH + "[{{ m.role }}:{% if m.tool_calls %}{% for c in m.tool_calls %}!{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}]" + NEXT
)
ONE_CALL = CALLS.replace(
    "[{{ m.role }}",
    "{% if m.tool_calls and m.tool_calls|length > 1 %}{{ raise_exception('one!') }}{% endif %}[{{ m.role }}",
)
NULL_CALLS = (
    TOOLS + EACH + "[{{ m.role }}:{% if m.content is none %}{% for c in m.tool_calls %}!{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}]" + NEXT
)
SHORT_IDS = CALLS.replace("!{{", "{% if c.id|length != 9 %}{{ raise_exception('nine!') }}{% endif %}!{{ c.id }}{{")
PARTS = (
    EACH + "[{{ m.role }}:{% if m.role == 'tool' %}{{ m.content }}{% else %}"
    "{% for p in m.content %}({{ p.text }}){% endfor %}{% endif %}]" + NEXT
)
ALWAYS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('system!') }}{% endif %}" + PLAIN
REASONS = EACH + "[{{ m.role }}:{% if m.FIELD %}<{{ m.FIELD }}>{% endif %}{{ m.content }}]" + NEXT


def test_what_needs_no_mending_goes_through_as_it_is() -> None:
    assert (
        rendered(PLAIN, system("S"), user("a"), assistant("b"), user("c")) == "[system:S][user:a][assistant:b][user:c]>"
    )


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_a_system_message_that_is_not_shown_goes_into_the_first_of_the_user(template: str) -> None:
    assert rendered(template, system("S"), user("a"), assistant("b")) == "[user:S\n\na][assistant:b]>"
    assert rendered(template, system("S"), assistant("b")) == "[user:S][assistant:b]>"
    assert rendered(template, user("a"), system("S")) == "[user:a][user:S]>"


def test_system_messages_at_the_beginning_are_one_message() -> None:
    assert rendered(PLAIN, system("S"), system("T"), user("a")) == "[system:S\n\nT][user:a]>"


def test_a_system_message_in_the_middle_is_the_users_where_it_must_come_first() -> None:
    messages = system("S"), user("a"), assistant("b"), system("T"), user("c")
    assert rendered(PLAIN, *messages) == "[system:S][user:a][assistant:b][system:T][user:c]>"
    assert rendered(FIRST_SYSTEM, *messages) == "[system:S][user:a][assistant:b][user:T][user:c]>"


def test_one_that_has_to_be_there_may_be_empty() -> None:
    assert rendered(ALWAYS_SYSTEM, user("a")) == "[system:][user:a]>"
    assert rendered(ALWAYS_SYSTEM, system("S"), user("a")) == "[system:S][user:a]>"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((user("a"), user("b")), "[user:a\n\nb]"),
        ((user("a"), assistant("b"), assistant("c"), user("d")), "[user:a][assistant:b\n\nc][user:d]"),
        ((assistant("b"), user("c")), "[user: ][assistant:b][user:c]"),
        ((result("r"), user("a")), "[user:<tool_response>\nr\n</tool_response>\n\na]"),
        ((user("a"), system("S"), user("b")), "[user:a\n\nS\n\nb]"),
    ],
)
def test_turns_alternate_where_they_have_to(messages: tuple[ChatMessage, ...], expected: str) -> None:
    assert rendered(ALTERNATES, *messages) == expected + ">"


def test_calls_and_results_may_stand_between_turns_that_alternate() -> None:
    counts = (
        "{% set ns = namespace(n=0) %}" + EACH + "{% if m.role != 'tool' and not m.tool_calls %}"
        "{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{% endif %}[{{ m.role }}:{% if m.tool_calls %}{% for c in m.tool_calls %}"
        "!{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}]"
        + NEXT
    )
    call = assistant("look", SECOND)
    for messages, expected in (
        ((user("a"), call, result("r", "call_2")), "[user:a][assistant:look][assistant:!get_time{}][tool:r]"),
        (
            (user("a"), call, result("r", "call_2"), assistant("done"), user("b")),
            "[user:a][assistant:!get_time{}][tool:r][assistant:look\n\ndone][user:b]",
        ),
        (
            (user("a"), assistant("", SECOND), result("r", "call_2"), user("b")),
            "[user:a][assistant:!get_time{}][tool:r][assistant: ][user:b]",
        ),
        ((user("a"), assistant("", SECOND), user("b")), "[user:a][assistant:!get_time{}][assistant: ][user:b]"),
    ):
        assert rendered(counts, *messages) == expected + ">"


def test_they_stay_as_they_are_where_they_need_not() -> None:
    assert rendered(PLAIN, user("a"), user("b"), result("r")) == "[user:a][user:b][tool:r]>"


def test_contents_are_texts_or_lists_as_the_template_wants() -> None:
    messages = user("a", "b"), assistant("c")
    assert rendered(PLAIN, *messages) == "[user:a\nb][assistant:c]>"
    assert rendered(PARTS, *messages) == "[user:(a\nb)][assistant:(c)]>"


CALLED = user("a"), assistant("", CALL, SECOND), result("r", "call_1"), result("s", "call_2"), user("b")
WRITTEN = '!get_weather{"city": "Berlin", "days": 3}'


def test_arguments_are_an_object_or_its_text_as_the_template_wants() -> None:
    for template in (CALLS, TEXT_CALLS):
        loaded = Loaded(template)
        assert loaded.habits.arguments == ("object" if template == CALLS else "text")
        assert f"[assistant:{WRITTEN}!get_time{{}}]" in loaded.text(talk(*CALLED, tools=[WEATHER]))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("", "{}"),
        ("{}", "{}"),
        ('{"a": "é"}', '{"a": "é"}'),
        ("[1]", '{"arguments": [1]}'),
        ('{"a', '{"arguments": "{\\"a"}'),
    ],
)
def test_arguments_that_are_no_object_are_kept(arguments: str, shown: str) -> None:
    call = ToolCall(id="1", name="get_time", arguments=arguments)
    assert f"!get_time{shown}]" in rendered(CALLS, user("a"), assistant("", call))


def test_calls_stand_beside_no_content_as_the_template_has_it() -> None:
    loaded = Loaded(NULL_CALLS)
    assert (loaded.habits.calls_content, loaded.habits.content_and_calls) == ("null", False)
    assert f"[assistant:{WRITTEN}]" in loaded.text(talk(user("a"), assistant("", CALL)))


@pytest.mark.parametrize("template", [NULL_CALLS, EITHER_CALLS])
def test_a_text_beside_calls_is_a_message_of_its_own_where_it_would_be_lost(template: str) -> None:
    text = rendered(template, user("a"), assistant("look", CALL), result("r"), tools=[WEATHER])
    assert f"[assistant:look][assistant:{WRITTEN}][tool:r]" in text
    assert f"[assistant:look{WRITTEN}]" in rendered(CALLS, user("a"), assistant("look", CALL))


def test_several_calls_are_made_one_after_the_other_where_they_have_to_be() -> None:
    messages = user("a"), assistant("x", CALL, SECOND), result("s", "call_2"), result("r", "call_1"), user("b")
    assert f"[assistant:x{WRITTEN}][tool:r][assistant:!get_time{{}}][tool:s][user:b]" in rendered(ONE_CALL, *messages)
    assert f"[assistant:x{WRITTEN}!get_time{{}}][tool:s][tool:r][user:b]" in rendered(CALLS, *messages)


def test_the_same_result_twice_is_shown_twice() -> None:
    again = ToolCall(id="call_2", name="get_time", arguments="{}")
    first = ToolCall(id="call_1", name="get_time", arguments="{}")
    messages = user("a"), assistant("", first, again), result("r", None), result("r", None), user("b")
    assert (
        rendered(ONE_CALL, *messages)
        == "[user:a][assistant:!get_time{}][tool:r][assistant:!get_time{}][tool:r][user:b]>"
    )


def test_ids_have_nine_letters_where_they_must() -> None:
    loaded = Loaded(SHORT_IDS)
    assert loaded.habits.short_ids
    (first,) = mend.variables(talk(user("a"), assistant("", CALL), result("r")), loaded.habits).__next__()["messages"][
        1
    ]["tool_calls"]
    assert (len(first["id"]), first["id"].isalnum()) == (9, True)
    message = next(mend.variables(talk(user("a"), assistant("", CALL), result("r")), loaded.habits))["messages"][2]
    assert message["tool_call_id"] == first["id"]
    kept = ToolCall(id="abcdefgh1", name="get_time", arguments="")
    assert "!abcdefgh1get_time" in loaded.text(talk(user("a"), assistant("", kept)))


def test_a_result_knows_its_tool_by_its_call_or_its_place() -> None:
    template = EACH + "[{{ m.role }}:{{ m.name }}:{{ m.tool_call_id }}:{{ m.content }}]" + NEXT
    messages = user("a"), assistant("", CALL, SECOND), result("s", "call_2"), result("r", None), result("q", "call_9")
    variables = next(mend.variables(talk(*messages), Loaded(template).habits))
    shown = [(m.get("name"), m.get("tool_call_id")) for m in variables["messages"] if m["role"] == "tool"]
    assert shown == [("get_time", "call_2"), ("get_weather", "call_1"), (None, "call_9")]


def test_a_template_that_knows_no_tools_is_told_of_them_in_words() -> None:
    text = rendered(DROPS_SYSTEM, user("a"), assistant("look", CALL), result("r"), tools=[WEATHER, CLOCK])
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather"' in text
    assert '"name": "get_time"' in text
    called = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Berlin", "days": 3}}\n</tool_call>'
    assert f"[assistant:look\n{called}]" in text
    assert "[tool:r]" in text
    assert text.endswith(">")
    no_results = EACH + "{% if m.role in ['user', 'assistant'] %}[{{ m.role }}:{{ m.content }}]{% endif %}" + NEXT
    text = rendered(no_results, user("a"), assistant("", CALL), result("r"))
    assert text.endswith("[user:<tool_response>\nr\n</tool_response>]>")


def test_one_that_shows_calls_and_no_tools_has_calls_written_its_way() -> None:
    text = rendered(CALLS.replace(TOOLS, ""), user("a"), tools=[WEATHER])
    assert 'exactly like this:\n!function_name{"argument_name": "value"}\n' in text


@pytest.mark.parametrize(
    ("marker", "written"),
    [
        ("<|tool_call|>", '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Berlin", "days": 3}}]'),
        ("<|tool_list_start|>", "<|tool_call_start|>[get_weather(city='Berlin', days=3)]<|tool_call_end|>"),
    ],
)
def test_calls_of_families_whose_templates_do_not_show_them_are_written_their_way(marker: str, written: str) -> None:
    text = rendered(f"{TOOLS}{{# {marker} #}}" + PLAIN, user("a"), assistant("", CALL), tools=[WEATHER])
    assert f"[assistant:{written}]" in text


def test_tools_that_must_not_be_called_are_not_shown() -> None:
    none = ToolChoice(mode="none")
    assert "get_weather" not in rendered(CALLS, user("a"), tools=[WEATHER], tool_choice=none)
    assert "get_weather" not in rendered(PLAIN, user("a"), tools=[WEATHER], tool_choice=none)


def test_a_tool_without_parameters_has_no_properties() -> None:
    assert rendered(CALLS, user("a"), tools=[CLOCK]) == (
        '({"name": "get_time", "description": "", "parameters": {"type": "object", "properties": {}}})[user:a]>'
    )


def test_arguments_are_described_where_a_template_looks_for_it() -> None:
    wants = (
        "{% for t in tools or [] %}{% for name, p in t.function.parameters.properties.items() %}"
        "{{ name + ':' + p.description + ';' }}{% endfor %}{{ t.function.name }}{% endfor %}" + PLAIN
    )
    assert rendered(wants, user("a"), tools=[WEATHER]) == "city:A town;days:;get_weather[user:a]>"


@pytest.mark.parametrize("field", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_shown_in_the_field_that_the_template_reads(field: str) -> None:
    loaded = Loaded(REASONS.replace("FIELD", field))
    assert loaded.habits.reasoning == field
    assert (
        loaded.text(talk(user("a"), assistant("b", reasoning="why"), user("c")))
        == "[user:a][assistant:<why>b][user:c]>"
    )


def test_where_none_is_read_it_is_left_out() -> None:
    messages = next(mend.variables(talk(user("a"), assistant("b", reasoning="why")), Loaded(PLAIN).habits))["messages"]
    assert messages[1] == {"role": "assistant", "content": "b"}


def test_content_and_reasoning_beside_calls_are_one_where_a_template_takes_one() -> None:
    template = CALLS.replace(
        "[{{ m.role }}:",
        "{% if m.tool_calls and m.content and m.thinking %}{{ raise_exception('one of them') }}{% endif %}"
        "[{{ m.role }}:{{ m.thinking }}",
    )
    text = rendered(template, user("a"), assistant("look", CALL, reasoning="why"), result("r"), tools=[WEATHER])
    assert f"[assistant:why\n\nlook{WRITTEN}]" in text


EFFORTS = {
    "{% if enable_thinking is defined and not enable_thinking %}off{% endif %}": ("", "", "off"),
    "{% if thinking %}on{% endif %}": ("", "on", ""),
    "{{ reasoning_effort or 'medium' }}": ("medium", "high", "low"),
    "{% if reasoning_effort is defined and reasoning_effort not in ['no_think', 'low', 'high'] %}"
    "{{ raise_exception('effort') }}{% endif %}{{ 'R' if reasoning_effort == 'high' }}": ("", "R", ""),
    "{{ 'short' if reasoning_effort in ['low', 'minimal'] else 'long' }}": ("long", "long", "short"),
}


@pytest.mark.parametrize("template", EFFORTS)
def test_effort_is_told_as_the_template_takes_it(template: str) -> None:
    loaded = Loaded(template + PLAIN)
    shown = [loaded.text(talk(user("a"), effort=effort)).removesuffix("[user:a]>") for effort in (None, "high", "none")]
    assert tuple(shown) == EFFORTS[template]


def test_thinking_that_a_word_turns_off_is_turned_off_by_it() -> None:
    template = "{% set on = '/no_think' not in (messages[0].content or '') %}" + PLAIN + "{{ '' if on else 'off' }}"
    loaded = Loaded(template)
    assert loaded.habits.no_think == "/no_think"
    assert loaded.text(talk(system("S"), user("a"), effort="none")) == "[system:S\n\n/no_think][user:a]>off"


def test_arguments_of_the_conversation_are_variables_and_stand_over_the_effort() -> None:
    template = "{{ mood }}{{ enable_thinking }}{{ documents[0].text if documents }}" + PLAIN
    arguments = {"mood": "glad", "enable_thinking": False, "documents": [{"text": "D"}]}
    assert rendered(template, user("a"), arguments=arguments, effort="high") == "gladFalseD[user:a]>"


@pytest.mark.parametrize("name", sorted(mend.RESERVED))
def test_what_is_not_for_callers_to_set_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        mend.check(talk(user("a"), arguments={name: ""}))


def test_a_picture_is_refused_and_never_left_out() -> None:
    picture = ImagePart(media_type="image/png", data=b"")
    message = ChatMessage(role="user", content=[TextPart(text="a"), picture])
    with pytest.raises(InvalidRequestError, match=r"messages\[1\]"):
        mend.check(talk(system("S"), message))


@pytest.mark.parametrize("last", [user("a"), assistant("", CALL)])
def test_only_a_text_of_the_assistant_can_be_continued(last: ChatMessage) -> None:
    with pytest.raises(InvalidRequestError, match="continues"):
        mend.check(talk(user("a"), last, continues=True))
    mend.check(talk(user("a"), assistant("b"), continues=True))


def test_a_last_message_of_the_assistant_is_followed_by_another_where_it_is_not_continued() -> None:
    assert rendered(PLAIN, user("a"), assistant("b")) == "[user:a][assistant:b]>"
    assert rendered(PLAIN, user("a"), assistant("b"), continues=True) == "[user:a][assistant:b]"


def test_a_history_of_thousands_of_calls_is_mended_in_no_time() -> None:
    calls = [ToolCall(id=f"c{number}", name="get_time", arguments="{}") for number in range(2000)]
    messages = user("a"), assistant("x", *calls), *(result("r", call.id) for call in calls), *([user("b")] * 2000)
    for template in (ONE_CALL, CALLS):
        habits = Loaded(template).habits
        started = time.process_time()
        natural, strict = mend.variables(talk(*messages), habits)
        assert time.process_time() - started < 5
        assert sum(message["role"] == "tool" for message in natural["messages"]) == 2000
        assert sum(message["role"] == "tool" for message in strict["messages"]) == 2000


def test_what_takes_long_is_known_beforehand() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    schema = WEATHER.__class__(name="a", parameters={"properties": {"a": {"enum": ["x" * 10] * 1000}}})
    assert mend.is_small(talk(*CALLED, tools=[WEATHER]), 5000)
    assert mend.is_small(talk(user("a" * 4600)), 5000)
    for large in (
        talk(user("a" * 5000)),
        talk(*([user("a")] * 50)),
        talk(user("a"), tools=[schema]),
        talk(user("a"), arguments={"deep": deep}),
        talk(user("a"), assistant("b", reasoning="c" * 5000)),
        talk(user("a"), assistant("", ToolCall(id="1", name="a", arguments="x" * 5000))),
    ):
        assert not mend.is_small(large, 5000)


def test_nothing_of_a_long_tool_loop_is_lost() -> None:
    messages: list[ChatMessage] = [system("S"), user("begin")]
    for number in range(20):
        call = ToolCall(id=f"call_{number}", name=f"tool{number}", arguments=json.dumps({"n": number}))
        messages += [assistant(f"step{number}", call, reasoning=f"why{number}"), result(f"got{number}", call.id)]
    expected: Any = [f"step{number}" for number in range(20)] + [f"got{number}" for number in range(20)]
    for template in (PLAIN, CALLS, TEXT_CALLS, EITHER_CALLS, ONE_CALL, NULL_CALLS, SHORT_IDS, NO_SYSTEM):
        text = rendered(template, *messages, tools=[WEATHER])
        assert [word for word in expected if text.count(word) < 1] == []
        assert all(f"tool{number}" in text for number in range(20))


def test_a_result_without_a_call_is_the_users_where_it_would_be_lost() -> None:
    hides = (
        EACH + "{% if m.role != 'tool' or (not loop.first and messages[loop.index0 - 1].tool_calls) %}"
        "[{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}!{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}]{% endif %}" + NEXT
    )
    assert "[user:<tool_response>\nr\n</tool_response>][user:a]" in rendered(hides, result("r"), user("a"))
    assert "[tool:r]" in rendered(hides, user("a"), assistant("", CALL), result("r"))


def test_a_system_message_that_a_tool_loop_would_hide_goes_into_the_first_of_the_user() -> None:
    hides = (
        "{% if messages[0].role == 'system' %}{% set first = messages[0] %}{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}[{{ m.role }}:{% if m.role == 'user' and loop.last and first %}{{ first.content }} "
        "{% endif %}{{ m.content }}]" + NEXT
    )
    assert rendered(hides, system("S"), user("a"), assistant("b"), user("c")).startswith("[user:S\n\na]")


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([user("x" * 3000)] * 3000, id="one who speaks again and again"),
        pytest.param(
            [
                assistant("", *(ToolCall(id=str(number), name="f", arguments="{}") for number in range(15_000))),
                *(result("r", str(number)) for number in range(14_999, -1, -1)),
            ],
            id="calls in one message, answered from the last on",
        ),
    ],
)
def test_the_time_for_a_huge_history_grows_as_it_does(messages: list[ChatMessage]) -> None:
    started = time.process_time()
    *_, last = mend.variables(talk(*messages), TemplateHabits())
    assert len(last["messages"]) in (1, len(messages))
    assert time.process_time() - started < 3

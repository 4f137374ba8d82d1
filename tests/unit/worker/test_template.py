"""What a chat template puts around a prompt."""

from __future__ import annotations

from datetime import datetime

import pytest
from jinja2 import TemplateError

from rbee.wire.chat.template import ChatFrame
from rbee.worker.chat.framing import Renderer, UnusableError, frame, text

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


def framed(template: str) -> ChatFrame:
    return frame(Renderer(template, begin="<s>", end="</s>"))[1]


def shown(before: str, after: str, *, strips: bool = False) -> ChatFrame:
    return ChatFrame(before=before, after=after, strips=strips)


def test_a_template_frames_the_prompt() -> None:
    assert framed("{{ bos_token }}" + TURNS + ANSWER) == shown("<s><|user|>\n", "</s>\n<|assistant|>\n")


def test_one_that_passes_the_prompt_on_puts_nothing_around_it() -> None:
    assert framed("{{ messages[0].content }}") == shown("", "")


def test_one_that_strips_the_prompt_is_known_by_it() -> None:
    assert framed("[{{ messages[-1]['content'] | trim }}]") == shown("[", "]", strips=True)


def test_what_templates_of_models_use_is_there() -> None:
    template = (
        "{% set ns = namespace(found=false) %}{% for m in messages %}{% if loop.first %}{% set ns.found = true %}"
        "{% continue %}{% endif %}{% endfor %}{{ messages | tojson | length > 0 }}{{ strftime_now('%%') }}"
        "{% if tools %}tools{% endif %}{{ messages[0].content }}"
    )
    assert framed(template) == shown("True%", "")


@pytest.mark.parametrize("template", ["", "nothing", "{{ messages[0].content }}{{ messages[0].content }}"])
def test_one_that_does_not_show_the_prompt_once_is_refused(template: str) -> None:
    with pytest.raises(UnusableError):
        framed(template)


def test_one_that_writes_too_much_is_refused() -> None:
    with pytest.raises(UnusableError):
        framed("{% for i in range(99999) %}xx{% endfor %}{{ messages[0].content }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only with a system message') }}",
        "{% if %}",
        "{{ messages.__class__.append(messages, 1) }}",
        "{{ ''.__class__.__mro__ }}{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ range(10 ** 9) | list }}",
        "{% import 'other' as other %}",
    ],
)
def test_one_that_fails_or_reaches_out_is_refused(template: str) -> None:
    with pytest.raises((TemplateError, OverflowError, TypeError)):
        framed(template)


EACH = "{% for m in messages %}"
TEXTS = "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
AS_TRANSFORMERS = {
    "generation": (
        EACH + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}"
        "[{{ m.content }}]{% endif %}{% endfor %}w",
        ("[", "]w"),
    ),
    "generation around the prompt": (
        EACH + "{%- generation -%}{% set x = m.content %}({{ x }}){%- endgeneration -%}{% endfor %}{{ x }}w",
        ("(", ")w"),
    ),
    "content as a list": (EACH + "<" + TEXTS + ">{% endfor %}w", ("<", ">w")),
    "content as a list, looked into": (
        EACH + "{% if m['content'][0]['type'] == 'image' %}:{% else %} {% endif %}" + TEXTS + "{% endfor %}w",
        (" ", "w"),
    ),
    "the first part of a list": ("{{ messages[0]['content'][0]['text'] }}w", ("", "w")),
    "either": (
        EACH + "{% if m.content is string %}s{{ m.content }}{% else %}l" + TEXTS + "{% endif %}{% endfor %}w",
        ("s", "w"),
    ),
    "a list that must not be a text": (
        EACH + "{% if m.content is string %}{{ raise_exception('list!') }}{% endif %}" + TEXTS + "{% endfor %}w",
        ("", "w"),
    ),
    "tojson with keywords": (
        "{{ {'b': 'é<', 'a': [1]} | tojson(separators=(',', ':'), sort_keys=True, ensure_ascii=True) }}"
        "{{ messages[0].content }}w",
        ('{"a":[1],"b":"\\u00e9<"}', "w"),
    ),
    "tojson, indented": ("{{ [1] | tojson(indent=2) }}{{ messages[0].content }}w", ("[\n  1\n]", "w")),
    "tojson, in place": (
        "{{ {'a': 'é'} | tojson(False, None, (', ', '=')) }}{{ messages[0].content }}w", ('{"a"="é"}', "w"),
    ),
    "a date": ("{{ strftime_now('%Y')|length }}{{ messages[0].content }}w", ("4", "w")),
    "a system message that must come first": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        + EACH + "{{ m.role[0] }}{{ m.content }}{% endfor %}w",
        ("su", "w"),
    ),
    "a system message and lists": (
        "{% if messages[0].role != 'system' %}{{ raise_exception() }}{% endif %}"
        + EACH + "{{ m.role[0] }}" + TEXTS + "{% endfor %}w",
        ("su", "w"),
    ),
    "tools that are looped over": (
        "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages[0].content }}w", ("", "w"),
    ),
    "functions": ("{{ 'f:' + functions }} {{ datetime | length }}{{ messages[0].content }}w", ("f: 11", "w")),
    "break and continue": (
        EACH + "{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% continue %}x{% endfor %}w", ("", "w"),
    ),
    "macros, blocks and namespaces": (
        "{%- set system %}Be kind.{% endset -%}"
        "{% macro turn(m, n=1) %}<{{ m.role }}{{ n }}>{{ m.content }}{% endmacro %}"
        "{% set ns = namespace(n=0) %}{{ system }}"
        + EACH + "{% set ns.n = ns.n + 1 %}{{ turn(m, n=ns.n) }}{% endfor %}w",
        ("Be kind.<user1>", "w"),
    ),
    "methods of Python": (
        "{% set m = messages[0] %}{% for key, value in m.items() %}{% if key == 'role' %}{{ value.title() }}{% endif %}"
        "{% endfor %}{{ m.get('name', '-').strip() }}{{ m['content'] }}{{ messages[::-1][0].role.startswith('us') }}",
        ("User-", "True"),
    ),
    "what is not defined": (
        "{% if enable_thinking is defined and not enable_thinking %}x{% endif %}{{ custom }}{{ messages[0].content }}w",
        ("", "w"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_TRANSFORMERS)
def test_templates_are_taken_as_transformers_takes_them(name: str) -> None:
    template, (before, after) = AS_TRANSFORMERS[name]
    assert framed(template) == shown(before, after)
    prompt = 'a "b"\n C\\é'
    assert text(Renderer(template, begin="<s>", end="</s>"), prompt) == before + prompt + after


def test_a_date_is_that_of_today() -> None:
    before = datetime.now().astimezone().strftime("%d %b %Y")
    found = framed("{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}").before
    assert found in (before, datetime.now().astimezone().strftime("%d %b %Y"))


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ messages[0].content | tojson }}w", '"a \\"b\\" C\\n</think>d "w'),
        ("{{ messages[0].content | upper }}w", 'A "B" C\n</THINK>D w'),
        ("{{ messages[0].content.split('</think>')[-1] }}w", "d w"),
        ("{{ messages[0].content | replace('\n', ' ') }}w", 'a "b" C </think>d w'),
        ("{{ messages[0].content.rstrip() }}w", 'a "b" C\n</think>dw'),
        ("{{ messages[0].content | e }}w", "a &#34;b&#34; C\n&lt;/think&gt;d w"),
        ("{{ messages[0]['content'][0]['text'] | lower }}w", 'a "b" c\n</think>d w'),
    ],
)
def test_what_a_template_does_to_a_prompt_is_done_to_each(template: str, rendered: str) -> None:
    assert framed(template).changes
    assert text(Renderer(template), 'a "b" C\n</think>d ') == rendered

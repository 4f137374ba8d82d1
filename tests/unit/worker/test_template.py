"""What a chat template puts around a prompt."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from rbee.wire.chat_template import ChatFrame, ChatTemplate
from rbee.worker.chat.template import UnusableError, frame

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"


def framed(template: str) -> ChatFrame:
    return frame(ChatTemplate(template=template, begin="<s>", end="</s>"))


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
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ range(10 ** 9) | list }}",
        "{% import 'other' as other %}",
    ],
)
def test_one_that_fails_or_reaches_out_is_refused(template: str) -> None:
    with pytest.raises((TemplateError, OverflowError, TypeError)):
        framed(template)

"""Templates for models that bring none: by the control tokens of their family, else a plain one (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container


class Family(NamedTuple):
    """A way to write conversations; a model is of the family whose control tokens are all in its vocabulary."""

    name: str
    tokens: tuple[str, ...]
    template: str


_EACH: Final = "{% for message in messages %}"
_CHATML: Final = (
    _EACH + "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA_3: Final = (
    "{{ bos_token }}" + _EACH + "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA: Final = (
    "{{ bos_token }}" + _EACH + "{% if message.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('this family knows no role ' + message.role) }}{% endif %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_BARS: Final = (
    _EACH + "<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_MISTRAL: Final = (
    "{{ bos_token }}" + _EACH + "{% if message.role == 'user' %}[INST] {{ message.content }}[/INST]"
    "{% elif message.role == 'assistant' %} {{ message.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('this family knows no role ' + message.role) }}{% endif %}{% endfor %}"
)
_GRANITE: Final = (
    _EACH + "<|start_of_role|>{{ message.role }}<|end_of_role|>{{ message.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
_DEEPSEEK: Final = (
    "{{ bos_token }}" + _EACH + "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<｜Assistant｜>{{ message.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('this family knows no role ' + message.role) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
_PLAIN: Final = (
    "{% set names = {'system': 'System', 'user': 'User', 'assistant': 'Assistant', 'tool': 'Tool'} %}"
    + _EACH + "{{ names[message.role] }}: {{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)  # fmt: skip

FAMILIES: Final = (
    Family("ChatML", ("<|im_start|>", "<|im_end|>"), _CHATML),
    Family("Llama 3", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), _LLAMA_3),
    Family("Gemma", ("<start_of_turn>", "<end_of_turn>"), _GEMMA),
    Family("Granite", ("<|start_of_role|>", "<|end_of_role|>"), _GRANITE),
    Family("DeepSeek", ("<｜User｜>", "<｜Assistant｜>"), _DEEPSEEK),
    Family("Phi", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), _BARS),
    Family("Mistral", ("[INST]", "[/INST]"), _MISTRAL),
)
PLAIN: Final = Family("plain", (), _PLAIN)


def family_of(vocabulary: Container[str]) -> Family:
    """Return the family of a model whose vocabulary, or the control tokens in it, this is."""
    return next((family for family in FAMILIES if all(token in vocabulary for token in family.tokens)), PLAIN)

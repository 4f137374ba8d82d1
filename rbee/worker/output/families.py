"""Recognises a model's family by what its chat template writes (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rbee.worker.output import json_formats, tag_formats
from rbee.worker.output.parser import OutputParser
from rbee.worker.output.syntax import AnswerSyntax, ReasoningSyntax
from rbee.worker.output.writer import written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.wire.chat.conversation import Tool, ToolCall


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A family of models that write alike."""

    name: str
    syntax: AnswerSyntax

    def parser(
        self,
        tools: Sequence[Tool] = (),
        *,
        forced_open: bool = False,
        choice: int = 0,
        stops: Sequence[str] = (),
        single_call: bool = False,
        unrepeated: bool = False,
        new_id: Callable[[int, str], str] | None = None,
    ) -> OutputParser:
        """Return a parser for one choice; `forced_open` if the prompt ends inside the model's thoughts.

        `tools` are those that may be called: none where the request forbids it. The last three are those of
        OutputParser.
        """
        return OutputParser(
            self.syntax,
            tools,
            is_thinking=forced_open,
            choice=choice,
            stops=stops,
            single_call=single_call,
            unrepeated=unrepeated,
            new_id=new_id,
        )

    def opens_thoughts(self, prompt: str) -> bool:
        """Return whether a rendered prompt ends inside the model's thoughts."""
        return prompt.rstrip().endswith(tuple(begin.rstrip() for begin in self.syntax.reasoning.begins))

    def write(self, calls: Sequence[ToolCall] = (), reasoning: str = "", text: str = "") -> str:
        """Return what a model of this family writes when it means this."""
        return written(self.syntax, calls, reasoning, text)


@dataclass(frozen=True, slots=True)
class _Signature:
    """A family's name and syntax, and what its templates hold: all of `has`, nothing of `lacks`."""

    name: str
    syntax: AnswerSyntax
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def fits(self, template: str) -> bool:
        return all(text in template for text in self.has) and not any(text in template for text in self.lacks)


# The first that fits is taken: those with markers of their own stand before those that use `<tool_call>`.
_SIGNATURES: Final = (
    _Signature("gpt-oss", json_formats.HARMONY, ("<|channel|>", "<|message|>")),
    _Signature("gemma-4", tag_formats.GEMMA_4, ("<|tool_call>", '<|"|>')),
    _Signature("function-gemma", tag_formats.FUNCTION_GEMMA, ("<start_function_call>",)),
    _Signature("kimi-k2", json_formats.KIMI, ("<|tool_calls_section_begin|>",)),
    _Signature("kimi-k3", tag_formats.KIMI_K3, ("<|open|>", "<|close|>", "<|sep|>")),
    _Signature("deepseek-v3.2", tag_formats.DEEPSEEK_V32, ("DSML", "function_calls")),
    _Signature("deepseek-v4", tag_formats.DEEPSEEK_V4, ("DSML", "tool_calls")),
    _Signature("deepseek-r1", json_formats.DEEPSEEK_R1, ("<｜tool▁calls▁begin｜>", "```json")),
    _Signature("deepseek-v3.1", json_formats.DEEPSEEK_V31, ("<｜tool▁calls▁begin｜>",)),
    _Signature("muse", tag_formats.MUSE, ("<atem:function_calls>", " to=")),
    _Signature("minimax-m3", tag_formats.MINIMAX_M3, ("]<]minimax[>[",)),
    _Signature("minimax-m2", tag_formats.MINIMAX_M2, ("<minimax:tool_call>",)),
    _Signature("seed-oss", tag_formats.SEED, ("<seed:tool_call>",)),
    _Signature("cohere", json_formats.COHERE_TEXT, ("<|START_ACTION|>", "<|START_TEXT|>")),
    _Signature("cohere", json_formats.COHERE, ("<|START_ACTION|>",)),
    _Signature("command-r", json_formats.COMMAND_R, ("Action:\\n```json", "tool_name")),
    _Signature("mistral-id", json_formats.MISTRAL_ID, ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")),
    _Signature("mistral-v11", json_formats.MISTRAL_V11, ("[TOOL_CALLS]", "[ARGS]")),
    _Signature("mistral", json_formats.MISTRAL, ("[TOOL_CALLS]",)),
    _Signature("lfm2", tag_formats.LFM2, ("<|tool_list_start|>",)),
    _Signature("lfm2", tag_formats.LFM2, ("<|tool_call_start|>",)),
    _Signature("lfm2", tag_formats.LFM2, ("List of tools: [",)),
    _Signature("qwen3-coder", tag_formats.QWEN_CODER, ("<tool_call>", "<function=", "<parameter=")),
    _Signature("functionary-v3.2", json_formats.FUNCTIONARY_32, (">>>all",)),
    _Signature("functionary-v3.1", json_formats.FUNCTIONARY, ("<function=",), ("<parameter=",)),
    _Signature("minicpm-5", tag_formats.MINICPM, ('<function name="', '<param name="')),
    _Signature("glm-4.7", tag_formats.GLM_47, ("<arg_key>", "</arg_key><arg_value>")),
    _Signature("glm-4.5", tag_formats.GLM, ("<arg_key>",)),
    _Signature("olmo-3", tag_formats.OLMO, ("<function_calls>",)),
    _Signature("apertus", json_formats.APERTUS, ("<|tools_prefix|>",)),
    _Signature("gigachat-3.1", json_formats.GIGACHAT_31, ("<|role_sep|>", "<|function_call|>")),
    _Signature("gigachat-3", json_formats.GIGACHAT, ("<|role_sep|>", "<|message_sep|>")),
    _Signature("nemotron-v2", json_formats.NEMOTRON, ("<TOOLCALL>",)),
    _Signature("hunyuan-3", tag_formats.HUNYUAN, ("<tool_sep", ":opensource")),
    _Signature("solar", json_formats.SOLAR, ("<|tool_call:begin|>",)),
    _Signature("granite-3", json_formats.GRANITE, ("<|start_of_role|>", "<|tool_call|>")),
    _Signature("granite-3", json_formats.GRANITE, ("<|start_of_role|>",), ("<tool_call>",)),
    _Signature("apriel", json_formats.APRIEL, ("<tool_calls>", "<thinking>")),
    _Signature("minimax-m1", json_formats.MINIMAX_M1, ("<tool_calls>",)),
    _Signature("phi-4-mini", json_formats.PHI, ("<|tool|>", "<|/tool|>")),
    _Signature("phi-4-mini", json_formats.PHI, ("functools",)),
    _Signature("hermes", json_formats.HERMES, ("<tool_call>",)),
    _Signature("llama-pythonic", tag_formats.LLAMA_PYTHONIC, ("<|header_start|>", "[func_name1(")),
    _Signature("llama-pythonic", tag_formats.LLAMA_PYTHONIC, ("<|start_header_id|>", "[func_name1(")),
    _Signature("llama-4", json_formats.LLAMA, ("<|header_start|>", "<|python_start|>")),
    _Signature("llama-3", json_formats.LLAMA, ("<|start_header_id|>", '"parameters"')),
)

_REASONING: Final = (
    ("[THINK]", ReasoningSyntax("[THINK]", "[/THINK]")),
    ("<seed:think>", ReasoningSyntax("<seed:think>", "</seed:think>")),
    ("<mm:think>", ReasoningSyntax("<mm:think>", "</mm:think>")),
    ("[BEGIN FINAL RESPONSE]", ReasoningSyntax("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]")),
    ("<thinking>", ReasoningSyntax("<thinking>", "</thinking>", also_begin=("<think>",), also_end=("</think>",))),
)
"""Thoughts of families whose calls are written as others write them, by what their templates hold."""


def family_of(template: str | None) -> ModelFamily:
    """Return the family of a model with this chat template.

    A model whose template has no format that is known, or that has no template, is taken for one that writes calls as
    most do, once it is told how.
    """
    found = next((signature for signature in _SIGNATURES if template and signature.fits(template)), None)
    family = ModelFamily(found.name, found.syntax) if found else ModelFamily("generic", json_formats.GENERIC)
    if template and family.syntax.reasoning is json_formats.HERMES.reasoning:
        for text, reasoning in _REASONING:
            if text in template:
                return replace(family, syntax=replace(family.syntax, reasoning=reasoning))
    return family


def families() -> list[ModelFamily]:
    """Return each family once, the generic one last."""
    named = {signature.name: ModelFamily(signature.name, signature.syntax) for signature in _SIGNATURES}
    return [*named.values(), family_of(None)]

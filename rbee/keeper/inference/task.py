"""Makes the request of what the user wants generated, how, and where."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from rbee.keeper.command_line.checked import convert
from rbee.wire.common import Sampling
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import GenerationOptions
    from rbee.wire.chat.conversation import Conversation


def request(
    options: GenerationOptions,
    settings: Settings,
    *,
    model: str,
    prompt: str | None = None,
    conversation: Conversation | None = None,
) -> TaskRequest:
    """Return the request, with an id of its own: of a prompt or a conversation. Raises WrongValueError."""
    given = {name: getattr(options, name, None) for name in Sampling.__struct_fields__}
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    values |= {
        "model": model,
        "node": options.node or settings.defaults.node,
        "backend": options.backend,
        "device": options.device,
        "wait_s": options.wait,
        "request_id": str(uuid.uuid4()),
        "narrate": True,
    }
    if options.context is not None:
        values["context"] = options.context
    if options.max_tokens is not None:
        values["max_tokens"] = options.max_tokens
    if prompt is not None:
        return convert(values | {"prompt": prompt}, TaskRequest, strict=True)
    # Checked with something in place of the messages, whose errors would name no option.
    task = convert(values | {"prompt": "-"}, TaskRequest, strict=True)
    task.prompt, task.conversation = UNSET, conversation or UNSET
    return task

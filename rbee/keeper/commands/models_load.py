"""`rbee models load`: has a model loaded before anybody asks it, and holds it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rbee.adapters.logs.json_log import correlate
from rbee.errors import ConnectionTimeoutError
from rbee.keeper.command_line import reference
from rbee.keeper.command_line.checked import convert
from rbee.keeper.inference import in_line
from rbee.keeper.inference.generation import nowhere
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, running_queen
from rbee.keeper.session.attached_queen import attach
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import PreloadOptions
    from rbee.keeper.inference.generation import Generation
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.worker import Done


def run(options: PreloadOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have one token generated: then the model is fetched and loaded, and its worker knows how long it is to stay."""
    asked = _task(options, settings)

    async def command(_force: trio.Event) -> Result:
        correlate(asked.request_id)
        if (found := await running_queen.find(settings)) is None:
            raise ConnectionTimeoutError(
                "no queen is running: a model stays loaded only under one that stays", hint="`rbee up` starts it"
            )

        async def follow(generation: Generation) -> Done:
            return await generation.run(terminal, nowhere)

        async with attach(settings, found, terminal) as queen:
            answered = await in_line.generate(queen, asked, settings, terminal, keep=options.keep, follow=follow)
        handle = answered.handle
        data = {"model": asked.model, "node": handle.node, "worker_id": handle.worker_id}
        return Result(data=data, text=f"{asked.model} is loaded on {handle.node}.")

    return interrupt.run(command)


def _task(options: PreloadOptions, settings: Settings) -> TaskRequest:
    values: dict[str, Any] = {
        "model": reference.chosen(options.model, settings),
        "node": options.node or settings.defaults.node,
        "backend": options.backend,
        "device": options.device,
        "wait_s": options.wait,
        "request_id": str(uuid.uuid4()),
        "prompt": " ",
        "raw": True,
        "max_tokens": 1,
        "temperature": 0.0,
        "cache": False,
        "narrate": True,
    }
    if options.context is not None:
        values["context"] = options.context
    return convert(values, TaskRequest, strict=True)

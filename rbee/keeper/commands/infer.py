"""`rbee infer`: continues a prompt, and prints the text as it is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.logs.json_log import correlate
from rbee.errors import DrainingError, UnloadFailedError
from rbee.keeper.chat.dialogue import Dialogue
from rbee.keeper.command_line import prompt, reference
from rbee.keeper.inference import in_line, summary, task
from rbee.keeper.inference.generation import nowhere
from rbee.keeper.output.result import Result
from rbee.keeper.output.text import Text
from rbee.keeper.session import interrupt, session
from rbee.narrower_errors import WorkerDrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import InferOptions
    from rbee.keeper.inference.generation import Generation
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.queen import TaskRequest
    from rbee.wire.worker import Done

MAX_ATTEMPTS: Final = 3
"""Workers or queens that may end before they have generated anything."""


def run(options: InferOptions, settings: Settings, terminal: Terminal) -> Result:
    """Place the prompt, stream the answer; everything that is wrong with it is refused before anything starts."""
    asked = _task(options, settings, terminal.note)

    async def command(force: trio.Event) -> Result:
        correlate(asked.request_id)
        attempt = 0
        while True:
            attempt += 1
            result: Result | None = None
            try:
                async with session.use(settings, terminal, force, options=options) as queen:
                    result = await _infer(queen, asked, settings, terminal, options)
            except UnloadFailedError as exc:
                if result is None:
                    raise
                return result._replace(failure=exc)
            except DrainingError as exc:
                # The worker was told to end, or the queen: it was another command's, which is over. Nothing was
                # generated yet, so another one may do it.
                of_worker = isinstance(exc, WorkerDrainingError)
                if attempt == MAX_ATTEMPTS or not (of_worker or await session.wait_until_gone(settings, terminal)):
                    raise
            else:
                return result

    return interrupt.run(command)


def _task(options: InferOptions, settings: Settings, note: Callable[[str], None]) -> TaskRequest:
    model = reference.chosen(options.model, settings)
    text = prompt.read(options.prompt, note)
    if options.system is None:
        return task.request(options, settings, model=model, prompt=text)
    dialogue = Dialogue(options.system)
    dialogue.ask(text)
    return task.request(options, settings, model=model, conversation=dialogue.conversation())


async def _infer(
    queen: AttachedQueen, asked: TaskRequest, settings: Settings, terminal: Terminal, options: InferOptions
) -> Result:
    async def follow(generation: Generation) -> Done:
        if options.json:
            return await generation.run(terminal, nowhere)
        return await _show(generation, settings, terminal)

    answered = await in_line.generate(queen, asked, settings, terminal, keep=options.keep, follow=follow)
    handle, generation, done = answered
    if options.json:
        return Result(data=summary.to_json(asked, handle, generation.text, done))
    return Result(notes=(summary.last_line(asked, handle, done),))


async def _show(generation: Generation, settings: Settings, terminal: Terminal) -> Done:
    text = Text(terminal)
    try:
        done = await generation.run(terminal, text.write)
    except BaseException:
        with trio.move_on_after(settings.timeouts.acknowledge, shield=True):
            await text.cut()
        raise
    await text.end()
    return done

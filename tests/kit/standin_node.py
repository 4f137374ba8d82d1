"""A node with one worker, in the test's own process: what the worker answers, and when, the test says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, empty, new_app, streamed, with_keys
from rbee.adapters.tokens import worker_key
from rbee.errors import ModelNotFoundError
from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.scheduling.place_request import Placed
from rbee.wire import model_ref
from rbee.wire import worker as wire
from rbee.wire.chat.answer import AnswerEnded, ChoiceEnded, PromptRead, TextDelta, Usage
from rbee.wire.gguf import ModelHeader
from rbee.wire.hive import WorkerList, WorkerRow
from rbee.wire.models import ModelDetails, ModelRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.nodes.nodes import Nodes
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.common import WorkerState

USAGE = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2, reasoning_tokens=1)
ENDED = AnswerEnded(usage=USAGE, duration_ms=5)
ANSWER: Sequence[AnswerEvent] = (
    PromptRead(tokens=7, cached=2),
    TextDelta(text="On"),
    TextDelta(text="ce"),
    ChoiceEnded(reason="stop"),
    ENDED,
)
HEADER = ModelHeader(
    architecture="llama",
    parameters=100,
    tensor_bytes=200,
    quantisation="Q4_K_M",
    context_length=32_768,
    embedding_length=8,
    vocabulary=50,
    has_chat_template=True,
    has_tools=True,
)


def row_of(reference: str, stem: str) -> ModelRow:
    """Return a row of a hive's catalogue."""
    ref = model_ref.parse(reference)
    return ModelRow(
        id=stem, model_ref=reference, provider=ref.provider, reference=ref.reference, variant=ref.variant or "",
        local_path=f"/models/{stem}.gguf", size_bytes=200, sha256=None, downloaded_at_unix=1700000000.5,
        last_used_unix=None,
    )  # fmt: skip


class StandInNode:
    """A node whose worker answers with `script`: events, errors, and trio's events, which it waits for.

    `refusal` is raised by the worker before it answers, and `misplaced` by the node before there is a worker. The
    hive has `rows`, for which it was asked `asked_models` times, and
    `references` are the models that were placed.
    """

    name = "local"
    is_direct = True
    is_everywhere = False

    def __init__(self, token: str) -> None:
        self._token = token
        self.mirror = HiveMirror()
        self.url = ""
        self.script: Sequence[Any] = ANSWER
        self.first_scripts: list[Sequence[Any]] = []
        """What its first inferences answer, one each."""
        self.refusal: Exception | None = None
        self.misplaced: Exception | None = None
        self.placed: WorkerState = "idle"
        self.loaded = trio.Event()
        self.loaded.set()
        self.rows: list[ModelRow] = []
        self.asked_models = 0
        self.references: list[str] = []
        self.options: dict[str, object] = {}
        """How it was asked last for a worker."""
        self.inferences: list[wire.InferenceRequest] = []
        self.ended = trio.Event()
        """Set when an inference has ended, also because its client has gone."""

    def worker_url(self, url: str) -> str:
        return url

    def known_workers(self) -> list[WorkerRow] | None:
        return None

    async def workers(self) -> WorkerList:
        return WorkerList(workers=[])

    async def answers(self) -> bool:
        return True

    async def place(
        self, wanted: Any, report: object, wait: float, *, must_ask: bool, may_move: bool = False, **options: object
    ) -> Placed:
        self.references.append(wanted.model_ref)
        self.options = options
        if self.misplaced is not None:
            raise self.misplaced
        return Placed("w", self.url, self.placed)

    @asynccontextmanager
    async def ensure_hive(self, report: object) -> AsyncIterator[StandInNode]:
        yield self

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[StandInNode]:
        yield self

    async def models(self) -> list[ModelRow]:
        self.asked_models += 1
        return self.rows

    async def show_model(self, reference: str) -> ModelDetails:
        row = next((row for row in self.rows if row.model_ref == reference), None)
        if row is None and reference != model_ref.BUILTIN:
            raise ModelNotFoundError("not here")
        return ModelDetails(
            model_ref=reference, local_path="/x.gguf", size_bytes=200, model=row, header=HEADER, context=4096
        )

    def app(self, nursery: trio.Nursery) -> QuartTrio:
        """Return the worker."""
        app = new_app("worker", with_keys(lambda _: (worker_key(self._token, "w"),), {wire.READY}))

        @app.get(wire.READY)
        async def ready() -> Response:
            await self.loaded.wait()
            return answer(wire.Readiness(ready=True, state="idle", model_loaded=True))

        @app.post(wire.INFERENCE)
        async def inference() -> Response:
            asked = await body(wire.InferenceRequest)
            self.inferences.append(asked)
            if self.refusal is not None:
                raise self.refusal
            script = self.first_scripts.pop(0) if self.first_scripts else self.script

            async def produce(send: sse_server.Send) -> None:
                try:
                    for event in script:
                        if isinstance(event, trio.Event):
                            await event.wait()
                        elif isinstance(event, Exception):
                            raise event
                        else:
                            await send.send(sse_server.event(event))
                finally:
                    self.ended.set()

            return streamed(nursery, produce)

        @app.delete(f"{wire.INFERENCE}/<request_id>")
        async def cancel(request_id: str) -> Response:
            return empty(204)

        return app


class OneNodeSwarm:
    """A swarm of this node alone."""

    def __init__(self, node: StandInNode) -> None:
        self._node = node

    def get(self, name: str) -> StandInNode:
        return self._node

    def all(self) -> list[StandInNode]:
        return [self._node]


def swarm_of(node: StandInNode) -> Nodes:
    return cast("Nodes", OneNodeSwarm(node))

"""The hive's HTTP interface to its models."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from quart import Response, request

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, empty, raw_body, wants_stream
from rbee.adapters.http.file_response import answer_with_file
from rbee.errors import (
    BackendUnavailableError,
    DeviceOutOfRangeError,
    InvalidRequestError,
    ModelLoadFailedError,
    ModelNotFoundError,
)
from rbee.hive.workers.make_spec import context_of
from rbee.wire import model_copy, model_push, model_ref
from rbee.wire import models as wire
from rbee.wire.common import Narration
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from rbee.hive.models.downloads import SharedDownload
    from rbee.hive.routes.context import HiveContext
    from rbee.wire.progress import ProgressEvent


def add(app: QuartTrio, context: HiveContext) -> None:
    library = context.library

    @app.get(wire.LIST)
    async def list_models() -> Response:
        return answer(wire.ModelList(models=await library.catalogue.all()))

    @app.get(wire.SHOW)
    async def show_model() -> Response:
        query = convert(dict(request.args), wire.ModelRequest)
        details = await library.show(query.model_ref)
        with suppress(BackendUnavailableError, DeviceOutOfRangeError, ModelLoadFailedError):
            size, settings = details.size_bytes, context.settings
            details.context = await trio.to_thread.run_sync(context_of, details.header, size, settings)
        return answer(details)

    @app.post(wire.DOWNLOAD)
    async def download() -> Response:
        wanted = await body(wire.DownloadRequest)
        ref = model_ref.parse(wanted.model_ref)
        if ref.provider == "builtin" or (
            ref.provider == "file" and not wanted.sources and await library.find(ref) is None
        ):
            raise InvalidRequestError(
                f"{ref} cannot be fetched: only models of the Hugging Face hub can",
                hint="`rbee models push FILE --node NAME` copies a file of yours to a node",
                field="model_ref",
                rule="hf:ORG/REPO",
            )
        if wants_stream():
            # As long as the stream is held, so is the claim to the download.
            return context.stream_progress(lambda report: library.obtain(ref, report, wanted.sources), "model")
        if not (ref.provider == "file" and wanted.sources) and (row := await library.find(ref)) is not None:
            return answer(wire.Download(local_path=row.local_path))
        return answer(wire.Download(download_id=library.downloads.begin(ref, wanted.sources).id))

    @app.delete("/v1/models/download/<download_id>")
    async def give_up(download_id: str) -> Response:
        library.downloads.give_up(download_id)
        return empty(204)

    @app.get(wire.PROGRESS)
    async def progress() -> Response:
        query = convert(dict(request.args), wire.DownloadQuery)
        return context.stream(partial(_follow, library.downloads.known(query.id)))

    @app.get(model_copy.FILES)
    async def list_files() -> Response:
        query = convert(dict(request.args), wire.ModelRequest)
        return answer(await library.offers(model_ref.parse(query.model_ref)))

    @app.get(f"{model_copy.CONTENT}<sha256>")
    async def content(sha256: str) -> Response:
        for file in await library.catalogue.content(sha256):
            if (response := await answer_with_file(file.path, file.size, f'"{sha256}"')) is not None:
                return response
        raise ModelNotFoundError("no model of this node has a file of this hash")

    @app.post(model_push.PUSH)
    async def push() -> Response:
        wanted = await body(model_push.PushRequest)
        return await context.respond(partial(library.pushed.state, wanted), "result")

    @app.put(f"{model_push.PIECE}<sha256>")
    async def take_piece(sha256: str) -> Response:
        query = convert(dict(request.args), model_push.PieceQuery)
        data = await raw_body()
        return answer(await library.pushed.append(sha256, query.offset, data))

    @app.delete("/v1/models/<model_id>")
    async def remove_model(model_id: str) -> Response:
        await library.remove(model_id, context.workers.users_of)
        return empty(204)


async def _follow(download: SharedDownload, send: sse_server.Send) -> None:
    """Send the latest event and each that follows, without lines for people, until the download has ended."""
    into, events = trio.open_memory_channel["ProgressEvent"](math.inf)

    def report(event: ProgressEvent) -> None:
        if not isinstance(event, Narration):
            into.send_nowait(event)

    with download.watched(report):
        while not download.outcome.is_settled or events.statistics().current_buffer_used:
            await send.send(sse_server.event(await events.receive()))

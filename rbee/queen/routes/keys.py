"""The queen's HTTP interface to API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http.app import answer, body
from rbee.errors import InvalidApiKeyError
from rbee.wire.administration import keys as wire

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    keys, tracker = context.keys, context.tracker

    @app.get(wire.KEYS)
    async def list_keys() -> Response:
        return answer(wire.KeyList(keys=keys.all()))

    @app.post(wire.KEYS)
    async def create_key() -> Response:
        return answer(await keys.create(await body(wire.KeyRequest)))

    @app.delete("/v2/keys/<name>")
    async def revoke_key(name: str) -> Response:
        ended = 0

        def end_its_requests() -> None:
            nonlocal ended
            ended = tracker.end_of(name, InvalidApiKeyError("the key was revoked while the request ran", key=name))

        await keys.revoke(name, end_its_requests)  # also where the disk, which comes after that, is full
        return answer(wire.KeyRevoked(name=name, ended=ended))

"""The queen's HTTP interface to aliases of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.http.app import answer, body
from rbee.queen.api import aliases
from rbee.queen.routes import dialect
from rbee.wire.administration import aliases as wire

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    async def described() -> list[wire.ModelAlias]:
        return aliases.described(await dialect.names_of(context), context.aliases.of_settings)

    @app.get(wire.ALIASES)
    async def list_aliases() -> Response:
        return answer(wire.AliasList(aliases=await described()))

    @app.post(wire.ALIASES)
    async def make_alias() -> Response:
        asked = await body(wire.AliasRequest)
        aliases.check(asked, await dialect.names_of(context, fresh=True))
        await context.aliases.make(asked.name, asked.target)
        return answer(next(one for one in await described() if one.name == asked.name))

    @app.post(wire.REMOVE)
    async def remove_alias() -> Response:
        asked = await body(wire.AliasName)
        return answer(wire.AliasName(name=await context.aliases.remove(asked.name)))

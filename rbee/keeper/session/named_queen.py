"""Asks the queen that the user has named, and says what is wrong where none answers there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.clients.queen import QueenClient
from rbee.errors import (
    ConnectionTimeoutError,
    InternalError,
    InvalidApiKeyError,
    MissingApiKeyError,
    PortInUseError,
    RbeeError,
)
from rbee.narrower_errors import AddressTakenError
from rbee.wire.addresses import is_loopback

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.http.proof import Challenge
    from rbee.keeper.session.queen_address import QueenAddress
    from rbee.wire.queen import QueenHealth

PROXY_STATUSES: Final = (502, 503, 504)
"""What a proxy answers where the server behind it does not."""


async def ask(address: QueenAddress, settings: Settings, challenge: Challenge | None) -> QueenHealth:
    """Return the health of the queen, with a proof that meets the challenge if it gives one.

    Raises ConnectionTimeoutError where none answers, PortInUseError for a stranger. None is ever started
    there: it would be one of this machine, and not the one that was meant.
    """
    try:
        async with QueenClient(address.url, None, timeout=settings.timeouts.call) as client:
            return await client.health(challenge)
    except AddressTakenError as exc:
        # A queen that is stopped, or has too much to do, takes connections and says nothing in time.
        reason = _reason(exc)
        raise (silent if reason == "timeout" else _is_no_queen)(address, reason) from exc
    except ConnectionTimeoutError as exc:
        raise silent(address, _reason(exc)) from exc
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        raise _is_no_queen(address, "perhaps a hive or a worker of rbee, whose ports are others") from exc
    except InternalError as exc:
        raise _odd(address, exc) from exc
    except RbeeError as exc:
        raise _is_no_queen(address, exc.message) from exc


def silent(address: QueenAddress, reason: str) -> ConnectionTimeoutError:
    """Return the error for an address at which no queen answers."""
    machine = address.machine
    if reason.startswith("its certificate"):
        hint = "SSL_CERT_FILE names a file with the certificates to trust"
    elif reason.startswith("it does not speak https"):
        hint = f"try http://{address.host}"
    elif "name is not known" in reason:
        hint = f"check the name {machine}, or use the machine's address"
    elif is_loopback(machine):
        hint = (
            f"if a tunnel leads from there to the queen's machine, see that it is open ({address.tunnel}); "
            "a queen of this machine needs no --queen, RBEE_QUEEN_URL or `url`"
        )
    else:
        hint = (
            f"`rbee up` on {machine} starts one, which other machines reach with `host` under [queen] there, unless "
            "a firewall is in between; "
            f"or open a tunnel: {address.tunnel}, and use --queen http://127.0.0.1:8081"
        )
    return ConnectionTimeoutError(
        f"no queen answers at {address.url} ({reason})", hint=hint, attempts=[reason], url=address.url
    )


def _odd(address: QueenAddress, exc: InternalError) -> RbeeError:
    """Return the error for an answer that a queen does not give."""
    status, location = exc.details.get("status"), exc.details.get("location")
    if location is not None:
        return PortInUseError(
            f"{address.url} leads on to {location}, and the token is not taken along",
            hint="if the queen is there, name it so: --queen, RBEE_QUEEN_URL, or `url` under [queen]",
        )
    if status in PROXY_STATUSES:
        return silent(address, f"a proxy before it answers, with HTTP status {status}")
    return _is_no_queen(address, f"HTTP status {status}" if status is not None else exc.message)


def _is_no_queen(address: QueenAddress, reason: str) -> PortInUseError:
    return PortInUseError(
        f"what answers at {address.url} is not a queen of rbee ({reason})",
        hint="check host, port and path: a queen listens on port 8080 unless it was told otherwise",
        url=address.url,
    )


def _reason(exc: RbeeError) -> str:
    attempts = exc.details.get("attempts")
    return str(attempts[-1]).partition(": ")[2] if attempts else exc.message

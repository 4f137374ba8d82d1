"""Errors that share the code of their base class, for who has to tell them from it.

On the wire they are the base class to an older version; `wire.error_body` tells them by their details (`told_by`).
"""

from __future__ import annotations

from typing import Final

from rbee.errors import (
    AllSlotsBusyError,
    ConnectionTimeoutError,
    DrainingError,
    InvalidApiKeyError,
    InvalidRequestError,
    ModelLoadFailedError,
    SshFailedError,
)

HOST_KEY: Final = "host_key"
UNSUPPORTED: Final = "unsupported"
NAN: Final = "nan"
UNKNOWN_FIELD: Final = "no such field"


class AddressTakenError(ConnectionTimeoutError):
    """Something listens at the address and does not answer as a daemon does; with its base class, nobody listens."""


class NobodyListensError(ConnectionTimeoutError):
    """The machine at the address answers, and says that nobody listens there."""


class SilentAddressError(AddressTakenError):
    """Nothing at the address answers in any way: the machine is off, or a firewall is in between."""


class HostKeyError(SshFailedError):
    """The server showed a host key that is not known, or another one than before."""

    told_by = (("reason", HOST_KEY),)

    @property
    def unknown_fingerprint(self) -> str | None:
        """The fingerprint of a key that can be accepted; None where another key of the server was known."""
        found = self.details.get("fingerprint")
        return found if isinstance(found, str) and "known" not in self.details else None


class UnsupportedModelError(ModelLoadFailedError):
    """A sound file that is no model of text, or that this engine does not know: another copy of it is of no use."""

    told_by = (("reason", UNSUPPORTED),)


class NoNumbersError(ModelLoadFailedError):
    """The model's weights give no numbers, but NaN: whatever is tried again ends the same way."""

    advice = "use another quantisation of it, or the file of another publisher; a new copy of this one is no better"

    told_by = (("reason", NAN),)


class LineFullError(AllSlotsBusyError):
    """As many requests wait for a slot on a node as may."""


class WorkerDrainingError(DrainingError):
    """One worker was told to end, or is gone, while the queen goes on; `details["worker_id"]` is the worker."""


class UnsupportedFieldError(InvalidRequestError):
    """A field asks for what would be right elsewhere, and what rbee cannot do."""

    told_by = (("reason", UNSUPPORTED),)


class UnknownFieldError(InvalidRequestError):
    """A request has a field that is not known: one of a later version, or none of any."""

    told_by = (("rule", UNKNOWN_FIELD),)


class PromptTooLongError(InvalidRequestError):
    """A prompt, or a conversation, has `details["tokens"]` or more, and the context holds `details["context"]`."""


class TooManyTokensError(InvalidRequestError):
    """More tokens are asked for than the context holds, which is `details["context"]`."""

    @property
    def most(self) -> int:
        """The tokens that the context holds."""
        return int(self.details["context"])


class KeyRefusedError(InvalidApiKeyError):
    """A daemon refused our own token or key; `details["host"]` is its address. The caller's was good."""

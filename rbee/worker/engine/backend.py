"""What the engine needs of the library that computes: one model, and a memory shared by its sequences (PURE).

The engine, the chat templates and the HTTP interface know a model by these protocols alone. `rbee.worker.llama` fulfils
them with llama.cpp, and the daemon brings the two together.

A sequence that is decoded is a number from 0 to `slots - 1`; others can only hold copies (`spare`). Lengths and
positions count tokens, from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rbee.errors import WorkerFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.chat.answer import TokenLogprob
    from rbee.wire.common import Sampling


class NoRoomError(Exception):
    """The memory has no room for these tokens; it holds what it held before."""


class DecodeAbortedError(Exception):
    """`abort` was called. Of each part of the batch the memory may hold any beginning: remove it."""


class StateMismatchError(Exception):
    """A saved state comes from another model or another kind of memory, or is damaged."""


class EngineFailedError(WorkerFailedError):
    """The library failed in a way that it does not recover from; a new process may."""

    exit_code = 70  # EX_SOFTWARE: the hive can tell it from an ordinary failure


class BatchPart(NamedTuple):
    """Tokens of one sequence, of which the first stands at `position`: where the memory's part of it ends.

    With `wants_logits` a sampler can choose the token that follows the last one; with `wants_all` it can tell how
    probable any token would be behind each of them.
    """

    sequence: int
    tokens: list[int]
    position: int
    wants_logits: bool
    wants_all: bool = False


class SavedState(NamedTuple):
    """What the memory held of a sequence's tokens from `start` to `end`, which is not part of it.

    Back-ends of the same model, or `origin`, can restore it. `data` has no checksum: one that was on a disk or a socket
    has to be checked before it is restored.
    """

    origin: bytes
    start: int
    end: int
    data: bytes | memoryview


class Constraint(Protocol):
    """Says at each place of one generation which tokens are allowed; used by the sampler that it was given to."""

    def apply(self, row: Any) -> None:
        """Forbid in a row of logits what cannot come next. Raises InvalidRequestError where that cannot be said."""

    def accept(self, token: int) -> None:
        """Go on behind this token."""


class Sampler(Protocol):
    """Chooses the tokens of one generation, and remembers them for the penalties; used by the engine's thread."""

    @property
    def logprob(self) -> TokenLogprob | None:
        """How probable the token was that was sampled last, where the request wants to know that."""

    def sample(self, row: int) -> int:
        """Return the token that follows row `row` of the last batch; that row must have wanted logits.

        Raises NoNumbersError where the model has computed none.
        """

    def scored(self, row: int, token: int) -> TokenLogprob | None:
        """Return how probable a token of the prompt was behind row `row` of the last batch; None as in `logprob`."""

    def close(self) -> None:
        """Free what it holds."""


class Vocabulary(Protocol):
    """A model's tokens and texts; its methods may be called from any thread."""

    @property
    def chat_template(self) -> str | None:
        """The template in jinja's language that comes with the model, if one does."""

    @property
    def tools_template(self) -> str | None:
        """The template for conversations with tools, if the model brings one of its own for them."""

    @property
    def tokens(self) -> int:
        """How many tokens there are; they are numbered from 0."""

    def infill_tokens(self) -> tuple[int, int, int] | None:
        """Return the tokens before a text, before what follows the gap, and at the gap; None where there are none."""

    @property
    def begin_text(self) -> str:
        """How templates write the begin token; empty where there is none."""

    @property
    def end_text(self) -> str:
        """How templates write the end token; empty where there is none."""

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        """Return the tokens of a text, with `begin` after the begin token where the model wants one.

        Without `control` what looks like a control token is read as text: the author of a prompt must not be able to
        write control tokens.
        """

    def control_tokens(self) -> dict[str, int]:
        """Return the control tokens by their names, which `tokenize` reads as such with `control`; takes some 0.1 s."""

    def piece(self, token: int, *, control: bool = False) -> bytes:
        """Return the bytes that `token` adds to the text, perhaps a part of a character.

        Those of a control token are none, or with `control` its name, as in `<|im_end|>`.
        """

    def is_end(self, token: int) -> bool:
        """Return whether generation ends with this token."""

    def end_tokens(self) -> list[int]:
        """Return the tokens with which a generation ends, the model's own end token first."""

    def constrained(self, grammar: str) -> Constraint:
        """Return what holds one generation to a grammar (llguidance's Lark). Raises InvalidRequestError.

        It blocks for some milliseconds, and the first time for up to a second.
        """


class Backend(Protocol):
    """A loaded model with its memory. Only `abort` and `decoded` may be called while another thread is in a method."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens."""

    @property
    def slots(self) -> int:
        """The number of sequences."""

    @property
    def spare(self) -> range:
        """Numbers of further sequences, which can hold copies of others and are never decoded; empty where none can."""

    @property
    def can_cut(self) -> bool:
        """Whether any beginning of a sequence can be used; else only the whole of it, as it is or was saved."""

    @property
    def origin(self) -> bytes:
        """What saved states have in common that can take each other's place: the model, and how values are kept."""

    @property
    def length(self) -> int:
        """The most tokens of one sequence, where the others leave them."""

    @property
    def pool(self) -> int:
        """Tokens that the memory holds of all sequences, each once that some have in common.

        More than there ever are where it keeps none of them, but what came of them.
        """

    @property
    def trained_length(self) -> int:
        """The most tokens of a text that the model was trained on."""

    @property
    def batch(self) -> int:
        """The most tokens of one decode."""

    @property
    def scored_step(self) -> int:
        """The most tokens in one decode that are in parts which want all logits."""

    @property
    def prompt_step(self) -> int:
        """The most tokens of prompts in one decode while no sequence waits for its next token.

        So few that a prompt which comes meanwhile need not wait for long; and always the same number, since another
        one might yield another text.
        """

    @property
    def threads(self) -> int:
        """The most threads that compute."""

    def new_sampler(self, options: Sampling, constraint: Constraint | None = None) -> Sampler:
        """Return a sampler for one generation, perhaps under a constraint of its own; close it."""

    def set_threads(self, count: int) -> None:
        """Choose how many threads compute from the next batch on, at most `threads`."""

    def decode(self, parts: Sequence[BatchPart]) -> list[int]:
        """Compute a batch of at most `batch` tokens, at most one part for each sequence, without the GIL.

        Returns the row of each part's last token, for `Sampler.sample`. Raises NoRoomError, DecodeAbortedError, or
        EngineFailedError when the back-end is of no use any more.
        """

    def decoded(self) -> float:
        """Return how much of the decode that runs is computed, from 0 to 1; for any thread."""

    def abort(self) -> None:
        """Make the decode that runs end soon, and each that begins before `clear_abort`."""

    def clear_abort(self) -> None:
        """Let the next decode run."""

    def copy(self, source: int, target: int, length: int) -> bool:
        """Make `target` a sequence of the first `length` tokens of `source`, in place of what it held.

        Costs no room where sequences share what they have in common. Returns False, with an empty target, where
        nothing can go on from there: some models keep only the state after the last token, or a window before it.
        """

    def remove(self, sequence: int, start: int = 0) -> bool:
        """Forget a sequence's tokens from `start` on; returns False where this model can only forget all of them."""

    def save(self, sequence: int, start: int = 0, end: int | None = None) -> SavedState:
        """Return what the memory holds of a sequence, which stays; some KiB for each token.

        Only where a sequence can be cut may this be a part of it.
        """

    def restore(self, sequence: int, state: SavedState) -> None:
        """Put a saved state behind the tokens of `sequence`, which end where it starts: a start of 0 replaces them.

        It takes room of its own, also beside the original. Raises NoRoomError or StateMismatchError, and leaves the
        sequence as it was before, or empty where the state starts at 0.
        """

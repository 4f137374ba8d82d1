"""Says what a prompt is known by, piece by piece, without keeping any of it (PURE).

The queen knows no template and no tokens. Two prompts whose first messages are the same have the same beginning once
they are rendered, so each link of a chain stands for all that comes before it: the tools, then one link for each
message; of a text or of tokens one for each whole block.

A conversation of ten messages costs 25 microseconds, one of 16 MB a millisecond at most.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UNSET

from rbee.wire.chat.conversation import ImagePart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.wire.chat.conversation import ChatMessage, Conversation
    from rbee.wire.worker import GenerationSpec

BLOCK: Final = 512
"""Characters of a text that one link stands for."""
CHARACTERS_PER_TOKEN: Final = 4
"""About, in English; other scripts have fewer."""
MAX_LINKS: Final = 256
"""Of a longer history the first ones are enough: the worker that has read these has most likely read the rest too."""
ENDS: Final = 1024
"""Characters that are hashed of each end of a longer piece, beside its length. Two that differ in the middle alone are
taken for one: their worker then finds out how much it can use."""
_DIGEST_BYTES: Final = 16


class Link(NamedTuple):
    """The digest of a prompt's beginning, and about how many characters that has."""

    digest: bytes
    length: int


class PromptLinks(NamedTuple):
    """What a prompt is known by: its beginnings, the shortest first, and about how many characters all of it has.

    `session` is the digest of the name that its client gives to what belongs together, where it does.
    """

    links: tuple[Link, ...]
    length: int
    session: bytes | None = None


def prompt_links(spec: GenerationSpec, model_ref: str, salt: str, session: str = "") -> PromptLinks | None:
    """Return what the prompt of a request is known by; None where nothing that is computed for it is kept.

    Prompts for different models, or with different salts, have no link in common. The end of a text that fills no
    block, and what comes after MAX_LINKS, has no link.
    """
    if spec.cache is False:
        return None
    if (conversation := spec.conversation) is not UNSET:
        kind, pieces, length = "conversation", _of_conversation(conversation), 0
    elif (tokens := spec.tokens) is not UNSET:
        kind, pieces, length = "tokens", _blocks_of_tokens(tokens), len(tokens) * CHARACTERS_PER_TOKEN
    else:
        text = spec.prompt or ""
        kind, pieces, length = "text", _blocks_of_text(text), len(text)
    chain = blake2b("\0".join((kind, model_ref, salt)).encode(), digest_size=_DIGEST_BYTES)
    links, so_far = list[Link](), 0
    for piece, characters in pieces:
        chain.update(piece)
        so_far += characters
        links.append(Link(chain.copy().digest(), so_far))
        if len(links) == MAX_LINKS:
            break
    return PromptLinks(tuple(links), max(length, so_far), _named(session, model_ref, salt) if session else None)


def _named(session: str, model_ref: str, salt: str) -> bytes:
    return blake2b(_bytes("\0".join(("session", model_ref, salt, session))), digest_size=_DIGEST_BYTES).digest()


def _of_conversation(conversation: Conversation) -> Iterator[tuple[bytes, int]]:
    """Yield the tools, and then each message, as bytes, with how many characters they have.

    What clients leave out of the history later, as what the model has thought, is not a part of it; nor are ids.
    """
    if conversation.tools:
        tools = [text for tool in conversation.tools for text in (tool.name, tool.description)]
        yield _joined(tools), sum(map(len, tools))
    for message in conversation.messages:
        texts = _texts(message)
        yield _joined(texts), sum(map(len, texts))


def _texts(message: ChatMessage) -> list[str]:
    texts: list[str] = [message.role]
    texts += [_of_image(part) if isinstance(part, ImagePart) else part.text for part in message.content]
    for call in message.tool_calls:
        texts += (call.name, call.arguments)
    return texts


def _of_image(part: ImagePart) -> str:
    return f"{len(part.data)} {part.data[:ENDS].hex()} {part.data[-ENDS:].hex()}"


def _joined(texts: list[str]) -> bytes:
    """Return texts as bytes such that no others have the same, but for those that differ in the middle alone."""
    short = [text if len(text) <= 2 * ENDS else f"{len(text)} {text[:ENDS]}{text[-ENDS:]}" for text in texts]
    return _bytes("\0".join((str(len(texts)), *short, "")))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _blocks_of_text(text: str) -> Iterator[tuple[bytes, int]]:
    for end in range(BLOCK, len(text) + 1, BLOCK):
        yield _bytes(text[end - BLOCK : end]), BLOCK


def _blocks_of_tokens(tokens: list[int]) -> Iterator[tuple[bytes, int]]:
    size = BLOCK // CHARACTERS_PER_TOKEN
    for end in range(size, len(tokens) + 1, size):
        try:
            block = array("Q", tokens[end - size : end]).tobytes()
        except OverflowError:
            return  # no model has such a token: the worker refuses it
        yield block, BLOCK

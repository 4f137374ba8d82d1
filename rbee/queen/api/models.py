"""Says which model a client means by a name (PURE).

A name is a reference, an alias, `name:tag`, `org/repo:quant`, `hf.co/…`, the stem of a file, or any of them with
`@node`; small and capital letters are the same, and prefixes with which some clients choose among servers are ignored.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import InvalidRequestError, ModelNotFoundError, NodeNotFoundError
from rbee.wire import model_ref
from rbee.wire.administration import alias_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from rbee.wire.gguf import ModelHeader

NEAREST: Final = 5
SHOWN: Final = 100
_HUBS: Final = ("hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/")
_PREFIXES: Final = ("openai/", "hosted_vllm/", "ollama/", "ollama_chat/", "openai_like/", "local/", "rbee/")
_WITH_QUANT: Final = re.compile(
    r"[\w.-]+/[\w.-]+:(?:(?:UD-)?(?:[IT]?Q\d\w*|BF16|F16|F32|MXFP4\w*)|[^/:]+\.gguf)", re.ASCII | re.IGNORECASE
)
"""Of all that looks like a repository and a tag, what is surely one of the hub's."""
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_GGUF: Final = re.compile(r"[-_.]gguf$")


class KnownModel(NamedTuple):
    """A model that is somewhere in the swarm. `id` is the stem of its first file, `created` Unix seconds.

    `nodes` have it on their disks, and on `loaded` it is in memory; `context` is how many tokens a request may have.
    """

    reference: str
    id: str = ""
    nodes: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    created: float = 0.0
    size: int | None = None
    header: ModelHeader | None = None
    context: int | None = None


class Names(NamedTuple):
    """What names can mean: the models that are there, aliases, nodes, and the model of no name.

    Who asks for none of them is told of those for which `may_see(reference, alias)` alone.
    """

    known: Sequence[KnownModel]
    aliases: Mapping[str, str]
    nodes: Collection[str]
    default: str
    unknown_is_default: bool = False
    may_see: Callable[[str, str], bool] = lambda _reference, _name: True


class Meant(NamedTuple):
    """The model that is meant, and the node, if that is a part of the name."""

    reference: str
    node: str | None = None


def meant(name: str, names: Names) -> Meant:
    """Return what a name means. Raises ModelNotFoundError with the nearest names, or NodeNotFoundError."""
    found, node = name.strip(), None
    for _ in range(alias_names.MAX_IN_A_ROW + 1):
        found, at = _without_node(found, names)
        node = node or at
        alias = _alias(found, names.aliases)
        if alias is None:
            break
        found = alias
    if not found:
        return Meant(names.default, node)
    if (reference := reference_of(found, names.known)) is not None:
        return Meant(reference, node)
    if names.unknown_is_default:
        return Meant(names.default, node)
    raise _not_found(found, names)


def known_by(name: str, known: Sequence[KnownModel]) -> KnownModel | None:
    """Return the model that has a name: the whole one before a part of one, and the first of several."""
    plain = name.lower().removesuffix(":latest")
    for names_of in (_whole_names, _short_names):
        for model in known:
            if plain in names_of(model):
                return model
    return None


def _alias(name: str, aliases: Mapping[str, str]) -> str | None:
    candidates = {one.lower().removesuffix(":latest") for one in _candidates(name)} | {name.lower()}
    return next((target for alias, target in aliases.items() if alias.lower() in candidates), None)


def _candidates(name: str) -> list[str]:
    """Return the name, and what is left of it without a prefix."""
    return [name, *(name[len(prefix) :] for prefix in _PREFIXES if name.lower().startswith(prefix))]


def _without_node(name: str, names: Names) -> tuple[str, str | None]:
    """Part a name from its node; a part after an @ that is no node's belongs to the name, if that exists."""
    rest, at, node = name.rpartition("@")
    if not at or not _NODE.fullmatch(node):
        return name, None
    if node in names.nodes:
        return rest, node
    if _alias(name, names.aliases) is not None or reference_of(name, names.known) is not None:
        return name, None
    raise NodeNotFoundError(
        f"the model is asked for on a node that is not in the registry: {node}",
        hint=f"the nodes are {', '.join(sorted(names.nodes))}",
        node=node,
    )


def reference_of(name: str, known: Sequence[KnownModel]) -> str | None:
    """Return the reference of a model that is there, or that can be fetched; None where there is none."""
    for candidate in _candidates(name):
        if (model := known_by(candidate, known)) is not None:
            return model.reference
        if (reference := _fetchable(candidate)) is not None:
            return reference
    return None


def _fetchable(name: str) -> str | None:
    """Return the reference that a name is; a bare `org/repo` is none, since names of other servers' models look so."""
    hub = next((hub for hub in _HUBS if name.lower().startswith(hub)), None)
    if hub is not None:
        name = f"hf:{name[len(hub) :]}"
    elif _WITH_QUANT.fullmatch(name):
        name = f"hf:{name}"
    try:
        return str(model_ref.parse(name))
    except InvalidRequestError:
        return None


def _whole_names(model: KnownModel) -> set[str]:
    """Return the names that mean this model and no other."""
    found = {model.reference, model.id}
    provider, _, rest = model.reference.partition(":")
    if provider == "hf":
        found |= {rest} | {hub + rest for hub in _HUBS}
        ref = model_ref.parse(model.reference)
        repo = ref.reference.rpartition("/")[2].lower()
        if ref.variant is not None:
            names = {repo, _GGUF.sub("", repo)}
            found |= {f"{name}:{ref.variant}" for name in names}
            found.add(f"{ref.reference}:{ref.variant}")
    elif provider == "builtin":
        found.add(rest)
    else:
        name = rest.rpartition("/")[2]
        found |= {name, name.removesuffix(".gguf")}
    return {name.lower() for name in found if name}


def _short_names(model: KnownModel) -> set[str]:
    """Return the names that leave open which quantisation is meant; not the reference, which the hives understand."""
    if not model.reference.startswith("hf:"):
        return set()
    whole = model_ref.parse(model.reference).reference.lower()
    repo = whole.rpartition("/")[2]
    return {whole, *(hub + whole for hub in _HUBS), repo, _GGUF.sub("", repo)}


def _not_found(name: str, names: Names) -> ModelNotFoundError:
    listed = [model.reference for model in names.known if names.may_see(model.reference, "")]
    listed += [alias for alias, target in names.aliases.items() if names.may_see(target, alias)]
    by_part = {part: one for one in listed for part in (one.lower(), one.lower().rpartition("/")[2], one.lower()[3:])}
    near = difflib.get_close_matches(name.lower(), by_part, n=NEAREST, cutoff=0.5)
    nearest = list(dict.fromkeys(by_part[one] for one in near)) or listed[:NEAREST]
    shown = f": {name}" if len(name) <= SHOWN and name.isprintable() else ""
    return ModelNotFoundError(
        f"no model has this name{shown}",
        hint=f"the nearest ones are {', '.join(nearest)}; GET /v1/models lists all" if nearest else None,
        model=name if shown else "",
        nearest=nearest,
    )

"""Runs a request: chooses its worker, and relays the answer to callers that cannot reach that."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters import tokens
from rbee.errors import AllSlotsBusyError, RbeeError, WorkerFailedError
from rbee.queen.nodes.choices import choices_among
from rbee.queen.nodes.own_files import is_own_file
from rbee.queen.requests.caller import Way
from rbee.queen.requests.events import Generated
from rbee.queen.requests.relay import WorkerRelay
from rbee.queen.requests.why_ended import explained
from rbee.queen.scheduling import choose_node
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.place_request import Placed
from rbee.queen.scheduling.prompt_links import prompt_links
from rbee.wire import model_ref
from rbee.wire import queen as wire
from rbee.wire.common import Narration
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.http.connection import ClientConnection
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.nodes.node import Node
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.requests.caller import Caller
    from rbee.queen.requests.events import RunEvent, Taker
    from rbee.queen.requests.second_try import SecondTry
    from rbee.queen.requests.tracker import TrackedRequest
    from rbee.queen.scheduling.prompt_links import PromptLinks
    from rbee.wire.progress import Report

log = logging.getLogger(__name__)


class InferenceRun:
    """One request of a caller, from its arrival to the end of what the queen has to do for it.

    `connections` are those to workers, kept from one request to the next.
    `caller` is where the answer goes, which may want it relayed where only the queen reaches the worker.
    """

    def __init__(
        self,
        request: wire.TaskRequest,
        tracked: TrackedRequest,
        nodes: Nodes,
        settings: Settings,
        token: str,
        connections: KeptConnections,
        caller: Caller,
    ) -> None:
        self._request = request
        self._caller = caller
        self._keep = settings.queen.keep if caller.keep is None else caller.keep
        self._tracked = tracked
        self._nodes = nodes
        self._settings = settings
        self._token = token
        self._connections = connections
        self._wanted = _wanted(request, settings)
        self._prompt: PromptLinks | None = None
        if request.worker_id is None:
            self._prompt = prompt_links(request, self._wanted.model_ref, caller.salt, caller.session)
        self._patience = request.wait_s
        self._must_ask = tracked.was_placed
        self._may_try_again = request.relay and request.worker_id is None
        """Whether the caller sees nothing of a worker that fails before the answer begins."""
        self._failed_node: str | None = None
        self._since = trio.current_time()

    async def place(self, report: Report) -> wire.TaskHandle:
        """Return a worker for the request; where the caller cannot reach it, once it has loaded its model."""
        handle = await self._choose(report)
        # While the model loads, the worker does not know yet that there is anything to cancel.
        self._tracked.placed(handle, self._node(handle).worker_url(handle.worker_url))
        if handle.direct or self._request.relay:
            return handle
        try:
            await self._relay_to(handle).wait_ready(report)
        except WorkerFailedError as exc:
            raise await explained(exc, self._node(handle), handle.worker_id) from exc
        return msgspec.structs.replace(handle, state="idle")

    async def run(self, report: Report, taker: Taker, client: ClientConnection) -> None:
        """Report the progress; have the worker taken, and what it writes for `client` where the answer is relayed.

        A worker that fails before the answer has begun is tried once more, on another node where there is one.
        """
        patient_until = trio.current_time() + self._request.wait_s
        if self._may_try_again:
            taker = _FirstOfTwo(taker, self._tracked.second_try)
        while True:
            handle = await self.place(report)
            await taker.wait_for_room()
            taker.take(handle)
            if not handle.relayed:
                return
            try:
                worker = self._relay_to(handle)
                if handle.state not in ("idle", "busy"):
                    await worker.wait_ready(report)
                await worker.relay(taker, self._request, client, keep=self._keep, salt=self._caller.salt)
            except AllSlotsBusyError:
                # A caller that did not ask the queen was faster.
                if patient_until <= trio.current_time() or not self._request.relay:
                    raise
            except RbeeError as exc:
                if not self._may_try_again:
                    raise  # a caller that knows the worker asks for the reason, as with a worker that it reaches
                await self._try_again(exc, handle, report)
            else:
                return
            self._patience = max(0.0, patient_until - trio.current_time())
            self._must_ask = True

    async def _try_again(self, failure: RbeeError, handle: wire.TaskHandle, report: Report) -> None:
        """Prepare the second try after a worker has failed; raises the failure, explained, where there is none."""
        error = failure
        if isinstance(failure, WorkerFailedError):
            error = await explained(failure, self._node(handle), handle.worker_id)
        if not self._tracked.second_try.take(error):
            if error is failure:
                raise error
            raise error from failure
        self._failed_node = handle.node
        self._tell_second_try(handle.node, error, report)

    def _tell_second_try(self, node: str, error: RbeeError, report: Report) -> None:
        what = error.message.splitlines()[0]
        log.warning("request %s failed on %s before its answer began: %s", self._request.request_id, node, what)
        human = f"Failed on {node} before the first token: {what}; trying once more"
        report(Narration(actor="queen-rbee", action="try_again", target=node, human=human))

    def _node(self, handle: wire.TaskHandle) -> Node:
        return self._nodes.get(handle.node)

    def _relay_to(self, handle: wire.TaskHandle) -> WorkerRelay:
        url = self._node(handle).worker_url(handle.worker_url)
        return WorkerRelay(
            handle.worker_id, handle.node, url, handle.api_key, self._settings.timeouts, self._connections
        )

    async def _choose(self, report: Report) -> wire.TaskHandle:
        if (name := _node_name(self._request, self._settings)) is not None:
            if name != wire.LOCAL_NODE and not await self._nodes.get(name).answers():
                # A machine that has lost its power is noticed by its event stream half a minute later.
                self._must_ask = True
            return await self._place_at(name, report)
        if len(nodes := self._nodes.all()) == 1:
            return await self._place_at(nodes[0].name, report)
        known = None if self._prompt is None else self._nodes.known_prompts.of(self._prompt)
        choices = await choices_among(nodes, self._wanted, known)
        others = [choice for choice in choices if choice.node != self._failed_node]
        choices = others or choices
        while True:
            choice = choices.pop(0)
            human = f"Choosing {choice.node} of {len(nodes)} nodes: {choice.reason}"
            report(Narration(actor="queen-rbee", action="choose_node", target=choice.node, human=human))
            try:
                return await self._place_at(choice.node, report, may_move=True, patience=choice.patience)
            except RbeeError as exc:
                once_more = self._may_try_again and bool(choices) and self._tracked.second_try.take(exc)
                choices = choose_node.remaining(choices, choice, exc, may_try_again=once_more)
                if not choices:
                    raise
                if once_more:
                    self._tell_second_try(choice.node, exc, report)
                    continue
                human = f"{choice.node} cannot take the request: {exc.message.splitlines()[0]}"
                report(Narration(actor="queen-rbee", action="skip_node", target=choice.node, human=human))

    async def _place_at(
        self, name: str, report: Report, *, may_move: bool = False, patience: float = 0.0
    ) -> wire.TaskHandle:
        node = self._nodes.get(name)
        if self._request.worker_id is not None:
            placed = await _known(node, self._request.worker_id)
        else:
            if is_own_file(self._wanted.model_ref):
                may_move = False
                self._must_ask = True  # its hive alone says whether a worker has loaded what is at the path now
                if name != wire.LOCAL_NODE:
                    await node.refresh(self._wanted.model_ref, report)
            placed = await node.place(
                self._wanted,
                report,
                self._patience,
                must_ask=self._must_ask,
                may_move=may_move,
                caller=self._caller.name,
                is_batch=self._caller.is_batch,
                since=self._since,
                prompt=self._prompt,
                patience=patience,
            )
            if placed.node is not None:
                node = self._nodes.get(placed.node)
        way = Way(placed.url, is_direct=False)
        if node.is_direct:
            way = self._caller.way_to(node.worker_url(placed.url), everywhere=node.is_everywhere)
        return wire.TaskHandle(
            request_id=self._request.request_id or "",
            node=node.name,
            worker_id=placed.worker_id,
            worker_url=way.url,
            api_key=tokens.worker_key(self._token, placed.worker_id),
            state=placed.state,
            direct=way.is_direct,
            relayed=self._request.relay or (self._caller.relay_if_needed and not way.is_direct),
            keep_s=msgspec.UNSET if self._keep is None else self._keep,
        )


class _FirstOfTwo:
    """Takes the events of a run that may be tried once more, and gives on what its client sees of both tries."""

    def __init__(self, taker: Taker, second_try: SecondTry) -> None:
        self._taker = taker
        self._second_try = second_try

    @property
    def has_room(self) -> bool:
        return self._taker.has_room

    async def wait_for_room(self) -> None:
        await self._taker.wait_for_room()

    def take(self, event: RunEvent) -> None:
        if not isinstance(event, Generated) or self._second_try.passes_on(*event):
            self._taker.take(event)


def check(request: wire.TaskRequest, nodes: Nodes, settings: Settings) -> None:
    """Refuse what is wrong with a request before anything is started. Raises InvalidRequestError, NodeNotFoundError."""
    _wanted(request, settings)
    if (name := _node_name(request, settings)) is not None:
        nodes.get(name)


def check_line(request: wire.TaskRequest, nodes: Nodes, settings: Settings, caller: str) -> None:
    """Refuse a request that would have to wait, and that no line has a place for. Raises LineFullError."""
    if not request.wait_s:
        return
    name, wanted = _node_name(request, settings), _wanted(request, settings)
    refusals = [node.why_full(wanted, caller) for node in (nodes.all() if name is None else [nodes.get(name)])]
    errors = [error for error in refusals if error is not None]
    if errors and len(errors) == len(refusals):
        raise errors[0]


def _wanted(request: wire.TaskRequest, settings: Settings) -> Wanted:
    ref = model_ref.parse(request.model or settings.defaults.reference or model_ref.BUILTIN)
    return Wanted(str(ref), request.backend, request.device, request.context or None)


def _node_name(request: wire.TaskRequest, settings: Settings) -> str | None:
    """Return the node that the user has named, with the request or in the configuration."""
    name = request.node or settings.defaults.node
    return None if name is None else convert({"node": name}, wire.NodeQuery).node


async def _known(node: Node, worker_id: str) -> Placed:
    """Return a worker that was placed before. Raises WorkerFailedError when it has gone meanwhile."""
    if (row := await node.worker(worker_id)) is None:
        raise WorkerFailedError("the worker has ended, or its node is out of reach", node=node.name)
    return Placed(row.id, row.url, row.state)

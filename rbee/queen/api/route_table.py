"""Lists the queen's routes with the messages that each takes and answers (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbee.wire import events, logs, model_push, models, queen, registry
from rbee.wire.administration import aliases, keys, requests
from rbee.wire.dialects import openai_answer, openai_request

if TYPE_CHECKING:
    import msgspec


class Route(NamedTuple):
    """A route: `answer` is None where there is no content, and `stream` is what the events of a stream hold.

    `query` are the parameters, and `path` holds those in braces.
    """

    method: str
    path: str
    summary: str
    request: Any = None
    answer: Any = None
    stream: Any = None
    query: type[msgspec.Struct] | None = None
    status: int = 200
    is_public: bool = False
    is_bytes: bool = False
    """Whether the request is no JSON, but the bytes of a file."""


OPENAI: Final = (
    Route(
        "POST",
        openai_request.CHAT,
        "Continue a conversation",
        openai_request.OpenAIChatRequest,
        openai_answer.OpenAIChatCompletion,
        openai_answer.OpenAIChatChunk,
    ),
    Route(
        "POST",
        openai_request.TEXT,
        "Continue one or more texts",
        openai_request.OpenAITextRequest,
        openai_answer.OpenAITextCompletion,
        openai_answer.OpenAITextCompletion,
    ),
    Route("GET", openai_request.MODELS, "List the models and aliases", answer=openai_answer.OpenAIModelList),
    Route("GET", openai_request.MODEL, "Show one model", answer=openai_answer.OpenAIModel),
)
INFERENCE: Final = (
    Route("GET", openai_request.OPENAPI, "This document", answer=dict[str, Any]),
    Route("POST", queen.TASKS, "Place a request", queen.TaskRequest, queen.TaskHandle, queen.TaskHandle),
    Route("DELETE", queen.TASK, "Cancel a request", status=204),
    Route("GET", queen.TASK_FAILURE, "Say why the worker of a request ended", answer=queen.TaskFailure),
)
SWARM: Final = (
    Route("GET", queen.HEALTH, "Say that the queen answers", answer=queen.QueenHealth, is_public=True),
    Route("GET", "/metrics", "Prometheus' text"),
    Route("GET", queen.STATUS, "Show the swarm", answer=queen.SwarmStatus, query=queen.NodeQuery),
    Route("GET", queen.WORKERS_LIST, "List the workers", answer=queen.SwarmWorkers, query=queen.NodeQuery),
    Route("GET", queen.WORKERS_HEALTH, "Show a node's workers", answer=queen.NodeHealth, query=queen.NodeQuery),
    Route("POST", queen.WORKERS_SHUTDOWN, "End a worker", queen.WorkerShutdown, queen.WorkerEnding),
    Route("GET", events.EVENTS, "Follow what happens in the swarm", stream=events.SwarmState),
    Route("GET", logs.QUEEN_LOGS, "Read and follow the logs", stream=logs.LogLine, query=logs.NodeLogQuery),
)
ADMINISTRATION: Final = (
    Route("GET", keys.KEYS, "List the API keys", answer=keys.KeyList),
    Route("POST", keys.KEYS, "Make an API key", keys.KeyRequest, keys.NewKey),
    Route("DELETE", keys.KEY, "Revoke an API key", answer=keys.KeyRevoked),
    Route(
        "GET",
        requests.REQUESTS,
        "List the last requests",
        answer=requests.RequestList,
        stream=requests.RequestInfo,
        query=requests.RequestQuery,
    ),
    Route("GET", requests.STORY, "Tell the story of a request", answer=requests.RequestStory),
    Route("POST", registry.ADD, "Register a node", registry.Beehive, registry.Success, registry.Success),
    Route("POST", registry.UPDATE, "Change a node", registry.Beehive, registry.Success, registry.Success),
    Route("GET", registry.LIST, "List the nodes", answer=registry.BeehiveList),
    Route("POST", registry.REMOVE, "Remove a node", registry.NodeName, registry.Success, registry.Success),
    Route("POST", registry.INSTALL, "Install rbee on a node", registry.InstallRequest, stream=registry.Success),
)
MODELS: Final = (
    Route("GET", aliases.ALIASES, "List the aliases of models", answer=aliases.AliasList),
    Route("POST", aliases.ALIASES, "Make an alias, or change it", aliases.AliasRequest, aliases.ModelAlias),
    Route("POST", aliases.REMOVE, "Remove an alias", aliases.AliasName, aliases.AliasName),
    Route("GET", models.SWARM_LIST, "List the models of the nodes", answer=models.SwarmModels, query=queen.NodeQuery),
    Route("GET", models.SWARM_SHOW, "Describe a model", answer=models.ModelDetails, query=models.NodeModel),
    Route("POST", models.SWARM_PULL, "Fetch a model", models.NodeModel, models.ModelRow, models.ModelRow),
    Route("POST", models.SWARM_REMOVE, "Remove a model", models.NodeModelId, models.Removed, models.Removed),
    Route("POST", model_push.SWARM_PUSH, "Announce a file", model_push.NodePush, model_push.PushState),
    Route(
        "PUT",
        f"{model_push.SWARM_PIECE}{{sha256}}",
        "Send a piece of a file",
        answer=model_push.Received,
        query=model_push.PieceQuery,
        is_bytes=True,
    ),
)
ROUTES: Final = (*OPENAI, *INFERENCE, *SWARM, *ADMINISTRATION, *MODELS)

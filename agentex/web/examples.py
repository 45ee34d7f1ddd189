"""What the OpenAPI document shows of each body and tells of each group of routes; tests keep both whole."""

from __future__ import annotations

from agentex.database import JsonObject

_TASK_ID = "01a20de4-d650-731c-9e08-67a7c024f2e4"
_AGENT_ID = "01a20de4-d34a-7175-91ae-ed2da0aebe87"
_MESSAGE_ID = "01a20de5-976a-7e5c-8dc8-e31ad48749f0"
_TEXT: JsonObject = {"type": "text", "author": "user", "content": "Hello"}
_NOON = "2026-12-24T12:00:00Z"
_CHECKPOINT: JsonObject = {"thread_id": _TASK_ID, "checkpoint_id": "1f0a"}

# By the name of the body's schema.
EXAMPLES: dict[str, JsonObject] = {
    "AgentRegister": {
        "name": "greeter",
        "description": "Says hello",
        "acp_url": "http://127.0.0.1:8000",
        "acp_type": "async",
    },
    "AgentRegisterBuild": {"name": "greeter", "description": "Says hello"},
    "ApiKeyCreate": {"agent_name": "greeter", "name": "ci"},
    "KeyCreate": {"name": "laptop", "scopes": ["task.read"], "expires_at": _NOON},
    "KeyRotate": {"overlap_seconds": 3600},
    "CheckpointGet": {"thread_id": _TASK_ID},
    "CheckpointList": {"thread_id": _TASK_ID, "limit": 10},
    "CheckpointPut": {
        **_CHECKPOINT,
        "checkpoint": {"v": 1, "channel_versions": {"messages": "1"}},
        "metadata": {"source": "loop", "step": 0},
        "blobs": [{"channel": "messages", "version": "1", "type": "bytes", "blob": "aGVsbG8="}],
    },
    "DeploymentCreate": {"docker_image": "registry.example/greeter:1.2.0"},
    "MemberPut": {"role": "editor"},
    "GrantCreate": {
        "member": "user:bob",
        "resource_type": "task",
        "resource_id": _TASK_ID,
        "operations": ["read", "cancel"],
    },
    "MessageBatchCreate": {"task_id": _TASK_ID, "contents": [_TEXT]},
    "MessageBatchUpdate": {"task_id": _TASK_ID, "updates": {_MESSAGE_ID: _TEXT}},
    "MessageCreate": {"task_id": _TASK_ID, "content": _TEXT},
    "MessageUpdate": {"task_id": _TASK_ID, "content": _TEXT, "streaming_status": "DONE"},
    "RpcRequest": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "event/send",
        "params": {"task_id": _TASK_ID, "content": _TEXT},
    },
    "ScheduleCreate": {
        "name": "every-morning",
        "cron_expression": "0 9 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "initial_input": {"content": "What is new?"},
    },
    "ScheduleInstant": {"scheduled_time": _NOON},
    "ScheduleNote": {"note": "the agent is being repaired"},
    "ScheduleUpdate": {"cron_expression": "0 8 * * MON-FRI", "description": "Earlier than it was"},
    "SnapshotRestore": {"task_id": _TASK_ID, "messages": [], "events": []},
    "SpanCreate": {
        "id": "5b8f",
        "trace_id": _TASK_ID,
        "task_id": _TASK_ID,
        "name": "look it up",
        "start_time": _NOON,
        "end_time": "2026-12-24T12:00:01Z",
        "input": {"query": "weather"},
    },
    "SpanUpdate": {"end_time": "2026-12-24T12:00:01Z", "output": {"answer": "snow"}},
    "StateCreate": {"task_id": _TASK_ID, "agent_id": _AGENT_ID, "state": {"turn": 1}},
    "StateUpdate": {"state": {"turn": 2}},
    "TaskClean": {"idle_days": 30},
    "TaskReason": {"reason": "nobody waits for it any more"},
    "TaskUpdate": {"task_metadata": {"team": "sales"}, "merge_params": {"depth": 3}},
    "ThreadRef": {"thread_id": _TASK_ID},
    "TrackerUpdate": {"last_processed_event_id": _MESSAGE_ID, "status": "working"},
    "Transfer": {"owner": "user:bob"},
    "WebhookTriggerCreate": {
        "agent_name": "greeter",
        "source": "github",
        "name": "acme/widgets",
        "forward_path": "github-pr/1",
    },
    "WritesPut": {
        **_CHECKPOINT,
        "writes": [{"task_id": "step-1", "idx": 0, "channel": "messages", "type": "bytes", "blob": "aGk="}],
    },
}

TAGS: dict[str, str] = {
    "agent_api_keys": "Keys and signing secrets that open an agent's own routes, and webhooks",
    "api_keys": "Keys of members: what callers of this API show",
    "agents": "Agents: they register themselves; what is known of them",
    "audit": "Who did what when, to which object, from where",
    "checkpoints": "Where LangGraph graphs stand, as its checkpoint savers keep it",
    "deployments": "Builds of an agent beside the one in production, and which commits have served",
    "events": "Inputs of async agents, in their order",
    "forward": "Requests that are passed on to an agent's own routes",
    "grants": "Sharing one agent, task, schedule or run with another member of the account",
    "health": "Whether the process is up, and what it depends on answers",
    "members": "Who is in the account and as what, and who you are",
    "messages": "What user and agent said in a task",
    "rpc": "JSON-RPC to an agent: tasks, messages, events, cancel and interrupt",
    "runs": "The ledger: what ran, what did not, and why",
    "schedules": "When an agent is to run, and with which input",
    "snapshots": "A task with all that hangs on it: export, clean, rehydrate",
    "spans": "What an agent did, step by step",
    "states": "What an agent keeps of a task between its turns",
    "tasks": "ACP's conversations: read, change, close, follow",
    "tracker": "An agent's place in the events of a task",
}

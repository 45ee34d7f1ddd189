"""Checkpoints: where a LangGraph agent's graphs stand, as LangGraph's own Postgres saver keeps it.

A checkpoint names a version of each channel; a version's value is one blob, shared by all checkpoints that
name it. A write is what a task of the graph has done since its checkpoint. Blobs are base64 on the wire.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, PlainValidator, WithJsonSchema
from pydantic import Field as Described
from sqlalchemy import Index, String, text
from sqlmodel import Field, SQLModel

from agentex.database import JsonColumn, JsonObject

# An index entry of Postgres holds 2,700 bytes; a blob's key is the longest: account, thread, namespace,
# channel, version. A namespace has a node's name and an id for each graph within a graph.
KEY_BYTES = 255
NAMESPACE_BYTES = 1_024
SMALLEST_INT, LARGEST_INT = -(2**31), 2**31 - 1

# Ids are compared byte by byte, in whatever language the database sorts: the latest is the greatest.
_BY_BYTES = String(collation="C")


def _short(limit: int) -> AfterValidator:
    def check(value: str) -> str:
        if len(value.encode()) > limit:
            raise ValueError(f"is longer than {limit} bytes in UTF-8")
        return value

    return AfterValidator(check)


def _from_base64(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise ValueError("is not base64 (RFC 4648 §4, with padding)")


Key = Annotated[str, Described(min_length=1), _short(KEY_BYTES)]
Namespace = Annotated[str, _short(NAMESPACE_BYTES)]
Blob = Annotated[
    bytes, PlainValidator(_from_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]

THREAD = "The conversation, usually a task's id; a thread that names no task belongs to the account"
NAMESPACE = "The graph within the graph; empty is the outermost"


def _task_index(table: str) -> Index:
    return Index(f"ix_{table}_task_id", "task_id", postgresql_where=text("task_id IS NOT NULL"))


class Checkpoint(SQLModel, table=True):
    """One checkpoint. task_id is set where the thread is a task, with which it goes."""

    __tablename__ = "checkpoints"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (
        # For a list over all namespaces.
        Index(
            "ix_checkpoints_account_id_thread_id_checkpoint_id", "account_id", "thread_id", "checkpoint_id"
        ),
        _task_index("checkpoints"),
    )

    account_id: str = Field(primary_key=True)
    thread_id: str = Field(primary_key=True)
    checkpoint_ns: str = Field(primary_key=True)
    checkpoint_id: str = Field(primary_key=True, sa_type=_BY_BYTES)  # pyright: ignore[reportArgumentType]
    task_id: UUID | None = Field(default=None, foreign_key="tasks.id", ondelete="CASCADE")
    parent_checkpoint_id: str | None = None
    checkpoint: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    # SQLModel keeps the name `metadata` for itself.
    checkpoint_metadata: JsonObject = Field(sa_type=JsonColumn)  # pyright: ignore[reportArgumentType]
    created_at: datetime


class CheckpointBlob(SQLModel, table=True):
    """A channel's value at one version; never changed."""

    __tablename__ = "checkpoint_blobs"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (_task_index("checkpoint_blobs"),)

    account_id: str = Field(primary_key=True)
    thread_id: str = Field(primary_key=True)
    checkpoint_ns: str = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    task_id: UUID | None = Field(default=None, foreign_key="tasks.id", ondelete="CASCADE")
    type: str
    blob: bytes | None = None


class CheckpointWrite(SQLModel, table=True):
    """A pending write. graph_task_id is LangGraph's task_id: a step of the graph, no task of ours."""

    __tablename__ = "checkpoint_writes"  # pyright: ignore[reportAssignmentType] - SQLModel types it as declared_attr
    __table_args__ = (_task_index("checkpoint_writes"),)

    account_id: str = Field(primary_key=True)
    thread_id: str = Field(primary_key=True)
    checkpoint_ns: str = Field(primary_key=True)
    checkpoint_id: str = Field(primary_key=True)
    graph_task_id: str = Field(primary_key=True, sa_type=_BY_BYTES)  # pyright: ignore[reportArgumentType]
    idx: int = Field(primary_key=True)
    task_id: UUID | None = Field(default=None, foreign_key="tasks.id", ondelete="CASCADE")
    task_path: str = ""
    channel: str
    type: str | None = None
    blob: bytes


class ThreadRef(BaseModel):
    """A thread."""

    thread_id: Key = Described(description=THREAD)


class CheckpointGet(ThreadRef):
    """Which checkpoint is wanted."""

    checkpoint_ns: Namespace = Described(default="", description=NAMESPACE)
    checkpoint_id: Annotated[str, _short(KEY_BYTES)] | None = Described(
        default=None, description="The latest when left out"
    )


class BlobPut(BaseModel):
    """A channel's value at one version."""

    channel: Key
    version: Key
    type: Key = Described(description="How the value is encoded; `empty` has no blob")
    blob: Blob | None = Described(default=None, description="The encoded value, in base64")


class CheckpointPut(ThreadRef):
    """A checkpoint with the channels' values that are new in it."""

    checkpoint_ns: Namespace = Described(default="", description=NAMESPACE)
    checkpoint_id: Key
    parent_checkpoint_id: Annotated[str, _short(KEY_BYTES)] | None = None
    checkpoint: JsonObject
    metadata: JsonObject = Described(default_factory=dict)
    blobs: list[BlobPut] = Described(default_factory=list["BlobPut"])


class WritePut(BaseModel):
    """What a task of the graph has written."""

    task_id: Key = Described(description="The graph's own task")
    idx: int = Described(
        ge=SMALLEST_INT, le=LARGEST_INT, description="Its place; negative for errors, interrupts and the like"
    )
    channel: Key
    type: Annotated[str, _short(KEY_BYTES)] | None = None
    blob: Blob = Described(description="The encoded value, in base64")
    task_path: str = ""


class WritesPut(ThreadRef):
    """Writes to a checkpoint, which need not be there yet."""

    checkpoint_ns: Namespace = Described(default="", description=NAMESPACE)
    checkpoint_id: Key
    writes: list[WritePut]
    upsert: bool = Described(default=False, description="Whether a write replaces one of the same place")


class CheckpointList(ThreadRef):
    """Which checkpoints are wanted."""

    checkpoint_ns: Namespace | None = Described(default=None, description="All namespaces when left out")
    before_checkpoint_id: Annotated[str, _short(KEY_BYTES)] | None = None
    filter_metadata: JsonObject | None = Described(default=None, description="What the metadata must contain")
    limit: int = Described(default=100, ge=1, le=1000, description="At most so many")


class CheckpointRef(BaseModel):
    """A checkpoint that has been kept."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str


class CheckpointRead(CheckpointRef):
    """A checkpoint in a list: without its channels' blobs."""

    parent_checkpoint_id: str | None = None
    checkpoint: JsonObject
    metadata: JsonObject


class BlobRead(BaseModel):
    """A channel's value at the version that the checkpoint names."""

    channel: str
    version: str
    type: str
    blob: str | None = None


class WriteRead(BaseModel):
    """A pending write."""

    task_id: str
    idx: int
    channel: str
    type: str | None = None
    blob: str | None = None


class CheckpointTuple(CheckpointRead):
    """A checkpoint with its channels' values and pending writes."""

    blobs: list[BlobRead]
    pending_writes: list[WriteRead]

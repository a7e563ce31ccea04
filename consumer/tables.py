"""The worker's own tables as they are after every migration, for reading them with SQLAlchemy.

`consumer.migrations` makes them; a test holds the two to the same shape. Times are the database's own clock, UTC.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
)

__all__ = ["attempts", "inbox", "metadata", "parked", "schema"]

metadata = MetaData()

inbox = Table(
    "consumer_inbox",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("body_hash", LargeBinary, nullable=False),
    Column("handled_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("consumer_inbox_handled_at", "handled_at"),
    sqlite_with_rowid=False,
)
"""Events that took effect: the key of each and the SHA-256 of its body."""

attempts = Table(
    "consumer_attempts",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("starts", Integer, nullable=False, server_default="0"),
    Column("dead_lettered", Boolean, nullable=False, server_default=false()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("consumer_attempts_updated_at", "updated_at"),
    sqlite_with_rowid=False,
)
"""Events that have not: how often they failed, were started without an outcome, or were dead-lettered in part."""

parked = Table(
    "consumer_parked",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("source", Text, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("lane", Text),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Column("key", LargeBinary),
    Column("message", LargeBinary, nullable=False),
    Column("headers", Text, nullable=False, server_default="{}"),
    Column("ordering_key", Text),
    Column("accepted_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("receive_count", Integer, nullable=False, server_default="0"),
    Column("due_at", DateTime(timezone=True), nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", DateTime(timezone=True)),
    Column("parked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("source", "message_id", name="consumer_parked_message"),
    Index("consumer_parked_due", "source", "due_at"),
    Index("consumer_parked_lane", "source", "lane", "position"),
)
"""Messages of a queue that cannot hold a retry (Event Hubs), with their signed bytes; `position` orders a lane,
`headers` is a JSON object, and the pair of source and message id makes parking the same message twice harmless."""

schema = Table(
    "consumer_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
"""The migrations that were applied."""

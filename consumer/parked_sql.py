"""The SQL of the parked events, in the words both databases share; what differs is put in by `render`.

`due_at` is when a row may be claimed: a claim moves it to the end of the lease, as queues do with their visibility
times. `behind` is true for a row that waits for an earlier one of its lane, so that finding what is due never looks at
the thousands that may wait behind a single event. A lane's other row, its front, is the only one that can be claimed;
a unique index sees to it that there is never a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

__all__ = [
    "ADVANCE",
    "COUNT_SOURCES",
    "DEPTH",
    "ERASE",
    "FINISH",
    "GIVE_WAY",
    "HASTEN",
    "IDS_ABOVE",
    "LANES",
    "LANES_UNDER",
    "LOCK",
    "NEXT_DUE",
    "PAGE",
    "PARK",
    "RELEASE",
    "RENEW",
    "SELECT_DUE",
    "TAKE",
    "parameters",
    "render",
]

Dialect = Literal["sqlite", "postgresql"]

# :name is a parameter; {word} is one of `_WORDS`.
PARK = (
    "INSERT INTO consumer_parked (source, message_id, lane, position, behind, message, headers, ordering_key, "
    "accepted_at, receive_count, due_at) VALUES (:source, :message_id, :lane, :position, :behind, :message, :headers, "
    ":ordering_key, :accepted_at, :receive_count, {later}) ON CONFLICT (source, message_id) DO NOTHING"
)
SELECT_DUE = (
    "SELECT id, message, message_id, lane, headers, ordering_key, accepted_at, receive_count FROM consumer_parked "
    "WHERE source = :source AND NOT behind AND due_at <= {now} ORDER BY due_at, id LIMIT :limit {unlocked}"
)
TAKE = (
    "UPDATE consumer_parked SET receive_count = receive_count + 1, lease_owner = :owner, due_at = {later} "
    "WHERE (id, receive_count) IN ({claims})"
)
# A claim is known by its row and that row's count of claims. Both are compared on the row that is changed and not in a
# subquery: PostgreSQL looks at them again when it had to wait for the row.
_OURS = "WHERE lease_owner = :owner AND (id, receive_count) IN ({claims}) RETURNING id, receive_count"
RENEW = f"UPDATE consumer_parked SET due_at = {{later}} {_OURS}"  # noqa: S608 - constants
RELEASE = f"UPDATE consumer_parked SET due_at = {{later}}, lease_owner = NULL {_OURS}"  # noqa: S608 - constants
HASTEN = (
    "UPDATE consumer_parked SET due_at = {now} WHERE source = :source AND message_id = :message_id "
    "AND NOT behind AND lease_owner IS NULL RETURNING id"
)
FINISH = f"DELETE FROM consumer_parked {_OURS}"  # noqa: S608 - constants

LOCK = "SELECT pg_advisory_xact_lock(1885434475, hashtext(:source))"  # "park": any number, the same in every worker
# Subqueries with one value, where NOT EXISTS would say it shorter: PostgreSQL turns that into a join, which reads every
# row of the source as long as there are no statistics of the table.
GIVE_WAY = (
    "UPDATE consumer_parked SET behind = TRUE WHERE source = :source AND NOT behind AND lease_owner IS NULL "
    "AND {lane_given} AND id <> (SELECT first.id FROM consumer_parked AS first WHERE first.source = :source "
    "AND first.lane = consumer_parked.lane ORDER BY first.position, first.id LIMIT 1)"
)
ADVANCE = (
    "UPDATE consumer_parked SET behind = FALSE WHERE id IN ("
    "SELECT (SELECT first.id FROM consumer_parked AS first WHERE first.source = :source "
    "AND first.lane = given.value ORDER BY first.position, first.id LIMIT 1) "
    "FROM {lanes} WHERE 0 = (SELECT count(*) FROM consumer_parked AS front "
    "WHERE front.source = :source AND front.lane = given.value AND NOT front.behind))"
)

LANES = "SELECT lane FROM consumer_parked WHERE source = :source AND NOT behind AND {lane_given}"
LANES_UNDER = (
    "SELECT lane FROM consumer_parked WHERE source = :source AND NOT behind AND substr(lane, 1, :length) = :prefix"
)
IDS_ABOVE = (
    "SELECT message_id FROM consumer_parked WHERE source = :source AND position > :position "
    "AND substr(message_id, 1, :length) = :prefix"
)
NEXT_DUE = "SELECT {until_due} FROM consumer_parked WHERE source = :source AND NOT behind"
DEPTH = (
    "SELECT (SELECT count(*) FROM consumer_parked WHERE source = :source), "
    "(SELECT count(*) FROM consumer_parked WHERE source = :source AND NOT behind AND due_at <= {now}), "
    "(SELECT count(*) FROM consumer_parked WHERE source = :source AND NOT behind AND due_at > {now} "
    "AND lease_owner IS NOT NULL)"
)
PAGE = (
    "SELECT id, message, message_id, lane, headers, ordering_key, accepted_at, receive_count, "
    "lease_owner IS NOT NULL AND due_at > {now} FROM consumer_parked "
    "WHERE source = :source AND id > :after ORDER BY id LIMIT :limit"
)
# Never a row that a worker holds, nor one that was claimed since it was looked at.
ERASE = (
    "DELETE FROM consumer_parked WHERE (id, receive_count) IN ({claims}) "
    "AND (lease_owner IS NULL OR due_at <= {now}) RETURNING id"
)
COUNT_SOURCES = "SELECT source, count(*) FROM consumer_parked GROUP BY source"

_WORDS = {
    "sqlite": {
        "now": "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        "later": "strftime('%Y-%m-%d %H:%M:%f', 'now', '+' || :delay || ' seconds')",
        "until_due": "(julianday(min(due_at)) - julianday('now')) * 86400",
        "unlocked": "",
        "lanes": "json_each(:lanes) AS given",
        "lane_given": "lane IN (SELECT value FROM json_each(:lanes))",
        "claims": "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(:claims)",
    },
    "postgresql": {
        "now": "now()",
        "later": "now() + make_interval(secs => :delay)",
        "until_due": "CAST(extract(epoch FROM min(due_at) - now()) AS double precision)",
        "unlocked": "FOR UPDATE SKIP LOCKED",
        "lanes": "json_array_elements_text(CAST(:lanes AS json)) AS given(value)",
        "lane_given": "lane = ANY(ARRAY(SELECT json_array_elements_text(CAST(:lanes AS json))))",
        "claims": "SELECT CAST(value->>0 AS bigint), CAST(value->>1 AS bigint) "
        "FROM json_array_elements(CAST(:claims AS json))",
    },
}


@lru_cache(maxsize=64)
def render(template: str, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    """The statement in the dialect's own words, and the names of its parameters in their order."""
    names: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        if dialect == "sqlite":
            names.append(match[1])
            return "?"
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r":([a-z_]+)", placeholder, template.format_map(_WORDS[dialect])), tuple(names)


def parameters(names: tuple[str, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values in the order in which `render` wants them."""
    return tuple(values[name] for name in names)

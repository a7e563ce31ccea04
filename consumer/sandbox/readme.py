"""The README of the project beside a sandbox."""

from __future__ import annotations

from string import Template
from typing import Final

__all__ = ["README"]

README: Final = Template("""\
# Health events, with a sandbox

A worker (`handlers/`, `consumer.toml`) and, at $url, a sandbox that plays both platforms for it.
Members, values and keys are all invented.

## In this order

The sandbox runs in a terminal of its own; from this folder, `consumer sandbox .` starts it again. In others, here:

    consumer thrive queues register all --source events   # once: Thrive's events go to queue/events.db
    HANDLERS_REPORT_CARDS_AS=opened consumer run          # handles them; basic ones are fetched, nudges reported

Then Sahha's webhooks, which `consumer run` takes from queue/webhooks.db:

    consumer relay                                        # receives them at http://127.0.0.1:8081/
    curl -d '{"url": "http://127.0.0.1:8081/", "rate": 1}' $url/sandbox/webhooks

The last line lasts until the sandbox ends. `consumer sandbox . --webhook-url http://127.0.0.1:8081/ --webhook-rate 1`
starts one that sends them by itself.

## Where to look

    curl http://127.0.0.1:8080/metrics                    # of `consumer run`; those of `consumer relay` are at 8082
    sqlite3 consumer.db 'SELECT parameter, value, unit FROM lab_values LIMIT 10'
    sqlite3 consumer.db 'SELECT type, score, state FROM sahha_scores LIMIT 10'
    sqlite3 consumer.db .tables
    consumer dead-letters list                            # the test message of the registration is there, unsigned
    curl $url/sandbox                    # members, queues, what was sent
    consumer thrive cards list USER_ID                    # as the API tells it

## Make trouble

    curl -d '{"path": "/v1", "error_rate": 0.5, "status": 503}' $url/sandbox/faults
    curl -X DELETE $url/sandbox/faults
    curl -d '{"count": 5, "kind": "forged"}' $url/sandbox/events
    curl -d '{"count": 5, "kind": "replay"}' $url/sandbox/events
    curl $url/sandbox/examples           # the rest, to be copied

Forged and stale events become dead letters, a replayed one takes effect once, and what could not be fetched is tried
again. `consumer replay --reason rejected --dry-run` shows what of the dead letters could be handled again.

A sandbox that is started again has the same members and keys, and knows the queues that were registered. It makes new
events, and forgot everything that the old ones announced: those that wait to be fetched will find nothing.

## With real credentials

Best in a new folder: `consumer init` writes one, and `handlers/` can be copied there. To go on in this one, delete what
is invented (`consumer.db`, `queue/`, `dead-letters/`) and change in `consumer.toml`:

1. `thrive.base_url` to "production", or to "sandbox", which is Thrive's own; `thrive.tenant_key` to your key, or better
   to `tenant_key_file`. The event-signing secret goes into `secrets/thrive`.
2. `sources.events` to your queue: kind sqs, event_hubs or storage_queue. Then register it with Thrive, as above.
3. `sahha.base_url` to "production", and Sahha's ids and secrets below it to your own. The webhook secret goes into
   `secrets/sahha`, and Sahha's dashboard is told the https address that leads to `consumer relay`.
4. `sources.webhooks` to a queue of yours.

`consumer check` says whether it could run. `consumer sandbox` takes no folder whose settings lead elsewhere.
""")

"""Thrive's routes, all of them."""

from __future__ import annotations

from aiohttp import web

from consumer.sandbox.thrive_coaching import coaching_routes
from consumer.sandbox.thrive_labs import lab_routes
from consumer.sandbox.thrive_members import member_routes
from consumer.sandbox.thrive_metrics import metric_routes
from consumer.sandbox.thrive_plans import plan_routes
from consumer.sandbox.thrive_state import Thrive

__all__ = ["Thrive", "add_thrive_routes"]


def add_thrive_routes(app: web.Application, thrive: Thrive) -> None:
    """Play Thrive under `/v1/`, and the storage account that uploads go to."""
    partner, queues = thrive.access.partner, thrive.queues
    queue = "/v1/admin/org/queues/{queue_name}"
    app.router.add_routes(
        [
            *member_routes(thrive),
            *lab_routes(thrive),
            *coaching_routes(thrive),
            *metric_routes(thrive),
            *plan_routes(thrive),
            web.post(queue, partner(queues.create)),
            web.get(queue, partner(queues.show)),
            web.put(queue, partner(queues.replace)),
            web.delete(queue, partner(queues.remove)),
        ]
    )

"""The routes of orders and plans."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, status

from router.rest.shapes.orders import (
    DownloadRequest,
    OrderPage,
    OrderShape,
    PlanShape,
    TaskIds,
)
from router.services.orders import Orders
from router.services.plans import Plans


def order_routes(plans: Plans, orders: Orders) -> APIRouter:
    """What would happen, making it happen, and how far it is."""
    routes = APIRouter()

    @routes.post("/models/plan")
    def plan(request: DownloadRequest) -> PlanShape:
        """What an order would do on each node; changes nothing."""
        return PlanShape.of(
            plans.plan(request.model_name, request.order_target(), request.node_ids, request.labels)
        )

    @routes.post("/models/download", status_code=status.HTTP_202_ACCEPTED)
    def download(
        request: DownloadRequest,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> TaskIds:
        """Orders a model onto nodes. With an `Idempotency-Key` a retry is safe.

        `task_ids` are those of the first wave; the order opens the others when it is their time.
        """
        view = orders.start(
            request.model_name,
            request.order_target(),
            request.node_ids,
            request.labels,
            request.options(),
            request_id=idempotency_key or "",
            priority=request.priority,
            plan_id=request.plan_id or "",
        )
        return TaskIds(
            order_id=view.order.order_id, task_ids=[task.task.task_id for task in view.tasks]
        )

    @routes.get("/orders")
    def list_orders(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100, page_token: str = ""
    ) -> OrderPage:
        """Orders, the newest first: what was wished, what is reached, what is missing and why."""
        page = orders.orders(limit, page_token)
        return OrderPage(
            orders=[OrderShape.of(view) for view in page.items],
            next_page_token=page.next_token or None,
        )

    @routes.get("/orders/{order_id}")
    def order(order_id: str) -> OrderShape:
        """One order."""
        return OrderShape.of(orders.order(order_id))

    @routes.post("/orders/{order_id}/cancel")
    def cancel(order_id: str) -> OrderShape:
        """Opens no more tasks, and cancels every unfinished one; 409 when nothing is left."""
        return OrderShape.of(orders.cancel(order_id))

    return routes

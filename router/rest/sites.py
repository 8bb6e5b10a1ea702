"""The routes of sites."""

from typing import Any

from fastapi import APIRouter

from router.domain.line import timed_rate
from router.rest.shapes.sites import SiteLimits, SiteList, SiteShape
from router.services.sites import Sites

_WITHOUT_NAME = "-"


def site_routes(sites: Sites, responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Listing sites, and setting their limits."""
    routes = APIRouter(responses=responses)

    @routes.get("/sites")
    def list_sites() -> SiteList:
        """Every site that has nodes or limits. The name "" is that of nodes without the label."""
        return SiteList(sites=[SiteShape.of(view) for view in sites.all()])

    @routes.put("/sites/{name}")
    def update_site(name: str, limits: SiteLimits) -> SiteShape:
        """Sets how fast a site may take from the Hub; `-` names the nodes without the label.

        Running downloads obey at once. The first entry of the timetable that covers the moment
        counts, else `max_hub_rate_bps`; what is left out stays as it is.
        """
        entries = limits.timetable
        view = sites.update(
            "" if name == _WITHOUT_NAME else name,
            max_hub_rate=limits.max_hub_rate_bps,
            timetable=None
            if entries is None
            else tuple(
                timed_rate(entry.start, entry.end, entry.max_hub_rate_bps) for entry in entries
            ),
            time_zone=limits.time_zone,
        )
        return SiteShape.of(view)

    return routes

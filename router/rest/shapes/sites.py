"""The JSON of sites. Rates in bytes per second; 0: no limit."""

from pydantic import ConfigDict, Field

from router.rest.shapes.base import Shape, Text
from router.services.sites import SiteView

_Rate = Field(ge=0, lt=1 << 63)


class TimedRateShape(Shape):
    """A limit from `start` to `end` ("HH:MM"), of every day."""

    model_config = ConfigDict(extra="forbid")

    start: Text
    end: Text
    max_hub_rate_bps: int = _Rate


class SiteShape(Shape):
    """Nodes that share one line to the Hub."""

    name: str
    max_hub_rate_bps: int
    timetable: list[TimedRateShape]
    time_zone: str
    present_max_hub_rate_bps: int
    hub_bps: int
    nodes: int
    online_nodes: int

    @classmethod
    def of(cls, view: SiteView) -> "SiteShape":
        """From a view."""
        return cls(
            name=view.site.name,
            max_hub_rate_bps=view.site.max_hub_rate,
            timetable=[
                TimedRateShape(
                    start=entry.start.isoformat("minutes"),
                    end=entry.end.isoformat("minutes"),
                    max_hub_rate_bps=entry.max_hub_rate,
                )
                for entry in view.site.timetable
            ],
            time_zone=view.site.time_zone,
            present_max_hub_rate_bps=view.present_max_hub_rate,
            hub_bps=view.hub_rate,
            nodes=view.nodes,
            online_nodes=view.online_nodes,
        )


class SiteList(Shape):
    """Every site, by name."""

    sites: list[SiteShape]


class SiteLimits(Shape):
    """What may cross a site's line; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    max_hub_rate_bps: int | None = Field(default=None, ge=0, lt=1 << 63)
    timetable: list[TimedRateShape] | None = None
    time_zone: Text | None = None

"""Between sites as the domain knows them and generated messages."""

from protos.llmrouter.v1 import agent_pb2, node_pb2
from router.domain.line import TimedRate, timed_rate
from router.services.line import Share
from router.services.sites import SiteView


def site(view: SiteView) -> node_pb2.Site:
    """A site with what crosses its line."""
    return node_pb2.Site(
        name=view.site.name,
        max_hub_rate_bytes_per_second=view.site.max_hub_rate,
        timetable=[
            node_pb2.TimedRate(
                start=entry.start.isoformat("minutes"),
                end=entry.end.isoformat("minutes"),
                max_hub_rate_bytes_per_second=entry.max_hub_rate,
            )
            for entry in view.site.timetable
        ],
        time_zone=view.site.time_zone,
        present_max_hub_rate_bytes_per_second=view.present_max_hub_rate,
        hub_bytes_per_second=view.hub_rate,
        nodes=view.nodes,
        online_nodes=view.online_nodes,
    )


def timetable_from(request: node_pb2.UpdateSiteRequest) -> tuple[TimedRate, ...] | None:
    """The timetable to set; None: it stays. Raises `InvalidArgument`."""
    if not request.set_timetable:
        return None
    return tuple(
        timed_rate(entry.start, entry.end, entry.max_hub_rate_bytes_per_second)
        for entry in request.timetable
    )


def line_share(share: Share) -> agent_pb2.ConnectResponse:
    """How fast a node may take from the Hub."""
    return agent_pb2.ConnectResponse(
        line_share=agent_pb2.LineShare(max_hub_rate_bytes_per_second=share.max_hub_rate)
    )

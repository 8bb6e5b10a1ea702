"""`llm-router site`: nodes that share one line to the Hub, and what may cross it."""

import re

import click

from cli.options import Group, with_session
from cli.render import sites, units
from cli.render.table import Column, Table, details
from cli.session import Session
from protos import names
from protos.daemon.sizes import ByteSize
from protos.llmrouter.v1 import node_pb2

_WITHOUT_NAME = "-"
_ENTRY = re.compile(r"\s*(\d\d:\d\d)\s*-\s*(\d\d:\d\d)\s*=\s*(.+)")


@click.group(cls=Group)
def site() -> None:
    """Sites: nodes with the same label "site" share one line to the Hub.

    SITE is the label's value; "-" names the nodes without the label.
    """


@site.command("list")
@with_session
def list_sites(session: Session) -> None:
    """Every site that has nodes or limits, and what crosses its line now."""
    reply = session.call(node_pb2.ListSitesRequest(), node_pb2.ListSitesResponse)
    session.out.answer(
        [_shown(one) for one in reply.sites],
        {"sites": [sites.site(one) for one in reply.sites]},
        Table(
            [
                Column("SITE", flexible=True),
                Column("NODES", right=True),
                Column("NOW", right=True),
                Column("LIMIT NOW", right=True),
                Column("LIMIT", right=True, rank=1),
                Column("TIMETABLE", rank=2),
                Column("TIME ZONE", rank=3),
            ],
            [
                [
                    _shown(one),
                    f"{one.online_nodes}/{one.nodes}",
                    units.rate(one.hub_bytes_per_second),
                    _limit(one.present_max_hub_rate_bytes_per_second),
                    _limit(one.max_hub_rate_bytes_per_second),
                    _timetable(one),
                    one.time_zone,
                ]
                for one in reply.sites
            ],
        ),
    )


@site.command("set")
@click.argument("name", metavar="SITE")
@click.option(
    "--max-hub-rate",
    type=ByteSize(),
    metavar="RATE",
    help="Bytes per second from the Hub over all nodes of the site, for example 50MB; 0: no limit.",
)
@click.option(
    "--timetable",
    "entries",
    metavar="HH:MM-HH:MM=RATE",
    multiple=True,
    help="Another limit for a part of every day, for example 22:00-06:00=0; may be repeated, the "
    "first that covers the moment counts. Replaces the timetable of before.",
)
@click.option("--no-timetable", is_flag=True, help="Take the timetable away.")
@click.option(
    "--time-zone",
    metavar="ZONE",
    help='In which the timetable is meant, for example Europe/Berlin; "": the router\'s own.',
)
@with_session
def set_site(
    session: Session,
    name: str,
    max_hub_rate: int | None,
    entries: tuple[str, ...],
    no_timetable: bool,
    time_zone: str | None,
) -> None:
    """Set how fast a site may take from the Hub; running downloads obey at once.

    \b
    5 MB/s by day, as fast as it goes at night:
      llm-router site set berlin --max-hub-rate 5MB --timetable 22:00-06:00=0
    """
    if max_hub_rate is None and not entries and not no_timetable and time_zone is None:
        raise click.UsageError("nothing to set: give --max-hub-rate, --timetable or --time-zone")
    if entries and no_timetable:
        raise click.UsageError("--timetable and --no-timetable exclude each other")
    reply = session.call(
        node_pb2.UpdateSiteRequest(
            name=_name(name),
            max_hub_rate_bytes_per_second=max_hub_rate,
            timetable=[_entry(text) for text in entries],
            set_timetable=bool(entries) or no_timetable,
            time_zone=time_zone,
        ),
        node_pb2.UpdateSiteResponse,
    )
    one = reply.site
    session.out.answer(
        [_shown(one)],
        sites.site(one),
        details(
            [
                ("Site", _shown(one)),
                ("Nodes", f"{one.online_nodes} online of {one.nodes}"),
                ("Limit", _limit(one.max_hub_rate_bytes_per_second)),
                ("Timetable", _timetable(one)),
                ("Time zone", one.time_zone),
                ("Limit now", _limit(one.present_max_hub_rate_bytes_per_second)),
                ("From the Hub", units.rate(one.hub_bytes_per_second)),
            ]
        ),
    )


def _name(text: str) -> str:
    if text == _WITHOUT_NAME:
        return ""
    if not text:
        raise click.UsageError(f'say which site: "{_WITHOUT_NAME}" is that without a name')
    try:
        names.label("site", text)
    except names.InvalidName as error:
        raise click.UsageError(str(error)) from error
    return text


def _shown(one: node_pb2.Site) -> str:
    return one.name or _WITHOUT_NAME


def _limit(rate: int) -> str:
    return units.rate(rate) if rate else "no limit"


def _timetable(one: node_pb2.Site) -> str:
    return ", ".join(
        f"{entry.start}-{entry.end} {_limit(entry.max_hub_rate_bytes_per_second)}"
        for entry in one.timetable
    )


def _entry(text: str) -> node_pb2.TimedRate:
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise click.UsageError(
            f'"{text}" is no entry of a timetable: write HH:MM-HH:MM=RATE, as 22:00-06:00=0'
        )
    start, end, rate = match.groups()
    return node_pb2.TimedRate(
        start=start,
        end=end,
        max_hub_rate_bytes_per_second=ByteSize().convert(rate, None, None),
    )

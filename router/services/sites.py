"""Sites: places where nodes share one line, and what may cross it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from protos import names
from router.domain import windows
from router.domain.errors import InvalidArgument
from router.domain.line import Site, TimedRate
from router.domain.nodes import SITE_LABEL
from router.domain.ports import Store
from router.services.line import Line
from router.services.presence import Presence

_MAX_ENTRIES = 100


@dataclass(frozen=True, slots=True)
class SiteView:
    """A site as it is shown; rates in bytes per second, a limit of 0 is none."""

    site: Site
    present_max_hub_rate: int
    hub_rate: int
    nodes: int
    online_nodes: int


class Sites:
    """The known sites. What a call confirmed survives any crash."""

    def __init__(self, store: Store, presence: Presence, line: Line) -> None:
        """Keeps limits in `store`, and has `line` obey them."""
        self._store = store
        self._presence = presence
        self._line = line

    def all(self) -> list[SiteView]:
        """Every site that has nodes or limits, by name."""
        return self._views({site.name: site for site in self._store.sites() if site.limited})

    def update(
        self,
        name: str,
        *,
        max_hub_rate: int | None = None,
        timetable: tuple[TimedRate, ...] | None = None,
        time_zone: str | None = None,
    ) -> SiteView:
        """Sets limits; None: unchanged. Running downloads obey at once.

        `name` "" is the site of the nodes without the label. Raises `InvalidArgument`.
        """
        try:
            names.label(SITE_LABEL, name)
        except names.InvalidName as error:
            raise InvalidArgument(str(error), param="name") from None
        for rate in [max_hub_rate or 0, *(entry.max_hub_rate for entry in timetable or ())]:
            if rate < 0:
                raise InvalidArgument(
                    "a rate is not negative; 0 means no limit", param="max_hub_rate"
                )
        if len(timetable or ()) > _MAX_ENTRIES:
            raise InvalidArgument(
                f"a timetable has at most {_MAX_ENTRIES} entries", param="timetable"
            )
        if time_zone is not None and not windows.knows_zone(time_zone):
            raise InvalidArgument(
                f'"{time_zone[:100]}" is not a time zone that the router\'s machine knows: '
                'write a name such as "Europe/Berlin"',
                param="time_zone",
            )
        with self._store.transaction():
            limits = {site.name: site for site in self._store.sites()}
            site = limits.get(name, Site(name))
            if max_hub_rate is not None:
                site = replace(site, max_hub_rate=max_hub_rate)
            if timetable is not None:
                site = replace(site, timetable=timetable)
            if time_zone is not None:
                site = replace(site, time_zone=time_zone)
            self._store.save_site(site)
            self._store.after_commit(lambda: self._line.limit(site))
        return next(view for view in self._views({name: site}) if view.site is site)

    def _views(self, limits: Mapping[str, Site]) -> list[SiteView]:
        """These sites and all that have nodes, by name."""
        known: Counter[str] = Counter()
        online: Counter[str] = Counter()
        for node in self._store.nodes():
            known[node.site] += 1
            online[node.site] += self._presence.online(node.node_id)
        rates = self._line.rates()
        views = []
        for name in sorted({*limits, *known}):
            site = limits.get(name, Site(name))
            views.append(
                SiteView(
                    site,
                    present_max_hub_rate=self._line.limit_now(site),
                    hub_rate=rates.get(name, 0),
                    nodes=known[name],
                    online_nodes=online[name],
                )
            )
        return views

"""What the router counts, for Prometheus. Labels never hold an id."""

from collections.abc import Callable, Iterable

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protos.daemon.ready import version

Counts = Callable[[], dict[str, int]]


class RpcMetrics:
    """Calls by method and code, with their durations in seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers the series."""
        labels = ("grpc_service", "grpc_method", "grpc_code")
        self._handled = Counter(
            "grpc_server_handled", "Calls that have ended.", labels, registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "How long calls took.",
            ("grpc_service", "grpc_method"),
            registry=registry,
        )

    def handled(self, method: str, code: StatusCode, seconds: float) -> None:
        """Counts one call of `/package.Service/Method`."""
        _, service, name = method.split("/")
        self._handled.labels(service, name, code.name).inc()
        self._seconds.labels(service, name).observe(seconds)


class FleetMetrics(Collector):
    """Nodes and tasks as they are when somebody asks."""

    def __init__(self, registry: CollectorRegistry, nodes: Counts, tasks: Counts) -> None:
        """`nodes` counts by status, `tasks` the unfinished ones by state."""
        self._nodes = nodes
        self._tasks = tasks
        registry.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The present numbers."""
        build = GaugeMetricFamily("llm_router_build_info", "The version.", labels=["version"])
        build.add_metric([version()], 1)
        yield build
        nodes = GaugeMetricFamily("llm_router_nodes", "Known nodes.", labels=["status"])
        for status, number in self._nodes().items():
            nodes.add_metric([status], number)
        yield nodes
        tasks = GaugeMetricFamily("llm_router_tasks", "Unfinished tasks.", labels=["state"])
        for state, number in self._tasks().items():
            tasks.add_metric([state], number)
        yield tasks


class SwarmMetrics(Collector):
    """What nodes share, as it is when somebody asks."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        swarms: Callable[[], int],
        grants: Counts,
        results: Counts,
        wrong_pieces: Callable[[], int],
    ) -> None:
        """`grants` counts by source, `results` by what became of pieces; all since the start."""
        self._swarms = swarms
        self._grants = grants
        self._results = results
        self._wrong_pieces = wrong_pieces
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The present numbers."""
        yield GaugeMetricFamily(
            "llm_router_swarms", "Files that nodes of a site fetch now.", value=self._swarms()
        )
        grants = CounterMetricFamily(
            "llm_router_piece_grants", "Pieces that nodes were told to fetch.", labels=["source"]
        )
        for source, number in self._grants().items():
            grants.add_metric([source], number)
        yield grants
        results = CounterMetricFamily(
            "llm_router_piece_results", "What nodes said became of pieces.", labels=["result"]
        )
        for result, number in self._results().items():
            results.add_metric([result], number)
        yield results
        yield CounterMetricFamily(
            "llm_router_peer_wrong_pieces",
            "Pieces of which a node sent wrong bytes, or told a wrong digest.",
            value=self._wrong_pieces(),
        )


def exposition(registry: CollectorRegistry) -> bytes:
    """All series in Prometheus' text format."""
    return generate_latest(registry)

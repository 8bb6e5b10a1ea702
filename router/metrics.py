"""What the router counts, for Prometheus. Labels never hold an id."""

from collections.abc import Callable, Iterable

from grpc import StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
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


def exposition(registry: CollectorRegistry) -> bytes:
    """All series in Prometheus' text format."""
    return generate_latest(registry)

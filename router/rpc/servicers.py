"""The services that operators call: each method converts, calls, converts."""

from collections.abc import AsyncIterator

import grpc

from protos.llmrouter.v1 import catalog_pb2 as catalog
from protos.llmrouter.v1 import catalog_pb2_grpc as catalog_grpc
from protos.llmrouter.v1 import download_pb2 as download
from protos.llmrouter.v1 import download_pb2_grpc as download_grpc
from protos.llmrouter.v1 import node_pb2 as node
from protos.llmrouter.v1 import node_pb2_grpc as node_grpc
from protos.llmrouter.v1 import registration_pb2 as registration
from protos.llmrouter.v1 import registration_pb2_grpc as registration_grpc
from router.rpc import convert, convert_orders, convert_sites
from router.rpc.bundles import BundleStreams
from router.rpc.watches import Watches
from router.services.catalog import CatalogBrowser
from router.services.downloads import Downloads
from router.services.models import Models, Registration
from router.services.nodes import Nodes
from router.services.orders import Orders
from router.services.plans import Plans
from router.services.sites import Sites
from router.services.upgrades import Upgrades

Context = grpc.ServicerContext


class CatalogServicer(catalog_grpc.CatalogServiceServicer):
    """What the Hub offers."""

    def __init__(self, browser: CatalogBrowser, messages: convert.Messages) -> None:
        """Browses `browser`."""
        self._browser = browser
        self._messages = messages

    def SearchCatalog(
        self, request: catalog.SearchCatalogRequest, context: Context
    ) -> catalog.SearchCatalogResponse:
        """See catalog.proto."""
        query = convert.query_from(request)
        if request.HasField("window"):
            window = request.window
            return self._messages.variant_page(
                self._browser.variants(query, window.limit, window.offset, window.listing)
            )
        return self._messages.repo_page(
            self._browser.repos(query, request.page_size, request.page_token)
        )

    def GetRepo(self, request: catalog.GetRepoRequest, context: Context) -> catalog.GetRepoResponse:
        """See catalog.proto."""
        repo = self._browser.repo(request.repo, request.revision)
        return catalog.GetRepoResponse(repo=self._messages.repo(repo))


class RegistrationServicer(registration_grpc.RegistrationServiceServicer):
    """The supported models."""

    def __init__(
        self,
        models: Models,
        upgrades: Upgrades,
        bundles: BundleStreams,
        messages: convert.Messages,
        watches: Watches,
    ) -> None:
        """Registers in `models`, renews by `upgrades`; `bundles` go out and come in."""
        self._bundles = bundles
        self._models = models
        self._upgrades = upgrades
        self._messages = messages
        self._watches = watches

    def RegisterModel(
        self, request: registration.RegisterModelRequest, context: Context
    ) -> registration.RegisterModelResponse:
        """See registration.proto."""
        view, warnings = self._models.register(
            Registration(
                repo=request.repo,
                path=request.file,
                quantization=request.quantization,
                revision=request.revision or "main",
                display_name=request.display_name,
                chat_template=request.chat_template,
            )
        )
        return registration.RegisterModelResponse(
            model=self._messages.model(view), warnings=warnings
        )

    def GetModel(
        self, request: registration.GetModelRequest, context: Context
    ) -> registration.GetModelResponse:
        """See registration.proto."""
        view = self._models.get(request.model_name)
        return registration.GetModelResponse(model=self._messages.model(view))

    def ListModels(
        self, request: registration.ListModelsRequest, context: Context
    ) -> registration.ListModelsResponse:
        """See registration.proto."""
        page = self._models.page(request.page_size, request.page_token)
        return registration.ListModelsResponse(
            models=map(self._messages.model, page.items), next_page_token=page.next_token
        )

    def UnregisterModel(
        self, request: registration.UnregisterModelRequest, context: Context
    ) -> registration.UnregisterModelResponse:
        """See registration.proto."""
        self._models.unregister(request.model_name, force=request.force, evict=request.evict)
        return registration.UnregisterModelResponse()

    def ListOutdatedModels(
        self, request: registration.ListOutdatedModelsRequest, context: Context
    ) -> registration.ListOutdatedModelsResponse:
        """See registration.proto."""
        return convert.outdated_page(self._upgrades.outdated(request.page_size, request.page_token))

    def UpgradeModel(
        self, request: registration.UpgradeModelRequest, context: Context
    ) -> registration.UpgradeModelResponse:
        """See registration.proto."""
        return self._messages.upgraded(self._upgrades.upgrade(request.model_name))

    def WatchModels(
        self, request: registration.WatchModelsRequest, context: object
    ) -> AsyncIterator[registration.WatchModelsResponse]:
        """See registration.proto."""
        return self._watches.models()

    def ExportModels(
        self, request: registration.ExportModelsRequest, context: object
    ) -> AsyncIterator[registration.ExportModelsResponse]:
        """See registration.proto."""
        return self._bundles.export(request)

    # The stubs know the synchronous style only.
    async def ImportModels(
        self,
        request_iterator: AsyncIterator[registration.ImportModelsRequest],
        context: object,
    ) -> registration.ImportModelsResponse:
        """See registration.proto."""
        return await self._bundles.take_in(request_iterator)


class DownloadServicer(download_grpc.DownloadServiceServicer):
    """Orders and tasks."""

    def __init__(
        self, plans: Plans, orders: Orders, downloads: Downloads, watches: Watches
    ) -> None:
        """Orders from `orders`, after a look at `plans`."""
        self._plans = plans
        self._orders = orders
        self._downloads = downloads
        self._watches = watches

    def PlanDownload(
        self, request: download.PlanDownloadRequest, context: Context
    ) -> download.PlanDownloadResponse:
        """See download.proto."""
        target = convert_orders.target_from(request.target)
        return convert_orders.plan(
            self._plans.plan(
                request.model_name, target, request.node_ids, dict(request.label_selector)
            )
        )

    def StartDownload(
        self, request: download.StartDownloadRequest, context: Context
    ) -> download.StartDownloadResponse:
        """See download.proto."""
        order = self._orders.start(
            request.model_name,
            convert_orders.target_from(request.target),
            request.node_ids,
            dict(request.label_selector),
            convert_orders.options_from(request.options),
            request_id=request.request_id,
            priority=request.priority,
            plan_id=request.plan_id,
        )
        return download.StartDownloadResponse(order=convert_orders.order(order))

    def GetOrder(
        self, request: download.GetOrderRequest, context: Context
    ) -> download.GetOrderResponse:
        """See download.proto."""
        order = self._orders.order(request.order_id)
        return download.GetOrderResponse(order=convert_orders.order(order))

    def ListOrders(
        self, request: download.ListOrdersRequest, context: Context
    ) -> download.ListOrdersResponse:
        """See download.proto."""
        page = self._orders.orders(request.page_size, request.page_token)
        return download.ListOrdersResponse(
            orders=map(convert_orders.order, page.items), next_page_token=page.next_token
        )

    def CancelOrder(
        self, request: download.CancelOrderRequest, context: Context
    ) -> download.CancelOrderResponse:
        """See download.proto."""
        order = self._orders.cancel(request.order_id)
        return download.CancelOrderResponse(order=convert_orders.order(order))

    def GetTask(
        self, request: download.GetTaskRequest, context: Context
    ) -> download.GetTaskResponse:
        """See download.proto."""
        return download.GetTaskResponse(task=convert.task(self._downloads.task(request.task_id)))

    def ListTasks(
        self, request: download.ListTasksRequest, context: Context
    ) -> download.ListTasksResponse:
        """See download.proto."""
        page = self._downloads.tasks(
            request.page_size,
            request.page_token,
            states=convert.states_from(request.states),
            model=request.model_name,
            node=request.node_id,
        )
        return download.ListTasksResponse(
            tasks=map(convert.task, page.items), next_page_token=page.next_token
        )

    def CancelTask(
        self, request: download.CancelTaskRequest, context: Context
    ) -> download.CancelTaskResponse:
        """See download.proto."""
        task = self._downloads.cancel(request.task_id, keep_partial=request.keep_partial)
        return download.CancelTaskResponse(task=convert.task(task))

    def PauseTask(
        self, request: download.PauseTaskRequest, context: Context
    ) -> download.PauseTaskResponse:
        """See download.proto."""
        return download.PauseTaskResponse(task=convert.task(self._downloads.pause(request.task_id)))

    def ResumeTask(
        self, request: download.ResumeTaskRequest, context: Context
    ) -> download.ResumeTaskResponse:
        """See download.proto."""
        task = self._downloads.resume(request.task_id)
        return download.ResumeTaskResponse(task=convert.task(task))

    def RetryTask(
        self, request: download.RetryTaskRequest, context: Context
    ) -> download.RetryTaskResponse:
        """See download.proto."""
        return download.RetryTaskResponse(task=convert.task(self._downloads.retry(request.task_id)))

    def WatchTasks(
        self, request: download.WatchTasksRequest, context: object
    ) -> AsyncIterator[download.WatchTasksResponse]:
        """See download.proto."""
        return self._watches.tasks(list(request.task_ids))


class NodeServicer(node_grpc.NodeServiceServicer):
    """The fleet."""

    def __init__(self, nodes: Nodes, sites: Sites, watches: Watches) -> None:
        """Shows and changes `nodes` and `sites`."""
        self._nodes = nodes
        self._sites = sites
        self._watches = watches

    def GetNode(self, request: node.GetNodeRequest, context: Context) -> node.GetNodeResponse:
        """See node.proto."""
        return node.GetNodeResponse(node=convert.node(self._nodes.get(request.node_id)))

    def ListNodes(self, request: node.ListNodesRequest, context: Context) -> node.ListNodesResponse:
        """See node.proto."""
        page = self._nodes.page(request.page_size, request.page_token)
        return node.ListNodesResponse(
            nodes=map(convert.node, page.items), next_page_token=page.next_token
        )

    def UpdateNode(
        self, request: node.UpdateNodeRequest, context: Context
    ) -> node.UpdateNodeResponse:
        """See node.proto."""
        has_rate = request.HasField("max_rate_bytes_per_second")
        has_upload_rate = request.HasField("max_upload_rate_bytes_per_second")
        has_hub_rate = request.HasField("max_hub_rate_bytes_per_second")
        view = self._nodes.update(
            request.node_id,
            max_rate=request.max_rate_bytes_per_second if has_rate else None,
            max_upload_rate=request.max_upload_rate_bytes_per_second if has_upload_rate else None,
            max_hub_rate=request.max_hub_rate_bytes_per_second if has_hub_rate else None,
            labels=dict(request.labels),
            remove_labels=tuple(request.remove_labels),
        )
        return node.UpdateNodeResponse(node=convert.node(view))

    def RemoveNode(
        self, request: node.RemoveNodeRequest, context: Context
    ) -> node.RemoveNodeResponse:
        """See node.proto."""
        self._nodes.remove(request.node_id)
        return node.RemoveNodeResponse()

    def EvictModel(
        self, request: node.EvictModelRequest, context: Context
    ) -> node.EvictModelResponse:
        """See node.proto."""
        self._nodes.evict(request.node_id, request.model_name)
        return node.EvictModelResponse()

    def ListSites(self, request: node.ListSitesRequest, context: Context) -> node.ListSitesResponse:
        """See node.proto."""
        return node.ListSitesResponse(sites=map(convert_sites.site, self._sites.all()))

    def UpdateSite(
        self, request: node.UpdateSiteRequest, context: Context
    ) -> node.UpdateSiteResponse:
        """See node.proto."""
        has_rate = request.HasField("max_hub_rate_bytes_per_second")
        view = self._sites.update(
            request.name,
            max_hub_rate=request.max_hub_rate_bytes_per_second if has_rate else None,
            timetable=convert_sites.timetable_from(request),
            time_zone=request.time_zone if request.HasField("time_zone") else None,
        )
        return node.UpdateSiteResponse(site=convert_sites.site(view))

    def WatchNodes(
        self, request: node.WatchNodesRequest, context: object
    ) -> AsyncIterator[node.WatchNodesResponse]:
        """See node.proto."""
        return self._watches.nodes()

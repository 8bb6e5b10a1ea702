"""Messages as a router would send them."""

from google.protobuf.timestamp_pb2 import Timestamp

from protos.llmrouter.v1 import catalog_pb2, common_pb2, download_pb2, node_pb2, registration_pb2

REPO = "acme/tiny-GGUF"
MODEL = f"hf/{REPO}/tiny-Q4_K_M.gguf"
COMMIT = "c" * 40
MOMENT = Timestamp(seconds=1_780_000_000, nanos=250_000_000)
GB = 1_000_000_000

PENDING = common_pb2.TASK_STATE_PENDING
DOWNLOADING = common_pb2.TASK_STATE_DOWNLOADING
VERIFYING = common_pb2.TASK_STATE_VERIFYING
COMPLETED = common_pb2.TASK_STATE_COMPLETED
FAILED = common_pb2.TASK_STATE_FAILED
CANCELLED = common_pb2.TASK_STATE_CANCELLED
PAUSED = common_pb2.TASK_STATE_PAUSED


def task(
    number: int = 1,
    state: common_pb2.TaskState.ValueType = DOWNLOADING,
    done: int = 0,
    **fields: object,
) -> download_pb2.Task:
    """Task `t-1` of 2 GB on node `node-1`, and so on."""
    message = download_pb2.Task(
        task_id=f"t-{number}",
        order_id="o-1",
        model_name=MODEL,
        node_id=f"id-{number}",
        node_name=f"node-{number}",
        node_online=True,
        state=state,
        attempt=1,
        bytes_done=done,
        bytes_total=2 * GB,
        create_time=MOMENT,
    )
    message.MergeFrom(download_pb2.Task(**fields))  # type: ignore[arg-type]
    return message


def moving(number: int, done: int, speed: int, left: int) -> download_pb2.Task:
    """A task whose bytes flow."""
    message = task(number, DOWNLOADING, done, speed_bytes_per_second=speed)
    message.eta.FromSeconds(left)
    message.bytes_from.hub = done
    return message


def completed(number: int = 1) -> download_pb2.Task:
    """A task that is done."""
    message = task(number, COMPLETED, 2 * GB, end_time=MOMENT)
    message.bytes_from.hub = 2 * GB
    return message


def failed(number: int = 1) -> download_pb2.Task:
    """A task that failed for good."""
    message = task(number, FAILED, GB, end_time=MOMENT)
    message.error.code = "digest_mismatch"
    message.error.message = "the file's SHA-256 is not the registered one"
    return message


def order(*tasks: download_pb2.Task) -> download_pb2.Order:
    """Order `o-1` with these tasks."""
    return download_pb2.Order(
        order_id="o-1",
        model_name=MODEL,
        target=download_pb2.ORDER_TARGET_ALL,
        node_ids=[one.node_id for one in tasks],
        create_time=MOMENT,
        tasks=tasks,
        state=download_pb2.ORDER_STATE_ACTIVE,
    )


def file(path: str = "tiny-Q4_K_M.gguf", size: int = 2 * GB) -> common_pb2.ModelFile:
    """A file of the repository."""
    return common_pb2.ModelFile(
        path=path,
        size_bytes=size,
        sha256="a" * 64,
        url=f"https://hub.example/{REPO}/resolve/{COMMIT}/{path}",
        role=common_pb2.FILE_ROLE_MODEL,
    )


def model() -> registration_pb2.Model:
    """A registered model that one of two nodes holds."""
    return registration_pb2.Model(
        model_name=MODEL,
        display_name="tiny Q4_K_M",
        status=registration_pb2.MODEL_STATUS_REGISTERED,
        manifest=common_pb2.Manifest(
            model_name=MODEL,
            repo=REPO,
            revision="main",
            commit=COMMIT,
            format="gguf",
            quantization="Q4_K_M",
            total_bytes=2 * GB,
            manifest_id="e" * 64,
            files=[file()],
        ),
        required_memory_bytes=3 * GB,
        create_time=MOMENT,
        ready_node_count=1,
        holdings=[
            common_pb2.Holding(
                model_name=MODEL,
                node_id="id-1",
                node_name="node-1",
                state=common_pb2.HOLDING_STATE_READY,
                verify_time=MOMENT,
                task_id="t-1",
            ),
            common_pb2.Holding(
                model_name=MODEL,
                node_id="id-2",
                node_name="node-2",
                state=common_pb2.HOLDING_STATE_PENDING,
            ),
        ],
    )


def node(number: int = 1) -> node_pb2.Node:
    """Node `node-1` with one model, and so on."""
    return node_pb2.Node(
        node_id=f"id-{number}",
        name=f"node-{number}",
        status=node_pb2.NODE_STATUS_ONLINE,
        version="0.1.0",
        labels={"site": "berlin", "gpu": "yes"},
        disk_free_bytes=50 * GB,
        disk_total_bytes=100 * GB,
        memory_bytes=64 * GB,
        gpus=[node_pb2.Gpu(name="RTX 6000", memory_bytes=48 * GB)],
        holdings=[model().holdings[0]],
        last_seen_time=MOMENT,
        create_time=MOMENT,
        max_concurrent=2,
        reserve_bytes=GB,
    )


def repo() -> catalog_pb2.Repo:
    """A repository with two quantizations."""
    return catalog_pb2.Repo(
        repo=REPO,
        commit=COMMIT,
        last_modified=MOMENT,
        downloads=12_345,
        likes=67,
        tags=["gguf", "text-generation"],
        gating=catalog_pb2.GATING_OPEN,
        variants=[
            catalog_pb2.Variant(
                model_name=f"hf/{REPO}/tiny-{quantization}.gguf",
                display_name=f"tiny {quantization}",
                quantization=quantization,
                filename=f"tiny-{quantization}.gguf",
                files=[file(f"tiny-{quantization}.gguf")],
                size_bytes=2 * GB,
                status=catalog_pb2.VARIANT_STATUS_AVAILABLE,
            )
            for quantization in ("Q4_K_M", "Q8_0")
        ],
    )


def catalog() -> catalog_pb2.SearchCatalogResponse:
    """A window with one repository, of a longer catalog."""
    return catalog_pb2.SearchCatalogResponse(
        repos=[repo()], cached=True, fetch_time=MOMENT, has_more=True
    )


def change() -> registration_pb2.FileChange:
    """A file that grew."""
    return registration_pb2.FileChange(
        path="tiny-Q4_K_M.gguf",
        old_size_bytes=2 * GB,
        old_sha256="a" * 64,
        new_size_bytes=3 * GB,
        new_sha256="b" * 64,
    )


def outdated() -> registration_pb2.OutdatedModel:
    """The registered model, with a newer commit on the Hub."""
    return registration_pb2.OutdatedModel(
        model_name=MODEL,
        commit=COMMIT,
        newest_commit="d" * 40,
        last_modified=MOMENT,
        changes=[change()],
        download_bytes=3 * GB,
    )


def upgraded() -> registration_pb2.UpgradeModelResponse:
    """What an upgrade of it answers."""
    added = registration_pb2.FileChange(path="mmproj.gguf", new_size_bytes=GB)
    one = model()
    one.manifest.commit = "d" * 40
    return registration_pb2.UpgradeModelResponse(
        model=one,
        previous_commit=COMMIT,
        changes=[change(), added],
        download_bytes=4 * GB,
        warnings=["large"],
    )

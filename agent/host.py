"""What this machine has: disk, memory, GPUs. What cannot be found out is left out."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import pynvml  # type: ignore[import-untyped]

from protos.daemon.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One graphics processor and its own memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds the models; `free_bytes` is what this user may still write."""

    free_bytes: int
    total_bytes: int


def disk(folder: Path) -> Disk:
    """The disk below a folder that need not exist yet; zeros when nobody can say."""
    for place in (folder, *folder.absolute().parents):
        try:
            usage = shutil.disk_usage(place)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("the disk cannot be measured", folder=str(place), cause=str(error))
            break
        return Disk(usage.free, usage.total)
    return Disk(0, 0)


def memory_bytes() -> int:
    """The main memory of this machine."""
    return int(psutil.virtual_memory().total)


def gpus() -> tuple[Gpu, ...]:
    """NVIDIA's GPUs as its management library lists them; none without its driver."""
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError) as error:
        log.debug("no NVIDIA GPUs", cause=str(error))
        return ()
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return tuple(
            Gpu(
                _text(pynvml.nvmlDeviceGetName(handle)),
                int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for handle in handles
        )
    except (pynvml.NVMLError, OSError) as error:
        log.warning("the GPUs cannot be listed", cause=str(error))
        return ()
    finally:
        pynvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name

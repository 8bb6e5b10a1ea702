"""What a machine has, and what is said when nobody knows."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml  # type: ignore[import-untyped]
import pytest

from agent import host
from agent.host import Gpu


def test_the_disk_below_a_folder_that_does_not_exist_yet_is_measured(tmp_path: Path) -> None:
    disk = host.disk(tmp_path / "not" / "yet")

    assert disk.total_bytes == psutil.disk_usage(str(tmp_path)).total
    assert 0 < disk.free_bytes <= disk.total_bytes


def test_the_memory_is_that_of_the_machine() -> None:
    assert host.memory_bytes() == psutil.virtual_memory().total


def test_a_machine_without_the_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)

    assert host.gpus() == ()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A driver with two GPUs; real ones are not at hand where tests run."""
    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: "A100" if handle else b"L4",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 << 30),
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    return monkeypatch


def test_gpus_are_listed_with_their_memory(driver: pytest.MonkeyPatch) -> None:
    assert host.gpus() == (Gpu("L4", 24 << 30), Gpu("A100", 24 << 30))


def test_a_gpu_that_does_not_answer_does_not_stop_the_agent(driver: pytest.MonkeyPatch) -> None:
    def lost(handle: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    driver.setattr(pynvml, "nvmlDeviceGetName", lost)

    assert host.gpus() == ()

"""What a result says of the machine that it was measured on."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bench.store import provenance


class NVMLError(Exception):
    pass


def driver(**more: object) -> SimpleNamespace:
    """NVML as its Python binding offers it."""

    def refused(gpu: object) -> int:
        raise NVMLError

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetPowerManagementLimit=lambda gpu: 700_000,
        nvmlDeviceGetMaxClockInfo=lambda gpu, clock: 1980,
        nvmlDeviceGetCurrentClocksThrottleReasons=refused,
        **more,
    )


def test_a_gpu_is_described_as_nvidia_smi_does_and_what_it_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert provenance._nvml("0") == {
        "driver_version": "580.65.06",
        "power_limit": "700.00 W",
        "clocks_max_sm": "1980 MHz",
    }


def test_a_machine_without_a_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError

    fake = driver()
    fake.nvmlInit = absent
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert provenance._nvml("0") == {}

"""The choice of a device, its reason, and what counts as full memory."""

from __future__ import annotations

import re

import pytest
import torch

from napari_svpseg.core.settings import DEVICE_NAMES, NO_GPU
from napari_svpseg.engine.inference.device import (
    ASKED_FOR,
    N_FOUND,
    NOT_THERE,
    Device,
    choose,
    describe,
    is_out_of_memory,
)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")


def test_cpu_is_what_was_asked_for():
    device = choose("cpu")
    assert device.torch_device == torch.device("cpu")
    assert not device.is_fallback
    assert ASKED_FOR in str(device)


def test_auto_says_why_there_is_no_gpu(no_gpu, pattern):
    device = choose("auto")
    assert device.type == "cpu"
    assert not device.is_fallback
    assert device.reason.startswith(NO_GPU)


@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps"])
def test_missing_gpu_falls_back_and_is_told(no_gpu, asked, pattern):
    device = choose(asked)
    assert device.type == "cpu"
    assert device.is_fallback
    assert re.fullmatch(pattern(NOT_THERE, asked=asked), device.reason)


def test_gpus_are_found_by_number(two_gpus):
    assert choose("auto").torch_device == torch.device("cuda", 0)
    assert choose("cuda").name == "GPU 0"
    assert choose("CUDA:1").torch_device == torch.device("cuda", 1)
    missing = choose("cuda:2")
    assert missing.is_fallback
    why = N_FOUND.format(n=2)
    assert missing.reason == NOT_THERE.format(asked="cuda:2", why=why)


def test_apple_gpu(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose("auto").type == choose("mps").type == "mps"


@pytest.mark.parametrize("asked", ["gpu", "cuda:x", "cuda:", "mps:mps", ""])
def test_unknown_devices_are_refused(asked):
    with pytest.raises(ValueError, match=DEVICE_NAMES):
        choose(asked)


def test_a_chosen_device_stays():
    device = Device(torch.device("cpu"), "a", "b")
    assert choose(device) is device
    assert choose(torch.device("cpu")).type == "cpu"


def test_description_holds_plain_values():
    about = describe("cpu")
    assert about["device"] == "cpu"
    assert about["line"] == str(choose("cpu"))
    # a value of torch's own types would load torch in the window's process
    assert {type(v) for v in about.values()} <= {str, int}


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.cuda.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_full_memory_is_recognised(error, full):
    assert is_out_of_memory(error) is full

"""A preloaded library under which torch believes in one H100: built for the torch that is installed, and tried."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
HEADER = "nvidia/cu*/include/driver_types.h"  # in the wheel of CUDA's runtime
PREFIX = "#define __device_builtin__\ntypedef struct { char bytes[16]; } cudaUUID_t;\n"
PROBE = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
assert torch.cuda.get_device_capability() == (9, 0)
with FakeTensorMode(), torch.autocast("cuda", dtype=torch.bfloat16):
    weight = torch.empty(8, 8, device="cuda", requires_grad=True)
    product = torch.empty(4, 8, device="cuda") @ weight
    product.sum().backward()
assert product.dtype == torch.bfloat16 and weight.grad.device.type == "cuda"
"""  # a product and its gradient: the latter asks for contexts and streams


class Unfit(RuntimeError):
    """No device can be pretended here; the message says why."""


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process that believes in an H100.

    Args:
        folder: where the libraries are built; it must stay while processes start.

    Raises:
        Unfit: where a part is missing, or the libraries do not fit the torch that is installed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unfit("no C compiler: a device cannot be pretended without one (apt-get install gcc)")
    if importlib.util.find_spec("triton") is None:
        raise Unfit("no Triton: Inductor's kernels cannot be compiled for a GPU")
    (folder / "properties.h").write_text(PREFIX + properties(), encoding="utf-8")
    for source, library in (("device.c", "device.so"), ("driver.c", "libcuda.so.1")):
        files = [str(HERE / source), "-o", str(folder / library)]
        words = [compiler, "-O1", "-w", "-shared", "-fPIC", f"-I{folder}", *files]
        made = subprocess.run(words, capture_output=True, text=True)
        if made.returncode:
            raise Unfit(f"{source} does not compile: {made.stderr.strip().splitlines()[-1]}")
    paths = [str(folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    variables = os.environ | {"LD_PRELOAD": str(folder / "device.so"), "LD_LIBRARY_PATH": os.pathsep.join(paths)}
    tried = subprocess.run([sys.executable, "-c", PROBE], env=variables, capture_output=True, text=True)
    if tried.returncode:
        said = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        raise Unfit(f"the preload does not fit this build of torch: {said}")
    return variables


def properties() -> str:
    """CUDA's own declaration of `cudaDeviceProp`.

    Raises:
        Unfit: where the header is missing or declares it otherwise.
    """
    header = next(Path(sysconfig.get_path("purelib")).glob(HEADER), None)
    if header is None:
        raise Unfit(f"no {HEADER}: torch came without CUDA's headers (a build for the CPU)")
    found = re.search(r"struct __device_builtin__ cudaDeviceProp\s*\{.*?\n\};", header.read_text(), re.DOTALL)
    if found is None:
        raise Unfit(f"{header.name} declares no cudaDeviceProp: another version of CUDA")
    return found[0] + "\n"

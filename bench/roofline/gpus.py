"""Published rates of GPUs, for predictions; nothing here was measured.

Rates are dense, without the structured sparsity of many data sheets. GeForce cards accumulate FP16 products in FP32 at
half the rate of FP16; the other cards do both at the same rate. The TF32 rate is half of that of FP16 with FP32 sums in
every data sheet that lists both. Where the source is a number of multiprocessors (SMs) and a clock, the rate is their
product times 512 operations (FP32 sums) or 1024 (FP16 sums); this gives the listed rates of the RTX 3090, 4090 and
5090.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from amodal.runtime.errors import InputError

_AMPERE = "NVIDIA Ampere GA102 GPU architecture whitepaper, V2.0, appendices A and C"
_ADA = "NVIDIA Ada GPU architecture whitepaper, V2, appendix A"
_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture whitepaper, V1.1, appendix A"
_PRO = "NVIDIA RTX Blackwell PRO GPU architecture whitepaper, V1.0, table 4"
_ORIN = "NVIDIA Jetson AGX Orin Series technical brief, a quarter of its 170 INT8 TOPS with sparsity"
_HALVED = "data sheet, half of the rate printed with sparsity"


@dataclass(frozen=True)
class GpuSpec:
    """Published figures of a GPU.

    Attributes:
        name: without maker and `GeForce`.
        fp32_sums: dense FP16 tensor rate with sums in FP32, in TFLOPS; None if it is not published.
        fp16_sums: the same with sums in FP16.
        gigabytes_per_second: of its memory.
        gigabytes: of memory; on a Jetson shared with the host.
        source: of the figures.
    """

    name: str
    fp32_sums: float | None
    fp16_sums: float
    gigabytes_per_second: float
    gigabytes: int
    source: str

    @property
    def vram(self) -> int:
        """Bytes of memory; a gigabyte is 1e9."""
        return self.gigabytes * 10**9


def _by_clock(name: str, processors: int, boost: float, bandwidth: float, gigabytes: int) -> GpuSpec:
    rate = processors * boost * 1024 / 1e3
    source = f"NVIDIA's specification: {processors} SMs at {boost:g} GHz, {bandwidth:g} GB/s"
    return GpuSpec(name, round(rate / 2, 1), round(rate, 1), bandwidth, gigabytes, source)


GPUS: tuple[GpuSpec, ...] = (
    _by_clock("RTX 3060 12GB", 28, 1.777, 360, 12),
    GpuSpec("RTX 3090", 71.2, 142.3, 936, 24, _AMPERE),
    _by_clock("RTX 4060", 24, 2.46, 272, 8),
    _by_clock("RTX 4070", 46, 2.475, 504, 12),
    _by_clock("RTX 4080", 76, 2.505, 716.8, 16),
    GpuSpec("RTX 4090", 165.2, 330.3, 1008, 24, _ADA),
    _by_clock("RTX 5070", 48, 2.512, 672, 12),
    _by_clock("RTX 5080", 84, 2.617, 960, 16),
    GpuSpec("RTX 5090", 209.5, 419.0, 1792, 32, _BLACKWELL),
    GpuSpec("RTX A6000", 154.8, 154.8, 768, 48, _AMPERE),
    GpuSpec("RTX 6000 Ada", 364.2, 364.2, 960, 48, "NVIDIA RTX 6000 Ada data sheet: a quarter of FP8 with sparsity"),
    GpuSpec("RTX PRO 6000 Blackwell", 503.8, 503.8, 1792, 96, _PRO),
    GpuSpec("L4", 121.0, 121.0, 300, 24, f"NVIDIA L4 {_HALVED}"),
    GpuSpec("L40S", 362.05, 362.05, 864, 48, "NVIDIA L40S data sheet"),
    GpuSpec("A100 40GB", 312.0, 312.0, 1555, 40, "NVIDIA A100 data sheet"),
    GpuSpec("A100 80GB", 312.0, 312.0, 2039, 80, "NVIDIA A100 data sheet, SXM"),
    GpuSpec("H100 PCIe", 756.5, 756.5, 2000, 80, f"NVIDIA H100 {_HALVED}"),
    GpuSpec("H100 SXM", 989.5, 989.5, 3350, 80, f"NVIDIA H100 {_HALVED}"),
    GpuSpec("H200", 989.5, 989.5, 4800, 141, f"NVIDIA H200 {_HALVED}"),
    GpuSpec("Jetson AGX Orin 64GB", None, 42.5, 204.8, 64, _ORIN),
)


def find_gpu(name: str) -> GpuSpec:
    """Finds a GPU by its name in any spelling: `RTX 4090`, `rtx4090`, `4090`, `NVIDIA GeForce RTX 4090`.

    Raises InputError if no GPU has that name, or several do.
    """
    wanted = _plain(name)
    exact = [gpu for gpu in GPUS if wanted in (_plain(gpu.name), _plain(gpu.name).removeprefix("rtx"))]
    found = exact or [gpu for gpu in GPUS if wanted and wanted in _plain(gpu.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(gpu.name for gpu in found or GPUS)
    what = "could be several" if found else "is none whose published rates are known"
    raise InputError(f"GPU {name!r} {what}; expected one of {known}.", field="gpu")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|[^a-z0-9]", "", name.lower())

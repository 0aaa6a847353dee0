"""Carries what a GPU machine lacks to it, in parts of a limited size; that machine may be offline.

    python bench/gpu_check/pack.py pack parts --stage b --bundle weightless --mib 30
    python bench/gpu_check/pack.py join parts -o site

`pack` downloads wheels for the machine, unpacks them, adds a bundle (see `weights.py`), compresses all of it, and
splits the archive. `join` checks every part, puts them together and unpacks them; it needs Python alone, so run the
file itself. Then put the folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WHEELS = {
    "a": (
        *("pydantic", "pydantic-core", "typing-inspection", "annotated-types", "platformdirs", "pycocotools"),
        *("diffusers", "onnx", "onnx-ir", "ml-dtypes"),
    ),
    "b": ("onnxruntime-gpu>=1.31.1", "flatbuffers"),
}
"""By stage: what a machine with torch, CuPy and onnxruntime for the CPU lacks."""

_UNUSED = (
    *("onnxruntime/capi/libonnxruntime_providers_tensorrt.so", "onnxruntime/capi/libonnxruntime.so"),
    *("onnxruntime/transformers/", "onnxruntime/tools/", "onnx/backend/test/"),
)
_PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 34, 24, 17)] + ["manylinux2014_x86_64"]
_INDEX = "parts.json"
_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}]


def pack(folder: Path, out: Path, part_bytes: int) -> list[Path]:
    """Compresses a folder's content into `out`: parts of at most `part_bytes`, and `parts.json` with their hashes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryFile() as whole:
        with (
            lzma.open(whole, "wb", filters=_FILTERS) as packed,
            tarfile.open(fileobj=packed, mode="w|") as archive,
        ):
            archive.add(folder, ".")
        whole.seek(0)
        parts: list[Path] = []
        while content := whole.read(part_bytes):
            part = out / f"part-{len(parts):02d}"
            part.write_bytes(content)
            parts.append(part)
    index = [{"name": p.name, "bytes": p.stat().st_size, "sha256": _hash(p)} for p in parts]
    (out / _INDEX).write_text(json.dumps(index, indent=1))
    return parts


def join(places: Sequence[Path], site: Path) -> None:
    """Unpacks the parts that lie in some folders into `site`; ends with a sentence if one is missing or damaged."""
    found = {file.name: file for place in places for file in place.iterdir()}
    if _INDEX not in found:
        sys.exit(f"{_INDEX} is not in {', '.join(map(str, places))}; carry it along with the parts.")
    parts = []
    for row in json.loads(found[_INDEX].read_text()):
        part = found.get(row["name"])
        if part is None:
            sys.exit(f"{row['name']} is missing; carry every part that {_INDEX} lists.")
        if _hash(part) != row["sha256"]:
            sys.exit(f"{part} is damaged: its hash differs from that in {_INDEX}; carry it again.")
        parts.append(part)
    with tempfile.TemporaryFile() as whole:
        for part in parts:
            whole.write(part.read_bytes())
        whole.seek(0)
        with lzma.open(whole) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
            archive.extractall(site, filter="data")


def unpack_wheels(wheels: Sequence[str], python: str, site: Path, architecture: int | None) -> None:
    """Downloads wheels for a Python on Linux into a folder; of CUDA kernels, those for one architecture (90) alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder]
        command += ["--python-version", python, "--implementation", "cp"]
        command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
        subprocess.run([*command, *wheels], check=True)
        for file in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(site, [name for name in wheel.namelist() if not name.startswith(_UNUSED)])
    provider = site / _PROVIDER
    if architecture is not None and provider.exists():
        from amodal.bench.gpu_check.fatbins import keep_architecture

        provider.write_bytes(keep_architecture(provider.read_bytes(), architecture))


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Packs or joins; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pack", help="write the parts")
    one.add_argument("out", type=Path)
    one.add_argument("--stage", choices=sorted(WHEELS), required=True)
    one.add_argument("--bundle", type=Path, help="becomes the folder `bundle` of the archive")
    one.add_argument("--also", nargs="+", default=[], help="further wheels")
    one.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="the machine's")
    one.add_argument("--architecture", type=int, help="keep the CUDA kernels for this one alone, for instance 90")
    one.add_argument("--mib", type=int, default=30, help="size of a part")
    other = commands.add_parser("join", help="put the parts together and unpack them")
    other.add_argument("parts", nargs="+", type=Path, help="folders with parts")
    other.add_argument("-o", "--out", type=Path, required=True)
    asked: Any = parser.parse_args(arguments)
    if asked.command == "join":
        join(asked.parts, asked.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        site.mkdir()
        unpack_wheels([*WHEELS[asked.stage], *asked.also], asked.python, site, asked.architecture)
        if asked.bundle is not None:
            shutil.copytree(asked.bundle, site / "bundle")
        for part in pack(site, asked.out, asked.mib * 2**20):
            print(f"{part}  {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

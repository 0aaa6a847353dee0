"""`amodal doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import click

from .console import human_bytes, print_json
from .options import json_option


@click.command("doctor")
@click.option("--gpu", is_flag=True, help="Also run a small network on the GPU with each backend; a minute or two.")
@json_option("the report as JSON")
def command(gpu: bool, as_json: bool) -> None:
    """Show versions, devices and backends, for a bug report.

    With --gpu, each backend runs a small network of the default model in a process of its own, so that the others
    are still tried if one crashes or hangs.

    \b
    Examples:
      amodal doctor
      amodal doctor --gpu
      amodal doctor --gpu --json
    """
    from amodal.engines.gpu_probe import availabilities, probe_gpu
    from amodal.runtime.diagnosis import diagnose

    from .progress import activity

    with activity(as_json or not gpu, "trying the GPU"):
        found = diagnose(availabilities()) | {"gpu": probe_gpu()} if gpu else diagnose()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    yield f"amodal {found['amodal']}, Python {found['python']}, {found['platform']}"
    yield f"CPU: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    for gpu in found["gpus"]:
        yield "GPU: " + ", ".join(value if name == "name" else f"{name} {value}" for name, value in gpu.items())
    if not found["gpus"]:
        yield "GPU: none listed by nvidia-smi"
    yield "Backends:"
    for name, state in found["backends"].items():
        yield _item(
            f"{name}: usable, {state['detail']}" if state["usable"] else f"{name}: not usable: {state['reason']}"
        )
    if "gpu" in found:
        yield "On the GPU:"
        yield from map(_item, _gpu_lines(found["gpu"]))
    yield "Packages:"
    for extra, packages in found["packages"].items():
        installed = [f"{name} {version}" for name, version in packages.items() if version]
        missing = [f"no {name}" for name, version in packages.items() if not version]
        yield _item(f"{extra}: {', '.join(installed + missing)}")
    yield "Problems:" if found["problems"] else "Problems: none found"
    yield from map(_item, found["problems"])


def _gpu_lines(found: dict[str, Any]) -> Iterator[str]:
    if found["problem"]:
        yield found["problem"]
        return
    cupy = found["cupy"]
    if cupy["executes"]:
        memory = f"{human_bytes(cupy['memory_free'])} of {human_bytes(cupy['memory_total'])} free"
        cuda = f"driver for CUDA {cupy['cuda_driver']}, CuPy with CUDA {cupy['cuda_runtime']}"
        yield f"{cupy['gpu']} ({cupy['capability']}), {memory}, {cuda}"
        yield "CuPy: compiles kernels"
    else:
        yield f"CuPy: {cupy['reason']}"
    for row in found["backends"]:
        name = row["name"] + (f" --device {row['device']}" if row.get("device") else "")
        if row["executes"]:
            seconds = ", ".join(f"{what} {count:.3g} s" for what, count in row["seconds"].items())
            yield f"{name}: executes ({row['detail']}; {seconds})"
        else:
            yield f"{name}: does not execute: {row['reason']}"


def _item(text: str) -> str:
    """Formats an item of a list, wrapped at 80 columns without breaking words."""
    return textwrap.fill(
        text, 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )

"""`amodal doctor`."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from .console import human_bytes, print_json


@click.command("doctor")
@click.option("--gpu", is_flag=True, help="Also run something small on the GPU with each backend; a minute or two.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(gpu: bool, as_json: bool) -> None:
    """Versions, devices and backends, ready to paste into a bug report.

    With --gpu each backend runs the smallest network of the default model, in a process of its own, so that one that
    crashes or hangs does not keep the others from being tried.

    \b
    Examples:
      amodal doctor
      amodal doctor --gpu
      amodal doctor --gpu --json
    """
    from amodal.runtime.diagnosis import diagnose

    if gpu:
        from amodal.engines.gpu_probe import availabilities, probe_gpu

        from .progress import Watcher

        with Watcher(as_json).doing("trying the GPU"):
            found = diagnose(availabilities())
            found["gpu"] = probe_gpu()
    else:
        found = diagnose()
    if as_json:
        print_json(found)
    else:
        click.echo(_text(found))


def _text(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        f"amodal {found['amodal']}, Python {found['python']}, {found['platform']}",
        f"CPU: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB",
    ]
    for gpu in found["gpus"]:
        lines.append("GPU: " + ", ".join(f"{k} {v}" if k != "name" else v for k, v in gpu.items()))
    if not found["gpus"]:
        lines.append("GPU: none that nvidia-smi lists")
    lines.append("Backends:")
    for name, state in found["backends"].items():
        verdict = f"usable, {state['detail']}" if state["usable"] else f"not usable: {state['reason']}"
        lines.append(_item(f"{name}: {verdict}"))
    if "gpu" in found:
        lines += _gpu_lines(found["gpu"])
    lines.append("Packages:")
    for extra, packages in found["packages"].items():
        there = [f"{name} {version}" for name, version in packages.items() if version]
        missing = [name for name, version in packages.items() if not version]
        lines.append(_item(f"{extra}: {', '.join(there + [f'no {name}' for name in missing])}"))
    lines.append("Problems:" if found["problems"] else "Problems: none found")
    return "\n".join([*lines, *map(_item, found["problems"])])


def _gpu_lines(found: dict[str, Any]) -> list[str]:
    """What was tried on the GPU."""
    if found["problem"]:
        return ["On the GPU:", _item(found["problem"])]
    cupy = found["cupy"]
    if cupy["executes"]:
        memory = f"{human_bytes(cupy['memory_free'])} of {human_bytes(cupy['memory_total'])} free"
        cuda = f"driver for CUDA {cupy['cuda_driver']}, CuPy with CUDA {cupy['cuda_runtime']}"
        lines = [_item(f"{cupy['gpu']} ({cupy['capability']}), {memory}, {cuda}"), _item("CuPy: compiles kernels")]
    else:
        lines = [_item(f"CuPy: {cupy['reason']}")]
    for row in found["backends"]:
        name = row["name"] + (f" --device {row['device']}" if row.get("device") else "")
        if row["executes"]:
            seconds = ", ".join(f"{what} {count:.3g} s" for what, count in row["seconds"].items())
            lines.append(_item(f"{name}: executes ({row['detail']}; {seconds})"))
        else:
            lines.append(_item(f"{name}: does not execute: {row['reason']}"))
    return ["On the GPU:", *lines]


def _item(text: str) -> str:
    """One item of a list, wrapped for 80 columns without breaking words."""
    return textwrap.fill(
        text, 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )

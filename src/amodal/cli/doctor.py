"""`amodal doctor`."""

from __future__ import annotations

from typing import Any

import click

from .console import print_json


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(as_json: bool) -> None:
    """Versions, devices and backends, ready to paste into a bug report.

    \b
    Examples:
      amodal doctor
      amodal doctor --json
    """
    from amodal.runtime.diagnosis import diagnose

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
        lines.append(
            f"  {name}: " + (f"usable, {state['detail']}" if state["usable"] else f"not usable: {state['reason']}")
        )
    lines.append("Packages:")
    for extra, packages in found["packages"].items():
        versions = ", ".join(f"{n} {v}" if v else f"{n} -" for n, v in packages.items())
        lines.append(f"  {extra}: {versions}")
    lines.append("Problems: none found" if not found["problems"] else "Problems:")
    lines += [f"  {problem}" for problem in found["problems"]]
    return "\n".join(lines)

"""`amodal doctor`."""

from __future__ import annotations

import textwrap
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
        verdict = f"usable, {state['detail']}" if state["usable"] else f"not usable: {state['reason']}"
        lines.append(_item(f"{name}: {verdict}"))
    lines.append("Packages:")
    for extra, packages in found["packages"].items():
        there = [f"{name} {version}" for name, version in packages.items() if version]
        missing = [name for name, version in packages.items() if not version]
        lines.append(_item(f"{extra}: {', '.join(there + [f'no {name}' for name in missing])}"))
    lines.append("Problems:" if found["problems"] else "Problems: none found")
    return "\n".join([*lines, *map(_item, found["problems"])])


def _item(text: str) -> str:
    """One item of a list, wrapped for 80 columns without breaking words."""
    return textwrap.fill(
        text, 80, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )

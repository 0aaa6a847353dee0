"""Compiles the stand-ins for CUDA's libraries: what a C file here defines, and for the provider's other imports, a
function that is only counted."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
COUNTS = "libfake_counts.so"
_DRIVER = ("libcuda", "1")
_LOADED_BY_NAME = ("libcudnn", "9")  # by cuDNN's frontend, function by function


def build(provider: Path, folder: Path) -> list[Path]:
    """Compiles the libraries that a CUDA provider needs into `folder`; returns them in the order to load them in."""
    _compile([HERE / "counts.c"], folder / COUNTS, "-lpthread")
    made = [folder / COUNTS]
    for (name, version), functions in sorted(_imports(provider).items()):
        library, rest, script = (folder / f"{name}{end}" for end in (f".so.{version}", ".rest.c", ".map"))
        # Weak, so that a function of the C file takes precedence.
        lines = [f'__attribute__((weak)) int {f}(void) {{ return called("{f}"); }}\n' for f in sorted(functions)]
        rest.write_text('#include "fake.h"\n' + "".join(lines))
        script.write_text(f"{library.name} {{ global: *; }};\n")
        written = HERE / f"{name.removeprefix('lib')}.c"
        sources = [rest, *([written] if written.is_file() else [])]
        _compile(sources, library, f"-Wl,-soname,{library.name},--version-script={script},-rpath,$ORIGIN", made[0])
        made.append(library)
    return made


def _imports(provider: Path) -> dict[tuple[str, str], set[str]]:
    """The functions that a provider imports, by library and its version, read off its symbol table."""
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for name in re.findall(r"NEEDED.*\[(lib(?:cu|nv)\w+)\.so\.(\d+)\]", _readelf("-d", provider)):
        found[name] = set()
    for line in _readelf("--dyn-syms", provider).splitlines():
        if match := re.search(r" UND (_*cu\w+)(?:@(lib\w+)\.so\.(\d+))?", line):
            found[(match[2], match[3]) if match[2] else _DRIVER].add(match[1])
    found[_LOADED_BY_NAME] = {n.decode() for n in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())}
    return found


def _readelf(option: str, file: Path) -> str:
    return subprocess.run(["readelf", "-W", option, file], capture_output=True, text=True, check=True).stdout


def _compile(sources: list[Path], library: Path, *more: str | Path) -> None:
    options = ["-w", "-O1", "-fPIC", "-shared", f"-I{HERE}"]
    subprocess.run(["cc", *options, "-o", library, *sources, *more], check=True)

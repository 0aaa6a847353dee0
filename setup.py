"""Compiles the CPU kernels in place for an editable install; in every other case amodal is pure Python.

The kernels also are a distribution of their own. How they are compiled is in its pyproject.toml alone.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.compat.py310 import tomllib

KERNELS = Path("runtime/backends/onnxruntime/kernels")


def kernels() -> Extension:
    """The kernels' library beside its sources. Without a compiler the package is installed all the same."""
    [table] = tomllib.loads((KERNELS / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["ext-modules"]
    return Extension(
        "amodal.runtime.backends.onnxruntime.kernels._kernels",
        sources=[str(KERNELS / name) for name in table["sources"]],
        depends=[str(KERNELS / name) for name in table["depends"]],
        language=table["language"],
        extra_compile_args=table["extra-compile-args"],
        optional=True,
    )


in_place = KERNELS.is_dir() and not {"editable_wheel", "build_ext"}.isdisjoint(sys.argv)
setup(ext_modules=[kernels()] if in_place else [])

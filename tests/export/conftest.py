"""What the tests of the graph writer share. Nothing here needs torch before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.engines.compare import TOLERANCES, relative_l2


def _float32(value: Any) -> Any:
    return np.ascontiguousarray(np.asarray(value, np.float32))


class Session:
    """A saved graph in ONNX Runtime, at the optimisation level at which bundles run."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, **feeds: Any) -> dict[str, Any]:
        values = self._session.run(None, {name: _float32(value) for name, value in feeds.items()})
        return dict(zip(self.outputs, values, strict=True))


@pytest.fixture
def session(tmp_path: Path) -> Callable[[Any], Session]:
    """Saves a `Graph` and loads it."""
    count = 0

    def load(graph: Any) -> Session:
        nonlocal count
        count += 1
        graph.save(tmp_path / f"{graph.name}_{count}.onnx")
        return Session(tmp_path / f"{graph.name}_{count}.onnx")

    return load


@pytest.fixture(scope="session")
def seeded() -> Callable[..., Any]:
    """Gives a module weights in which no bias, norm or mixing factor is at its default, and returns them.

    Args (of the function): the module, a seed, a prefix for the names, and `faint`: a factor on everything but the
    norms. Where it is small, the variances that norms divide by fall to their epsilons, and show them; at
    ordinary variances no tolerance tells one epsilon from another.
    """
    import torch

    from amodal.export.graph.weights import Weight, Weights, random_weights

    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)

    def fill(module: Any, seed: int = 0, prefix: str = "", faint: float = 1.0) -> Weights:
        random = random_weights(module, seed)
        kept = {
            f"{name}.{part}" for name, m in module.named_modules() if isinstance(m, norms) for part in m._parameters
        }
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                factor = 1.0 if name in kept or name.endswith("mix_factor") else faint
                tensor.copy_(random.load(name) * factor)
        module.eval().requires_grad_(False)
        entries = {
            prefix + name: Weight(tuple(tensor.shape), lambda tensor=tensor: tensor)
            for name, tensor in module.state_dict().items()
        }
        return Weights(entries, "test weights")

    return fill


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Asserts the tolerance that exports are held to, for every row of the first axis on its own if `rows` is set."""

    def check(got: Any, expected: Any, half: bool = False, rows: bool = False) -> None:
        got, expected = np.asarray(got), np.asarray(expected)
        assert got.dtype == np.float32
        assert got.shape == expected.shape
        assert np.isfinite(expected).all()
        limit = TOLERANCES["fp16" if half else "fp32"]
        pairs = list(zip(got, expected, strict=True)) if rows else [(got, expected)]
        for a, b in pairs:
            assert np.linalg.norm(b) > 0
            assert relative_l2(a, b) <= limit

    return check

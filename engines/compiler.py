"""One interface to the builders of TensorRT for RTX and TensorRT, which differ mostly in names.

Imported only inside the process that builds, since a process can hold only one TensorRT.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amodal.runtime.backends.tensorrt import import_tensorrt, log_class
from amodal.runtime.builds.store import EngineBackend, Profile
from amodal.runtime.errors import EngineBuildError

from .targets import PORTABLE, Target

_BYTES = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")


class Compiler:
    """A builder of engines; raises BackendUnavailableError if its library cannot be imported."""

    def __init__(self, backend: EngineBackend) -> None:
        self.backend, self._trt = backend, import_tensorrt(backend)

    @property
    def version(self) -> str:
        """Version of the library."""
        return str(self._trt.__version__)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities it builds for without a GPU, in ascending order: `sm86`."""
        known = dir(getattr(self._trt, "ComputeCapability", None))
        names = [name.lower() for name in known if re.fullmatch(r"SM\d+", name)]
        return tuple(sorted(names, key=lambda name: int(name[2:])))

    def build(
        self,
        graph: Path,
        profiles: Sequence[Profile],
        target: Target,
        out: Path,
        report: Callable[[str], None],
    ) -> dict[str, Any]:
        """Compiles a graph into a file.

        Args:
            graph: ONNX file with its external data beside it.
            profiles: those without shapes are for graphs that have no free axes.
            out: the file to write.
            report: called with each phase.

        Returns:
            `weights_bytes`, `activation_bytes` by profile and `layers` of an `EngineRecord`.

        Raises:
            EngineBuildError: the parser refuses a node, or the compiler the network.
        """
        trt, log = self._trt, _make_log(self._trt)
        builder = trt.Builder(log)
        report("read")
        # The graph decides precision. TensorRT 11 knows no other mode, and has no flag for it.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(graph)):
            error = parser.get_error(0)
            raise EngineBuildError(self._refusal(error, graph))
        layers = network.num_layers
        config = builder.create_builder_config()
        self._set_target(config, target)
        for profile in profiles:
            if profile.shapes:
                made = builder.create_optimization_profile()
                for name, (low, likely, high) in profile.shapes.items():
                    made.set_shape(name, low, likely, high)
                config.add_optimization_profile(made)
        report("compile")
        blob = builder.build_serialized_network(network, config)
        if blob is None:
            raise EngineBuildError(self._failure(log, graph))
        report("write")
        with open(out, "wb") as file:
            file.write(memoryview(blob))
        if log.weights is None or len(log.activations) != len(profiles):
            raise EngineBuildError(
                f"{self.backend} {self.version} built {graph.name} without reporting its memory, which the memory plan "
                "needs; please report it with the version."
            )
        activations = dict(zip((profile.name for profile in profiles), log.activations, strict=True))
        return {"weights_bytes": log.weights, "activation_bytes": activations, "layers": (layers, log.fused_layers)}

    def _set_target(self, config: Any, target: Target) -> None:
        trt = self._trt
        if target.capabilities:
            config.num_compute_capabilities = len(target.capabilities)
            for index, name in enumerate(target.capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
        elif target.name == PORTABLE:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS

    def _refusal(self, error: Any, graph: Path) -> str:
        node = error.node_name() or f"number {error.node()}"
        reason = " ".join(str(error.desc()).split()).rstrip(".")
        return (
            f"{self.backend} {self.version} refuses {graph.name} at node {node} ({error.node_operator() or '?'}): "
            f"{reason}; export the bundle again with another `amodal export --variant`, or please report it."
        )

    def _failure(self, log: Any, graph: Path) -> str:
        if log.out_of_memory():
            reason = f"memory ran out while {graph.name} was compiled ({log.last()})"
            return f"{reason}; close other programs, or build elsewhere."
        return f"{self.backend} {self.version} cannot compile {graph.name}: {log.last()}"


def _make_log(trt: Any) -> Any:
    """Creates a logger that keeps errors, the memory figures, and the number of layers after fusion."""

    class Log(log_class(trt)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.fused_layers = 0
            self.weights: int | None = None
            self.activations: list[int] = []

        def log(self, severity: Any, message: str) -> None:
            super().log(severity, message)
            found = _BYTES.match(message)
            if found and found[1] == "Weights":
                self.weights = int(found[2])
            elif found:
                self.activations.append(int(found[2]))
            elif message.startswith("Engine Layer Information"):
                # Once per profile; the network is the same.
                self.fused_layers = sum(line.startswith("Layer(") for line in message.splitlines())

    return Log()

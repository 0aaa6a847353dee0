"""TensorRT for RTX and TensorRT behind one face: their builders differ in names, not in kind.

Imported only inside the process that builds, since one process can hold one TensorRT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from amodal.runtime.builds.store import EngineBackend, Profile
from amodal.runtime.errors import BackendUnavailableError, EngineBuildError

from .targets import PORTABLE, Target

_EXTRA = {"tensorrt_rtx": "rtx", "tensorrt": "tensorrt"}
_BYTES = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")
_MEMORY = ("out of memory", "bad_alloc", "outofmemory", "cannot allocate")


@dataclass(frozen=True)
class Compiled:
    """What the compiler said of an engine.

    Attributes:
        weights_bytes: device memory of the weights.
        activation_bytes: device memory that running takes, one number per profile.
        layers: of the network as read, and after fusion.
    """

    weights_bytes: int
    activation_bytes: tuple[int, ...]
    layers: tuple[int, int]


class Compiler:
    """A builder.

    Args:
        backend: which library.

    Raises:
        BackendUnavailableError: it cannot be imported.
    """

    def __init__(self, backend: EngineBackend) -> None:
        self.backend = backend
        try:
            self._trt: Any = import_module(backend)
        except Exception as error:  # what a broken installation raises is anything: OSError, RuntimeError
            raise BackendUnavailableError(
                f'{backend} cannot be imported ({error}); install it with `pip install "amodal[{_EXTRA[backend]}]"`.'
            ) from error

    @property
    def version(self) -> str:
        """Of the library."""
        return str(self._trt.__version__)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities it builds for without a GPU, in ascending order: `sm86`."""
        known = getattr(self._trt, "ComputeCapability", None)
        if known is None:
            return ()
        names = [name.lower() for name in dir(known) if re.fullmatch(r"SM\d+", name)]
        return tuple(sorted(names, key=lambda name: int(name[2:])))

    def build(
        self,
        graph: Path,
        profiles: tuple[Profile, ...],
        target: Target,
        options: dict[str, bool | int],
        out: Path,
        say: Callable[[str], None],
    ) -> Compiled:
        """Compiles a graph into a file.

        Args:
            graph: ONNX, its external data beside it.
            profiles: those without shapes are for graphs that have no free axes.
            out: the file to write.
            say: told what is being done.

        Raises:
            EngineBuildError: the parser refuses a node, or the compiler the network.
        """
        trt = self._trt
        log = _log(trt)
        builder = trt.Builder(log)
        say("read")
        network = builder.create_network(self._network_flags())
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(graph)):
            raise EngineBuildError(_refusal(parser, graph, self))
        layers = network.num_layers
        config = builder.create_builder_config()
        self._aim(config, target)
        if options.get("weight_streaming"):
            config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)
        for profile in profiles:
            if profile.shapes:
                made = builder.create_optimization_profile()
                for name, (low, likely, high) in profile.shapes.items():
                    made.set_shape(name, low, likely, high)
                config.add_optimization_profile(made)
        say("compile")
        blob = builder.build_serialized_network(network, config)
        if blob is None:
            raise EngineBuildError(_failure(log.errors, graph, self))
        say("write")
        with open(out, "wb") as file:
            file.write(memoryview(blob))
        weights, activations = log.memory()
        count = max(1, sum(bool(p.shapes) for p in profiles))
        if weights is None or len(activations) != count:
            raise EngineBuildError(
                f"{self.backend} {self.version} built {graph.name} without saying what memory it takes, which the "
                "memory plan needs; please report it with the version."
            )
        return Compiled(weights, tuple(activations), (layers, log.fused_layers))

    def _network_flags(self) -> int:
        # Precision is in the graph. From 11 on there is nothing else, and no flag for it.
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def _aim(self, config: Any, target: Target) -> None:
        trt = self._trt
        if target.capabilities:
            config.num_compute_capabilities = len(target.capabilities)
            for index, name in enumerate(target.capabilities):
                config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
        elif target.name == PORTABLE:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _log(trt: Any) -> Any:
    """A logger that keeps errors and what is said of memory and fused layers."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.fused_layers = 0
            self._weights: int | None = None
            self._activations: list[int] = []
            self._bad = {int(trt.ILogger.Severity.ERROR), int(trt.ILogger.Severity.INTERNAL_ERROR)}

        def log(self, severity: Any, message: str) -> None:
            if int(severity) in self._bad:
                self.errors.append(message.strip())
            elif message.startswith("Total "):
                found = _BYTES.match(message)
                if found and found[1] == "Weights":
                    self._weights = int(found[2])
                elif found:
                    self._activations.append(int(found[2]))
            elif message.startswith("Engine Layer Information"):
                # Once per profile; the network is the same.
                self.fused_layers = sum(line.startswith("Layer(") for line in message.splitlines())

        def memory(self) -> tuple[int | None, list[int]]:
            return self._weights, self._activations

    return Log()


def _refusal(parser: Any, graph: Path, compiler: Compiler) -> str:
    error = parser.get_error(0)
    node = error.node_name() or f"number {error.node()}"
    reason = " ".join(str(error.desc()).split()).rstrip(".")
    return (
        f"{compiler.backend} {compiler.version} refuses {graph.name} at node {node} ({error.node_operator() or '?'}): "
        f"{reason}; export the bundle again with another `amodal export --variant`, or please report it."
    )


def _failure(errors: list[str], graph: Path, compiler: Compiler) -> str:
    text = " ".join(errors[-1].split()) if errors else "no reason given"
    if any(word in line.lower() for line in errors for word in _MEMORY):
        return f"memory ran out while {graph.name} was compiled ({text}); close other programs, or build elsewhere."
    return f"{compiler.backend} {compiler.version} cannot compile {graph.name}: {text}"

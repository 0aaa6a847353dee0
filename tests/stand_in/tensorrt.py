"""A stand-in for TensorRT's Python module, whose libraries need a GPU: what the adapter calls, and nothing else.

What does not begin with an underscore is TensorRT's own, in name and arguments: `test_tensorrt_bindings.py` holds that.

`STAND_IN` in the environment is JSON: `version`, `trouble` (what goes wrong), `calls` (a file that gets one line per
call), `decoder` (how many times the usual its activations are).
"""

import ctypes
import json
import math
import os
import signal
import sys
import time
from enum import IntEnum
from functools import partial

import numpy as np

_ASKED = json.loads(os.environ["STAND_IN"])
_MAJOR = int(_ASKED["version"].split(".")[0])
__version__ = _ASKED["version"]


def _note(*call):
    with open(_ASKED["calls"], "a") as file:
        file.write(json.dumps(call) + "\n")


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class NetworkDefinitionCreationFlag(IntEnum):
    if _MAJOR < 11:
        EXPLICIT_BATCH, STRONGLY_TYPED = range(2)
    else:
        PREFER_JIT_PYTHON_PLUGINS = 2


class HardwareCompatibilityLevel(IntEnum):
    NONE, AMPERE_PLUS = range(2)


class Builder:
    def __init__(self, log):
        self._log = log

    def create_network(self, flags):
        _note("create_network", flags)
        return _Network()

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        trouble = _ASKED.get("trouble")
        if trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "crash":
            print("double free or corruption", file=sys.stderr)
            os.abort()
        if trouble == "hang":
            time.sleep(600)
        if trouble == "refused":
            self._log.log(ILogger.Severity.ERROR, "Error Code 9: no tactic for  node_7")
            return None
        if trouble == "memory":
            self._log.log(ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (std::bad_alloc)")
            return None
        print("something that is printed to standard output")
        for index in range(config._profiles or 1):
            self._log.log(ILogger.Severity.INFO, f"Total Activation Memory: {1000 * (index + 1)} bytes")
        if trouble != "silent":
            self._log.log(ILogger.Severity.INFO, "Total Weights Memory: 77 bytes")
        self._log.log(ILogger.Severity.VERBOSE, "Engine Layer Information:\nLayer(Myelin): {a}\nLayer(Myelin): {b}")
        if trouble == "plain":
            return b"engine"
        return json.dumps({"graph": network._file, "profiles": config._shapes}).encode()


class _Network:
    num_layers = 12


class _Config:
    def __init__(self):
        object.__setattr__(self, "_profiles", 0)
        object.__setattr__(self, "_shapes", [])

    def __setattr__(self, name, value):
        _note("set", name, int(value))

    def add_optimization_profile(self, profile):
        object.__setattr__(self, "_profiles", self._profiles + 1)
        self._shapes.append(profile._shapes)
        _note("profile", profile._shapes)


class _Profile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, name, low, likely, high):
        self._shapes[name] = [list(low), list(likely), list(high)]


class _Error:
    def node(self):
        return 5

    def node_name(self):
        return "down_blocks.0/Conv_5"

    def node_operator(self):
        return "Conv"

    def desc(self):
        return "Assertion failed:\n  kernel  is too large."


class OnnxParser:
    def __init__(self, network, log):
        self._network = network

    def parse_from_file(self, file):
        self._network._file = file
        _note("parse", os.path.basename(file))
        return _ASKED.get("trouble") != "parser"

    def get_error(self, index):
        return _Error()


# Running: an engine holds the graph's place, and ONNX Runtime does the work on what lies at the addresses it is given.


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


if _ASKED.get("rtx"):

    class CudaGraphStrategy(IntEnum):
        DISABLED, WHOLE_GRAPH_CAPTURE = range(2)

    class DynamicShapesKernelSpecializationStrategy(IntEnum):
        LAZY, EAGER, NONE = range(3)

    class EngineValidity(IntEnum):
        VALID, SUBOPTIMAL, INVALID = range(3)

    class EngineInvalidityDiagnostics(IntEnum):
        VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, OLD_CUDA_RUNTIME = 1, 2, 4, 8
        INSUFFICIENT_GPU_MEMORY, MALFORMED_ENGINE, CUDA_ERROR = 16, 32, 64


class Runtime:
    def __init__(self, log):
        self._log, self._cupy = log, sys.modules["cupy"]
        self._cupy.lazy = True

    def deserialize_cuda_engine(self, content):
        try:
            return _Engine(json.loads(bytes(content)), self._log, self._cupy)
        except ValueError:
            self._log.log(ILogger.Severity.ERROR, "Serialization assertion failed: magic tag")
            return None

    if _ASKED.get("rtx"):

        def get_engine_validity(self, content):
            why = EngineInvalidityDiagnostics[_ASKED.get("invalid") or "MALFORMED_ENGINE"]
            return EngineValidity.INVALID, int(why)


class _Engine:
    def __init__(self, said, log, cupy):
        import onnxruntime

        self._session = onnxruntime.InferenceSession(said["graph"], providers=["CPUExecutionProvider"])
        self._log, self._cupy, self._profiles, self._file = log, cupy, said["profiles"], said["graph"]
        self._tensors = {t.name: t for t in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._inputs = [t.name for t in self._session.get_inputs()]
        self.num_io_tensors, self.num_optimization_profiles = len(self._tensors), max(1, len(self._profiles))

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return [n if isinstance(n, int) else -1 for n in self._tensors[name].shape]

    def get_tensor_profile_shape(self, name, index):
        return self._profiles[index][name]

    if _ASKED.get("rtx"):

        def create_runtime_config(self):
            return _RuntimeConfig()

    def create_execution_context(self, how):
        strategy = how if isinstance(how, IntEnum) else how._strategy
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        if _ASKED.get("trouble") == "context memory":
            self._log.log(ILogger.Severity.ERROR, "Requested amount of GPU memory (9 bytes) could not be allocated.")
            return None
        return _Context(self, how)


class _RuntimeConfig:
    cuda_graph_strategy = dynamic_shapes_kernel_specialization_strategy = 0

    def __setattr__(self, name, value):
        assert name.startswith("_") or hasattr(type(self), name), f"there is no setting {name}"
        object.__setattr__(self, name, value)

    def set_execution_context_allocation_strategy(self, strategy):
        self._strategy = strategy

    def create_runtime_cache(self):
        return _RuntimeCache()

    def set_runtime_cache(self, cache):
        self._cache = cache
        return True


class _RuntimeCache:
    _content = b""

    def deserialize(self, content):
        if _ASKED.get("driver", "") not in str(content):  # of another driver's kernels: refused, and left empty
            return False
        self._content = bytes(content)
        _note("cache", len(content))
        return True

    def serialize(self):
        return self._content or b"kernels " + _ASKED.get("driver", "").encode()


class _Context:
    """As strict as TensorRT: what it needs is forgotten with every other shape, and too little memory only logged."""

    def __init__(self, engine, how):
        self._engine, self._index = engine, 0
        self._shapes, self._addresses, self._memory = {}, {}, None
        self._size = None  # bytes, for the shapes that are set; None where nobody has asked since they changed
        self._lazy = getattr(how, "dynamic_shapes_kernel_specialization_strategy", None) == 0
        self._spoilt = False  # whether memory was refused: a run goes on, and what it gives is anything
        self._settled = set()  # shapes that lazily compiled kernels are there for
        _note("context")

    def _error(self, message):
        self._engine._log.log(ILogger.Severity.ERROR, message)
        return False

    @property
    def _limits(self):
        """Of the profile, by input with free axes: smallest, likeliest and largest shape."""
        return self._engine._profiles[self._index] if self._engine._profiles else {}

    @property
    def _most(self):
        decoder = "vae_decoder" in self._engine._file
        return 1000 * (self._index + 1) * (_ASKED.get("decoder", 1) if decoder else 1)

    def set_optimization_profile_async(self, index, stream):
        self._index = index
        return True

    def set_input_shape(self, name, shape):
        shape = tuple(shape)
        low, _, high = self._limits.get(name) or [self._engine.get_tensor_shape(name)] * 3
        if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return self._error(f"IExecutionContext::setInputShape: {name} {shape} is not in the profile")
        if self._shapes.get(name) != shape:
            self._size = None
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name):
        free = {}
        for known, shape in self._shapes.items():
            for said, n in zip(self._engine._tensors[known].shape, shape, strict=False):
                if isinstance(said, str):
                    free[said] = n
        return [free[n] if isinstance(n, str) else n for n in self._engine._tensors[name].shape]

    def set_tensor_address(self, name, address):
        assert address % 256 == 0
        self._addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self):
        assert set(self._shapes) == set(self._engine._inputs), "all shapes must be set first"
        parts = [math.prod(self._shapes[n]) / math.prod(high) for n, (_, _, high) in self._limits.items()]
        self._size = math.ceil(self._most * max(parts, default=1))
        _note("size", self._size)
        return self._size

    def set_device_memory(self, address, size):
        needed = self._most if self._size is None else self._size
        self._spoilt = size < needed
        if not address:
            self._error("setDeviceMemoryV2: Cannot set memory to nullptr.")
        elif address % 256:
            self._error("setDeviceMemory: memory must be aligned on 256")
        elif size < needed:
            self._error(
                f"setDeviceMemoryV2: The provided memory size is too small. Provided {size}, required {needed}."
            )
        else:
            self._memory = address

    def execute_async_v3(self, stream):
        engine = self._engine
        if not stream or stream != engine._cupy.cuda.get_current_stream().ptr:
            return self._error(f"wrong stream: {stream}")
        trouble = _ASKED.get("trouble")
        if trouble == "device":
            return self._error("an illegal memory access was encountered")
        if trouble == "run memory":
            return self._error("Error Code 1: Cuda Runtime (out of memory)")
        if self._memory is None:
            return self._error(
                "device memory. The IExecutionContext is created with kUSER_MANAGED. setDeviceMemoryV2 should be called"
            )
        shapes, index = dict(self._shapes), self._index
        fallback = self._lazy and any(low != high for low, _, high in self._limits.values())
        key = tuple(sorted(shapes.items()))
        settling = fallback and key not in self._settled
        self._settled.add(key)
        wrong = np.nan if self._spoilt else 1.001 if settling else None
        engine._cupy.queue(partial(self._compute, dict(self._addresses), shapes, index, wrong))
        return True

    def _compute(self, addresses, shapes, index, wrong):
        """Runs the graph; `wrong` is a factor: where kernels are still being compiled, others round in another way."""
        session = self._engine._session
        names = [t.name for t in session.get_outputs()]
        found = session.run(names, {n: _at(addresses[n], s) for n, s in shapes.items()})
        for name, value in zip(names, found, strict=True):
            _at(addresses[name], value.shape)[...] = value if wrong is None else value * np.float32(wrong)
        _note("run", next(iter(shapes.values())), index)


def _at(address, shape):
    """The floats that lie at an address."""
    return np.frombuffer((ctypes.c_float * math.prod(shape)).from_address(address), np.float32).reshape(shape)

"""A stand-in for TensorRT's Python module, whose libraries need a GPU: what the adapter calls, and nothing else.

`STAND_IN` in the environment is JSON: `version`, `trouble` (what goes wrong while building), `calls` (a file that gets
one line per call).
"""

import json
import os
import signal
import sys
import time
from enum import IntEnum

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


class BuilderFlag(IntEnum):
    WEIGHT_STREAMING = 7


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
        for index in range(config.profiles or 1):
            self._log.log(ILogger.Severity.INFO, f"Total Activation Memory: {1000 * (index + 1)} bytes")
        if trouble != "silent":
            self._log.log(ILogger.Severity.INFO, "Total Weights Memory: 77 bytes")
        self._log.log(ILogger.Severity.VERBOSE, "Engine Layer Information:\nLayer(Myelin): {a}\nLayer(Myelin): {b}")
        return b"engine"


class _Network:
    num_layers = 12


class _Config:
    def __init__(self):
        object.__setattr__(self, "profiles", 0)

    def __setattr__(self, name, value):
        _note("set", name, int(value))

    def set_flag(self, flag):
        _note("set_flag", flag.name)

    def add_optimization_profile(self, profile):
        object.__setattr__(self, "profiles", self.profiles + 1)
        _note("profile", profile.shapes)


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, likely, high):
        self.shapes[name] = [list(low), list(likely), list(high)]


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
        pass

    def parse_from_file(self, file):
        _note("parse", os.path.basename(file))
        return _ASKED.get("trouble") != "parser"

    def get_error(self, index):
        return _Error()

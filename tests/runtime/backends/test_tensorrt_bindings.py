"""What is asked of TensorRT, held against the real bindings of TensorRT for RTX, which can be imported without a GPU.

Every name and every call is read off the sources, their types followed through what the bindings say they return, so
that nothing has to be listed here. What needs no driver is really called.
"""

from __future__ import annotations

import ast
import inspect
import json
import mmap
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import amodal
from amodal.engines.build import BuildSettings, build_engines
from amodal.runtime.backends import tensorrt as adapter
from amodal.runtime.backends.gpu import Gpu
from amodal.runtime.bundle.reading import Bundle
from amodal.runtime.errors import AmodalError

from ... import places
from ...stand_ins import stand_in_module

trt = pytest.importorskip("tensorrt_rtx")

SOURCES = Path(amodal.__file__).parent
STAND_IN = places.STAND_IN / "tensorrt.py"
ROOT = re.compile(r"(?:\w+\.)*_?trt")
"""How our sources call the module: `trt`, `self._trt`, `backend._trt`."""


class Signature(NamedTuple):
    names: tuple[str, ...]
    required: int
    returns: Any


class Typed(NamedTuple):
    """What an expression is: the `module`, a `class` of it, an `instance` of one, or a `method` of one."""

    what: str
    of: Any
    name: str = ""


def class_called(text: str) -> Any:
    """The class that the bindings mean by `tensorrt_rtx_bindings.tensorrt_rtx.Dims` or `nvonnxparser::IParserError`."""
    name = re.split(r"[.:]+", text.strip())[-1]
    return getattr(trt, name, None) or getattr(trt, name.removeprefix("I"), None)


def split(arguments: str) -> list[str]:
    depth, parts = 0, [""]
    for letter in arguments:
        depth += (letter in "[<(") - (letter in "]>)")
        parts = [*parts, ""] if letter == "," and not depth else [*parts[:-1], parts[-1] + letter]
    return [part.strip() for part in parts if part.strip()]


def signatures(owner: Any, name: str) -> list[Signature]:
    """A method's, without `self`, from its documentation."""
    found = []
    for line in (getattr(owner, name).__doc__ or "").splitlines():
        said = re.match(rf"\s*(?:\d+\. )?{name}\((.*)\) -> (.+)$", line)
        if said and not said[1].startswith("*args"):
            parts = split(said[1])[1:]
            names = tuple(part.partition(":")[0].strip() for part in parts)
            found.append(Signature(names, sum("=" not in part for part in parts), class_called(said[2])))
    assert found, f"{owner.__name__}.{name} does not say what it takes"
    return found


def accepts(one: Signature, given: int, starred: bool, keywords: set[str]) -> bool:
    if given > len(one.names) or not keywords <= set(one.names[given:]):
        return False
    return starred or set(one.names[given : one.required]) <= keywords


def assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What is assigned to what; `a, b = c, d` is two."""
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=True)
            else:
                yield target, node.value


class Checker(ast.NodeVisitor):
    """What a source asks of TensorRT: `asked`, and of it what the real one does not have: `troubles`."""

    def __init__(self, source: str) -> None:
        self.asked: set[str] = set()
        self.troubles: set[str] = set()
        self._types: dict[str, Typed] = {}
        tree = ast.parse(source)
        for _ in range(4):  # a name may be used above the place that says what it is
            for node in ast.walk(tree):
                for target, value in assigned(node):
                    said = self._type(value)
                    if said is not None and said.what != "method":
                        self._types[ast.unparse(target)] = said
        self.visit(tree)

    def _type(self, node: ast.expr) -> Typed | None:
        text = ast.unparse(node)
        if ROOT.fullmatch(text):
            return Typed("module", trt)
        if text in self._types:
            return self._types[text]
        if isinstance(node, ast.Attribute):
            owner = self._type(node.value)
            return None if owner is None else self._member(owner, node.attr)
        if isinstance(node, ast.Call):
            called = self._type(node.func)
            if called is None:
                return None
            if called.what == "class":
                return Typed("instance", called.of)
            if called.what == "method":
                returns = signatures(called.of, called.name)[0].returns
                return Typed("instance", returns) if isinstance(returns, type) else None
        return None

    def _member(self, owner: Typed, name: str) -> Typed | None:
        if owner.what == "method" or not hasattr(owner.of, name):
            return None
        found = inspect.getattr_static(owner.of, name)
        if isinstance(found, type):
            return Typed("class", found)
        if isinstance(found, property):
            returns = class_called((found.fget.__doc__ or "").partition("->")[2] or "nothing")
            return Typed("instance", returns) if isinstance(returns, type) else None
        return (
            Typed("method", owner.of, name) if owner.what == "instance" and callable(getattr(owner.of, name)) else None
        )

    def _name(self, owner: Typed) -> str:
        return str(owner.of.__name__)

    def _require(self, owner: Typed, name: str) -> None:
        self.asked.add(f"{self._name(owner)}.{name}")
        if not hasattr(owner.of, name):
            self.troubles.add(f"{self._name(owner)} has no {name}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self._type(node.value)
        if owner is not None and owner.what != "method":
            self._require(owner, node.attr)
            there = inspect.getattr_static(owner.of, node.attr, None)
            if isinstance(node.ctx, ast.Store) and not (isinstance(there, property) and there.fset):
                self.troubles.add(f"{self._name(owner)}.{node.attr} cannot be set")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = self._type(node.func)
        if called is not None and called.what in ("class", "method"):
            name = called.name if called.what == "method" else "__init__"
            starred = any(isinstance(a, ast.Starred) for a in node.args)
            given = sum(not isinstance(a, ast.Starred) for a in node.args)
            keywords = {str(k.arg) for k in node.keywords}
            if not any(accepts(one, given, starred, keywords) for one in signatures(called.of, name)):
                self.troubles.add(f"{self._name(called)}.{name} does not take these arguments: {ast.unparse(node)}")
        if isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr") and len(node.args) == 2:
            owner, name_node = self._type(node.args[0]), node.args[1]
            if owner is not None and isinstance(name_node, ast.Constant):
                self._require(owner, str(name_node.value))
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in (self._type(b) for b in node.bases):
            for method in node.body:
                if base is None or not isinstance(method, ast.FunctionDef) or not hasattr(base.of, method.name):
                    continue
                takes = len(method.args.args) - 1
                if method.name != "__init__" and takes != len(signatures(base.of, method.name)[0].names):
                    self.troubles.add(f"{self._name(base)}.{method.name} is called with other arguments")
        self.generic_visit(node)


def asking() -> Iterator[Path]:
    """Our sources that ask something of TensorRT."""
    for folder in ("runtime", "engines", "bench"):
        yield from (file for file in sorted((SOURCES / folder).rglob("*.py")) if Checker(file.read_text()).asked)


ASKING = list(asking())


@pytest.mark.parametrize("file", ASKING, ids=lambda file: file.stem)
def test_all_that_is_asked_of_tensorrt_is_in_the_real_bindings(file: Path) -> None:
    assert not Checker(file.read_text()).troubles


def test_what_is_asked_is_found_in_the_sources() -> None:
    asked = {file.stem: Checker(file.read_text()).asked for file in ASKING}
    assert set(asked) == {"tensorrt", "compiler"}
    # One of each class, so that types are known to be followed; all of a context, as a slow reader finds them.
    classes = {name.partition(".")[0] for name in asked["tensorrt"]}
    assert classes >= {"Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache", "TensorIOMode"}
    text = Path(adapter.__file__).read_text()
    of_context = {f"IExecutionContext.{name}" for name in re.findall(r"\bcontext\.(\w+)\(", text)}
    assert len(of_context) > 5
    assert of_context <= asked["tensorrt"]
    classes = {name.partition(".")[0] for name in asked["compiler"]}
    assert classes >= {"Builder", "INetworkDefinition", "IBuilderConfig", "IOptimizationProfile", "OnnxParser"}
    assert "ParserError.node_operator" in asked["compiler"]


@pytest.mark.parametrize(
    ("source", "trouble"),
    [
        (
            "engine = trt.Runtime(log).deserialize_cuda_engine(x)\nengine.get_binding_name(0)",
            "ICudaEngine has no get_bi",
        ),
        ("trt.Runtime(log).deserialize_cuda_engine(x).create_execution_context().execute_async_v3()", "does not take"),
        ("r = self._trt.Runtime()", r"Runtime.__init__ does not take these arguments"),
        ("r = trt.Runtime(log)\nr.engine_header_size = 3", "Runtime.engine_header_size cannot be set"),
        ("c = e = trt.Builder(log).create_builder_config()\nc.workspace = 3", "IBuilderConfig has no workspace"),
        ("trt.CudaGraphStrategy.HALF", "CudaGraphStrategy has no HALF"),
        (
            "e = trt.Runtime(log).deserialize_cuda_engine(x)\nhasattr(e, 'create_config')",
            "ICudaEngine has no create_conf",
        ),
        ("e = trt.Builder(log).create_network(flag=3)", r"create_network does not take these arguments: .*flag=3"),
        ("class L(trt.ILogger):\n    def log(self, message): ...", "ILogger.log is called with other arguments"),
    ],
)
def test_what_the_real_bindings_lack_would_be_found(source: str, trouble: str) -> None:
    assert any(re.search(trouble, said) for said in Checker(source).troubles)


# The stand-in that other tests run.


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The stand-in as TensorRT for RTX."""
    asked = {"version": "11.4.0", "rtx": True, "calls": str(tmp_path_factory.mktemp("calls") / "calls")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAND_IN", json.dumps(asked))
        return stand_in_module("tensorrt")


REAL = {
    "_Network": "INetworkDefinition",
    "_Config": "IBuilderConfig",
    "_Profile": "IOptimizationProfile",
    "_Error": "ParserError",
    "_Engine": "ICudaEngine",
    "_RuntimeConfig": "IRuntimeConfig",
    "_RuntimeCache": "IRuntimeCache",
    "_Context": "IExecutionContext",
}
OLDER = {"PREFER_JIT_PYTHON_PLUGINS"}
"""TensorRT 11's; the stand-in plays that one too."""


def own_classes(module: ModuleType) -> dict[str, Any]:
    return {n: c for n, c in vars(module).items() if isinstance(c, type) and c.__module__ == module.__name__}


def test_the_stand_in_offers_no_name_that_the_real_one_lacks(stand_in: ModuleType) -> None:
    classes = own_classes(stand_in)
    assert set(REAL) <= set(classes)
    for name, mine in classes.items():
        real = getattr(trt, REAL.get(name, name))
        if issubclass(mine, IntEnum):
            assert set(mine.__members__) - OLDER <= set(real.__members__), name
            continue
        for member in (n for n in vars(mine) if not n.startswith("_")):
            assert hasattr(real, member), f"{name}.{member}"
            made = inspect.getattr_static(mine, member)
            if inspect.isfunction(made):
                takes = len(inspect.signature(made).parameters) - 1
                assert any(one.required <= takes <= len(one.names) for one in signatures(real, member)), member


def test_the_stand_in_keeps_what_is_its_own_behind_an_underscore() -> None:
    classes = [node for node in ast.walk(ast.parse(STAND_IN.read_text())) if isinstance(node, ast.ClassDef)]
    kept = {
        (found.name, node.attr)
        for found in classes
        for node in ast.walk(found)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    assert ("_Engine", "num_io_tensors") in kept
    for owner, name in kept:
        assert name.startswith("_") or hasattr(getattr(trt, REAL.get(owner, owner)), name), f"{owner}.{name}"


# Real calls.


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model's image encoder, compiled for an RTX 3090."""
    settings = BuildSettings(
        target="sm86", components=("image_encoder",), engine_dir=tmp_path_factory.mktemp("engines")
    )
    (row,) = build_engines(Bundle("default"), settings)
    return row.file


@pytest.fixture
def backend(device: Any) -> adapter.TensorRTBackend:
    """The adapter on the real library; CuPy is the stand-in."""
    return adapter.TensorRTBackend("tensorrt_rtx", trt, device, Gpu(0, "RTX 3090", "86"))


def test_an_engine_is_read_by_the_real_library_as_far_as_the_driver(
    backend: adapter.TensorRTBackend, engine: Path
) -> None:
    if trt.Runtime(backend._log).deserialize_cuda_engine(engine.read_bytes()) is not None:
        pytest.skip("there is a GPU here; tests/gpu runs the rest")
    entry = Bundle("default").component("image_encoder")
    with pytest.raises(AmodalError, match=r"CUDA driver version is insufficient|no CUDA-capable device|CUDA"):
        backend.load(entry, [engine])
    assert backend.engines == (trt.__version__, "sm86")


def test_what_is_no_engine_is_told_from_one(backend: adapter.TensorRTBackend, engine: Path, tmp_path: Path) -> None:
    broken = tmp_path / "image_encoder.engine"
    broken.write_bytes(b"no engine" * 100)
    with pytest.raises(AmodalError, match=r"cannot load the engine .*build it again with `amodal build`"):
        backend.load(Bundle("default").component("image_encoder"), [broken])
    malformed = int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    with open(broken, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert trt.Runtime(backend._log).get_engine_validity(content) == (trt.EngineValidity.INVALID, malformed)
    assert trt.Runtime(backend._log).get_engine_validity(engine.read_bytes())[1] & malformed == 0


def test_the_log_keeps_errors_alone(backend: adapter.TensorRTBackend) -> None:
    log, severity = backend._log, trt.ILogger.Severity
    log.log(severity.WARNING, "nothing")
    assert log.last() == "no reason given"
    log.log(severity.ERROR, "Error Code 2:\n OutOfMemory")
    assert (log.last(), log.out_of_memory()) == ("Error Code 2: OutOfMemory", True)


def test_shapes_and_contents_come_as_the_adapter_takes_them(engine: Path) -> None:
    shape = trt.Dims((-1, 3, 8, 8))
    assert tuple(shape) == (-1, 3, 8, 8)
    assert adapter._within((2, 3, 8, 8), tuple(trt.Dims((1, 3, 8, 8))), tuple(trt.Dims((4, 3, 8, 8))))
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(0)
    layer = network.add_identity(network.add_input("x", trt.float32, (1, 4)))
    network.mark_output(layer.get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    memory = builder.build_serialized_network(network, config)  # like a runtime cache's, an IHostMemory
    assert type(memory) is trt.IHostMemory
    assert signatures(trt.IRuntimeCache, "serialize")[0].returns is trt.IHostMemory
    assert len(bytes(memory)) == memory.nbytes

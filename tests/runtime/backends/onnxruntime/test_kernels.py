"""The kernels for ONNX Runtime against slow arithmetic in float64, for every set of instructions that this CPU has."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amodal.runtime.backends import availability
from amodal.runtime.backends.onnxruntime import kernels
from amodal.runtime.backends.onnxruntime.kernels import DOMAIN, SETTING, find_kernels
from amodal.runtime.errors import InputError

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

Array = NDArray[Any]
Run = Callable[..., Array]


@pytest.fixture(params=["avx512", "avx2", "plain"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(operator, x or inputs, weights, threads, **attributes): what one operator gives."""
    monkeypatch.setenv(SETTING, request.param)
    if find_kernels().note != request.param:
        pytest.skip(f"no {request.param} here")
    return operator


def operator(
    kind: str, inputs: list[Array], weights: list[Array] | None = None, threads: int = 1, **attributes: Any
) -> Array:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weights = weights or []
    names = [f"x{i}" for i in range(len(inputs))], [f"w{i}" for i in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(kind, [*names[0], *names[1]], ["y"], domain=DOMAIN, **attributes)],
        "one",
        [helper.make_tensor_value_info(n, float32, x.shape) for n, x in zip(names[0], inputs, strict=True)],
        [helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in zip(names[1], weights, strict=True)],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(find_kernels().library))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {n: x.astype(np.float32) for n, x in zip(names[0], inputs, strict=True)}
    first, again = (session.run(None, feeds)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    return np.asarray(first)


def close(found: Array, wanted: Array, tolerance: float) -> None:
    """Relative L2 error, and no single value far off."""
    assert found.shape == wanted.shape
    assert found.dtype == np.float32
    error = np.abs(found - wanted)
    scale = math.sqrt(np.mean(wanted**2)) or 1.0
    assert math.sqrt(np.mean(error**2)) <= tolerance * scale
    assert error.max() <= 40 * tolerance * max(scale, float(np.abs(wanted).max()))


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32).astype(np.float64)


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((2, 16, 1, 1), 16),
        ((1, 16, 4, 4), 32),
        ((3, 32, 5, 9), 48),  # tiles that reach beyond the map
        ((25, 16, 8, 16), 16),  # rows of several pictures at once
        ((1, 48, 3, 300), 16),  # a row in pieces
        ((2, 80, 18, 33), 32),
    ],
)
def test_convolution(run: Run, shape: tuple[int, ...], out: int) -> None:
    x, weights, bias = draw(*shape), draw(out, shape[1], 3, 3) / math.sqrt(9 * shape[1]), draw(out)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    wanted = np.einsum("nchwij,ocij->nohw", windows, weights) + bias[:, None, None]
    close(run("Conv3x3", [x], [weights, bias]), wanted, 3e-6)


def test_convolution_keeps_what_does_not_touch(run: Run) -> None:
    """A value that is no number reaches its own tiles and no others."""
    x = draw(1, 16, 16, 16)
    x[0, 3, 1, 1] = np.nan
    y = run("Conv3x3", [x], [draw(16, 16, 3, 3), draw(16)])
    assert np.isnan(y[0, :, :3, :3]).all()
    assert np.isfinite(y[0, :, 8:, 8:]).all()


@pytest.mark.parametrize(("rows", "width"), [(1, 16), (11, 32), (49, 48), (100, 64), (13, 320)])
def test_feed_forward(run: Run, rows: int, width: int) -> None:
    hidden = 4 * width
    gamma, beta, bv, bg, bo = 1 + draw(width) / 9, *(draw(n, seed=1) for n in (width, hidden, hidden + 0, width))
    wv, wg, wo = (
        draw(*shape, seed=seed) / math.sqrt(shape[0])
        for seed, shape in enumerate(((width, hidden), (width, hidden), (hidden, width)))
    )
    x = draw(2, rows, width) * 3 + 1
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta
    wanted = x + (normal @ wv + bv) * gelu(normal @ wg + bg) @ wo + bo
    close(run("FeedForward", [x], [gamma, beta, wv, bv, wg, bg, wo, bo], epsilon=1e-5), wanted, 2e-6)


@pytest.mark.parametrize(("rows", "width"), [(1, 16), (49, 48), (13, 192)])
def test_mlp(run: Run, rows: int, width: int) -> None:
    hidden = 4 * width
    gamma, beta, first, last = 1 + draw(width) / 9, *(draw(n, seed=1) for n in (width, hidden, width))
    up, down = draw(width, hidden) / math.sqrt(width), draw(hidden, width, seed=2) / math.sqrt(hidden)
    x = draw(2, rows, width) * 3 + 1
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta
    wanted = x + gelu(normal @ up + first) @ down + last
    close(run("Mlp", [x], [gamma, beta, up, first, down, last], epsilon=1e-5), wanted, 2e-6)


def test_feed_forward_beside_a_large_mean(run: Run) -> None:
    width, hidden = 32, 128
    wv, wg, wo = draw(width, hidden) / 6, draw(width, hidden, seed=1) / 6, draw(hidden, width) / 11
    ones, zeros = np.ones(width), np.zeros(width)
    x = (draw(1, 20, width) + 1000).astype(np.float32).astype(np.float64)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    wanted = (normal @ wv) * gelu(normal @ wg) @ wo
    bias = [np.zeros(hidden), np.zeros(hidden)]
    y = run("FeedForward", [x], [ones, zeros, wv, bias[0], wg, bias[1], wo, zeros], epsilon=1e-5)
    # The sum with x rounds to 6e-5; without care for the mean's own rounding it would be 1e-4 of a larger part.
    assert np.abs(y - x - wanted).max() < 1e-4


def test_gelu_far_out(run: Run) -> None:
    """The gate alone, from -40 to 40: a norm that keeps x, a value of 1."""
    gate = np.linspace(-40, 40, 16)
    one, zero = np.ones(16), np.zeros(16)
    eye = np.eye(16)
    weights = [zero, zero, 0 * eye, one, 0 * eye, gate, eye, zero]
    y = run("FeedForward", [np.zeros((1, 16))], weights, epsilon=1e-5)
    np.testing.assert_allclose(y[0], gelu(gate), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        *[
            ((1, 1, 16), 1),
            ((2, 5, 32), 2),
            ((3, 33, 64), 4),
            ((2, 64, 64), 1),
            ((2, 25, 7, 32), 2),
            ((1, 8, 3, 48), 3),
        ],
        *[((1, 256, 64), 1), ((2, 391, 96), 3), ((1, 300, 2, 32), 2)],  # in blocks of keys
    ],
)
def test_attention(run: Run, shape: tuple[int, ...], heads: int) -> None:
    q, k, v = (draw(*shape, seed=i) for i in range(3))

    def split(x: Array) -> Array:  # [N, inner, heads, L, dim]
        x = x.reshape(shape[0], shape[1], -1, heads, shape[-1] // heads)
        return x.transpose(0, 2, 3, 1, 4)

    scores = split(q) @ split(k).swapaxes(-1, -2) / math.sqrt(shape[-1] // heads)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = scores / scores.sum(-1, keepdims=True) @ split(v)
    close(run("SelfAttention", [q, k, v], heads=heads), mixed.transpose(0, 3, 1, 2, 4).reshape(shape), 1e-6)


@pytest.mark.parametrize("length", [16, 272])
def test_attention_of_large_scores(run: Run, length: int) -> None:
    """Each query sees its own key alone: no overflow, and others' weights vanish."""
    q = np.eye(length)[None] * 3000
    v = draw(1, length, length)
    close(run("SelfAttention", [q, q, v], heads=1), v, 1e-7)


def test_attention_whose_largest_scores_come_last(run: Run) -> None:
    """What was summed over earlier blocks of keys is taken back, in steps that each change the largest score."""
    q, k, v = (draw(1, 500, 16, seed=i) for i in range(3))
    q[..., 0] = 4
    k[..., 0] = np.linspace(-60, 60, 500)
    scores = q @ k.swapaxes(-1, -2) / 4
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    # A score of 60 in float32 is rounded by up to 4e-6.
    close(run("SelfAttention", [q, k, v], heads=1), scores / scores.sum(-1, keepdims=True) @ v, 6e-6)


@pytest.mark.parametrize("length", [20, 300])
def test_attention_passes_on_what_is_no_number(run: Run, length: int) -> None:
    q, k, v = (draw(1, length, 16, seed=i) for i in range(3))
    q[0, 4, 0] = np.nan
    y = run("SelfAttention", [q, k, v], heads=1)
    assert np.isnan(y[0, 4]).all()
    assert np.isfinite(np.delete(y, 4, 1)).all()


@pytest.mark.parametrize("silu", [0, 1])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((2, 32, 3), 32), ((1, 64, 5, 9), 32), ((3, 32, 8, 16), 4), ((1, 4, 70, 90), 2), ((1, 32, 1), 16)],
)
def test_group_norm(run: Run, shape: tuple[int, ...], groups: int, silu: int) -> None:
    x = draw(*shape) * 2 + 3
    gamma, beta = (draw(shape[1], seed=i) for i in (1, 2))
    wanted = norm(x, gamma, beta, groups)
    wanted = wanted * sigmoid(wanted) if silu else wanted
    close(run("GroupNorm", [x], [gamma, beta], epsilon=1e-6, groups=groups, silu=silu), wanted, 1e-6)


def norm(x: Array, gamma: Array, beta: Array, groups: int) -> Array:
    flat = x.reshape(len(x), groups, -1)
    flat = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(flat.var(-1, keepdims=True) + 1e-6)
    ones = (1,) * (x.ndim - 2)
    return flat.reshape(x.shape) * gamma.reshape(1, -1, *ones) + beta.reshape(1, -1, *ones)


def test_group_norm_of_much_the_same(run: Run) -> None:
    """A spread of one beside a mean of a thousand, over a hundred thousand values."""
    x = (draw(1, 16, 64, 100) + 1000).astype(np.float32).astype(np.float64)
    gamma, beta = np.ones(16), np.zeros(16)
    found = run("GroupNorm", [x], [gamma, beta], epsilon=1e-6, groups=1, silu=0)
    close(found, norm(x, gamma, beta, 1), 1e-4)  # the mean itself is rounded to float32, 6e-5 of the spread


def test_silu_far_out(run: Run) -> None:
    x = np.linspace(-300, 300, 64).reshape(1, 1, 64)
    scale = np.sqrt(x.var() + 1e-6)
    y = run("GroupNorm", [x], [np.array([scale]), np.array([x.mean()])], epsilon=1e-6, groups=1, silu=1)
    np.testing.assert_allclose(y, x * sigmoid(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 2, 5), (1, 16, 8, 16), (1, 2, 3, 35)])
def test_interleave(run: Run, shape: tuple[int, ...]) -> None:
    parts = [draw(*shape, seed=i) for i in range(4)]
    wanted = np.empty((*shape[:2], 2 * shape[2], 2 * shape[3]), np.float32)
    for i, part in enumerate(parts):
        wanted[:, :, i // 2 :: 2, i % 2 :: 2] = part
    np.testing.assert_array_equal(run("Interleave", parts), wanted)


def test_threads_change_nothing(run: Run) -> None:
    x, weights = draw(9, 32, 13, 21), [draw(32, 32, 3, 3), draw(32)]
    np.testing.assert_array_equal(run("Conv3x3", [x], weights), run("Conv3x3", [x], weights, threads=3))
    q = draw(11, 40, 32)
    np.testing.assert_array_equal(
        run("SelfAttention", [q, q, q], heads=2), run("SelfAttention", [q, q, q], heads=2, threads=3)
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler here")
def test_a_compiler_makes_them() -> None:
    """The build is optional, so a mistake in the source would not stop it."""
    assert kernels._found("plain").library is not None


def test_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "off")
    assert find_kernels() == (None, f"{SETTING}=off")
    monkeypatch.setenv(SETTING, "avx1024")
    with pytest.raises(InputError, match=f"{SETTING}=avx1024 is unknown; expected one of off, avx512, avx2, plain"):
        find_kernels()
    assert not availability("onnxruntime").usable


@pytest.mark.skipif(kernels._found("plain").library is None, reason="the kernels are not compiled here")
def test_reasons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the library, with one that cannot be loaded, and on a CPU that gains nothing."""

    def note() -> str:
        return kernels._found.__wrapped__("").note  # type: ignore[no-any-return]

    broken = tmp_path / "_kernels.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    assert "not installed" in note()
    monkeypatch.setattr(kernels, "find_spec", lambda _: type("Spec", (), {"origin": str(broken)}))
    assert "cannot be loaded" in note()
    monkeypatch.undo()
    monkeypatch.setattr(kernels, "_FAST", ())
    assert "AVX2" in note()


@pytest.mark.skipif(kernels._found("plain").library is None, reason="the kernels are not compiled here")
def test_kernels_of_a_distribution_are_used_if_it_is_of_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    library = kernels.find_spec(kernels._IN_PLACE)
    versions = {"amodal": "1.2", "amodal-kernels": "1.2"}
    monkeypatch.setattr(kernels, "find_spec", {kernels._IN_PLACE: None, "amodal_kernels": library}.get)
    monkeypatch.setattr(kernels, "version", versions.get)
    assert kernels._found.__wrapped__("plain").library == Path(library.origin)
    versions["amodal-kernels"] = "1.1"
    expected = (None, "amodal-kernels 1.1 is not of amodal 1.2; install the same version")
    assert kernels._found.__wrapped__("plain") == expected

"""The noise is torch's to the last bit: against torch where it is installed, against its record anywhere."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.sampling.noise import NoiseStream, _BoxMuller

SEEDS = (0, 23, 2**32 + 5, 2**63 - 1, 2**64 - 1, -1, -23, -(2**63))
DTYPES = ("float32", "float16")
ARGUMENTS = 2**24  # what the low 24 bits of a word can be
ONE = 6601320  # the word whose radius is exactly 1, so that the normals are the cosine and the sine


def bits(values: NDArray[Any]) -> NDArray[Any]:
    return values.view(f"u{values.itemsize}")


def sha256(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


# Against torch


@pytest.fixture(scope="module")
def torch() -> Any:
    module = pytest.importorskip("torch")
    if tuple(int(n) for n in module.__version__.split(".")[:2]) < (2, 13):
        pytest.skip("torch before 2.13 draws other float16 values")
    if module.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch differs in the last bits on CPUs without AVX2")
    return module


def draw(torch: Any, generator: Any, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    values: NDArray[Any] = torch.randn(shape, generator=generator, dtype=getattr(torch, dtype)).numpy()
    return values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_small_size_and_ragged_end_equals_torch(torch: Any, seed: int, dtype: Any) -> None:
    for size in (*range(70), 127, 1000, 4095, 4096, 4097):
        expected = draw(torch, torch.Generator().manual_seed(seed), (size,), dtype)
        values = NoiseStream(seed).randn((size,), dtype)
        assert values.dtype == expected.dtype
        assert np.array_equal(bits(values), bits(expected)), size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 7), (5, 3, 1, 7), (1, 25, 4, 32, 64)])
def test_a_shape_is_filled_in_torchs_order(torch: Any, shape: tuple[int, ...], dtype: Any) -> None:
    expected = draw(torch, torch.Generator().manual_seed(23), shape, dtype)
    values = NoiseStream(23).randn(shape, dtype)
    assert values.shape == shape
    assert np.array_equal(bits(values), bits(expected))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sequence_of_small_large_and_half_draws_stays_with_torch(torch: Any, seed: int) -> None:
    choose = np.random.default_rng(seed % 2**32)
    generator, stream = torch.Generator().manual_seed(seed), NoiseStream(seed)
    for _ in range(150):
        size = int(choose.choice([choose.integers(0, 16), choose.integers(16, 64), choose.integers(64, 20_000)]))
        dtype: Any = DTYPES[choose.integers(2)]
        expected = draw(torch, generator, (size,), dtype)
        assert np.array_equal(bits(stream.randn((size,), dtype)), bits(expected)), (size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_noise_of_a_real_clip_equals_torch(torch: Any, dtype: Any) -> None:
    generator, stream = torch.Generator().manual_seed(23), NoiseStream(23)
    for shape in ((25, 1, 3, 256, 512), (1, 25, 4, 32, 64)):
        expected = draw(torch, generator, shape, dtype)
        assert np.array_equal(bits(stream.randn(shape, dtype)), bits(expected))


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, True, 1.0, "3", None])
def test_a_seed_that_torch_refuses_is_an_input_error(torch: Any, seed: Any) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        torch.Generator().manual_seed(seed)
    with pytest.raises(InputError):
        NoiseStream(seed)


def untemper(words: NDArray[np.uint32]) -> NDArray[Any]:
    """The MT19937 state that gives these words: each step of the tempering undone, the last first."""
    y = words ^ (words >> 18)
    y ^= (y << 15) & np.uint32(0xEFC60000)
    half_done = y
    for _ in range(4):
        half_done = y ^ ((half_done << 7) & np.uint32(0x9D2C5680))
    y = half_done
    for _ in range(2):
        half_done = y ^ (half_done >> 11)
    return half_done


def normals_of_words(torch: Any, words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """torch's normals for chosen words [n, 608], by way of a generator state that is about to give them."""
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    # seed (8 bytes), words left + 1 (4), seeded (4), index of the next word (8), 624 words (8 each)
    state.numpy()[8:12].view(np.int32)[:] = 624
    state.numpy()[16:24].view(np.int64)[:] = 0
    out = np.empty(words.shape, np.float32)
    for row, untempered in zip(out, untemper(words), strict=True):
        state.numpy()[24 : 24 + 8 * 608].view(np.int64)[:] = untempered
        generator.set_state(state)
        torch.randn(608, generator=generator, out=torch.from_numpy(row))
    return out


def test_the_radius_cosine_and_sine_equal_torch_for_chosen_words(torch: Any) -> None:
    # With a step of 1 in place of 67 these are all the arguments there are; the sha256 below was recorded so.
    near = np.arange(-20, 20) + np.arange(0, ARGUMENTS + 1, ARGUMENTS // 8)[:, None]
    chosen = np.concatenate([np.arange(0, ARGUMENTS, 67), near.ravel() % ARGUMENTS]).astype(np.uint32)
    chosen.resize(-(-chosen.size // 304) * 304)
    for first, second in ((chosen, np.zeros_like(chosen)), (np.full_like(chosen, ONE), chosen)):
        words = np.stack([first.reshape(-1, 8), second.reshape(-1, 8)], axis=1).reshape(-1, 608)
        values = _BoxMuller(words.size)(words.ravel())
        assert np.array_equal(bits(values), bits(normals_of_words(torch, words).ravel()))


# Against values recorded from torch 2.13.0 (CPU, AVX-512 machine), without torch

RECORDED = {
    0: (
        (3, [1.5409960746765137, -0.293428897857666, -2.1787893772125244]),
        (16, [-0.35612836480140686, 0.4372227191925049, 0.4913049638271332]),
        (2, [0.5684312582015991, -0.8566746115684509]),
        (37, [-0.14067143201828003, 0.8057535886764526, 0.32761430740356445]),
        (1, [1.1006041765213013]),
    ),
    23: (
        (3, [-0.8733035326004028, 0.43763238191604614, -0.486631840467453]),
        (16, [0.23789522051811218, -0.2679966986179352, -1.4331642389297485]),
        (2, [-0.7839713096618652, -0.5145976543426514]),
        (37, [1.9051724672317505, 0.31731200218200684, -1.4414119720458984]),
        (1, [0.5305944085121155]),
    ),
    -1: (
        (3, [1.2197630405426025, -0.3929794728755951, 1.0230751037597656]),
        (16, [0.41425496339797974, -0.313724547624588, 0.026761382818222046]),
        (2, [-0.3734211325645447, 0.7538403868675232]),
        (37, [-0.0379682295024395, 0.38137418031692505, -0.7921472787857056]),
        (1, [-0.18098901212215424]),
    ),
}


@pytest.mark.parametrize("seed", RECORDED)
def test_a_sequence_of_draws_equals_the_recorded_values(seed: int) -> None:
    stream = NoiseStream(seed)
    for size, expected in RECORDED[seed]:
        values = stream.randn((size,))
        ends = values[-3:] if size == 37 else values[:3]  # the ragged draw's last values
        assert np.array_equal(bits(ends), bits(np.array(expected, np.float32)))


@pytest.mark.parametrize(
    ("dtype", "recorded"),
    [
        ("float32", "6d60cbc2d9b682df5988dc610a77e286f365111de2edb7ebc78f5687019449b8"),
        ("float16", "8343adec2d681d9d62dc490eaedbc36cc981c95aed2f9252e6e5455b6456f774"),
    ],
)
def test_a_million_values_have_the_recorded_hash(dtype: Any, recorded: str) -> None:
    assert sha256(NoiseStream(23).randn((1_000_003,), dtype)) == recorded


def test_the_radius_cosine_and_sine_of_every_argument_have_the_recorded_hash() -> None:
    pairs = 2**17
    box_muller, words = _BoxMuller(2 * pairs), np.empty((pairs // 8, 2, 8), np.uint32)
    radii, cosines, sines = [], [], []
    for start in range(0, ARGUMENTS, pairs):
        arguments = np.arange(start, start + pairs, dtype=np.uint32).reshape(-1, 8)
        words[:, 0], words[:, 1] = arguments, 0
        radii.append(box_muller(words.ravel()).reshape(-1, 2, 8)[:, 0].copy())
        words[:, 0], words[:, 1] = ONE, arguments
        normals = box_muller(words.ravel()).reshape(-1, 2, 8)
        cosines.append(normals[:, 0].copy())
        sines.append(normals[:, 1].copy())
    assert sha256(*radii) == "88bdc07f060915411482e9b2ad8b371868cdd1af288cf6919cde64fc97babecd"
    assert sha256(*cosines) == "0159be50a0cb9ad5d1e32bf5a361bd792fd09b17bdcf5b000e8a4fe4638cde4d"
    assert sha256(*sines) == "cf51824cdb98f1c2f535f4cc1c24ce27ce429632ece60d42249e211f555b8dca"


def test_no_normal_is_a_negative_zero() -> None:
    # The first u is 0, so that log(1 - u) and the radius are zeros, with cosines and sines of either sign.
    words = np.concatenate([np.zeros(8), np.arange(8) * (ARGUMENTS // 8)]).astype(np.uint32)
    normals = _BoxMuller(16)(words)
    assert not normals.any()
    assert not np.signbit(normals).any()


# The stream itself


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_clone_goes_on_alone_with_the_waiting_normal(dtype: Any) -> None:
    stream = NoiseStream(23)
    stream.randn((3,))
    stream.randn((40,))
    twin, untouched = stream.clone(), stream.clone()
    drawn = [stream.randn((size,), dtype) for size in (1, 50, 2)]
    for other in (twin, untouched):
        for size, expected in zip((1, 50, 2), drawn, strict=True):
            assert np.array_equal(bits(other.randn((size,), dtype)), bits(expected))


def test_seeds_with_the_same_low_32_bits_draw_the_same() -> None:
    expected = NoiseStream(5).randn((100,))
    seeds: list[Any] = [2**32 + 5, 5 - 2**63, np.int64(5)]
    for seed in seeds:
        assert np.array_equal(NoiseStream(seed).randn((100,)), expected)
    assert not np.array_equal(NoiseStream(6).randn((100,)), expected)


def test_a_draw_of_several_passes_goes_on_where_a_shorter_one_ends() -> None:
    whole, parts = NoiseStream(7), NoiseStream(7)
    expected = whole.randn((400_000,))
    drawn = np.concatenate([parts.randn((n,)) for n in (16, 131_072, 200_000, 68_912)])
    assert np.array_equal(bits(drawn), bits(expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_draw_needs_a_few_megabytes_beyond_its_result(dtype: Any) -> None:
    stream = NoiseStream(0)
    tracemalloc.start()
    try:
        result = stream.randn((4_000_000,), dtype)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 8e6


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", np.float32, None])
def test_another_dtype_is_an_input_error(dtype: Any) -> None:
    with pytest.raises(InputError, match="float32"):
        NoiseStream(0).randn((4,), dtype)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (2.0,), ("2",), 4, None])
def test_a_bad_shape_is_an_input_error(shape: Any) -> None:
    with pytest.raises(InputError, match="shape"):
        NoiseStream(0).randn(shape)

"""Draws the same noise as torch on the CPU, bit for bit, without torch.

The reference draws its latents with `torch.randn` on the CPU, and results can be compared only if the noise is equal to
the last bit. `NoiseStream(seed).randn(shape)` equals
`torch.randn(shape, generator=torch.Generator().manual_seed(seed))` of torch 2.13:

* The random words are those of MT19937, seeded with the low 32 bits of the seed.
* 16 values or more: Box-Muller on blocks of 16 words (`normal_fill` in ATen/native/cpu/
  DistributionTemplates.h). A word gives u = (word mod 2^24) / 2^24. For j < 8, r = sqrt(-2 log(1 - u[j])) and
  theta = 2 pi u[j + 8]; the normals are r cos(theta) at j and r sin(theta) at j + 8.
* log, sin and cos are Cephes' float32 polynomials in the order of torch's AVX2 kernel (avx_mathfun.h there),
  with its fused multiply-adds, done in float64 and rounded to float32 once. Each function has only 2^24 arguments here;
  all were compared with torch 2.13, and none differed.
* Fewer than 16 values: Box-Muller in float64, a pair at a time (`normal_distribution` in ATen/core/
  DistributionsHelper.h). A pair's second normal waits for the next small draw, across large ones too.
* float16 is the float32 draw rounded to half, except that a ragged end uses up fewer words.

The generator runs on the host; the rest of a draw can run on a device (`NoiseStream.draw`, `Draw.normals`). Its sums,
products, square roots and conversions are correctly rounded by IEEE 754, and each is a call of its own that is never
fused with the next, so the bits are the same everywhere.

Other builds of torch draw other values: without AVX2 the last bits differ (by about 2e-6), and before 2.13 (seen with
2.7) float16 values are different altogether.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

F32: TypeAlias = NDArray[np.float32]
U32: TypeAlias = NDArray[np.uint32]
NoiseDtype = Literal["float32", "float16"]

_BLOCK = 16
# Words at a time, with 4 MB of working memory. Half as many are as fast alone, but every numpy call takes the GIL
# again: beside a busy Python thread, fewer and longer calls wait less.
_PASS = 8192 * _BLOCK
_DEVICE_PASS = 8 * _PASS  # a kernel launch costs the host the same for any size


def _single(*decimals: float) -> list[float]:
    """Rounds Cephes' decimal constants to float32; the results are exact in float64."""
    return [float(np.float32(decimal)) for decimal in decimals]


# Cephes logf for 1 + x in [sqrt(1/2), sqrt(2)): log(1 + x) = x - x^2 / 2 + x^3 P(x), highest power first.
# Q1 + Q2 = log 2, and Q2 has so few bits that its products with an exponent are exact in float32.
_LOG_P = _single(
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_LOG_Q1 = np.float32(-2.12194440e-4)
_LOG_Q2 = np.float32(0.693359375)
_SQRT_HALF_BITS = 0x3F3504F3

# Cephes sinf and cosf for |x| <= pi / 4: sin x = x + x^3 S(x^2), cos x = 1 - x^2 / 2 + x^4 C(x^2).
# A quarter turn is the sum of three parts; multiples of the first two are exact in float32.
_SIN_S = _single(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS_C = _single(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_QUARTER_TURN = [2 * part for part in _single(0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)]
_TURN = np.float32(2 * math.pi)

_SCALE = np.float32(2**-24)
_SIGN = np.int32(-(2**31))


class _BoxMuller:
    """torch's `normal_fill` for a fixed number of words; holds its working memory."""

    def __init__(self, words: int, xp: Any = np) -> None:
        self.words, self.xp, pairs = words, xp, words // 2
        self.x, self.radius, self.cos, self.sin, self.z, self.t = xp.empty((6, pairs), np.float32)
        self.k, self.i = xp.empty((2, pairs), np.int32)
        self.wide, self.arg = xp.empty((2, pairs), np.float64)
        self.out: F32 = xp.empty(words, np.float32)

    def __call__(self, words: U32) -> F32:
        """Turns uint32 words [16 n] into float32 normals [16 n], which the next call overwrites."""
        xp, k = self.xp, self.k
        rows = self._rows
        halves, normals = rows(words.view(np.int32)), rows(self.out)
        rows(k)[:] = halves[::2]
        self._find_radius(xp.bitwise_and(k, 0xFFFFFF, out=k))
        rows(k)[:] = halves[1::2]
        self._find_cos_sin(xp.bitwise_and(k, 0xFFFFFF, out=k))
        for half, direction in enumerate((self.cos, self.sin)):
            direction *= self.radius
            direction += np.float32(0)  # torch adds the mean, 0, which makes +0 of -0
            normals[half::2] = rows(direction)
        return self.out

    def _rows(self, values: NDArray[Any]) -> NDArray[Any]:
        # Half blocks of eight words. numpy copies 32-byte items twice as fast as rows of eight; CuPy has no such items.
        return values.view("V32") if self.xp is np else values.reshape(-1, _BLOCK // 2)

    def _fma(self, a: F32 | float, c: F32 | float, out: F32) -> None:
        """Computes out = a * arg + c, rounded to float32 once; the product is exact in float64."""
        self.xp.multiply(a, self.arg, out=self.wide)
        self.xp.add(self.wide, c, out=out, casting="same_kind")

    def _polynomial(self, coefficients: Sequence[float], out: F32) -> None:
        """Evaluates a polynomial at arg by Horner's rule, highest power first."""
        value: F32 | float = coefficients[0]
        for c in coefficients[1:]:
            self._fma(value, c, out)
            value = out

    def _find_radius(self, k: NDArray[np.int32]) -> None:
        """Computes radius = sqrt(-2 log(1 - k / 2^24))."""
        x, y, e, z, t, i = self.x, self.radius, self.cos, self.z, self.t, self.i
        self.xp.subtract(1 << 24, k, out=i)
        x[:] = i
        x *= _SCALE
        # x = m 2^e with m in [sqrt(1/2), sqrt(2)), on the bits of the floats; then x = m - 1.
        self.xp.subtract(x.view(np.int32), _SQRT_HALF_BITS, out=i)
        i >>= 23
        e[:] = i
        i <<= 23
        self.xp.subtract(x.view(np.int32), i, out=x.view(np.int32))
        x -= np.float32(1)
        self.xp.multiply(x, x, out=z)
        self.arg[:] = x
        self._polynomial(_LOG_P, out=y)
        y *= x
        self.arg[:] = z
        self.xp.multiply(e, _LOG_Q1, out=t)
        self._fma(y, t, out=y)
        z *= np.float32(0.5)
        y -= z
        y += x
        e *= _LOG_Q2
        y += e
        y *= np.float32(-2)
        self.xp.sqrt(y, out=y)

    def _find_cos_sin(self, k: NDArray[np.int32]) -> None:
        """Computes the cosine and sine of theta = 2 pi k / 2^24."""
        x, cos, sin, z, t, i = self.x, self.cos, self.sin, self.z, self.t, self.i
        x[:] = k
        x *= _SCALE
        x *= _TURN
        # From here bits 22 and up of k count quarter turns, rounded; x is the rest of theta.
        k += 1 << 21
        self.xp.right_shift(k, 22, out=i)
        t[:] = i
        for part in _QUARTER_TURN[:2]:
            self.xp.multiply(t, np.float32(part), out=z)
            x -= z
        self.arg.fill(-_QUARTER_TURN[2])
        self._fma(t, x, out=x)
        self.xp.multiply(x, x, out=z)
        self.arg[:] = z
        self._polynomial(_SIN_S, out=sin)
        self._polynomial(_COS_C, out=cos)
        cos *= z
        self.xp.multiply(z, np.float32(-0.5), out=t)
        self._fma(cos, t, out=cos)
        cos += np.float32(1)
        sin *= z
        self.arg[:] = x
        self._fma(sin, x, out=sin)
        # An odd number of quarter turns swaps the two (all bits of i are 1 there); two change the sign.
        cos_bits, sin_bits, swap = cos.view(np.int32), sin.view(np.int32), t.view(np.int32)
        self.xp.left_shift(k, 9, out=i)
        i >>= 31
        self.xp.bitwise_xor(cos_bits, sin_bits, out=swap)
        swap &= i
        for bits, quarter_turns in ((sin_bits, 0), (cos_bits, 1)):
            bits ^= swap
            k += quarter_turns << 22
            self.xp.left_shift(k, 8, out=i)
            i &= _SIGN
            bits ^= i


class Draw(NamedTuple):
    """A draw whose normals are still to be computed."""

    shape: tuple[int, ...]
    dtype: NoiseDtype
    pieces: Iterable[tuple[int, U32]]  # index of the first normal and random words; may overlap the piece before
    few: F32 | None  # the normals themselves, if they are fewer than 16

    def normals(self, xp: Any = np) -> Any:
        """Computes the normals on the device of `xp` (numpy or CuPy), with the same bits everywhere."""
        if self.few is not None:
            return xp.asarray(self.few.astype(self.dtype)).reshape(self.shape)
        out = xp.empty(math.prod(self.shape), self.dtype)
        box_muller = None
        for start, words in self.pieces:
            if box_muller is None or box_muller.words != words.size:
                box_muller = _BoxMuller(words.size, xp)
            out[start : start + words.size] = box_muller(xp.asarray(words))
        return out.reshape(self.shape)


class NoiseStream:
    """torch's CPU generator: `torch.Generator().manual_seed(seed)`, then `torch.randn`.

    A stream belongs to one thread; two streams in the same state draw the same values.

    Args:
        seed: an integer from -2^63 to 2^64 - 1, as for `manual_seed`. A negative seed stands for seed + 2^64; only the
            low 32 bits count.

    Raises:
        InputError: the seed is not an integer, or is out of range.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise InputError(f"The seed must be an integer, not {seed!r}.")
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise InputError(f"The seed {seed} is out of range: torch takes -2^63 to 2^64 - 1.")
        # RandomState, not Generator: it seeds as the original MT19937 and torch do.
        self._state = np.random.RandomState(seed % 2**32)
        self._waiting: float | None = None

    def clone(self) -> NoiseStream:
        """Copies the stream and its state, including the waiting normal of a small draw."""
        return copy.deepcopy(self)

    def word64(self) -> int:
        """Draws 64 random bits, as a seed of other noise."""
        low, high = self._words(2).tolist()
        return int(high << 32 | low)

    def randn(self, shape: tuple[int, ...], dtype: NoiseDtype = "float32") -> NDArray[Any]:
        """Draws standard normals, equal to torch's in every bit, as a new contiguous array.

        Args:
            shape: sizes, each 0 or more; () gives an array of no dimensions.
            dtype: "float32", or "float16" as torch 2.13 draws it.

        Raises:
            InputError: a size is negative or not an integer, or the dtype is another.
        """
        size = _size(shape, dtype)
        drawn = Draw(shape, dtype, self._pieces(size, dtype, _PASS), self._few(size))
        return cast("NDArray[Any]", drawn.normals())

    def draw(self, shape: tuple[int, ...], dtype: NoiseDtype = "float32") -> Draw:
        """Draws only the random words, four bytes per value; `Draw.normals` computes the rest on a device."""
        size = _size(shape, dtype)
        return Draw(shape, dtype, list(self._pieces(size, dtype, _DEVICE_PASS)), self._few(size))

    def _words(self, n: int) -> U32:
        return self._state.randint(0, 2**32, size=n, dtype=np.uint32)

    def _few(self, size: int) -> F32 | None:
        return np.array([self._small() for _ in range(size)], np.float32) if size < _BLOCK else None

    def _small(self) -> float:
        """Draws a single normal: the waiting one, or the first of a new pair."""
        if self._waiting is not None:
            normal, self._waiting = self._waiting, None
            return normal
        high1, low1, high2, low2 = self._words(4).tolist()
        u1, u2 = (high1 << 32 | low1) % 2**53 / 2**53, (high2 << 32 | low2) % 2**53 / 2**53
        radius, theta = math.sqrt(-2 * math.log1p(-u2)), 2 * math.pi * u1
        self._waiting = radius * math.sin(theta)
        return radius * math.cos(theta)

    def _pieces(self, size: int, dtype: NoiseDtype, most: int) -> Iterator[tuple[int, U32]]:
        """Yields the words of a draw, `most` at a time; none for fewer than 16 normals."""
        ragged = size % _BLOCK
        whole = size - ragged
        for start in range(0, whole, most):
            yield start, self._words(min(most, whole - start))
        if ragged and whole:
            # The last 16 values are drawn again, over the end of the whole blocks. Before that, a float32 draw uses one
            # word per value, a float16 draw only those of the whole blocks.
            if dtype == "float32":
                self._words(ragged)
            yield size - _BLOCK, self._words(_BLOCK)


def _size(shape: tuple[int, ...], dtype: str) -> int:
    if dtype not in ("float32", "float16"):
        raise InputError(f'Noise is drawn as "float32" or "float16", not {dtype!r}.')
    if not isinstance(shape, tuple) or not all(hasattr(n, "__index__") and n >= 0 for n in shape):
        raise InputError(f"A shape is a tuple of sizes, each an integer of 0 or more, not {shape!r}.")
    return math.prod(map(operator.index, shape))

import numpy as np
import pytest

from amodal.runtime.clips.noise import FrameNoise
from amodal.runtime.errors import InputError
from amodal.runtime.sampling.noise import NoiseStream


def test_each_frame_and_stage_has_noise_of_its_own_and_always_the_same():
    noise = FrameNoise.of(23)
    draws = [n.stream(f).randn((64,)) for n in (noise, noise.next_stage(), FrameNoise.of(24)) for f in range(20)]
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert abs(correlations).max() < 0.6  # 64 independent normals: 1/8 is one deviation
    np.testing.assert_array_equal(FrameNoise.of(23).stream(7).randn((64,)), draws[7])


def test_a_stream_gives_noise_by_its_state_and_is_not_changed():
    stream = NoiseStream(5)
    first, again = FrameNoise.of(stream), FrameNoise.of(stream)
    assert first == again
    stream.randn((16,))
    assert FrameNoise.of(stream) != first


def test_negative_seeds_are_those_modulo_two_to_the_64():
    np.testing.assert_array_equal(
        FrameNoise.of(-1).stream(0).randn((16,)), FrameNoise.of(2**64 - 1).stream(0).randn((16,))
    )


def test_seeds_and_frames_that_are_none_are_refused():
    with pytest.raises(InputError, match="must be an integer"):
        FrameNoise.of(1.5)
    with pytest.raises(InputError, match="frame -1"):
        FrameNoise.of(1).stream(-1)

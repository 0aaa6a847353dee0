"""The reference pipeline against what the authors' own code drew, and its quirks one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from amodal.bench.reference import pipeline as reference  # noqa: E402
from amodal.bench.reference.pipeline import ReferencePipeline  # noqa: E402
from amodal.runtime.errors import InputError  # noqa: E402

from ...checkpoints import make_checkpoint, reference_pipeline  # noqa: E402
from ...demo import prepare_frames, prepare_masks, run_both_stages  # noqa: E402
from ...places import SHARED  # noqa: E402

RECORDED = SHARED / "reference"
SEGMENT = RECORDED / "diffusion-vas-amodal-segmentation"
COMPLETE = RECORDED / "diffusion-vas-content-completion"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is absent")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    with np.load(RECORDED / "birdcage_64x128_seed23.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def drawn(recorded: dict[str, Any]) -> dict[str, Any]:
    """Both stages in one stream, stage 2 from the recorded amodal masks."""
    segment, complete = (reference_pipeline(path) for path in (SEGMENT, COMPLETE))
    modal, depth, rgb = (recorded[name] for name in ("modal", "depth", "rgb"))
    return run_both_stages(segment, complete, modal, depth, rgb, 23, amodal=recorded["amodal_masks"])


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> ReferencePipeline:
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, seed=1, block_out_channels=(32, 64), heads=(2, 4), vae_channels=(32, 32, 32))
    return reference_pipeline(folder)


def clip_of(frames: int, size: int = 32, seed: int = 0) -> tuple[Any, Any]:
    """Two random conditions [T,3,H,W] in [-1, 1], smooth enough for CLIP to tell the frames apart."""
    coarse = torch.rand((2, frames, 3, 4, 4), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    fine = torch.nn.functional.interpolate(coarse.flatten(0, 1), size=(size, size), mode="nearest")
    return fine[:frames], fine[frames:]


def generator(seed: int = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def relative_l2(got: Any, want: Any) -> float:
    return float(np.linalg.norm(np.asarray(got) - np.asarray(want)) / np.linalg.norm(np.asarray(want)))


class Spy:
    """The positional arguments of every call of a module, while the `with` block lasts."""

    def __init__(self, module: Any) -> None:
        self.calls: list[Any] = []
        self._handle = module.register_forward_pre_hook(lambda _, args: self.calls.append(args))

    def __enter__(self) -> list[Any]:
        return self.calls

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


# What the authors' code recorded.


@needs_recorded
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_every_recorded_latent_of_both_stages_is_reached(stage, recorded, drawn):
    steps, want = recorded["segment_latents_steps"], recorded[f"{stage}_latents"]
    errors = [relative_l2(drawn[stage].latents[step], latents) for step, latents in zip(steps, want, strict=True)]
    assert max(errors) <= 1e-5, errors


@needs_recorded
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["segment", "complete"])
def test_pictures_differ_from_the_recorded_ones_by_at_most_one_level(stage, recorded, drawn):
    difference = drawn[stage].frames_u8.astype(int) - recorded[f"{stage}_frames_u8"]
    assert np.abs(difference).max() <= 1


@needs_recorded
@pytest.mark.slow
def test_amodal_masks_and_the_modal_rgb_are_the_recorded_ones(recorded, drawn):
    want = recorded["amodal_masks"] > 0
    assert (drawn["amodal"] & want).sum() / (drawn["amodal"] | want).sum() >= 0.9999
    np.testing.assert_array_equal(drawn["modal_rgb"], recorded["modal_rgb"])


@needs_recorded
@pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="the samples are absent")
def test_the_sample_folder_becomes_exactly_the_recorded_inputs(recorded):
    masks, frames = (sorted((SHARED / "samples/birdcage" / name).glob("*.png")) for name in ("masks", "rgbs"))
    np.testing.assert_array_equal(prepare_masks(masks, (64, 128)), recorded["modal"])
    np.testing.assert_array_equal(prepare_frames(frames, (64, 128)), recorded["rgb"])


# Inputs and outputs.


def test_masks_are_binarised_before_they_are_resized():
    masks = np.zeros((1, 4, 8), np.uint8)
    masks[:, :, 2:5], masks[:, :, 5:] = 128, 129
    got = prepare_masks(masks, (4, 4))
    assert got[0, 0, 0] == -1
    assert got[0, 0, 3] == 1
    assert -1 < got[0, 0, 2] < 1


def test_a_pixel_is_amodal_above_a_sum_of_600_or_where_it_is_visible():
    frames = np.array([[[[200, 200, 200], [255, 255, 91], [0, 0, 0], [0, 0, 0]]]], np.uint8)
    modal = np.array([[[-1, -1, 0.01, 0]]], np.float32)
    np.testing.assert_array_equal(reference.amodal_masks(frames, modal), [[[False, True, True, False]]])


def test_the_picture_outside_the_modal_mask_is_white():
    rgb, modal = np.full((1, 3, 1, 2), -0.5, np.float32), np.array([[[0.0, 0.1]]], np.float32)
    np.testing.assert_array_equal(reference.modal_rgb(rgb, modal)[0, :, 0], [[1, -0.5]] * 3)


# The sampler.


@pytest.mark.parametrize("steps", [1, 2, 5, 25])
def test_the_sampler_is_diffusers_euler_scheduler_to_the_bit(steps, pipeline, tmp_path):
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", timestep_spacing="leading",
        sigma_min=0.002, sigma_max=700.0, use_karras_sigmas=True, interpolation_type="linear",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    sigmas = reference.karras_sigmas(steps)
    assert torch.equal(sigmas, scheduler.sigmas)
    assert torch.equal(0.25 * sigmas[:-1].log(), scheduler.timesteps)
    assert (sigmas[0] ** 2 + 1) ** 0.5 == scheduler.init_noise_sigma

    latents = torch.randn((1, 3, 4, 8, 8), generator=generator()) * scheduler.init_noise_sigma
    want = latents
    for t in scheduler.timesteps:
        v = torch.tanh(scheduler.scale_model_input(want, t)) + t
        want = scheduler.step(v, t, want).prev_sample

    def denoise(x, sigma):
        v = torch.tanh(x / (sigma**2 + 1) ** 0.5) + 0.25 * sigma.log()
        return v * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)

    assert torch.equal(reference.euler(denoise, latents, sigmas), want)


def test_churn_is_edm_algorithm_2_and_evaluates_the_denoiser_at_the_raised_noise_level():
    sigmas, seen = reference.karras_sigmas(6), []

    def denoise(x, sigma):
        seen.append(float(sigma))
        return x / (1 + sigma**2)  # exact for data ~ N(0, 1)

    x = torch.randn((1, 2, 4, 4, 4), generator=generator(7)) * 700
    got = reference.euler(denoise, x, sigmas, churn=(3.0, 0.05, 50.0, 1.1), generator=generator(8))

    noise, want, hats = generator(8), x.double(), []
    for sigma, after in zip(sigmas.double()[:-1], sigmas.double()[1:], strict=True):
        gamma = min(3.0 / 6, math.sqrt(2) - 1) if 0.05 <= sigma <= 50 else 0.0
        hats.append(float(sigma * (1 + gamma)))
        if gamma:
            eps = torch.randn(x.shape, generator=noise)
            want = want + math.sqrt(hats[-1] ** 2 - sigma**2) * 1.1 * eps
        want = want + (after - hats[-1]) * (want - want / (1 + hats[-1] ** 2)) / hats[-1]
    assert any(hat > sigma * 1.4 for hat, sigma in zip(hats, sigmas, strict=False))
    assert hats[0] == sigmas[0]
    np.testing.assert_allclose(seen, hats, rtol=1e-6)
    assert relative_l2(got, want) < 1e-5


def test_churn_outside_its_range_draws_nothing_and_changes_nothing():
    sigmas, stream = reference.karras_sigmas(4), generator(3)
    before, x = stream.get_state(), torch.randn((1, 1, 4, 4, 4), generator=generator())

    def denoise(x, sigma):
        return x / (1 + sigma**2)

    got = reference.euler(denoise, x, sigmas, churn=(9.0, 1e3, 1e4, 1.0), generator=stream)
    assert torch.equal(stream.get_state(), before)
    assert torch.equal(got, reference.euler(denoise, x, sigmas))


def test_the_networks_timestep_follows_churn_and_its_noise_comes_after_the_latents(pipeline):
    images, rgb = clip_of(3)
    stream = generator(5)
    with Spy(pipeline.unet) as calls:
        pipeline(images, rgb, generator=stream, steps=3, churn=(0.6, 0.0, 600.0, 1.0))
    sigmas = reference.karras_sigmas(3)[:-1] * torch.tensor([1.0, 1.2, 1.2])  # the first is above s_tmax
    torch.testing.assert_close(torch.stack([call[1] for call in calls]), 0.25 * sigmas.log())

    replay = generator(5)
    for shape in [(3, 1, 3, 32, 32)] * 2 + [(1, 3, 4, 8, 8)] * 3:
        torch.randn(shape, generator=replay)
    assert torch.equal(stream.get_state(), replay.get_state())


def test_a_callback_sees_every_step_and_its_latents(pipeline, monkeypatch):
    seen: list[Any] = []

    def euler(*args, callback, **options):
        def both(*step):
            seen.append(step)
            callback(*step)

        return sampler(*args, callback=both, **options)

    sampler = reference.euler
    monkeypatch.setattr(reference, "euler", euler)
    result = pipeline(*clip_of(2), generator=generator(), steps=3)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    np.testing.assert_allclose([sigma for _, sigma, _ in seen], reference.karras_sigmas(3)[:-1])
    latents = [x[0] for *_, x in seen]
    assert all(torch.equal(x, y) and x.shape == (2, 4, 8, 8) for x, y in zip(latents, result.latents, strict=True))


# Quirks of the conditioning.


def test_a_frame_without_negative_values_is_rescaled_once_more_for_the_vae_but_not_for_clip(pipeline):
    images, rgb = clip_of(3)
    images[1], rgb[2] = images[1].abs(), 0.0
    with Spy(pipeline.vae.encoder) as encoded, Spy(pipeline.image_encoder) as embedded:
        pipeline(images, rgb, generator=generator(), steps=1, noise_aug=0.0)
        pipeline.embed(images)
    torch.testing.assert_close(encoded[0][0], torch.stack([images[0], 2 * images[1] - 1, images[2]]))
    torch.testing.assert_close(encoded[1][0], torch.stack([rgb[0], rgb[1], torch.full_like(rgb[2], -1.0)]))
    assert torch.equal(embedded[0][0], embedded[1][0])


def test_each_condition_has_its_own_noise_in_the_order_n1_n2_latents(pipeline):
    images, rgb = clip_of(2)
    with Spy(pipeline.vae.encoder) as encoded, Spy(pipeline.unet) as calls:
        pipeline(images, rgb, generator=generator(4), steps=1)
    stream = generator(4)
    n1, n2 = (torch.randn((2, 1, 3, 32, 32), generator=stream)[:, 0] for _ in range(2))
    torch.testing.assert_close(encoded[0][0], images + 0.02 * n1)
    torch.testing.assert_close(encoded[1][0], rgb + 0.02 * n2)
    latents = torch.randn((1, 2, 4, 8, 8), generator=stream)
    x_in, _, _, time_ids = calls[0]
    torch.testing.assert_close(x_in[:, :, :4], latents.expand(2, -1, -1, -1, -1))
    assert not x_in[0, :, 4:].any()
    torch.testing.assert_close(x_in[1, :, 4:8], pipeline.encode(images + 0.02 * n1))
    torch.testing.assert_close(x_in[1, :, 8:], pipeline.encode(rgb + 0.02 * n2))
    torch.testing.assert_close(time_ids, torch.tensor([[7.0, 127.0, 0.02]] * 2))


def test_context_rows_follow_the_layout():
    e0, e1, e2 = e = torch.arange(1.0, 7.0).view(3, 2)
    zero = torch.zeros(2)
    rows = reference.context_rows(e, "reference", guided=True)
    assert torch.equal(rows[:, 0], torch.stack([zero, e0, zero, e1, zero, e2]))
    rows = reference.context_rows(e, "aligned", guided=True)
    assert torch.equal(rows[:, 0], torch.stack([zero, zero, zero, e0, e1, e2]))
    rows = reference.context_rows(e, "sequence", guided=True)
    assert rows.shape == (6, 3, 2)
    assert not rows[:3].any()
    assert all(torch.equal(row, e) for row in rows[3:])
    for layout in ("reference", "aligned"):
        assert torch.equal(reference.context_rows(e, layout, guided=False)[:, 0], e)


@pytest.mark.parametrize("frames", [4, 5])
def test_temporal_blocks_see_the_first_row_of_each_half(frames, pipeline):
    images, rgb = clip_of(frames)
    contexts: list[Any] = []
    attention = pipeline.unet.down_blocks[0].attentions[0].temporal_transformer_blocks[0].attn2
    handle = attention.register_forward_pre_hook(
        lambda _, __, kwargs: contexts.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    pipeline(images, rgb, generator=generator(), steps=1)
    handle.remove()
    uncond, cond = contexts[0].chunk(2)
    assert not uncond.any()
    want = pipeline.embed(images)[(frames - 1) // 2] if frames % 2 else torch.zeros(1, 32)
    torch.testing.assert_close(cond[:, 0], want.expand(len(cond), -1))


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 1.0), (0.0, 0.0)])
def test_guidance_of_at_most_one_runs_single_rows(scales, pipeline):
    images, rgb = clip_of(3)
    with Spy(pipeline.unet) as calls:
        plain = pipeline(images, rgb, generator=generator(), steps=2, guidance=scales)
    x_in, _, rows, time_ids = calls[0]
    assert x_in.shape == (1, 3, 12, 8, 8)
    assert time_ids.shape == (1, 3)
    torch.testing.assert_close(rows.rows[:, 0], pipeline.embed(images))
    aligned = pipeline(images, rgb, generator=generator(), steps=2, guidance=scales, context="aligned")
    assert torch.equal(plain.latents[-1], aligned.latents[-1])


def test_guidance_ramps_over_the_frames(pipeline):
    images, rgb = clip_of(3)

    def first_step(guidance):
        return pipeline(images, rgb, generator=generator(), steps=1, guidance=guidance, context="aligned").latents[0]

    ramp, low, high = first_step((1.2, 3.0)), first_step((1.2, 1.2)), first_step((3.0, 3.0))
    for got, want in zip(ramp, (low[0], (low[1] + high[1]) / 2, high[2]), strict=True):
        assert relative_l2(got, want) < 1e-4
    assert relative_l2(low, high) > 1e-2


def explicit_attention(attention: Any, hidden: Any, tokens: Any) -> Any:
    """Softmax attention of hidden [N,L,C] over tokens [N,S,D], written out."""
    q, k, v = attention.to_q(hidden), attention.to_k(tokens), attention.to_v(tokens)
    q, k, v = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return attention.to_out[0]((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["transformer_blocks", "temporal_transformer_blocks"])
def test_the_sequence_layout_is_attention_over_all_frames_embeddings(kind, pipeline):
    frames = 4
    images, rgb = clip_of(frames)
    attention = getattr(pipeline.unet.down_blocks[0].attentions[0], kind)[0].attn2
    seen: list[Any] = []
    handle = attention.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    pipeline(images, rgb, generator=generator(), steps=1, context="sequence")
    handle.remove()
    hidden, got = seen[0]
    embeds = pipeline.embed(images)
    half = len(hidden) // 2  # frames for the spatial blocks, pixels for the temporal ones
    tokens = torch.cat([torch.zeros(half, frames, 32), embeds.expand(half, -1, -1)])
    torch.testing.assert_close(got, explicit_attention(attention, hidden, tokens))
    one = explicit_attention(attention, hidden[half:], embeds[:1].expand(half, 1, -1))
    assert relative_l2(one, got[half:]) > 1e-3


def test_the_last_chunk_of_frames_is_decoded_unpadded(pipeline):
    latents = torch.randn((9, 4, 8, 8), generator=generator())
    got = pipeline.decode(latents, 8)
    alone = pipeline.vae.decode(latents[8:] / 0.18215, num_frames=1).sample
    torch.testing.assert_close(got[8:], alone)
    assert relative_l2(pipeline.decode(latents, 9)[8:], alone) > 1e-3


# Made checkpoints.


@pytest.mark.slow
def test_made_checkpoints_of_either_format_load_and_draw_the_same(tmp_path):
    results = []
    for authors_format in (True, False):
        folder = make_checkpoint(
            tmp_path / str(authors_format),
            seed=3,
            num_frames=14,
            vae_channels=(32, 64, 64),
            layers_per_block=2,
            authors_format=authors_format,
        )
        made = reference_pipeline(folder)
        assert made.vae_factor == 4
        results.append(made(*clip_of(14), generator=generator(), steps=2))
    result, same = results
    assert result.frames_u8.shape == (14, 32, 32, 3)
    assert result.latents[-1].shape == (14, 4, 8, 8)
    assert 0.3 < float(result.latents[-1].std()) < 3
    assert result.frames_u8.std() > 10
    assert relative_l2(result.latents[-1], same.latents[-1]) < 1e-6


@pytest.mark.slow
def test_frames_of_a_made_checkpoint_differ_in_their_embeddings_and_masks_are_mixed(tmp_path):
    made = reference_pipeline(make_checkpoint(tmp_path, seed=5))
    images, rgb = clip_of(5, size=64)
    embeds = made.embed(images)
    assert relative_l2(embeds[1], embeds[0]) > 0.02
    result = made(images, rgb, generator=generator(), steps=5)
    masks = reference.amodal_masks(result.frames_u8, np.full((5, 64, 64), -1, np.float32))
    assert 0.02 < masks.mean() < 0.98


def test_a_half_precision_pipeline_encodes_in_float32_and_draws_half_latents(tmp_path):
    made = make_checkpoint(tmp_path, block_out_channels=(32, 32), heads=(2, 2), vae_channels=(32, 32, 32))
    half, full = (reference_pipeline(made, dtype=d) for d in (torch.float16, torch.float32))
    with Spy(half.vae.encoder) as encoded, Spy(half.vae.decoder) as decoded, Spy(half.unet) as calls:
        result = half(*clip_of(2), generator=generator(), steps=2)
    assert encoded[0][0].dtype == torch.float32
    assert decoded[0][0].dtype == calls[0][0].dtype == result.latents[-1].dtype == torch.float16
    stream = generator()
    for _ in range(2):
        torch.randn((2, 1, 3, 32, 32), generator=stream)
    latents = torch.randn((1, 2, 4, 8, 8), generator=stream, dtype=torch.float16)
    want = full(*clip_of(2), generator=generator(), steps=2)
    torch.testing.assert_close(calls[0][0][:1, :, :4], latents, atol=2e-3, rtol=2e-3)
    assert np.isfinite(result.decoded).all()
    assert result.frames_u8.shape == want.frames_u8.shape


# Mistakes of the caller.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"context": "both"}, "context"),
        ({"decode_chunk": 0}, "decode_chunk"),
    ],
)
def test_an_option_out_of_range_is_named(options, message, pipeline):
    with pytest.raises(InputError, match=message):
        pipeline(*clip_of(2), generator=generator(), **options)


def test_conditions_of_different_shapes_are_refused(pipeline):
    with pytest.raises(InputError, match="must both be"):
        pipeline(clip_of(2)[0], clip_of(3)[1], generator=generator())

"""The recipe of the default model, on a handful of steps: what it promises, not what it reaches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers.models.attention_processor import AttnProcessor  # noqa: E402

from amodal.export.default_models import latents, loop  # noqa: E402
from amodal.export.default_models import unet as unet_training  # noqa: E402
from amodal.export.default_models.data import augmented, pictures  # noqa: E402
from amodal.export.default_models.decoder import train_decoder  # noqa: E402
from amodal.export.default_models.latents import Latents, encode_scenes, hidden_share  # noqa: E402
from amodal.export.default_models.recipe import FIRST_SEED, STAGES, Recipe, make_unet  # noqa: E402
from amodal.export.default_models.unet import _context, hidden_windows, noised, set_attention, train_unet, velocities  # noqa: E402
from amodal.export.default_models.vae import train_vae, trained_vae  # noqa: E402
from amodal.export.families.diffusion_vas.reference import UnrepeatedContext  # noqa: E402
from amodal.runtime.errors import InputError  # noqa: E402
from amodal.runtime.sampling.denoiser import denoised_of  # noqa: E402
from amodal.runtime.scenes import make_scene  # noqa: E402

SMALL = replace(
    Recipe(),
    frames=2,
    height=32,
    width=64,
    scenes=(1, 3),
    vae_steps=(3, 3),
    vae_scenes=(1, 1),
    steps=(3, 3),
    clips=2,
    decoder_steps=(0, 3),
    decoder_scenes=3,
)


@pytest.fixture(scope="module", autouse=True)
def plain_convolutions() -> Iterator[None]:
    """Convolutions without oneDNN, and in float32 on a CPU without AVX-512.

    oneDNN's backward of a bfloat16 convolution over maps 4 wide reads past their end (torch 2.13): at this toy's size,
    one run in three crashed. The recipe's windows have such maps too, far larger in all: 6300 steps ran through, with
    the right gradients, and a training that falls goes on where it last saved. Without AVX-512 a convolution in
    bfloat16 takes ten times as long as one in float32.
    """
    with pytest.MonkeyPatch.context() as patch, torch.backends.mkldnn.flags(enabled=False):
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            patch.setattr(torch, "autocast", partial(torch.autocast, enabled=False))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both stages were trained; the scenes of `complete` were encoded in this process."""
    folder = tmp_path_factory.mktemp("build")
    for stage in STAGES:
        train_vae(folder, stage, SMALL)
        with pytest.MonkeyPatch.context() as patch:
            if stage == "complete":
                patch.setattr(latents, "ProcessPoolExecutor", lambda workers, context: ThreadPoolExecutor(workers))
            encode_scenes(folder, stage, SMALL, workers=1)
        train_unet(folder, stage, SMALL)
        train_decoder(folder, stage, SMALL)
    return folder


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)  # after every step

    def run(folder: Path, stop: int | None) -> Any:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)

        def loss_of(step: int) -> tuple[Any, dict[str, float]]:
            if step == stop:
                raise KeyboardInterrupt
            given = torch.from_numpy(np.random.default_rng(step).standard_normal((5, 3), np.float32))
            loss = (module(given) - 1).square().mean()
            return loss, {"twice": 2 * loss.item()}

        loop.train(folder, "toy", module, loss_of, steps=7, lr=0.1, ema=0.9, cooldown=0.5)
        return module.state_dict()

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 4)
    resumed = run(tmp_path / "cut", None)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
    logs = [(tmp_path / name / "toy.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 7


def test_the_average_follows_the_weights_as_defined(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    seen = [module.weight.item()]

    def loss_of(step: int) -> tuple[Any, dict[str, float]]:
        if step:
            seen.append(module.weight.item())
        return module.weight.square().sum(), {}

    loop.train(tmp_path, "toy", module, loss_of, steps=5, lr=0.1, ema=0.5, cooldown=0.2)
    state = torch.load(tmp_path / "toy.pt", weights_only=True)
    average = seen[0]
    for step, weight in enumerate([*seen[1:], state["module"]["weight"].item()]):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    assert module.weight.item() == pytest.approx(average, rel=1e-5)


def test_the_target_is_what_the_runtime_denoises_with() -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 3, 4, 5, 6), np.float32), rng.standard_normal((2, 3, 4, 5, 6), np.float32)
    for sigma in (0.01, 1.0, 80.0):
        scale = np.full((2, 1, 1, 1, 1), sigma, np.float32)
        given, velocity = noised(clean, noise, scale)
        np.testing.assert_allclose(given, (clean + sigma * noise) / np.sqrt(sigma**2 + 1), rtol=1e-4, atol=1e-6)
        denoised = denoised_of(velocity, clean + scale * noise, np.float32(sigma))
        np.testing.assert_allclose(denoised, clean, atol=3e-4 * max(1.0, sigma / 8))


@pytest.mark.parametrize("layout", ["reference", "aligned", "sequence"])
def test_fast_attention_is_attention(layout: Any) -> None:
    rng = np.random.default_rng(1)
    sample = torch.from_numpy(rng.standard_normal((2, 2, 12, 8, 16), np.float32))
    context, log_sigma = rng.standard_normal((2, 2, 32), np.float32), rng.standard_normal(2).astype(np.float32)
    unet = make_unet(0, "segment").eval()
    with torch.no_grad():
        unet.set_attn_processor(AttnProcessor())
        plain = velocities(unet, sample, log_sigma, context, layout)
        set_attention(unet)
        fast = velocities(unet, sample, log_sigma, context, layout)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_a_dropped_clip_sees_what_guidance_shows_the_unconditional_row() -> None:
    embeddings = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    assert (_context(embeddings, "aligned", conditional=False) == 0).all()
    np.testing.assert_array_equal(_context(embeddings, "aligned", conditional=True), embeddings)
    np.testing.assert_array_equal(_context(embeddings, "reference", conditional=False)[:, 0], [0, 1, 0, 3])
    np.testing.assert_array_equal(_context(embeddings, "reference", conditional=True)[:, 0], [0, 5, 0, 7])


def test_pictures_are_what_the_pipeline_would_prepare() -> None:
    recipe = Recipe()
    for index in (0, 1):
        clip, scene = pictures(index, recipe), make_scene(FIRST_SEED + index)
        for name in ("modal", "depth", "amodal", "visible", "whole", "rgb"):
            frames = getattr(clip, name)
            assert frames.shape == (8, 3, 64, 128)
            assert frames.dtype == np.float32
            assert -1 <= frames.min() <= frames.max() <= 1
        np.testing.assert_array_equal(clip.amodal[:, 0] > 0, scene.amodal)
        assert ((clip.modal[:, 0] > 0) == scene.modal).mean() > 0.98
        # Clips of odd number come from twice the size, so that edges are grey.
        assert (len(np.unique(clip.modal)) > 2) == (index == 1)
        hidden = clip.modal[:, 0] <= 0
        assert (clip.visible.transpose(0, 2, 3, 1)[hidden] == 1).all()


def test_the_hidden_share_of_a_cell_is_counted_pixel_by_pixel() -> None:
    recipe = Recipe()
    clip, scene = pictures(4, recipe), make_scene(FIRST_SEED + 4)
    got = hidden_share(clip, (16, 32))
    assert got.shape == (8, 1, 16, 32)
    assert got.dtype == np.float32
    hidden = scene.amodal & ~(clip.modal[:, 0] > 0)
    assert hidden.any()
    for t, row, column in np.ndindex(8, 16, 32):
        pixels = [hidden[t, 4 * row + i, 4 * column + j] for i in range(4) for j in range(4)]
        assert got[t, 0, row, column] == pytest.approx(sum(pixels) / 16)


@pytest.mark.slow
def test_hidden_parts_weigh_more_in_the_loss(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that predicts 0, the loss is the mean square of the velocity, weighted by hand."""
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(unet_training, "train", lambda *a, **k: losses.append(a[3](0)[0].item()))
    monkeypatch.setattr(unet_training, "velocities", lambda unet, sample, *rest: torch.zeros_like(sample[:, :, :4]))
    plain = unet_training.noised

    def noised(*arrays: Any) -> Any:
        given.append(plain(*arrays))
        return given[-1]

    monkeypatch.setattr(unet_training, "noised", noised)
    losses: list[float] = []
    hidden = Latents(trained, "complete", SMALL).hidden
    assert hidden.any()
    for weight in (0.0, 10.0):
        recipe = replace(SMALL, hidden_weight=(0.0, weight), window_share=(0.0, 0.0))
        unet_training.train_unet(trained, "complete", recipe)
    rng = np.random.default_rng([SMALL.seed, 404, 0])
    chosen = rng.integers(3, size=SMALL.clips)
    where = hidden[chosen].astype(np.float64)
    backwards = rng.random(SMALL.clips) < 0.5
    where[backwards] = where[backwards, ::-1]
    velocity = given[0][1].astype(np.float64)
    np.testing.assert_array_equal(given[0][1], given[1][1])
    assert losses[0] == pytest.approx(np.square(velocity).mean(), rel=1e-4)
    weights = np.broadcast_to(1 + 10 * where, velocity.shape)
    assert losses[1] == pytest.approx(np.average(np.square(velocity), weights=weights), rel=1e-4)
    assert losses[1] != pytest.approx(losses[0], rel=1e-3)


def test_windows_lie_about_hidden_cells_by_their_share() -> None:
    hidden = np.zeros((3, 2, 1, 4, 16), np.float32)
    hidden[0, 1, 0, 2, 5] = 1  # one cell
    hidden[1, 0, 0, :, 0], hidden[1, 0, 0, :, 15] = 1, 3  # both edges, one thrice as hidden; the third clip has none
    starts = np.stack([hidden_windows(hidden, np.random.default_rng(seed))[:, 0] for seed in range(2000)])
    columns = hidden_windows(hidden, np.random.default_rng(0))
    np.testing.assert_array_equal(columns, columns[:, :1] + np.arange(8))
    assert (starts[:, 0] == 5 - 4).all()
    assert set(starts[:, 1]) == {0, 8}
    assert (starts[:, 1] == 8).mean() == pytest.approx(0.75, abs=0.03)
    assert set(starts[:, 2]) == set(range(9)), "all windows that fit"


@pytest.mark.slow
def test_steps_on_windows_see_half_of_conditions_and_target(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray[Any, Any]] = []

    def loss_once(folder: Any, name: str, module: Any, loss_of: Any, **options: Any) -> None:
        loss_of(0)

    def record(unet: Any, sample: Any, *rest: Any) -> Any:
        seen.append(sample.numpy())
        return sample[:, :, :4]

    monkeypatch.setattr(unet_training, "train", loss_once)
    monkeypatch.setattr(unet_training, "velocities", record)
    for share in (0.0, 1.0):
        unet_training.train_unet(trained, "complete", replace(SMALL, window_share=(0.0, share), dropout=0.0))
    whole, window = seen
    assert window.shape == (*whole.shape[:-1], whole.shape[-1] // 2)
    width = window.shape[-1]
    for one, part in zip(whole[:, :, 4:], window[:, :, 4:], strict=True):
        offsets = [x for x in range(width + 1) if np.array_equal(one[..., x : x + width], part)]
        assert len(offsets) == 1, "conditions of one window of the clip, none mixed"


def test_a_condition_is_rescaled_and_noisy() -> None:
    rng = np.random.default_rng(0)
    white = np.ones((2, 3, 8, 8), np.float32)
    bright = np.full((2, 3, 8, 8), 0.5, np.float32)
    assert augmented(white, 0.0, rng) == pytest.approx(white)
    assert augmented(bright, 0.0, rng) == pytest.approx(np.zeros_like(bright))
    assert augmented(-white, 0.02, rng).std() == pytest.approx(0.02, rel=0.2)


@pytest.mark.slow
def test_latents_are_of_unit_variance_and_decode_through_the_same_scale(trained: Path) -> None:
    vae = trained_vae(trained, "segment", SMALL)
    targets = np.concatenate([pictures(index, SMALL).target("segment") for index in range(16)])
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(targets)).latent_dist.mode()
    assert latents.std().item() == pytest.approx(1.0, rel=1e-3)
    average = torch.load(trained / "vae_segment.pt", weights_only=True)["average"]
    raw = trained_vae(trained, "segment", SMALL)
    raw.load_state_dict({k.removeprefix("vae."): v for k, v in average.items() if "probe" not in k})
    with torch.no_grad():
        frames = torch.from_numpy(targets[:2])
        want = raw.decode(raw.encode(frames).latent_dist.mode(), num_frames=2).sample
        got = vae.decode(vae.encode(frames).latent_dist.mode(), num_frames=2).sample
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_encoded_scenes_are_encoded_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = Latents(trained, "complete", SMALL)
    assert latents.conditioning.shape == (3, 2, 8, 8, 16)
    assert latents.target.shape == (3, 2, 4, 8, 16)
    assert latents.embeddings.shape == (3, 2, 32)
    file = trained / "latents_complete" / "0000.npz"
    before = file.stat().st_mtime_ns
    encode_scenes(trained, "complete", SMALL, workers=1)
    assert file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_decoder_learns_from_what_the_runtime_would_draw(trained: Path) -> None:
    """Latents as a plain sampler in float32 draws them, for the same conditions, noise, steps and guidance."""
    drawn = np.load(trained / "drawn_complete.npy").astype(np.float32)
    encoded = Latents(trained, "complete", SMALL)
    assert drawn.shape == encoded.target.shape
    unet = make_unet(SMALL.seed, "complete")
    unet.load_state_dict(torch.load(trained / "complete.pt", weights_only=True)["average"])
    unet.eval()
    # The last clip is a batch of its own.
    rng = np.random.default_rng([SMALL.seed, 505, 0, 2])
    steps, scale = int(rng.choice((6, 10, 25))), float(rng.choice((1.0, 1.5)))
    start = torch.from_numpy(rng.standard_normal((1, 2, 4, 8, 16), dtype=np.float32))
    condition = torch.from_numpy(encoded.conditioning[2:].astype(np.float32))
    embeddings = torch.from_numpy(encoded.embeddings[2].astype(np.float32))
    interleaved = torch.stack([torch.zeros_like(embeddings), embeddings], 1).flatten(0, 1)
    ids = torch.tensor([[7.0, 127.0, 0.02]])

    def distance(steps: int, scale: float) -> float:
        sigmas = [*np.linspace(700 ** (1 / 7), 0.002 ** (1 / 7), steps) ** 7, 0.0]
        rows = [(condition, embeddings)]
        if scale > 1:
            rows = [(torch.zeros_like(condition), interleaved[:2]), (condition, interleaved[2:])]
        x = start * np.hypot(700, 1)
        for sigma, following in itertools.pairwise(sigmas):
            time = torch.tensor(0.25 * np.log(sigma)).float()
            with torch.no_grad():
                outputs = [
                    unet(
                        torch.cat([x / np.hypot(sigma, 1), c], 2).float(), time, UnrepeatedContext(e[:, None]), ids
                    ).sample
                    for c, e in rows
                ]
            velocity = outputs[0] if scale <= 1 else outputs[0] + scale * (outputs[1] - outputs[0])
            denoised = x / (sigma * sigma + 1) - velocity * sigma / np.hypot(sigma, 1)
            x = x + (following - sigma) * (x - denoised) / sigma
        return float(np.linalg.norm(drawn[2:] - x.numpy()) / np.linalg.norm(x.numpy()))

    assert distance(steps, scale) < 0.02  # bfloat16 against float32
    assert min(distance(30 - steps, scale), distance(steps, 2.5 - scale)) > 0.1, "the test would not see it"


@pytest.mark.slow
def test_only_the_decoder_changes_and_the_bundle_takes_it(trained: Path) -> None:
    from amodal.export.default_models.checkpoint import write_checkpoints

    before = trained_vae(trained, "complete", SMALL).state_dict()
    learnt = torch.load(trained / "decoder_complete.pt", weights_only=True)["average"]
    place = write_checkpoints(trained, SMALL)["complete"]
    after = diffusers.AutoencoderKLTemporalDecoder.from_pretrained(place / "vae").state_dict()
    for name, value in after.items():
        _, inside, rest = name.partition("decoder.")
        expected = learnt[rest] if inside and not name.startswith("encoder.") else before[name]
        torch.testing.assert_close(value, expected.half().float(), rtol=0, atol=0)
    assert any(not torch.equal(before[f"decoder.{name}"], value) for name, value in learnt.items())
    assert not (trained / "decoder_segment.pt").exists()


@pytest.mark.slow
def test_the_recipe_ends_in_a_bundle_that_runs(trained: Path, tmp_path: Path) -> None:
    import amodal
    from amodal.export.default_models.checkpoint import write_bundle
    from amodal.export.default_models.domain import measure_domain
    from amodal.export.default_models.loop import plot_losses

    rows = write_bundle(trained, tmp_path / "bundle", SMALL)
    assert {row.entry.stored for row in rows} == {"fp16"}
    assert {row.entry.precision for row in rows} == {"fp32"}
    scene = make_scene(1, 2, (32, 64))
    with amodal.load(tmp_path / "bundle", threads=1) as model:
        assert model.config.scaling_factor == 1.0
        assert model.config.propagate
        assert model.config.domain == measure_domain(SMALL)
        seen = model.segment(scene.modal, depth=scene.depth, steps=2)
        whole = model.complete(scene.frames, scene.modal, seen.masks, steps=2)
    assert whole.frames.shape == (2, 32, 64, 3)
    assert plot_losses(trained).stat().st_size > 5000


def test_a_recipe_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="steps is"):
        replace(Recipe(), steps=(0, 5))

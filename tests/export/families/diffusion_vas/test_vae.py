"""The VAE's and the image encoder's graphs against the untouched modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from amodal.export.families.diffusion_vas.clip import write_image_encoder  # noqa: E402
from amodal.export.families.diffusion_vas.vae import write_decoder, write_encoder  # noqa: E402
from amodal.export.graph.variants import VARIANTS  # noqa: E402
from amodal.export.graph.writer import Dtypes  # noqa: E402

DTYPES = {half: Dtypes.of("fp16" if half else "fp32") for half in (False, True)}

BOTH = pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
HALF = pytest.mark.parametrize("half", [False, True])


def vae(widths: tuple[int, ...], layers: int) -> tuple[Any, dict[str, Any]]:
    config = {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "latent_channels": 4,
    }
    return diffusers.AutoencoderKLTemporalDecoder(**config).eval(), config


@BOTH
@HALF
@pytest.mark.parametrize(("widths", "layers"), [((32, 32, 32, 64), 1), ((32, 64, 64), 2), ((32, 32), 3)])
def test_the_encoder_gives_the_mode_of_the_posterior(
    widths: tuple[int, ...], layers: int, variant: Any, half: bool, session: Any, seeded: Any, assert_close: Any
) -> None:
    module, config = vae(widths, layers)
    run = session(write_encoder(seeded(module, 1), config, (32, 64), variant, dtypes=DTYPES[half]))
    frames = torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module.encode(frames).latent_dist.mode()
    assert_close(run(frames=frames)["latents"], expected, half, rows=True)


@BOTH
@HALF
@pytest.mark.parametrize(("widths", "layers"), [((32, 32, 32, 64), 1), ((32, 64, 64), 2), ((32, 32), 3)])
def test_the_decoder_draws_any_number_of_frames(
    widths: tuple[int, ...], layers: int, variant: Any, half: bool, session: Any, seeded: Any, assert_close: Any
) -> None:
    module, config = vae(widths, layers)
    run = session(write_decoder(seeded(module, 3), config, (4, 8), variant, dtypes=DTYPES[half]))
    for count in (1, 3, 8):
        latents = torch.randn(count, 4, 4, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = module.decode(latents, num_frames=count).sample
        assert_close(run(latents=latents)["frames"], expected, half, rows=True)


def test_padding_a_chunk_changes_the_frame_that_was_not_padding(session: Any, seeded: Any) -> None:
    module, config = vae((32, 32), 1)
    run = session(write_decoder(seeded(module, 4), config, (4, 8), VARIANTS["cpu"], dtypes=DTYPES[False]))
    latents = np.random.default_rng(5).standard_normal((1, 4, 4, 8), np.float32)
    alone, padded = run(latents=latents)["frames"], run(latents=np.repeat(latents, 8, axis=0))["frames"]
    assert np.linalg.norm(padded[0] - alone[0]) > 1e-3 * np.linalg.norm(alone)


@BOTH
@HALF
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_image_encoder_is_clips(
    activation: str, variant: Any, half: bool, session: Any, seeded: Any, assert_close: Any
) -> None:
    config = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "projection_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 56,
        "patch_size": 14,
        "hidden_act": activation,
        "layer_norm_eps": 1e-5,
    }
    module = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**config)).eval()
    weights = seeded(module, 6)
    if not any(name.startswith("vision_model.") for name in weights):
        pytest.skip("this release of transformers names the module's tensors otherwise; test_checkpoint has that")
    run = session(write_image_encoder(weights, config, variant, dtypes=DTYPES[half]))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = module(pixels).image_embeds
    assert_close(run(pixels=pixels)["embeddings"], expected, half, rows=True)

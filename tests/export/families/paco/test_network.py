"""PACO in torch: against Stable Diffusion's own modules where both must agree, loops where PACO adds something."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from amodal.export.families.paco import network as networks
from amodal.export.families.paco.generator import conditions, noise_loss
from amodal.export.families.paco.network import Paco, empty_network, from_stable_diffusion, random_network
from amodal.export.families.paco.parallel_vae import query_attention
from amodal.runtime.errors import CheckpointError, InputError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion in the layout of 2.1: one head count per block, linear projections."""
    root = tmp_path_factory.mktemp("sd")
    torch.manual_seed(0)
    extra = {"attention_head_dim": [2, 4], "use_linear_projection": True}
    diffusers.UNet2DConditionModel(**networks._TINY_UNET | extra).save_pretrained(root / "unet")
    diffusers.AutoencoderKL(**networks._TINY_VAE, latent_channels=4).save_pretrained(root / "vae")
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**networks._TINY_TEXT))
    text.save_pretrained(root / "text_encoder")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (root / "model_index.json").write_text(json.dumps(index))
    return root


@pytest.fixture(scope="module")
def tiny() -> Paco:
    return random_network("tiny", seed=1)


@torch.no_grad()
def test_before_training_the_generator_is_stable_diffusion(stable_diffusion: Path) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(stable_diffusion / "unet").eval()
    network = from_stable_diffusion(stable_diffusion)
    steps, text = torch.tensor([981, 21]), noise(2, 77, 32)
    drawn = network.generator(noise(2, 4, 8, 12), steps, noise(2, 7, 8, 12), text)
    assert torch.equal(drawn, unet(noise(2, 4, 8, 12), steps, text).sample)
    copied: Any = network.generator.clone.down_blocks
    pairs = zip(copied.parameters(), unet.down_blocks.parameters(), strict=True)
    assert all(torch.equal(copy, original) for copy, original in pairs)


@torch.no_grad()
def test_the_clone_is_a_control_net_whose_conditions_enter_before_its_first_convolution(tiny: Paco) -> None:
    generator = tiny.generator
    control = diffusers.ControlNetModel.from_unet(generator.unet).eval()
    for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
        getattr(control, name).load_state_dict(getattr(generator.clone, name).state_dict())
    control.controlnet_down_blocks.load_state_dict(generator.clone.exits.state_dict())
    control.controlnet_mid_block.load_state_dict(generator.clone.last_exit.state_dict())
    control.controlnet_cond_embedding = torch.nn.Identity()
    noisy, steps, condition, text = noise(2, 4, 8, 12), torch.tensor([981, 21]), noise(2, 7, 8, 12), noise(2, 77, 32)
    entered = noisy + generator.clone.entry(condition)
    expected, middle = control(entered, steps, text, controlnet_cond=torch.zeros(()), return_dict=False)
    skips, last = generator.clone(noisy, steps, condition, text)
    for one, other in zip([*skips, last], [*expected, middle], strict=True):
        torch.testing.assert_close(one, other)
    drawn = generator(noisy, steps, condition, text)
    plain = generator.unet(noisy, steps, text).sample
    assert (drawn - plain).abs().max() > 0.01


@torch.no_grad()
def test_one_object_is_encoded_as_stable_diffusion_encodes_it(stable_diffusion: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(stable_diffusion / "vae").eval()
    picture = noise(1, 3, 16, 24)
    found = from_stable_diffusion(stable_diffusion).vae.encode(picture)
    expected = vae.encode(picture).latent_dist
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.logvar.clamp(-30, 20), expected.logvar)


@torch.no_grad()
def test_objects_are_summed_after_the_first_convolution_with_a_bias_each(tiny: Paco) -> None:
    objects = noise(3, 3, 16, 24)
    first = tiny.vae.encoder.conv_in
    # A convolution of the sum has the bias once; the sum of convolutions has it three times.
    once = first(objects.sum(0, keepdim=True)) + 2 * first.bias[None, :, None, None]
    handle = first.register_forward_hook(lambda *_: once)
    expected = tiny.vae.encode(objects)
    handle.remove()
    found = tiny.vae.encode(objects)
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-5, rtol=1e-5)
    swapped = tiny.vae.encode(objects[[2, 0, 1]])
    torch.testing.assert_close(found.mean, swapped.mean, atol=1e-5, rtol=1e-5)


def test_equation_1_is_a_softmax_over_every_cell_of_the_map() -> None:
    q, k, v = noise(2, 5, 3, 4), noise(1, 5, 3, 4, seed=1), noise(1, 2, 3, 4, seed=2)
    found = query_attention(q, k, v)
    for n in range(2):
        for y in range(3):
            for x in range(4):
                scores = torch.stack(
                    [(q[n, :, y, x] * k[0, :, i, j]).sum() / 5**0.5 for i in range(3) for j in range(4)]
                )
                shares = scores.exp() / scores.exp().sum()
                values = torch.stack([v[0, :, i, j] for i in range(3) for j in range(4)])
                torch.testing.assert_close(found[n, :, y, x], (shares[:, None] * values).sum(0))


@pytest.mark.parametrize("query", ["literal", "concat"])
@torch.no_grad()
def test_a_mask_asks_for_its_object_whatever_others_are_asked_for(query: Any) -> None:
    network = random_network("tiny", seed=2, query=query)
    full, masks = noise(1, 4, 8, 12), (noise(3, 1, 16, 24) > 0).float()
    rgb, logits = network.vae.decode(full, masks)
    assert rgb.shape == (3, 3, 16, 24)
    assert logits.shape == (3, 1, 16, 24)
    alone = network.vae.decode(full, masks[1:2])
    torch.testing.assert_close(torch.cat(alone, 1)[0], torch.cat([rgb, logits], 1)[1], atol=1e-5, rtol=1e-5)
    assert (rgb[0] - rgb[1]).abs().max() > 1e-4


@torch.no_grad()
def test_before_training_the_decoder_draws_as_stable_diffusion_and_no_mask(stable_diffusion: Path) -> None:
    vae = diffusers.AutoencoderKL.from_pretrained(stable_diffusion / "vae").eval()
    network = from_stable_diffusion(stable_diffusion)
    network.vae.query = _Whole()
    rgb, logits = network.vae.decode(noise(1, 4, 8, 12), torch.ones(1, 1, 16, 24))
    torch.testing.assert_close(rgb, vae.decode(noise(1, 4, 8, 12)).sample)
    assert not logits.any()


class _Whole(torch.nn.Module):
    def forward(self, full: Tensor, masks: Tensor) -> Tensor:
        return full


def test_conditions_are_the_map_then_means_over_cells() -> None:
    partial, maps = noise(1, 4, 2, 3), [(noise(1, 1, 16, 24, seed=s) > 0).float() for s in range(3)]
    found = conditions(partial, *maps)
    assert torch.equal(found[:, :4], partial)
    for index, each in enumerate(maps):
        expected = each.reshape(2, 8, 3, 8).mean((1, 3))
        torch.testing.assert_close(found[0, 4 + index], expected)


def test_equation_6_is_the_mean_squared_difference() -> None:
    one, other = noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1)
    squares = [(a - b) ** 2 for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)]
    assert noise_loss(one, other).item() == pytest.approx(sum(squares) / 72)


def test_the_real_size_is_stable_diffusions() -> None:
    network = empty_network("paco")
    counts = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in network.named_children()}
    assert sum(p.numel() for p in network.generator.unet.parameters()) == 859_520_964
    assert counts["generator"] == pytest.approx(1219.7, abs=0.1)
    assert counts["text_encoder"] == pytest.approx(123.06, abs=0.01)
    assert counts["vae"] == pytest.approx(83.66, abs=0.05)
    assert network.vae.cell == 8


def test_random_weights_are_those_of_their_seed() -> None:
    first, again, other = (random_network("tiny", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["generator.clone.entry.weight"], other["generator.clone.entry.weight"])
    assert not any(tensor.is_meta for tensor in first.values())
    prompt = random_network("tiny").text_encoder(torch.arange(77)[None]).last_hidden_state
    assert prompt.shape == (1, 77, 32)
    with pytest.raises(InputError, match="paco, tiny"):
        random_network("small")


def _index(root: Path, **facts: Any) -> None:
    file = root / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def _unet(root: Path, **facts: Any) -> None:
    file = root / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: _unet(root, in_channels=9), "is Stable Diffusion for inpainting"),
        (lambda root: _unet(root, in_channels=8), "takes 8 channels"),
        (lambda root: _unet(root, addition_embed_type="text_time"), "is Stable Diffusion XL"),
        (lambda root: _index(root, text_encoder_2=["transformers", "CLIP"]), "is Stable Diffusion XL"),
        (lambda root: _index(root, _class_name="StableDiffusion3Pipeline"), "is Stable Diffusion 3"),
        (
            lambda root: (root / "model_index.json").write_text("{}"),
            "of no kind that its model_index.json names",
        ),
        (lambda root: (root / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda root: (root / "vae" / "diffusion_pytorch_model.safetensors").unlink(), "holds no weights"),
        (
            lambda root: (root / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no tensors"),
            "vae cannot be read",
        ),
    ],
)
def test_checkpoints_of_another_kind_are_named(
    stable_diffusion: Path, tmp_path: Path, spoil: Callable[[Path], Any], sentence: str
) -> None:
    root = Path(shutil.copytree(stable_diffusion, tmp_path / "sd"))
    spoil(root)
    with pytest.raises(CheckpointError, match=sentence):
        from_stable_diffusion(root)


def _rewrite(root: Path, folder: str, rename: Callable[[str], str | None], dtype: torch.dtype = torch.float32) -> None:
    (file,) = (root / folder).glob("*.safetensors")
    tensors = {rename(name): tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name}, file, {"format": "pt"})


def test_the_names_and_the_half_precision_of_old_files_are_read(stable_diffusion: Path, tmp_path: Path) -> None:
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name: str) -> str:
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    root = Path(shutil.copytree(stable_diffusion, tmp_path / "sd"))
    _rewrite(root, "vae", rename, torch.float16)
    expected, found = from_stable_diffusion(stable_diffusion).vae, from_stable_diffusion(root).vae
    for name, tensor in expected.state_dict().items():
        if not name.startswith("query."):
            assert torch.equal(found.state_dict()[name], tensor.half().float())


@pytest.mark.parametrize("folder", ["unet", "vae", "text_encoder"])
def test_no_tensor_is_left_at_random_or_ignored(stable_diffusion: Path, tmp_path: Path, folder: str) -> None:
    root = Path(shutil.copytree(stable_diffusion, tmp_path / "sd"))
    (file,) = (root / folder).glob("*.safetensors")
    first = sorted(load_file(file))[-1]
    _rewrite(root, folder, lambda name: f"{name}_more" if name == first else name)
    with pytest.raises(CheckpointError, match="is incomplete: there is no tensor"):
        from_stable_diffusion(root)
    shutil.copy(stable_diffusion / folder / file.name, file)
    tensors = load_file(file)
    save_file(tensors | {"other.weight": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no place for the tensor other\.weight"):
        from_stable_diffusion(root)

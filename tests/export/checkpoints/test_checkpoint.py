"""Checkpoints in every format that is read, each way of being broken, and random ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402
from huggingface_hub.utils import filter_repo_objects  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from amodal.export.checkpoints import checkpoint as module_under_test  # noqa: E402
from amodal.export.checkpoints.checkpoint import Network, random_checkpoint, read_checkpoint  # noqa: E402
from amodal.export.checkpoints.files import read_licence  # noqa: E402
from amodal.export.graph import weights as weights_module  # noqa: E402
from amodal.runtime.errors import CheckpointError  # noqa: E402

from ...checkpoints import load_modules, make_checkpoint  # noqa: E402
from ...places import SHARED  # noqa: E402

RECORDED = SHARED / "reference"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is absent")
SMALL: dict[str, Any] = {"block_out_channels": (32, 32), "heads": (2, 2), "vae_channels": (32, 32, 32)}
NETWORKS = ("unet", "vae", "image_encoder")
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
CLIP = "image_encoder/model.safetensors"


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the authors' format; not to be changed."""
    return make_checkpoint(tmp_path_factory.mktemp("authors") / "stage", **SMALL)


@pytest.fixture(scope="module")
def sharded_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as `authors`, halved and in shards; not to be changed."""
    folder = tmp_path_factory.mktemp("sharded") / "stage"
    return make_checkpoint(folder, variant="fp16", sharded=True, **SMALL)


@pytest.fixture(scope="module")
def want(authors: Path) -> dict[str, dict[str, Any]]:
    """What the networks of `authors` are to hold, read by other code."""
    modules = load_modules(authors)
    return {name: getattr(modules, name).state_dict() for name in NETWORKS}


@pytest.fixture
def copy(authors: Path, tmp_path: Path) -> Path:
    return shutil.copytree(authors, tmp_path / "stage")


def edit_json(file: Path, *without: str, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (content | changes).items() if k not in without}))


def edit_tensors(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(file)
    edit(tensors)
    file.unlink()  # the tensors are mapped from it
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def assert_same_weights(got: Network, want: dict[str, Any], half: bool = False) -> None:
    assert set(got.weights) == set(want)
    for name, tensor in want.items():
        expected = tensor.half().float() if half else tensor
        assert got.weights.shape(name) == tuple(tensor.shape)
        assert torch.equal(got.weights.load(name), expected), name


def assert_same_checkpoint(got: Any, want: dict[str, dict[str, Any]], half: bool = False) -> None:
    for name in NETWORKS:
        assert_same_weights(getattr(got, name), want[name], half)


def add_variant(root: Path, variant: str, files: Any = (UNET, VAE, CLIP), scale: float = 1) -> None:
    for file in files:
        tensors = {name: (scale * tensor).half() for name, tensor in load_file(root / file).items()}
        save_file(tensors, root / file.replace(".safetensors", f".{variant}.safetensors"))


# Formats


def test_the_authors_live_first_layer_takes_the_place_of_the_dead_one(authors):
    got = read_checkpoint(authors).unet
    on_disk = load_file(authors / UNET)
    assert json.loads((authors / "unet/config.json").read_text())["in_channels"] == 8
    assert got.config["in_channels"] == 12
    for part in ("weight", "bias"):
        assert torch.equal(got.weights.load(f"conv_in.{part}"), on_disk[f"conv_in2.{part}"])
        assert f"conv_in2.{part}" not in got.weights


def test_the_authors_format_is_read_whole(authors, want):
    assert_same_checkpoint(read_checkpoint(authors), want)


def test_a_stock_checkpoint_in_shards_holds_the_same_weights(want, tmp_path):
    made = make_checkpoint(tmp_path, authors_format=False, sharded=True, **SMALL)
    assert_same_checkpoint(read_checkpoint(made), want)


@pytest.mark.parametrize("asked", [None, "fp16"])
def test_a_variant_in_shards_holds_the_same_weights_in_half_precision(sharded_fp16, want, asked):
    assert_same_checkpoint(read_checkpoint(sharded_fp16, variant=asked), want, half=True)


@pytest.mark.parametrize("asked", [None, "fp16"])
def test_a_variant_in_one_file_holds_the_same_weights_in_half_precision(want, copy, asked):
    add_variant(copy, "fp16")
    for file in (UNET, VAE, CLIP):
        (copy / file).unlink()
    assert_same_checkpoint(read_checkpoint(copy, variant=asked), want, half=True)


@needs_recorded
@pytest.mark.parametrize("name", ["diffusion-vas-amodal-segmentation", "diffusion-vas-content-completion"])
def test_the_recorded_checkpoints_are_read(name):
    got = read_checkpoint(RECORDED / name)
    on_disk = load_file(RECORDED / name / UNET)
    assert torch.equal(got.unet.weights.load("conv_in.weight"), on_disk["conv_in2.weight"])
    assert got.source == str(RECORDED / name)
    assert got.unet.source == str(RECORDED / name / "unet")


def test_plain_weights_are_preferred_and_a_variant_is_taken_when_asked_for(copy):
    add_variant(copy, "fp16", scale=2)
    got = {variant: read_checkpoint(copy, variant=variant).unet.weights for variant in (None, "fp16")}
    loaded = {variant: weights.load("conv_out.weight") for variant, weights in got.items()}
    plain = load_file(copy / UNET)["conv_out.weight"]
    assert torch.equal(loaded[None], plain)
    assert torch.equal(loaded["fp16"], (2 * plain).half().float())


def test_a_single_file_wins_over_a_leftover_index(copy):
    (copy / f"{UNET}.index.json").write_text('{"weight_map": {"conv_in.weight": "gone.safetensors"}}')
    assert "conv_in.weight" in read_checkpoint(copy).unet.weights


def test_old_attention_names_of_the_vae_become_the_new_ones(want, copy):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".attentions." in name]:
            for new, was in old.items():
                if f".{new}." in name:
                    tensors[name.replace(new, was)] = tensors.pop(name)

    edit_tensors(copy / VAE, rename)
    assert any(".proj_attn." in name for name in load_file(copy / VAE))
    assert_same_weights(read_checkpoint(copy).vae, want["vae"])


def test_the_text_tower_of_a_whole_clip_is_left_alone(want, copy):
    config = copy / "image_encoder/config.json"
    vision = json.loads(config.read_text())
    width = vision.pop("projection_dim")
    config.write_text(
        json.dumps({"model_type": "clip", "projection_dim": width, "vision_config": vision, "text_config": {}})
    )
    others = {
        "text_model.encoder.layers.0.layer_norm1.weight": torch.ones(3),
        "text_projection.weight": torch.ones(2, 3),
        "logit_scale": torch.ones(()),
        "vision_model.embeddings.position_ids": torch.arange(50)[None],
    }
    edit_tensors(copy / CLIP, lambda tensors: tensors.update(others))
    assert_same_weights(read_checkpoint(copy).image_encoder, want["image_encoder"])


@pytest.mark.parametrize("prefix", ["", "vision_model.vision_model."])
def test_a_transformers_with_other_module_names_reads_the_same_files(authors, prefix, monkeypatch):
    want = read_checkpoint(authors).image_encoder
    build = module_under_test._build

    def renaming(kind: Any, config: Any, source: str) -> Any:
        module: Any = build(kind, config, source)
        if kind != "image_encoder":
            return module
        other = torch.nn.Module()
        other.config = module.config
        other.visual_projection = module.visual_projection
        inner = other
        for name in prefix.split(".")[:-1]:
            inner.add_module(name, torch.nn.Module())
            inner = getattr(inner, name)
        for name, child in module.vision_model.named_children():
            inner.add_module(name, child)
        return other

    monkeypatch.setattr(module_under_test, "_build", renaming)
    got = read_checkpoint(authors).image_encoder
    assert_same_weights(got, {name: want.weights.load(name) for name in want.weights})
    random = random_checkpoint("tiny", "segment").image_encoder
    assert set(random.weights) == set(want.weights)
    loaded = got.load().state_dict()
    name = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(loaded[prefix + name], want.weights.load(f"vision_model.{name}"))


def test_config_keys_that_a_file_leaves_out_are_filled_in(copy):
    edit_json(copy / "unet/config.json", "transformer_layers_per_block", "num_frames", "out_channels")
    edit_json(copy / "vae/config.json", "scaling_factor", "latent_channels")
    edit_json(copy / "image_encoder/config.json", "hidden_act", "layer_norm_eps", "image_size")
    got = read_checkpoint(copy)
    unet, vae, clip = (getattr(got, name).config for name in NETWORKS)
    assert (unet["transformer_layers_per_block"], unet["num_frames"], unet["out_channels"]) == (1, 25, 4)
    assert (vae["scaling_factor"], vae["latent_channels"]) == (0.18215, 4)
    assert (clip["hidden_act"], clip["layer_norm_eps"], clip["image_size"]) == ("quick_gelu", 1e-5, 224)
    assert not any(key.startswith("_") for config in (unet, vae, clip) for key in config)


def test_one_context_width_per_level_becomes_one_width(copy):
    edit_json(copy / "unet/config.json", cross_attention_dim=[32, 32])
    assert read_checkpoint(copy).unet.config["cross_attention_dim"] == 32


def test_heads_may_be_one_number(copy):
    edit_json(copy / "unet/config.json", num_attention_heads=2)
    assert read_checkpoint(copy).unet.config["num_attention_heads"] == 2


def test_the_schedule_has_the_papers_sigmas_unless_told_otherwise(copy):
    file = copy / "scheduler/scheduler_config.json"
    want = {
        "sigma_min": 0.002,
        "sigma_max": 700.0,
        "prediction_type": "v_prediction",
        "num_train_timesteps": 1000,
    }
    edit_json(file, "sigma_min", sigma_max=None)
    assert want.items() <= read_checkpoint(copy).scheduler.items()
    edit_json(file, sigma_min=0.01, sigma_max=80)
    assert (want | {"sigma_min": 0.01, "sigma_max": 80}).items() <= read_checkpoint(copy).scheduler.items()


def test_the_normalisation_is_clips_unless_told_otherwise(copy):
    want = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    got = read_checkpoint(copy)
    assert (got.image_mean, got.image_std) == want
    edit_json(copy / "feature_extractor/preprocessor_config.json", "image_std", image_mean=[0.5, 0.5, 1])
    got = read_checkpoint(copy)
    assert (got.image_mean, got.image_std) == ((0.5, 0.5, 1.0), want[1])
    shutil.rmtree(copy / "feature_extractor")
    got = read_checkpoint(copy)
    assert (got.image_mean, got.image_std) == want


# What comes out


def test_nothing_is_loaded_before_it_is_asked_for(authors, monkeypatch):
    loaded: list[str] = []

    class Spying:
        def __init__(self, *args: Any, **options: Any) -> None:
            self._handle = safe_open(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._handle, name)

        def get_tensor(self, name: str) -> Any:
            loaded.append(name)
            return self._handle.get_tensor(name)

    monkeypatch.setattr(weights_module, "safe_open", Spying)
    got = read_checkpoint(authors)
    assert all(got.unet.weights.shape(name) is not None for name in got.unet.weights)
    assert loaded == []
    got.unet.weights.load("conv_in.bias")
    assert loaded == ["conv_in2.bias"]


@pytest.mark.parametrize("name", NETWORKS)
def test_modules_are_built_on_meta_and_loaded_ready_to_run(authors, want, name):
    network = getattr(read_checkpoint(authors), name)
    built = network.build()
    assert type(built).__name__ in {
        "UNetSpatioTemporalConditionModel",
        "AutoencoderKLTemporalDecoder",
        "CLIPVisionModelWithProjection",
    }
    assert {tensor.device.type for tensor in built.state_dict().values()} == {"meta"}
    loaded = network.load()
    assert not loaded.training
    assert {t.device.type for t in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    assert all(torch.equal(t, want[name][n]) for n, t in loaded.state_dict().items())


@torch.no_grad()
def test_a_loaded_image_encoder_draws_what_transformers_own_loader_draws(authors):
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    loaded: Any = read_checkpoint(authors).image_encoder.load()
    theirs = transformers.CLIPVisionModelWithProjection.from_pretrained(authors / "image_encoder").eval()
    assert torch.equal(loaded(pixels).image_embeds, theirs(pixels).image_embeds)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "---\nlicense: mit\ntags: []\n---\n# A model\nlicense: no\n"}, "mit"),
        (
            {"README.md": "---\ntags: []\nlicense: 'apache-2.0' \n---\n", "LICENSE": "MIT License"},
            "apache-2.0",
        ),
        ({"README.md": "---\nlicense: other\nlicense_name: stable-video\n---\n"}, "stable-video"),
        ({"README.md": "---\nlicense: other\n---\n"}, "other"),
        ({"README.md": "# A model\nlicense: mit\n"}, None),
        ({"LICENSE.md": "\n  MIT License\n\nCopyright"}, "MIT License (LICENSE.md)"),
        ({"LICENSE-CC-BY": ""}, "LICENSE-CC-BY"),
    ],
)
def test_the_licence_is_found(tmp_path, files, licence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert read_licence(tmp_path) == licence


# Broken ones


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def pickle_only(root: Path) -> None:
    (root / UNET).unlink()
    (root / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")


def variants_only(root: Path) -> None:
    for variant in ("bf16", "fp16"):
        shutil.copy(root / VAE, root / f"vae/diffusion_pytorch_model.{variant}.safetensors")
    (root / VAE).unlink()


def index_naming(weight_map: Any) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / CLIP).unlink()
        (root / f"{CLIP}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return write


def tensors(file: str, edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda root: edit_tensors(root / file, edit)


def config(file: str, *without: str, **changes: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root / file, *without, **changes)


def first_and_second(tensors: dict[str, Any]) -> None:
    del tensors["encoder.conv_in.bias"], tensors["decoder.conv_in.weight"]


def plain_svd(tensors: dict[str, Any]) -> None:
    del tensors["conv_in2.weight"], tensors["conv_in2.bias"]


SCHEDULER = "scheduler/scheduler_config.json"
EXTRACTOR = "feature_extractor/preprocessor_config.json"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (
        lambda r: (r / "model_index.json").unlink(),
        r"stage/model_index\.json is missing.*check the path",
    ),
    "no folder": (
        lambda r: shutil.rmtree(r / "unet"),
        r"stage/unet/config\.json is missing.*whole checkpoint",
    ),
    "no scheduler": (lambda r: shutil.rmtree(r / "scheduler"), r"scheduler_config\.json is missing"),
    "corrupt index": (
        lambda r: (r / "model_index.json").write_text("{"),
        r"model_index\.json cannot be read as",
    ),
    "corrupt json": (
        lambda r: truncate(r / "vae/config.json"),
        r"vae/config\.json cannot be read as JSON.*again",
    ),
    "binary json": (
        lambda r: (r / SCHEDULER).write_bytes(b"\xff\0"),
        r"scheduler_config\.json cannot be read as",
    ),
    "json list": (
        lambda r: (r / "vae/config.json").write_text("[]"),
        r"vae/config\.json holds no JSON object",
    ),
    "truncated": (
        lambda r: truncate(r / UNET),
        r"model\.safetensors is not a readable safe.*download it again",
    ),
    "empty file": (
        lambda r: (r / CLIP).write_bytes(b""),
        r"image_encoder/model\.safetensors is not a readable",
    ),
    "no weights": (lambda r: (r / VAE).unlink(), r"stage/vae holds no weights; expected diff.*again"),
    "pickle": (
        pickle_only,
        r"unet/diffusion_pytorch_model\.bin holds a pickle; expected.*safetensors.*convert with",
    ),
    "two variants": (
        variants_only,
        r"vae has weights of several variants and no plain ones; .* bf16, fp16\.",
    ),
    "missing shard": (
        index_naming({"a": "b.safetensors"}),
        r"image_encoder/b\.safetensors is missing, which model\.",
    ),
    "empty shards": (index_naming({}), r"model\.safetensors\.index\.json has no weight_map; download"),
    "missing tensor": (tensors(VAE, first_and_second), r"stage/vae lacks the tensor encoder\.conv_in\.bias;"),
    "no live bias": (
        tensors(UNET, lambda t: t.pop("conv_in2.bias")),
        r"unet lacks the tensor conv_in2\.bias",
    ),
    "no live weight": (
        tensors(UNET, lambda t: t.pop("conv_in2.weight")),
        r"conv_in\.weight takes 8.*no conv_in2\.w",
    ),
    "no first layer": (
        tensors(UNET, lambda t: [t.pop(n) for n in list(t) if n.startswith("conv_in")]),
        r"unet lacks the tensor conv_in\.weight",
    ),
    "misshapen": (
        tensors(CLIP, lambda t: t.update({"visual_projection.weight": torch.zeros(32, 7)})),
        r"image_encoder: tensor visual_projection\.weight has shape \[32, 7\] where.* asks for \[32, 64\]",
    ),
    "misshapen live bias": (
        tensors(UNET, lambda t: t.update({"conv_in2.bias": torch.zeros(5)})),
        r"stage/unet: tensor conv_in2\.bias has shape \[5\] where the config asks for \[32\]",
    ),
    "scalar first layer": (
        tensors(UNET, lambda t: t.update({"conv_in2.weight": torch.zeros(())})),
        r"stage/unet: tensor conv_in2\.weight has shape \[\]",
    ),
    "plain svd": (
        tensors(UNET, plain_svd),
        r"conv_in\.weight takes 8 channels.*expected 12.*plain Stable Video",
    ),
    "nine channels": (
        tensors(UNET, lambda t: t.update({"conv_in2.weight": torch.zeros(32, 9, 3, 3)})),
        r"stage/unet: conv_in2\.weight takes 9 channels; expected 12, the latents' 4 and 4 for each",
    ),
    "more layers than the config": (
        tensors(CLIP, lambda t: t.update({"vision_model.encoder.layers.2.layer_norm1.bias": torch.zeros(64)})),
        r"no place for the tensor vision_model\.encoder\.layers\.2\.layer_norm1\.bias",
    ),
    "deeper config": (
        config("vae/config.json", layers_per_block=2),
        r"stage/vae(: tensor| lacks the tensor) ",
    ),
    "odd width": (
        config("unet/config.json", block_out_channels=[33, 32]),
        r"unet/config\.json does not desc.*UNetSp",
    ),
    "text for a number": (
        config("image_encoder/config.json", hidden_size="x"),
        r"does not describe a CLIPVision",
    ),
    "unknown activation": (
        config("image_encoder/config.json", hidden_act="x"),
        r"CLIPVision.* \(unknown 'x'\)",
    ),
    "unknown block": (config("unet/config.json", down_block_types=["A", "B"]), r"A does not exist"),
    "unequal contexts": (
        config("unet/config.json", cross_attention_dim=[32, 16]),
        r"unet lacks|stage/unet: (tensor|config\.json has cross)",
    ),
    "other embedding": (
        lambda r: (
            edit_json(r / "image_encoder/config.json", projection_dim=16),
            edit_tensors(r / CLIP, lambda t: t.update({"visual_projection.weight": torch.zeros(16, 64)})),
        ),
        r"stage/unet: config\.json has cross_attention_dim 32; expected 16.*unmixed",
    ),
    "fewer vae blocks than widths": (
        config("vae/config.json", down_block_types=["DownEncoderBlock2D"] * 2),
        r"stage/vae: config\.json has no place for the tensor encoder\.down_blocks\.2\.",
    ),
    "not euler": (
        config(SCHEDULER, _class_name="DDIMScheduler"),
        r"_class_name is 'DDIM.*expected 'EulerDiscrete",
    ),
    "epsilon": (
        config(SCHEDULER, "prediction_type"),
        r"config\.json: prediction_type is 'epsilon'; expected 'v_pred",
    ),
    "discrete": (
        config(SCHEDULER, timestep_type="discrete"),
        r"timestep_type is 'discrete'; expected 'continuous'",
    ),
    "no karras": (config(SCHEDULER, use_karras_sigmas=False), r"use_karras_sigmas is False; expected True"),
    "last sigma": (
        config(SCHEDULER, final_sigmas_type="sigma_min"),
        r"final_sigmas_type is 'sigma_min'; expected 'ze",
    ),
    "sigmas": (
        config(SCHEDULER, sigma_min=800),
        r"sigma_min is 800 and sigma_max 700\.0; expected 0 < sigma_min",
    ),
    "sigma text": (config(SCHEDULER, sigma_max="x"), r"sigma_max 'x'; expected"),
    "two means": (config(EXTRACTOR, image_mean=[0, 1]), r"image_mean is \[0, 1\].*expected three numbers"),
    "zero deviation": (config(EXTRACTOR, image_std=[1, 1, 0]), r"preprocessor_config\.json: .*image_std > 0"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_gets_one_sentence(copy, how):
    break_it, expected = BROKEN[how]
    break_it(copy)
    with pytest.raises(CheckpointError, match=expected) as caught:
        read_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_a_variant_that_is_not_there_is_refused(authors):
    with pytest.raises(CheckpointError, match=r"unet has no fp16 weights; .*what is there: plain\."):
        read_checkpoint(authors, variant="fp16")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./gone", "a/b/c", "gone", "", "-x/y"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_without_asking_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        read_checkpoint(name)


def test_a_file_in_the_place_of_a_folder_is_refused(authors):
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at .*model_index\.json; expected a folder"):
        read_checkpoint(authors / "model_index.json")


# The hub


class Hub:
    """Stands in for snapshot_download: copies what the patterns ask for out of `repo`."""

    def __init__(self, repo: Path, cache: Path) -> None:
        self.repo, self.snapshot, self.revision = repo, cache / "0123abc", ""

    def __call__(self, repo_id: str, *, revision: str | None, allow_patterns: Any, ignore_patterns: Any) -> str:
        assert repo_id == "org/name"
        self.revision = revision or "main"
        files = [str(file.relative_to(self.repo)) for file in self.repo.rglob("*") if file.is_file()]
        for name in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.repo / name, self.snapshot / name)
        return str(self.snapshot)

    @property
    def weights(self) -> set[str]:
        return {str(file.relative_to(self.snapshot)) for file in self.snapshot.rglob("*.safetensors")}


@pytest.fixture
def hub(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(copy, tmp_path / "cache")
    (copy / "svd.safetensors").write_bytes(b"nine gigabytes")
    (copy / "unet/diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (copy / "LICENSE").write_text("MIT License")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.chdir(tmp_path)
    return hub


def test_an_id_is_fetched_from_the_hub_without_what_is_not_read(hub, want, copy):
    add_variant(copy, "fp16")
    got = read_checkpoint("org/name", revision="v1")
    assert hub.revision == "v1"
    assert hub.weights == {UNET, VAE, CLIP}
    assert not list(hub.snapshot.rglob("*.bin"))
    assert (got.source, got.unet.source) == ("org/name@0123abc", "org/name@0123abc/unet")
    assert got.licence == "MIT License (LICENSE)"
    assert_same_checkpoint(got, want)


def test_only_the_variant_asked_for_is_fetched(hub, sharded_fp16, want, copy):
    shutil.copytree(sharded_fp16, copy, dirs_exist_ok=True)
    assert_same_checkpoint(read_checkpoint("org/name", variant="fp16"), want, half=True)
    assert all(".fp16-0000" in name for name in hub.weights)


def test_a_variant_is_fetched_where_there_is_nothing_else(hub, copy):
    add_variant(copy, "fp16", [UNET])
    (copy / UNET).unlink()
    read_checkpoint("org/name")
    assert hub.weights == {"unet/diffusion_pytorch_model.fp16.safetensors", VAE, CLIP}


def test_offline_the_cache_is_read_and_a_miss_says_what_to_do(authors, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repo, commit = tmp_path / "models--org--name", "0" * 40
    shutil.copytree(authors, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    assert read_checkpoint("org/name").source == f"org/name@{commit}"
    with pytest.raises(CheckpointError, match=r"org/other is no folder and could not be fetched.*HF_HUB_OFFLINE"):
        read_checkpoint("org/other")


def test_whatever_the_hub_raises_becomes_one_sentence(hub, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"org/name is no folder.*No space left.on device") as caught:
        read_checkpoint("org/name")
    assert isinstance(caught.value.__cause__, OSError)


# Random ones


def equal(a: Network, b: Network) -> bool:
    assert list(a.weights) == list(b.weights)
    some = list(a.weights)[::25]  # each is made from its name and the network's seed
    return all(torch.equal(a.weights.load(name), b.weights.load(name)) for name in some)


def test_random_stages_of_one_seed_share_all_but_the_unet():
    first, again, second = (random_checkpoint("tiny", s) for s in ("segment", "segment", "complete"))
    assert equal(first.unet, again.unet)
    assert not equal(first.unet, second.unet)
    assert equal(first.vae, second.vae)
    assert equal(first.image_encoder, second.image_encoder)
    other = random_checkpoint("tiny", "segment", seed=1)
    assert not any(equal(getattr(first, name), getattr(other, name)) for name in NETWORKS)
    assert (first.source, first.licence) == ("random tiny (seed 0)", "none (random weights)")
    assert other.unet.source == "random tiny (seed 1)"


@needs_recorded
def test_a_random_tiny_checkpoint_is_of_the_recorded_ones_shape():
    random = random_checkpoint("tiny", "segment")
    recorded = read_checkpoint(RECORDED / "diffusion-vas-amodal-segmentation")
    assert (random.scheduler, random.image_mean, random.image_std) == (
        recorded.scheduler,
        recorded.image_mean,
        recorded.image_std,
    )
    for name in NETWORKS:
        got, want = getattr(random, name), getattr(recorded, name)
        assert {n: w.shape for n, w in got.weights.items()} == {n: w.shape for n, w in want.weights.items()}
        assert json.loads(json.dumps(got.config | {"sample_size": 0})) == want.config | {"sample_size": 0}


def test_a_random_real_checkpoint_has_the_papers_sizes():
    got = random_checkpoint("diffusion-vas", "complete")
    parameters = [sum(torch.Size(w.shape).numel() for w in getattr(got, name).weights.values()) for name in NETWORKS]
    assert [round(n / 1e5) / 10 for n in parameters] == [
        1524.6,
        97.7,
        632.1,
    ]  # the VAE's halves: 34.2 and 63.6
    assert got.image_encoder.config["hidden_act"] == "gelu"
    assert got.vae.config["scaling_factor"] == 0.18215


@torch.no_grad()
def test_random_pictures_are_no_single_colour():
    vae: Any = random_checkpoint("tiny", "segment").vae.load()
    latents = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)) / 0.18215
    pictures = vae.decode(latents, num_frames=2).sample
    assert 0.1 < pictures.std(dim=(2, 3)).min() < pictures.abs().max() < 10
    assert (pictures[0] - pictures[1]).std() > 0.1

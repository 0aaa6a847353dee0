"""Made checkpoints are in the authors' format, and broken ones are refused."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402

from amodal.runtime.errors import CheckpointError, InputError  # noqa: E402

from ...checkpoints import load_modules, make_checkpoint  # noqa: E402
from ...places import SHARED  # noqa: E402

RECORDED = SHARED / "reference"
SEGMENT = RECORDED / "diffusion-vas-amodal-segmentation"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"{RECORDED} is absent")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A checkpoint as it is made without options; not to be changed."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "plain")


@pytest.fixture(scope="module")
def plain_modules(plain):
    return load_modules(plain)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "sharded"), [(None, False), ("fp16", False), (None, True), ("fp16", True)])
def test_variants_and_shards_of_a_made_checkpoint_hold_the_same_weights(variant, sharded, plain_modules, tmp_path):
    made = make_checkpoint(tmp_path / "made", variant=variant, sharded=sharded)
    for ours, plain in zip(load_modules(made)[:3], plain_modules[:3], strict=True):
        state = ours.state_dict()
        for name, tensor in plain.state_dict().items():
            assert torch.equal(state[name], tensor.half().float() if variant else tensor), name


def test_the_stages_of_one_seed_differ_in_the_unet_alone(plain, tmp_path):
    first, second = plain, make_checkpoint(tmp_path / "complete", stage="complete")
    differing = {
        str(file.relative_to(first))
        for file in first.rglob("*.*")
        if file.read_bytes() != (second / file.relative_to(first)).read_bytes()
    }
    assert differing == {"unet/diffusion_pytorch_model.safetensors"}


@needs_recorded
def test_a_made_checkpoint_has_the_files_configs_and_tensors_of_the_authors_format(plain):
    made = plain
    for theirs in SEGMENT.rglob("*.*"):
        ours = made / theirs.relative_to(SEGMENT)
        if theirs.suffix == ".json":
            want = json.loads(theirs.read_text())
            want.pop("_valid_processor_keys", None)
            assert json.loads(ours.read_text()) == want, ours
        else:
            with safe_open(theirs, "pt") as a, safe_open(ours, "pt") as b:
                assert set(a.keys()) == set(b.keys())
                assert all(a.get_slice(k).get_shape() == b.get_slice(k).get_shape() for k in a.keys())  # noqa: SIM118


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
        load_modules(tmp_path)


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path):
    made = make_checkpoint(tmp_path, block_out_channels=(32, 32), heads=(2, 2))
    config = json.loads((made / "unet/config.json").read_text())
    (made / "unet/config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_modules(made)


@pytest.mark.parametrize("options", [{"vae_channels": (32, 48)}, {"heads": (2, 4)}])
def test_widths_that_no_network_could_have_are_refused(options, tmp_path):
    with pytest.raises(InputError, match="multiples of 32"):
        make_checkpoint(tmp_path, **options)
    assert not any(tmp_path.iterdir())

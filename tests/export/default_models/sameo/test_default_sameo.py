"""The recipe of the default SAMEO model, on a handful of steps: what it promises, not what it reaches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx_ir")

from amodal.export.default_models.sameo import training  # noqa: E402
from amodal.export.default_models.sameo.checkpoint import write_bundle  # noqa: E402
from amodal.export.default_models.sameo.data import Pictures, box_of, masks_of  # noqa: E402
from amodal.export.default_models.sameo.loss import enlarged, loss_of  # noqa: E402
from amodal.export.default_models.sameo.recipe import FIRST_SEED, NETWORK, Recipe  # noqa: E402
from amodal.export.default_models.sameo.training import train_network, trained_network  # noqa: E402
from amodal.runtime.bundle.reading import Bundle  # noqa: E402
from amodal.runtime.errors import InputError  # noqa: E402
from amodal.runtime.loading import load  # noqa: E402
from amodal.runtime.scenes import make_things  # noqa: E402

SMALL = Recipe(scenes=2, frames=4, pictures=2, prompts=2, minutes=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished training."""
    folder = tmp_path_factory.mktemp("trained")
    train_network(folder, SMALL)
    return folder


def test_pictures_are_frames_of_scenes_with_the_masks_of_all_things(folder: Path) -> None:
    pictures = Pictures(folder, SMALL)
    assert len(pictures.rgb) == 8
    for scene in range(2):
        things = make_things(FIRST_SEED + scene, 4, (NETWORK.height, NETWORK.width))
        for frame in range(4):
            np.testing.assert_array_equal(pictures.rgb[4 * scene + frame], things.frames[frame])
            amodal, modal = masks_of(pictures.things[4 * scene + frame])
            count = len(things.amodal)
            np.testing.assert_array_equal(amodal[:count], things.amodal[:, frame])
            np.testing.assert_array_equal(modal[:count], things.modal[:, frame])
            assert not amodal[count:].any()


def test_prompts_are_boxes_of_the_visible_or_the_whole_thing_that_may_be_jittered(folder: Path) -> None:
    recipe = Recipe(scenes=2, frames=4, pictures=8, prompts=2, jitter_share=0, point_share=1)
    batch = Pictures(folder, recipe).batch(0)
    kinds = set()
    for points, labels, modal, amodal in zip(
        *(part.reshape(-1, *part.shape[2:]) for part in (batch.points, batch.labels, batch.modal, batch.amodal)),
        strict=True,
    ):
        box = points[:2].ravel()
        of = {name: (box == box_of(mask)).all() for name, mask in (("visible", modal), ("whole", amodal))}
        assert any(of.values())
        kinds |= {name for name in of if of[name] and not all(of.values())}
        assert list(labels[:2]) == [2, 3]
        assert labels[2] == 1  # on the visible part
        for (x, y), label in zip(points[2:], labels[2:], strict=True):
            assert modal[int(y), int(x)] if label == 1 else (x, y, label) == (-1, -1, -1)
    assert kinds == {"visible", "whole"}


def test_a_batch_depends_on_its_step_alone(folder: Path) -> None:
    pictures = Pictures(folder, SMALL)
    first, other = pictures.batch(3), pictures.batch(4)
    again = Pictures(folder, SMALL).batch(3)
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert (first.points != other.points).any()


def test_logits_are_enlarged_as_torch_does() -> None:
    logits = torch.randn(3, 4, 32, 64)
    expected = torch.nn.functional.interpolate(logits, (64, 128), mode="bicubic", align_corners=False)
    torch.testing.assert_close(enlarged(logits, (64, 128)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fine", [False, True])
def test_the_loss_is_least_for_the_truth_and_knows_hidden_parts(fine: bool) -> None:
    amodal = torch.zeros(1, 64, 128, dtype=torch.bool)
    amodal[:, 16:48, 32:96] = True
    modal = amodal.clone()
    modal[:, :, 64:] = False

    def loss(mask: torch.Tensor, iou: float) -> tuple[float, dict[str, float]]:
        low = torch.nn.functional.avg_pool2d(mask.float(), 2)
        logits = (40 * low - 20)[:, None].expand(-1, 4, -1, -1)
        total, parts = loss_of(logits, torch.full((1, 4), iou), modal, amodal, Recipe(), fine=fine)
        return total.item(), parts

    right, parts = loss(amodal, 1.0)
    assert right == pytest.approx(0, abs=0.01)
    assert parts["miou"] == 1
    visible, parts = loss(modal, 0.5)
    assert parts["hidden_dice"] == pytest.approx(1, abs=0.05)
    assert (parts["miou"], parts["iou_error"]) == (pytest.approx(0.5, abs=0.02), pytest.approx(0, abs=0.02))
    assert visible > right + 0.5
    assert loss(amodal, 0.0)[0] > right + 0.04


def test_a_stopped_training_goes_on_and_ends_with_a_rate_of_zero(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rgb.npy", "things.npy"):
        (tmp_path / name).symlink_to(folder / name)
    clock = iter(range(10_000))
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    save, calls = training._Training.save, []

    def stopping(self: training._Training, file: Path) -> None:
        save(self, file)
        calls.append(self.step)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Training, "save", stopping)
    recipe = Recipe(**(vars(SMALL) | {"minutes": 0.1}))
    with pytest.raises(KeyboardInterrupt):
        train_network(tmp_path, recipe)
    train_network(tmp_path, recipe)
    lines = [json.loads(line) for line in (tmp_path / "sameo.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["seconds"] >= 6
    assert lines[-1]["rate"] < 0.3 <= max(line["rate"] for line in lines)
    assert all(np.isfinite(value) for line in lines for value in line.values())


def test_the_bundle_is_the_averaged_network_and_names_no_folder(folder: Path, tmp_path: Path) -> None:
    write_bundle(folder, tmp_path / "bundle", SMALL)
    manifest = Bundle(tmp_path / "bundle").manifest
    assert str(folder) not in (tmp_path / "bundle" / "manifest.json").read_text()
    assert manifest.family == "sameo"
    picture = Pictures(folder, SMALL).rgb[0]
    with load(tmp_path / "bundle", threads=1) as model:
        made = model.predict(picture, [[10, 5, 60, 50]], select="single", logits=True)
    network = trained_network(folder, SMALL).half().float()
    points, labels = torch.full((1, 1, 6, 2), -1.0), torch.full((1, 1, 6), -1.0)
    points[0, 0, :2] = torch.tensor([[10.0, 5.0], [60.0, 50.0]])
    labels[0, 0, :2] = torch.tensor([2.0, 3.0])
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    logits, iou = network((pixels - mean) / std, points, labels)
    np.testing.assert_allclose(made.logits[0], logits[0, 0, 0].numpy(), rtol=1e-3, atol=1e-3)
    assert made.iou[0] == pytest.approx(iou[0, 0, 0].item(), abs=1e-3)


@pytest.mark.parametrize("wrong", [{"minutes": 0}, {"pictures": 0}, {"hidden": -1}])
def test_a_recipe_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recipe(**wrong)  # type: ignore[arg-type]

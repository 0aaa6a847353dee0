"""Peers: the same clip by each, in processes of their own; those that fall, that differ, that are absent."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from amodal.bench.peers import measure as peers
from amodal.bench.peers.loaders import compile_networks
from amodal.bench.peers.measure import CHOICES, candidates, measure_peers, memory_ratio, time_ratio
from amodal.bench.peers.process import PeerClip, PeerError
from amodal.bench.peers.turns import agreement_of, disagreement
from amodal.bench.reference import same_clip
from amodal.bench.running.clips import Execution
from amodal.bench.running.machine import work_of
from amodal.bench.schema import Gpu, Peer, Peers, Skipped, Work
from amodal.runtime.backends import Availability
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle

from ...places import STAND_INS

ONE = Execution(threads=1)
WORK = Work(stages=["segment", "complete"], frames=2, size=(16, 16), steps=1)


class InThisProcess:
    """A peer's process, without one."""

    def __init__(self, load: Any, log: Path) -> None:
        self._loaded = load()
        self.description, self.half = self._loaded.description, self._loaded.half

    def clip(self, trace: bool) -> PeerClip:
        try:
            return PeerClip(1.0, self._loaded.clip(trace), 1, None, None)
        except RuntimeError as error:
            raise PeerError(str(error), "RuntimeError") from error

    def close(self) -> None:
        pass


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in peers; what this process can import, those that it starts can."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    import amodal_stand_in_peers

    return amodal_stand_in_peers


@pytest.fixture
def measured(stand_ins: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function (peers by name: the arguments of their loading) -> what was measured, what was skipped."""

    def measure(repeats: int = 2, **asked: tuple[Any, ...]) -> tuple[Any, dict[str, Skipped]]:
        found = {
            name: partial(*args) if args and callable(args[0]) else partial(stand_ins.load, *args)
            for name, args in asked.items()
        }
        monkeypatch.setattr(peers, "candidates", lambda *args: (found, []))
        measurements, skipped = measure_peers("default", WORK, ONE, repeats=repeats)
        return (measurements[0] if measurements else None), {one.what: one for one in skipped}

    return measure


def times(**seconds: list[float]) -> Peers:
    made = [
        Peer(name=name, description="", seconds=each, first=9.0, host_peak=100 * (place + 1))
        for place, (name, each) in enumerate(seconds.items())
    ]
    return Peers(work=WORK, peers=made)


# Real ones.


@pytest.mark.slow
def test_diffusers_and_ours_draw_the_same_clip_and_are_timed(toy_bundle: Path) -> None:
    work = work_of(Bundle(toy_bundle), steps=2)
    (found,), skipped = measure_peers(toy_bundle, work, ONE, repeats=1, only=("diffusers", "onnxruntime"))
    assert isinstance(found, Peers)
    theirs, ours = found.peers
    assert (theirs.name, ours.name) == ("diffusers", "onnxruntime")
    assert found.refused == {}
    assert all(len(peer.seconds) == 1 and peer.seconds[0] > 0 and peer.first > 0 for peer in found.peers)
    assert all(peer.host_peak > 5e7 and peer.device_peak is None for peer in found.peers)
    assert theirs.agreement == {}
    assert 0 < ours.agreement["segment_latents_relative_l2"] < 1e-4  # of other arithmetic, and of the same noise
    assert ours.agreement["complete_latents_relative_l2"] < 1e-4
    assert ours.agreement["masks_iou"] > 0.999
    assert "float32 on the CPU, 1 threads; eager" in theirs.description
    assert "threads 1" in ours.description
    assert [one.what for one in skipped] == ["peer onnxruntime cuda"]
    assert found.threads == 1


def test_a_library_that_is_not_there_is_a_reason_and_a_command(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diffusers.py").write_text("raise ModuleNotFoundError(\"No module named 'diffusers'\")\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found, (skipped,) = measure_peers(toy_bundle, work_of(Bundle(toy_bundle)), ONE, repeats=1, only=["diffusers"])
    assert found == []
    assert skipped.what == "peer diffusers"
    assert "No module named 'diffusers'" in skipped.reason
    assert skipped.remedy == 'pip install "amodal[bench,export]"'


@pytest.mark.slow
def test_the_reference_runs_as_the_authors_demo_does(toy_bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    from ...demo import run_both_stages

    threads = torch.get_num_threads()
    bundle, work = Bundle(toy_bundle), work_of(Bundle(toy_bundle), steps=2, guidance=2.0)
    arrays = same_clip.inputs_of(work)
    pipelines = same_clip.load_reference(bundle, work, None, threads=1)
    found = same_clip.run_reference(pipelines, bundle.manifest, arrays, work)
    want = run_both_stages(
        pipelines["segment"], pipelines["complete"], arrays.modal, arrays.depth, arrays.rgb, work.seed,
        amodal=arrays.amodal, steps=2, guidance=(2.0, 2.0),
    )  # fmt: skip
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(found["segment"].masks, want["amodal"])
    for stage in ("segment", "complete"):
        np.testing.assert_array_equal(found[stage].frames, want[stage].frames_u8)
        np.testing.assert_array_equal(found[stage].latents[-1], want[stage].latents[-1].numpy())
        np.testing.assert_allclose(found[stage].sigmas, [700.0, 0.002], rtol=1e-6)


def test_what_is_compiled_is_what_runs(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    asked: list[dict[str, Any]] = []
    called: list[str] = []

    def compile_(module: Any, **options: Any) -> None:
        asked.append(options)
        plain = module._call_impl

        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(type(module).__name__)
            return plain(*args, **kwargs)

        module._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    threads = torch.get_num_threads()
    bundle, work = Bundle(toy_bundle), work_of(Bundle(toy_bundle), "segment", steps=3)
    pipelines = same_clip.load_reference(bundle, work, None, threads=1)
    said = compile_networks(pipelines)
    same_clip.run_reference(pipelines, bundle.manifest, same_clip.inputs_of(work), work)
    torch.set_num_threads(threads)
    assert said == "U-Net, VAE encoder and VAE decoder"
    assert asked == [{"dynamic": False}] * 3
    assert [called.count(name) for name in dict.fromkeys(called)] == [2, 3, 1]  # encoder, U-Net, decoder


def test_a_checkpoint_that_is_not_at_hand_names_the_option() -> None:
    pytest.importorskip("torch")
    bundle = Bundle("default")
    with pytest.raises(InputError, match="is not available; give it with `segment`"):
        same_clip.load_reference(bundle, work_of(bundle, "segment"), None)


# Turns.


@pytest.mark.slow
def test_peers_that_die_are_told_and_the_others_go_on(measured: Any, stand_ins: Any) -> None:
    found, skipped = measured(
        killed=(stand_ins.load_killed,),
        absent=(stand_ins.load_nothing,),
        first=(),
        dies=(0.0, False, False, 1),
        fails=(0.0, False, False, None, 0),
    )
    (alone,) = found.peers
    assert (alone.name, len(alone.seconds), alone.allocator_peak) == ("first", 2, 12345)
    assert alone.host_peak > 2e7
    assert found.refused == {}
    assert "SIGKILL, as happens when memory runs out" in skipped["peer killed"].reason
    assert "SIGSEGV; its last line: about to fall" in skipped["peer dies"].reason
    assert skipped["peer fails"].reason == "it failed: RuntimeError: CUDA out of memory"
    assert skipped["peer absent"].reason == "this needs torch."
    assert skipped["peer absent"].remedy == 'pip install "amodal[bench,export]"'


def test_peers_that_draw_something_else_have_no_times(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PeerProcess", InThisProcess)
    found, skipped = measured(
        infinite=(0.0, False, True),
        first=(),
        half=(1e-3, True),
        differs=(1e-3,),
        fails=(0.0, False, False, None, 0),
        later=(0.0, False, False, None, None, 2),
    )
    assert [peer.name for peer in found.peers] == ["first", "half"]
    assert [len(peer.seconds) for peer in found.peers] == [2, 2]
    assert found.peers[0].agreement == {}
    assert found.peers[1].agreement["segment_latents_relative_l2"] == pytest.approx(1e-3, rel=1e-3)
    assert set(found.refused) == {"infinite", "differs", "later"}
    assert set(skipped) == {"peer fails", *(f"peer {name}" for name in found.refused)}
    assert "latents of segment, complete are not finite" in found.refused["infinite"]
    assert "segment: last latents differ by 0.001, more than 0.0001" in found.refused["differs"]
    assert "complete: pictures differ" in found.refused["later"]


def test_where_nobody_can_run_nothing_is_measured(measured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PeerProcess", InThisProcess)
    found, skipped = measured(fails=(0.0, False, False, None, 0))
    assert found is None
    assert list(skipped) == ["peer fails"]


@pytest.mark.parametrize(
    ("options", "said"), [({"repeats": 0}, "0 turns"), ({"only": ["tensorflow"]}, "peer tensorflow is unknown")]
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        measure_peers("default", WORK, ONE, **options)


EVERYWHERE = ("diffusers", "diffusers + torch.compile")


def test_peers_are_compared_on_one_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpu = Gpu(name="G", capability="sm86", memory=1, driver="1", cuda="13")
    no, yes = Availability(False, "", "no library."), Availability(True, "it")
    usable = {"tensorrt_rtx": yes, "tensorrt": no, "openvino": yes}
    monkeypatch.setattr(peers, "availability", lambda name: usable[name])
    monkeypatch.setattr(peers, "multiplies_bfloat16", lambda: True)
    bundle = Bundle("default")

    def tried(
        device: str | None, there: bool, only: tuple[str, ...] | None = CHOICES
    ) -> tuple[dict[str, Any], dict[str, str]]:
        monkeypatch.setattr(peers, "this_machine", lambda: type("M", (), {"gpu": gpu if there else None}))
        execution = Execution(device=device, threads=1, vram="6GB")
        found, skipped = candidates(bundle, WORK, execution, None, tmp_path, only)
        return {name: load.args for name, load in found.items()}, {one.what: one.reason for one in skipped}

    found, skipped = tried(None, there=True)
    assert list(found) == [*EVERYWHERE, "onnxruntime cuda", "tensorrt_rtx"]
    assert found["diffusers"][3] == found["onnxruntime cuda"][2].device == "cuda"
    asked = [(found[name][2].threads, found[name][2].vram) for name in ("tensorrt_rtx", "onnxruntime cuda")]
    assert asked == [(None, "6GB")] * 2  # threads are of a CPU
    on_the_cpu = {"peer onnxruntime", "peer openvino", "peer diffusers in bfloat16"}
    assert set(skipped) == {*on_the_cpu, "peer tensorrt"}
    found, skipped = tried("cpu", there=True)
    assert list(found) == [*EVERYWHERE, "diffusers in bfloat16", "onnxruntime", "openvino"]
    assert [found[name][-1] for name in list(found)[:3]] == [False, False, True]
    assert found["openvino"][2] == Execution(backend="openvino", device="cpu", threads=1)
    assert found["onnxruntime"][2] == Execution(device="cpu", threads=1)  # a CPU refuses --vram
    assert set(skipped) == {"peer tensorrt_rtx", "peer tensorrt"}
    assert list(tried("cpu", there=True, only=None)[0]) == [*EVERYWHERE, "onnxruntime", "openvino"]
    found, _ = tried(None, there=False)
    assert list(found)[3:] == ["onnxruntime", "onnxruntime cuda", "tensorrt_rtx", "openvino"]
    assert found["diffusers"][3] == "cpu"
    monkeypatch.setattr(peers, "multiplies_bfloat16", lambda: False)
    usable["openvino"] = no
    found, skipped = tried("cpu", there=False)
    assert list(found) == [*EVERYWHERE, "onnxruntime"]
    assert skipped["peer diffusers in bfloat16"] == "this CPU does not multiply in bfloat16."


# Agreement and ratios.


def test_agreement_is_what_a_loop_over_pixels_finds(stand_ins: Any) -> None:
    want, got = stand_ins.drawn(), stand_ins.drawn(shift=0.5)
    masks = want["segment"].masks.copy()
    masks[0, 0, :4] ^= True
    got["segment"] = got["segment"]._replace(masks=masks, frames=want["segment"].frames // 2)
    found = agreement_of(got, want)
    pixels = list(zip(masks.ravel().tolist(), want["segment"].masks.ravel().tolist(), strict=True))
    assert found["masks_iou"] == sum(a and b for a, b in pixels) / sum(a or b for a, b in pixels)
    bytes_ = zip(got["segment"].frames.ravel().tolist(), want["segment"].frames.ravel().tolist(), strict=True)
    assert found["segment_frames_mean"] == pytest.approx(np.mean([abs(a - b) for a, b in bytes_]))
    assert found["complete_latents_relative_l2"] == pytest.approx(0.5)
    assert found["complete_frames_mean"] == 0


def test_limits_are_wider_where_one_or_both_round_to_half() -> None:
    near = {"segment_latents_relative_l2": 5e-5, "masks_iou": 0.9995, "segment_frames_mean": 0.1}
    assert [disagreement(near, halves) for halves in (0, 1, 2)] == [None] * 3
    for name, value in (("segment_latents_relative_l2", 0.03), ("masks_iou", 0.92), ("segment_frames_mean", 4.0)):
        said = [disagreement({**near, name: value}, halves) for halves in (0, 1, 2)]
        assert all(said[:2])
        assert said[2] is None
    assert disagreement({"complete_latents_relative_l2": float("nan")}, 2)


def test_ratios_are_of_turns_and_of_medians() -> None:
    slow = [1.0, 2.0, 10.0, 4.0]
    fast = [0.5, 0.5, 9.0, 1.0]
    ratio = time_ratio(*reversed(times(slow=slow, fast=fast).peers))
    turns = sorted([0.5 / 1, 0.5 / 2, 9 / 10, 1 / 4])
    assert (ratio.least, ratio.most) == (turns[0], turns[-1])
    assert ratio.median == pytest.approx((turns[1] + turns[2]) / 2)
    assert ratio.of_medians == pytest.approx(((0.5 + 1) / 2) / ((2 + 4) / 2))


def test_memory_is_compared_on_the_gpu_where_both_used_one() -> None:
    record = times(a=[1.0], b=[1.0])
    a, b = record.peers
    assert memory_ratio(b, a) == 2
    on_gpu = [peer.model_copy(update={"device_peak": 300 - 100 * i}) for i, peer in enumerate(record.peers)]
    assert memory_ratio(on_gpu[1], on_gpu[0]) == pytest.approx(2 / 3)
    assert memory_ratio(b, on_gpu[0]) == 2


# The command.


@pytest.mark.parametrize(("refused", "code"), [({}, 0), ({"b": "masks are others"}, 1)])
def test_the_command_shows_ratios_and_tells_what_was_left_out(
    refused: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from amodal.cli.bench.peers import command

    record = times(diffusers=[2.0, 4.0], onnxruntime=[1.0, 1.0]).model_copy(update={"refused": refused})
    skipped = [Skipped(what="peer compile", reason="no compiler.", remedy="apt-get install g++")]
    monkeypatch.setattr(peers, "measure_peers", lambda *args, **options: ([record], skipped))
    shown = CliRunner().invoke(command, ["default", "-o", str(tmp_path / "peers.json")])
    assert shown.exit_code == code
    ratios = ["onnxruntime", "/", "diffusers", "0.375", "0.250", "to", "0.500", "0.333", "2.000"]
    assert ratios in [line.split() for line in shown.output.splitlines()]
    assert "peer compile was left out: no compiler. Try `apt-get install g++`." in shown.output
    written = json.loads((tmp_path / "peers.json").read_text())
    assert written["measurements"][0]["peers"][1]["seconds"] == [1.0, 1.0]
    assert written["skipped"][0]["what"] == "peer compile"

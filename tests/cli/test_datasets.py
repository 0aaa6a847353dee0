"""`amodal eval --dataset` and `--merge`: the golden values, shards, resuming, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.places import SHARED

import amodal

from .conftest import assert_refusal, issue

FILES = SHARED / "datasets"
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="the small data sets are not here")

SAIL = "sail-vos/eval_outputs/diffusion_vas_sailvos_eval_results"
TAO = "tao-amodal/eval_outputs/diffusion_vas_tao_amodal_eval_results"
RUNS = {  # name of the data set, folder, results
    "sail-vos": ("sail-vos", "sail-vos/eval_outputs"),
    "tao-amodal": ("tao-amodal", "tao-amodal/eval_outputs"),
    "tao-amodal-toolkit": ("tao-amodal", "tao-amodal/example_output/prediction.json"),
    "movi-b": ("movi", "movi/predictions"),
    "cocoa": ("cocoa", "cocoa/predictions/cocoa_regions.json"),
    "cocoa-cls": ("cocoa", "cocoa/predictions/cocoa_cls_results.json"),
    "d2sa": ("d2sa", "d2sa/predictions/d2sa_results.json"),
    "kins": ("kins", "kins/predictions/kins_results.json"),
    "kins-2020": ("kins", "kins/predictions/kins_results.json"),
    "tabe-51": ("tabe-51", "tabe-51/outputs"),
}


def wanted() -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """Golden values as (protocol, row, values) by data set."""
    golden = json.loads((FILES / "golden.json").read_text())
    sail, tao, movi, tabe = (golden[name] for name in ("sail-vos", "tao-amodal", "movi", "tabe-51"))
    classes = {name: [(kind, "Top-1", golden[name][kind]) for kind in golden[name]] for name in ("cocoa-cls", "d2sa")}
    return {
        "sail-vos": [("diffusion-vas", row, sail[k]) for row, k in zip(*ROWS, strict=True)],
        "tao-amodal": [("diffusion-vas", row, tao[k]) for row, k in zip(*ROWS, strict=True)],
        "tao-amodal-toolkit": [
            (kind, "Top-1", golden["tao-amodal-toolkit"][kind]) for kind in ("detection", "tracking")
        ],
        "movi-b": [
            ("eoras", "Top-1", movi["eoras"]),
            ("c2f-seg", "Top-1", movi["c2f_seg"]),
            ("strict", "Top-1", movi["strict_for_comparison"]),
        ],
        "cocoa": [("sssd", "Top-1", golden["cocoa"]["sssd"]), ("paco", "Top-1", golden["cocoa"]["paco_no_stuff"])],
        **classes,
        "kins": [("by_class", "Top-1", golden["kins"]["instances_val"])],
        "kins-2020": [("by_class", "Top-1", golden["kins"]["update_test_2020"])],
        "tabe-51": [
            *(("tabe", run, values) for run, values in tabe["per_run"].items()),
            ("tabe", "mean", tabe["mean"]),
            ("tabe", "std", tabe["std"]),
        ],
    }


def refused(outcome: Any, *words: str) -> None:
    """One sentence with these words."""
    assert_refusal(outcome)
    for word in words:
        assert word in outcome.err


ROWS = (("Top-1", "Top-3", "Modal"), ("seed23", "top3", "modal"))
NAMED = {"miou_full": "miou"}  # the authors' word for it


def evaluate(name: str, out: Path, *more: object) -> Any:
    root, results = RUNS[name]
    return issue("eval", "--dataset", name, "--root", FILES / root, "--results", FILES / results, "-o", out, *more)


def table(folder: Path) -> Any:
    return json.loads((folder / "table.json").read_text())


def assert_golden(report: Any, name: str) -> None:
    tolerance = 1e-6 if name == "tao-amodal" else 1e-9
    for protocol, row, values in wanted()[name]:
        ours = report["protocols"][protocol]["rows"][row]
        for measure, value in values.items():
            if measure != "made_by":
                found = ours[NAMED.get(measure, measure)]
                assert found == pytest.approx(value, abs=tolerance, rel=0), (name, protocol, row, measure)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "sail-vos" else []) for name in RUNS]
)
def test_the_authors_own_figures_come_out_single_sharded_and_merged(name: str, tmp_path: Path) -> None:
    whole = evaluate(name, tmp_path / "whole")
    assert whole.code == 0, whole.err
    report = table(tmp_path / "whole")
    assert_golden(report, name)
    for shard in ("1/2", "2/2"):
        assert evaluate(name, tmp_path / shard[0], "--shard", shard).code == 0
    merged = issue("eval", "--merge", tmp_path / "1", tmp_path / "2", "-o", tmp_path / "merged")
    assert merged.code == 0, merged.err
    assert table(tmp_path / "merged") == report
    assert merged.out == whole.out


@pytest.mark.parametrize(
    ("name", "stem"), [pytest.param("sail-vos", SAIL, marks=pytest.mark.slow), ("tao-amodal", TAO)]
)
@pytest.mark.parametrize("seed", [24, 25])
def test_each_seeds_results_file_alone_gives_its_row(name: str, stem: str, seed: int, tmp_path: Path) -> None:
    out = issue(
        "eval",
        "--dataset",
        name,
        "--root",
        FILES / name,
        "--results",
        f"{FILES / stem}_seed{seed}.json",
        "-o",
        tmp_path / "o",
    )
    assert out.code == 0, out.err
    golden = json.loads((FILES / "golden.json").read_text())[name][f"seed{seed}"]
    row = table(tmp_path / "o")["protocols"]["diffusion-vas"]["rows"]["Top-1"]
    for measure, value in golden.items():
        assert row[measure] == pytest.approx(value, abs=1e-6 if name == "tao-amodal" else 1e-9, rel=0)


def test_what_was_lost_is_computed_again_to_the_same_bytes(tmp_path: Path) -> None:
    evaluate("tao-amodal", tmp_path / "out")
    units = sorted((tmp_path / "out" / "units").iterdir())
    before = {path: path.read_bytes() for path in [*units, tmp_path / "out" / "table.json"]}
    units[0].unlink()
    units[3].write_bytes(units[3].read_bytes()[:40])  # cut off, as on a disk that failed
    (units[5].parent / f".{units[5].name}.77.tmp").write_text("half of a un")  # killed while it was written
    units[5].unlink()
    assert evaluate("tao-amodal", tmp_path / "out").code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert sorted((tmp_path / "out" / "units").iterdir()) == units


def test_a_merge_names_the_clips_that_are_missing(tmp_path: Path) -> None:
    evaluate("tao-amodal", tmp_path / "a", "--shard", "1/2")
    refused(issue("eval", "--merge", tmp_path / "a", "-o", tmp_path / "t"), "4 of 12 parts are missing", "4-18")
    assert not (tmp_path / "t").exists()


def test_parts_of_two_evaluations_are_not_merged(tmp_path: Path) -> None:
    evaluate("cocoa-cls", tmp_path / "a")
    evaluate("d2sa", tmp_path / "b")
    outcome = issue("eval", "--merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "t")
    refused(outcome, "no parts of one evaluation", "another data set")


def test_a_folder_with_other_results_is_left_alone(tmp_path: Path) -> None:
    evaluate("kins", tmp_path / "out")
    results = tmp_path / "other.json"
    results.write_text((FILES / RUNS["kins"][1]).read_text() + " ")
    before = (tmp_path / "out" / "eval.json").read_bytes()
    outcome = issue("eval", "--dataset", "kins", "--root", FILES / "kins", "--results", results, "-o", tmp_path / "out")
    refused(outcome, "other results", "--out")
    assert (tmp_path / "out" / "eval.json").read_bytes() == before


def test_a_wrong_root_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    outcome = issue(
        "eval", "--dataset", "sail-vos", "--root", tmp_path, "--results", FILES / f"{SAIL}.json", "-o", tmp_path / "o"
    )
    refused(outcome, "--root", "diffusion_vas_sailvos_val.json")


def test_annotations_of_another_release_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(FILES / "kins/annotations/instances_val.json", root / "update_test_2020.json")
    results = FILES / RUNS["kins"][1]
    outcome = issue("eval", "--dataset", "kins-2020", "--root", root, "--results", results, "-o", tmp_path / "o")
    refused(outcome, "a_segm", "another release")


@pytest.mark.parametrize(("score", "word"), [("NaN", "NaN"), ('"high"', "score")])
def test_scores_that_are_no_numbers_are_refused(score: str, word: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(f'[{{"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": {score}}}]')
    outcome = issue("eval", "--dataset", "kins", "--root", FILES / "kins", "--results", bad, "-o", tmp_path / "o")
    refused(outcome, word)


def test_a_clip_that_comes_twice_is_refused(tmp_path: Path) -> None:
    clips = json.loads((FILES / "tao-amodal/diffusion_vas_tao_amodal_val.json").read_text())
    (tmp_path / "diffusion_vas_tao_amodal_val.json").write_text(json.dumps([*clips, clips[0]]))
    shutil.copy(FILES / "tao-amodal/tao_amodal_track_ids_abs2rel_val.json", tmp_path)
    outcome = issue(
        "eval", "--dataset", "tao-amodal", "--root", tmp_path, "--results", FILES / f"{TAO}.json", "-o", tmp_path / "o"
    )
    refused(outcome, "twice")


def test_images_that_are_missing_are_counted_before_a_model_runs(tmp_path: Path) -> None:
    shutil.copytree(FILES / "d2sa/d2s_amodal_annotations_v1", tmp_path / "d2s_amodal_annotations_v1")
    bundle = Path(amodal.__file__).parent / "default_bundle"
    outcome = issue("eval", "--dataset", "d2sa", "--root", tmp_path, "--bundle", bundle, "-o", tmp_path / "o")
    refused(outcome, "4 images of 4 clips are missing", "mvtec.com")


def test_check_says_what_is_missing_and_where_it_is_to_be_had(tmp_path: Path) -> None:
    outcome = issue("eval", "--dataset", "sail-vos", "--root", tmp_path, "--check")
    assert outcome.code == 2
    assert "sailvos.web.illinois.edu" in outcome.out
    assert "MIT" in outcome.out
    assert issue("eval", "--dataset", "d2sa", "--root", FILES / "d2sa", "--check").code == 0


def test_detections_of_other_images_are_refused(tmp_path: Path) -> None:
    outcome = issue(
        *("eval", "--dataset", "kins", "--root", FILES / "kins"),
        *("--results", FILES / RUNS["d2sa"][1], "-o", tmp_path / "o"),
    )
    refused(outcome, "no detection for any of the 4 clips")


@pytest.mark.slow
def test_a_bundle_is_run_on_the_clips_of_its_shard_and_not_a_second_time(tmp_path: Path) -> None:
    bundle = Path(amodal.__file__).parent / "default_bundle"
    call = ("eval", "--dataset", "movi-b", "--root", FILES / "movi", "--bundle", bundle, "--steps", "1")
    assert issue(*call, "--shard", "2/5", "-o", tmp_path / "o").code == 0
    units = {path: (path.stat().st_mtime_ns, json.loads(path.read_text())) for path in (tmp_path / "o/units").iterdir()}
    assert sorted(unit["seed"] for _, unit in units.values()) == ["23", "modal"]
    assert {unit["clip"] for _, unit in units.values()} == {"0-1"}
    assert issue(*call, "--shard", "2/5", "-o", tmp_path / "o").code == 0
    assert all(path.stat().st_mtime_ns == written for path, (written, _) in units.items())
    refused(issue(*call[:-1], "2", "-o", tmp_path / "o"), "other settings")


@pytest.mark.parametrize("name", ["seed", "steps"])
def test_options_of_a_model_are_refused_beside_results(name: str, refused: Callable[..., str]) -> None:
    said = refused("eval", "--dataset", "kins", "--root", "r", "--results", "x.json", f"--{name}", 3)
    assert f"--{name} is for a model; give --bundle, or omit it" in said

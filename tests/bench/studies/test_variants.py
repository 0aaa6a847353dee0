"""Comparing variants by what the compiler says of them, on a toy."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("tensorrt_rtx")

from amodal.bench.studies.variants import main
from amodal.export.graph.variants import VARIANTS

TOY = ["--random", "tiny", "--height", "64", "--width", "64", "--frames", "3", "--components", "vae_decoder"]


@pytest.mark.slow
def test_each_variant_of_a_component_gets_a_row() -> None:
    ran = CliRunner().invoke(main, [*TOY, "--variants", "engine,engine-phases", "--json"])
    assert ran.exit_code == 0, ran.output
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(row["component"], row["variant"]) for row in rows] == [
        ("vae_decoder", "engine"),
        ("vae_decoder", "engine-phases"),
    ]
    plain, phases = rows
    assert phases["weights_bytes"] > plain["weights_bytes"]  # four 2x2 kernels for one 3x3
    assert all(row["activation_bytes"]["frames=3"] > 0 and row["seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_on_a_cpu_each_variant_is_timed_in_turns() -> None:
    toy = ["--random", "tiny", "--height", "64", "--width", "64", "--frames", "3", "--components", "vae_decoder,unet"]
    ran = CliRunner().invoke(main, [*toy, "--variants", "engine,cpu", "--cpu", "2", "--json"])
    assert ran.exit_code == 0, ran.output
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    wanted = [(kind, variant) for kind in ("vae_decoder", "unet") for variant in ("engine", "cpu")]
    assert [(row["component"], row["variant"]) for row in rows] == wanted
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)


def test_unknown_names_are_one_sentence() -> None:
    for change, words in ((["--components", "vae"], "vae"), (["--variants", "engine-x"], "engine-x")):
        ran = CliRunner().invoke(main, [*TOY, *change])
        assert ran.exit_code == 1
        assert words in ran.output
        assert "expected one" in ran.output


def test_engine_variants_differ_from_engine_in_one_form() -> None:
    base = VARIANTS["engine"].as_dict()
    for name, variant in VARIANTS.items():
        differs = {key for key, value in variant.as_dict().items() if value != base[key]} - {"name"}
        assert len(differs) == (0 if name == "engine" else 1) or name in ("cpu", "cuda")

"""Where the repository and the tests' helpers are, for tests at any depth."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # the reference, the samples and the notes; beside the repository
STAND_IN = ROOT / "tests" / "stand_in"  # modules in the place of the GPU's
STAND_INS = ROOT / "tests" / "bench" / "stand_ins"  # what benchmarks run in processes of their own

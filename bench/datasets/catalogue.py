"""Which reader, rules and results files belong to a data set's name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from amodal.runtime.errors import InputError
from amodal.runtime.paths import natural_key

from . import results
from .clip import Dataset
from .readers.coco_layout import COCOA_CLS, D2SA, KINS, KINS_2020, CocoLayout
from .readers.cocoa import Cocoa
from .readers.movi import Movi
from .readers.sail_vos import SailVos
from .readers.tabe import Tabe
from .readers.tao_amodal import TaoAmodal, TaoVideos
from .results import Predict
from .rules.detection import CocoRules
from .rules.diffusion_vas import SailVosRules, TaoRules
from .rules.movi import MoviRules
from .rules.regions import RegionRules
from .rules.rules import Rules
from .rules.tabe import TabeRules
from .rules.toolkit import ToolkitDetection, ToolkitTracking


@dataclass(frozen=True)
class Entry:
    """A data set that `amodal eval --dataset` knows.

    Attributes:
        name: as it is typed.
        open: gives the reader of the data set below a folder.
        rules: the protocols, the published one first.
        predictions: reads one results file (a folder for MOVi) of one seed.
        folder: whether results are a folder: `one` for one seed, `runs` for several; empty for files.
        fps, padded: with which frames per second a clip model is run, and whether on the padded frame.
        seed_word: what a further prediction is: a seed of the noise, or a run.
    """

    name: str
    open: Callable[[Path], Dataset]
    rules: Sequence[Rules]
    predictions: Callable[[Path], Predict]
    folder: str = ""
    fps: float = 8
    padded: bool = False


_MOVI = [MoviRules("eoras"), MoviRules("c2f-seg"), MoviRules("strict")]
_COCO = [CocoRules("by_class"), CocoRules("class_agnostic")]
_ENTRIES = [
    Entry("sail-vos", SailVos, [SailVosRules()], results.sail_vos),
    Entry("tao-amodal", TaoAmodal, [TaoRules()], results.tao, fps=2, padded=True),
    Entry("tao-amodal-toolkit", TaoVideos, [ToolkitDetection(), ToolkitTracking()], results.detections),
    Entry("movi-b", Movi, _MOVI, results.movi, "one"),
    Entry("movi-d", partial(Movi, letter="D"), _MOVI, results.movi, "one"),
    Entry("cocoa", Cocoa, [RegionRules("sssd"), RegionRules("paco")], results.regions),
    Entry("cocoa-cls", partial(CocoLayout, layout=COCOA_CLS), _COCO, results.detections),
    Entry("d2sa", partial(CocoLayout, layout=D2SA), _COCO, results.detections),
    Entry("kins", partial(CocoLayout, layout=KINS), _COCO, results.detections),
    Entry("kins-2020", partial(CocoLayout, layout=KINS_2020), _COCO, results.detections),
    Entry("tabe-51", Tabe, [TabeRules()], results.movi, "runs"),
]
NAMES = tuple(entry.name for entry in _ENTRIES)


def entry(name: str) -> Entry:
    """The data set of this name; raises `InputError` that lists them for another."""
    for known in _ENTRIES:
        if known.name == name:
            return known
    raise InputError(f"{name!r} is no data set; expected one of {', '.join(NAMES)}.", field="dataset")


def result_files(known: Entry, path: Path) -> list[Path]:
    """The results to read, a file per seed: the one without a suffix first, then in natural order.

    Raises:
        InputError: there is nothing at the path.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected the results of {known.name}.", field="results")
    if known.folder:
        if not path.is_dir():
            raise InputError(f"{path} is a file; the results of {known.name} are a folder.", field="results")
        return [path]
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.json"), key=lambda file: natural_key(file.stem))
    if not files:
        raise InputError(f"{path} holds no json; expected one results file per seed.", field="results")
    return files


def open_results(known: Entry, files: Sequence[Path]) -> list[Predict]:
    """A function per seed from a clip to its prediction."""
    if known.folder == "runs":
        return results.tabe_runs(files[0])
    return [known.predictions(file) for file in files]

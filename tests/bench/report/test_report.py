"""The report is rendered once for all tests that only look at it; matplotlib is slow to import and to draw."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.bench.report.drawing import label
from amodal.bench.report.memory import _thinned, save_memory
from amodal.bench.report.overview import document
from amodal.bench.schema import Fidelity, Latency, Memory, Results, Timeline
from amodal.cli import main
from amodal.runtime.errors import InputError, OutputError

from .. import samples

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
KINDS = ("latency", "memory", "fidelity", "quality", "peers", "roofline", "scaling")
HOSTILE = "<script>alert('x')</script> | `a` & \"b\" $\\frac{1}{$ \x07 ]]> _é漢"
_VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}


class Page(HTMLParser):
    """Elements and text of a page; refuses elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(results: Results, folder: Path) -> tuple[str, str]:
    from amodal.bench.report import write_report

    page, summary = write_report(results, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "summary.md"]
    return page.read_text(), summary.read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The page and the summary of a results file with everything in it."""
    return written(samples.make_results(), tmp_path_factory.mktemp("report") / "new" / "folder")


def test_the_page_refers_to_nothing_outside_itself(report: tuple[str, str]) -> None:
    page = Page(report[0])
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert "src" not in attrs
        for name in ("href", "xlink:href", "aria-labelledby"):
            if name in attrs:
                assert attrs[name].removeprefix("#") in ids, attrs
    assert "@import" not in report[0]
    for target in re.findall(r"url\(([^)]*)\)", report[0]):
        assert target.startswith("#")
        assert target[1:] in ids


def test_every_kind_has_its_section_with_a_plot_and_a_table(report: tuple[str, str]) -> None:
    for kind in KINDS:
        (section,) = re.findall(rf'<section id="{kind}".*?</section>', report[0], re.S)
        page = Page(section)
        assert page.all("svg")
        assert page.all("table")
        assert len(page.all("figure")) == len(page.all("svg")) == len(page.all("figcaption"))


def test_every_plot_is_well_formed_and_says_in_words_what_it_shows(report: tuple[str, str]) -> None:
    plots = re.findall(r"<svg.*?</svg>", report[0], re.S)
    assert len(plots) == sum(len(s.figures) for s in document(samples.make_results()).sections)
    for plot in plots:
        root = ET.fromstring(plot)
        assert root.attrib["role"] == "img"
        assert len(root.attrib["aria-label"]) > 40
        assert not root.findall(".//{*}metadata")
        assert not re.search(r"#[0-9a-f]{6}\b", plot), "a colour that would not follow the page's"


def test_every_table_has_heads_for_columns_and_rows_and_says_where_its_figures_are_from(
    report: tuple[str, str],
) -> None:
    page = Page(report[0])
    assert {attrs["scope"] for attrs in page.all("th")} == {"col", "row"}
    tables = [table for section in document(samples.make_results()).sections for table in section.tables]
    assert len(page.all("table")) == len(tables) + 1
    assert {table.basis for table in tables} == {"measured", "predicted", "counted"}
    for table in tables:
        assert all(len(row) == len(table.head) for row in table.rows), table.caption


def test_page_and_summary_have_the_figures_of_the_record(report: tuple[str, str]) -> None:
    results = samples.make_results()
    page, summary = Page(report[0]).text, report[1]
    expected = []
    for m in results.measurements:
        if isinstance(m, Latency):
            seconds = [clip.seconds for clip in m.clips]
            expected += [f"{np.median(seconds) / 25:.3g} s", f"{np.median(seconds):.3g} s", f"{max(seconds):.3g} s"]
        if isinstance(m, Memory):
            expected.append(f"{m.host_peak / 1e9:.3g} GB")
        if isinstance(m, Fidelity):
            expected.append(f"{m.stages[0].latents[-1]:.1e}")
    expected += ["81.11 %", "51.11 %", "750 TFLOP", "0.93", "3.3e-06"]
    for text in expected:
        assert text in page
        assert text.replace("_", r"\_") in summary


def test_the_summary_has_every_section_and_whole_tables(report: tuple[str, str]) -> None:
    heads = re.findall(r"^## (.*)$", report[1], re.M)
    assert heads == ["At a glance", *(kind.capitalize() for kind in KINDS), "Not measured"]
    columns = 0
    for line in report[1].splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells == columns or not columns or not cells
        columns = cells


def test_the_report_says_what_was_skipped_and_what_would_change_that(report: tuple[str, str]) -> None:
    for text in (Page(report[0]).text, report[1].replace("\\", "")):
        assert "tensorrt is not installed" in text
        assert 'pip install "amodal[tensorrt]"' in text
        assert "another process used 33 % of a core meanwhile" in text
        assert "0.95 s/frame" in text
        assert "no comparison" in text
        assert "Unfinished" not in text


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    everything = samples.make_results()
    executed = samples.CPU.model_copy(update={"backend": HOSTILE, "options": {HOSTILE: HOSTILE}})
    peers = samples.make_peers()
    quality = samples.make_quality()
    hostile = everything.model_copy(
        update={
            "bundle": everything.bundle.model_copy(update={"name": HOSTILE}),
            "measurements": [
                samples.make_latency().model_copy(update={"executed": executed, "warnings": [HOSTILE]}),
                samples.make_fidelity().model_copy(update={"executed": executed}),
                peers.model_copy(update={"peers": [p.model_copy(update={"name": HOSTILE}) for p in peers.peers]}),
                quality.model_copy(
                    update={"presets": [p.model_copy(update={"name": "_" + HOSTILE}) for p in quality.presets]}
                ),
            ],
            "versions": {HOSTILE: HOSTILE},
        }
    )
    page, summary = written(hostile, tmp_path / "out")
    assert "<script" not in page
    assert "\x07" not in page + summary
    assert "<script" not in summary
    parsed = Page(page)
    assert not parsed.all("script")
    assert "<script>alert('x')</script>" in parsed.text
    for plot in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(plot)
    for line in summary.splitlines():
        assert "`a`" not in line


@pytest.mark.parametrize("finished", [True, False])
def test_nothing_measured_makes_a_report_that_says_so(finished: bool, tmp_path: Path) -> None:
    results = samples.make_results(skipped=[]).model_copy(update={"measurements": [], "finished": finished})
    page, summary = written(results, tmp_path / "out")
    for text in (Page(page).text, summary):
        assert ("Unfinished" in text) is not finished
        assert "Not in this file: latency, memory" in text


def test_measurements_without_samples_are_shown_without_plots(tmp_path: Path) -> None:
    latency, memory, fidelity = samples.make_latency(), samples.make_memory(), samples.make_fidelity()
    roofline, scaling, peers = samples.make_roofline(), samples.make_scaling(), samples.make_peers()
    nothing = Timeline(seconds=[], bytes=[])
    stages = [s.model_copy(update={"latents": [0.0] * 25}) for s in fidelity.stages]
    idle = [p.model_copy(update={"seconds": []}) for p in peers.peers]
    results = samples.make_results(
        latency.model_copy(update={"clips": [], "cold": {}}),
        memory.model_copy(update={"host": nothing, "phases": []}),
        fidelity.model_copy(update={"stages": stages}),
        samples.make_quality().model_copy(update={"presets": []}),
        peers.model_copy(update={"peers": idle}),
        peers.model_copy(update={"peers": []}),
        roofline.model_copy(update={"components": [], "predictions": [], "executed": None}),
        roofline.model_copy(update={"components": []}),
        scaling.model_copy(update={"sweeps": []}),
        scaling.model_copy(update={"sweeps": [scaling.sweeps[0].model_copy(update={"points": []})]}),
    )
    found = document(results)
    assert [section.kind for section in found.sections] == list(KINDS)
    page, _ = written(results, tmp_path / "out")
    assert len(Page(page).all("svg")) == 1  # predictions need no samples
    assert "identical to the reference" in page


def test_nothing_is_fitted_to_one_point_and_a_reason_is_said_once(tmp_path: Path) -> None:
    scaling = samples.make_scaling()
    none = {"fixed": None, "each": None, "exponent": None}
    why = "no checkpoint."
    sweeps = [
        s.model_copy(update={"points": s.points[:1], **none, "skipped": {"1": why, "2": why}})
        for s in scaling.sweeps[:2]
    ]
    results = samples.make_results(scaling.model_copy(update={"sweeps": sweeps}))
    (section,) = document(results).sections
    assert [table.caption.split(": ")[1] for table in section.tables] == ["by frames (frames).", "by steps (steps)."]
    assert all("fit" not in table.head for table in section.tables)
    assert [note for note in section.notes if why in note] == [f"frames 1, 2 and steps 1, 2 left out: {why}"]
    page, summary = written(results, tmp_path / "out")
    assert len(Page(page).all("svg")) == 2
    assert "fitted" not in summary + page


def test_a_plan_stands_beside_the_components_that_run_in_its_phases() -> None:
    memory = samples.make_memory(samples.GPU, gpu=True)
    (section,) = document(samples.make_results(memory)).sections
    (plan,) = [table for table in section.tables if table.head[0] == "phase"]
    span = next(p for p in memory.phases if p.name == "segment/unet")
    process = memory.device["process"]
    seen = max(b for s, b in zip(process.seconds, process.bytes, strict=True) if span.begin <= s <= span.end)
    rows = {row[0]: row[1:] for row in plan.rows}
    planned = memory.planned["segment/denoise"]
    share = f"{100 * seen / planned:.0f} %"
    assert rows["segment/denoise"] == [f"{planned / 1e9:.2f} GB", f"{seen / 1e9:.2f} GB", share]


def test_thinning_a_timeline_keeps_its_peak() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(10**8, 10**9, 50_000)
    values[31_234] = 5 * 10**9
    times, kept = _thinned(Timeline(seconds=np.arange(50_000.0).tolist(), bytes=values.tolist()))
    assert len(kept) < 1000
    assert (kept.max(), kept.min()) == (5.0, values.min() / 1e9)
    assert times[kept.argmax()] == 31_234
    assert (np.diff(times) > 0).all()


def test_labels_are_one_printable_line() -> None:
    assert label("a\x00b\n c") == "a b c"
    assert label("x" * 99, 10) == "x" * 9 + "…"


def test_the_command_writes_the_report_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = samples.make_results(samples.make_fidelity())
    (tmp_path / "results.json").write_text(results.model_dump_json())
    with pytest.raises(SystemExit) as ended:
        main(["bench", "report", str(tmp_path)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("report.html", "summary.md")]
    assert "Fidelity" in (tmp_path / "report.html").read_text()


def test_a_timeline_can_be_a_picture_of_its_own(tmp_path: Path) -> None:
    save_memory(samples.make_memory(), tmp_path / "memory.svg")
    assert ET.parse(tmp_path / "memory.svg").getroot().tag.endswith("svg")
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        save_memory(samples.make_memory(), tmp_path / "memory.gif")
    with pytest.raises(OutputError, match=r"no/memory\.png cannot be written"):
        save_memory(samples.make_memory(), tmp_path / "no" / "memory.png")
    assert [p.name for p in tmp_path.iterdir()] == ["memory.svg"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    from amodal.bench.report import write_report

    (tmp_path / "file").write_text("")
    results = samples.make_results().model_copy(update={"measurements": []})
    with pytest.raises(OutputError, match=r"report\.html cannot be written .*`out`\.$"):
        write_report(results, tmp_path / "file" / "out")

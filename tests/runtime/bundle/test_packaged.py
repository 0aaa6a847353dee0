"""The bundles inside the package, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from amodal.runtime.builds.finding import bundle_name
from amodal.runtime.builds.store import engine_folder
from amodal.runtime.bundle.reading import Bundle, find_bundle, packaged_name
from amodal.runtime.memory.recorded import record_file

FAMILIES = {"default": "diffusion-vas", "default-sameo": "sameo"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_of_the_package_is_found_by_name_and_recognised_by_folder(name: str) -> None:
    bundle = Bundle(name)
    assert bundle.manifest.family == FAMILIES[name]
    assert bundle.path == find_bundle(name)
    assert packaged_name(name) == packaged_name(bundle.path) == bundle_name(bundle) == name


def test_a_folder_of_that_name_is_not_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle("./default-sameo") == Path("default-sameo")
    assert packaged_name("./default-sameo") is None


def test_what_is_made_for_the_packages_bundles_lies_in_the_cache_one_folder_each() -> None:
    folders = {engine_folder(name) for name in FAMILIES} | {record_file(Bundle(name)).parent for name in FAMILIES}
    assert len(folders) == 4
    assert not any(folder.is_relative_to(find_bundle(name)) for folder in folders for name in FAMILIES)


def test_the_packages_bundles_are_small() -> None:
    sizes = {
        name: sum(file.bytes for entry in Bundle(name).manifest.components.values() for file in entry.files)
        for name in FAMILIES
    }
    assert sizes["default-sameo"] <= 8e6
    assert sum(sizes.values()) <= 30e6

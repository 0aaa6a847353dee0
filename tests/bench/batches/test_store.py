"""One file per finished unit: what is there is found again, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from amodal.bench.batches.shards import Shard
from amodal.bench.batches.store import create_store, name_of
from amodal.runtime.errors import InputError, MissingDependencyError, OutputExistsError

KEYS = ["a", "a/b", "a%2Fb", "A", ".hidden", "..", "", "x" * 300, "x" * 301, "seed 3, clip=7", "ä", "a.", "CON"]


@pytest.mark.parametrize("address", ["{}/out", "file://{}/out", "memory://{}/out"])
def test_what_was_put_is_found_again_under_its_own_key(address: str, tmp_path: Path) -> None:
    if address.startswith("memory"):
        pytest.importorskip("fsspec")
    out = address.format(tmp_path)
    store = create_store(out, {"steps": 3})
    for number, key in enumerate(KEYS):
        assert store.get(key) is None
        store.put(key, {"number": number})
    again = create_store(out, {"steps": 3}, resume=True)
    assert [again.get(key) for key in KEYS] == [{"number": number} for number in range(len(KEYS))]
    assert dict(again.records()) == {key: {"number": number} for number, key in enumerate(KEYS)}
    assert again.missing([*KEYS, "other"]) == ["other"]


def test_names_are_unique_visible_and_short() -> None:
    names = [name_of(key) for key in KEYS]
    assert len({name.lower() for name in names if name not in ("a", "A")} | {"a"}) == len(KEYS) - 1
    assert all(0 < len(name) <= 150 and not name.startswith(".") and "/" not in name for name in names)


def test_a_record_that_was_cut_off_counts_as_missing(tmp_path: Path) -> None:
    store = create_store(tmp_path / "out", {})
    store.put("a", {"value": list(range(100))})
    file = tmp_path / "out" / "units" / "a.json"
    for length in (0, 1, 50):
        file.write_bytes(file.read_bytes()[:length])
        assert store.get("a") is None
        assert list(store.records()) == []


def test_results_of_other_settings_are_refused_with_the_setting(tmp_path: Path) -> None:
    create_store(tmp_path / "out", {"options": {"steps": 3, "seed": 1}, "bundle": "abc"})
    with pytest.raises(InputError, match=r"\(options.steps is 3 there and 4 here\)"):
        create_store(tmp_path / "out", {"options": {"steps": 4, "seed": 1}, "bundle": "abc"}, resume=True)
    with pytest.raises(OutputExistsError, match="go on with `resume=True`"):
        create_store(tmp_path / "out", {})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("")
    with pytest.raises(OutputExistsError, match="no batch was begun there"):
        create_store(tmp_path, {}, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_shards_that_share_a_store_fill_it_and_each_key_once(tmp_path: Path) -> None:
    keys = [f"clip {number}" for number in range(7)]
    for number in (1, 2, 3):
        store = create_store(tmp_path / "out", {"a": 1}, resume=number > 1)
        for key in Shard(number, 3).of(keys):
            assert store.get(key) is None
            store.put(key, {"shard": number})
    assert store.missing(keys) == []
    assert sorted(record["shard"] for _, record in store.records()) == [1, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("text", "said"), [("0/4", "counted from 1"), ("5/4", "1/4 to 4/4"), ("2", "such as 2/8")])
def test_a_shard_out_of_range_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Shard.parse(text)


def test_an_address_whose_library_is_missing_is_refused_with_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match="needs s3fs, which is not installed; run `pip install s3fs`"):
        create_store("s3://bucket/out", {})
    with pytest.raises(InputError, match="no://x cannot be used"):
        create_store("no://x", {})

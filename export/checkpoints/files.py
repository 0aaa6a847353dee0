"""The files of a checkpoint: its folder or hub id, weights and licence."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from amodal.runtime.errors import CheckpointError

from ..graph.weights import one_line, shards_of


def locate(
    path_or_id: str | Path, folders: Sequence[str], variant: str | None, revision: str | None
) -> tuple[Path, str]:
    """Finds the folder of a checkpoint, or downloads it from the Hugging Face hub.

    Args:
        folders: its subfolders with a network each.

    Returns:
        The folder, and its name for messages and the manifest.

    Raises:
        CheckpointError: there is no such folder, and it could not be downloaded.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path, str(path)
    if path.exists() or not is_hub_id(path_or_id):
        raise CheckpointError(
            f"There is no checkpoint folder at {path_or_id}; expected a folder with model_index.json, or a "
            "Hugging Face id such as org/name."
        )
    return from_hub(str(path_or_id), lambda: _download(str(path_or_id), folders, variant, revision))


def is_hub_id(name: str | Path) -> bool:
    """Says whether a name has the form of a Hugging Face id, org/name."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)) is not None


def from_hub(name: str, download: Callable[[], Path]) -> tuple[Path, str]:
    """Downloads a checkpoint from the Hugging Face hub.

    Returns:
        Its folder, and its id and revision.

    Raises:
        CheckpointError: it could not be downloaded.
    """
    try:
        root = download()
    except Exception as error:
        raise CheckpointError(
            f"{name} is no folder and could not be fetched from Hugging Face ({one_line(error)}); give "
            "the path of a downloaded checkpoint, or check the id, the connection, your access "
            "(`hf auth login`) and HF_HUB_OFFLINE."
        ) from error
    return root, f"{name}@{root.name}"


def _download(repo: str, folders: Sequence[str], variant: str | None, revision: str | None) -> Path:
    """Downloads only what is read: a release may contain each network several times."""
    from huggingface_hub import snapshot_download

    def fetch(weights: str, ignored: str | None = None) -> Path:
        wanted = ["model_index.json", "README.md", "LICEN[SC]E*"]
        wanted += [f"{name}/*.json" for name in (*folders, "scheduler", "feature_extractor")]
        wanted += [f"{name}/{weights}" for name in folders]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=ignored))

    if variant:
        return fetch(f"*.{variant}*.safetensors")
    # A variant's file has a second dot; it is downloaded only if there are no plain weights.
    root = fetch("*.safetensors", "*.*.safetensors")
    whole = all(any((root / name).glob("*.safetensors")) for name in folders)
    return root if whole else fetch("*.safetensors")


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """Returns the safetensors files of one network: one, or the shards that an index names.

    Args:
        stem: "model" for transformers, "diffusion_pytorch_model" for diffusers.
        variant: such as "fp16"; None for the plain files, or the only variant.

    Raises:
        CheckpointError: there are no such files, or only pickles, or a shard is missing.
    """
    names = sorted(file.name for file in folder.iterdir())
    pattern = re.compile(rf"{stem}(?:\.(\w+))?\.safetensors(?:\.index(?:\.(\w+))?\.json)?")
    found: dict[str | None, Path] = {}
    # "x.safetensors" comes before "x.safetensors.index.json", which is a leftover if both are there.
    for name in names:
        if match := pattern.fullmatch(name):
            found.setdefault(match[1] or match[2], folder / name)
    if not found:
        expected = f"expected {stem}.safetensors, or {stem}.safetensors.index.json and its shards"
        for name in names:
            if name.endswith((".bin", ".ckpt", ".pt", ".pth")):
                raise CheckpointError(
                    f"{folder / name} holds a pickle; {expected}, because a pickle can run "
                    "code: if you trust it, convert with from_pretrained(...) and save_pretrained(...) of "
                    "diffusers or transformers."
                )
        raise CheckpointError(f"{folder} holds no weights; {expected}: download the checkpoint again.")
    if variant not in found and (variant is not None or len(found) > 1):
        asked = f"no {variant} weights" if variant else "weights of several variants and no plain ones"
        there = ", ".join(name or "plain" for name in found)
        raise CheckpointError(f"{folder} has {asked}; choose from what is there: {there}.", field="weights")
    file = found[variant] if variant in found else next(iter(found.values()))
    return [file] if file.suffix != ".json" else shards_of(file)


def read_licence(root: Path) -> str | None:
    """Returns the id in README.md's front matter, which the hub uses, or a licence file's title and name."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    if front := re.match(r"---\s*\n(.*?)\n---\s*$", text, re.DOTALL | re.MULTILINE):
        entry = re.compile(r"^(license|license_name):[ \t]*(['\"]?)(\S.*?)\2[ \t]*$", re.MULTILINE)
        named = {key: value for key, _, value in entry.findall(front[1])}
        licence: str | None = named.get("license")
        if licence is not None:
            return named.get("license_name", licence) if licence == "other" else licence
    for file in sorted(root.glob("LICEN[SC]E*")):
        lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        title = next((line for line in lines if line), "")
        return f"{title} ({file.name})" if title else file.name
    return None

"""The files of a checkpoint, whatever its networks: the folder or hub id, JSON, weights and licence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amodal.runtime.errors import CheckpointError


def locate(
    path_or_id: str | Path, folders: Sequence[str], variant: str | None, revision: str | None
) -> tuple[Path, str]:
    """The folder of a checkpoint, fetched from the Hugging Face hub if need be, and what to call it.

    Args:
        folders: those that hold a network each.

    Raises:
        CheckpointError: it is neither a folder nor can it be fetched.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path, str(path)
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(path_or_id)):
        raise CheckpointError(
            f"There is no checkpoint folder at {path_or_id}; expected a folder with model_index.json, or a "
            "Hugging Face id such as org/name."
        )
    try:
        root = _download(str(path_or_id), folders, variant, revision)
    except Exception as error:
        raise CheckpointError(
            f"{path_or_id} is no folder and could not be fetched from Hugging Face ({one_line(error)}); give "
            "the path of a downloaded checkpoint, or check the id, the connection, your access "
            "(`hf auth login`) and HF_HUB_OFFLINE."
        ) from error
    return root, f"{path_or_id}@{root.name}"


def _download(repo: str, folders: Sequence[str], variant: str | None, revision: str | None) -> Path:
    """Fetches what is read and nothing else: a release may hold each network several times over."""
    from huggingface_hub import snapshot_download

    def fetch(weights: str, ignored: str | None = None) -> Path:
        wanted = ["model_index.json", "README.md", "LICEN[SC]E*"]
        wanted += [f"{name}/*.json" for name in (*folders, "scheduler", "feature_extractor")]
        wanted += [f"{name}/{weights}" for name in folders]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=ignored))

    if variant:
        return fetch(f"*.{variant}*.safetensors")
    # A variant's file has a second dot: fetched only where there are no plain weights.
    root = fetch("*.safetensors", "*.*.safetensors")
    whole = all(any((root / name).glob("*.safetensors")) for name in folders)
    return root if whole else fetch("*.safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: the file is missing, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; expected a whole checkpoint (model_index.json, unet/, vae/, image_encoder/, "
            "scheduler/): check the path, or download it again."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({one_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again.")
    return content


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """The safetensors files of one network: one, or the shards that an index names.

    Args:
        stem: "model" for transformers, "diffusion_pytorch_model" for diffusers.
        variant: such as "fp16"; None takes the plain files, or the only variant there is.

    Raises:
        CheckpointError: there are none, or pickles only, or not the variant, or a shard is missing.
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
    return [file] if file.suffix != ".json" else _shards(file)


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again.")
    shards = [index.parent / Path(str(name)).name for name in sorted(set(map(str, weight_map.values())))]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing, which {index.name} names; download the checkpoint again.")
    return shards


def read_licence(root: Path) -> str | None:
    """The id in README.md's front matter (the hub knows no other), or a licence file's title and name."""
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


def one_line(error: Exception) -> str:
    """An exception's message, fit to stand inside a sentence."""
    text = f"unknown {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__

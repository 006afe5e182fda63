"""Looks into the files of a pair, in this very process: what the child does once it is limited."""

from collections.abc import Mapping
from pathlib import Path

from gemmad.formats.architectures import GGUF_PROJECTORS, MODEL_TYPES, Architecture
from gemmad.formats.hf_config import check_keys
from gemmad.formats.json_text import SETTINGS, load_object
from gemmad.formats.limits import BadFile, read_bounded
from gemmad.inspection.describe import describe
from gemmad.inspection.gguf_files import gguf_architecture, is_gguf, read_gguf_half, read_parts
from gemmad.inspection.half import Files, HalfFacts, reading
from gemmad.inspection.hf_files import CONFIG, read_hf_half, read_settings, read_tensors
from gemmad.inspection.inspected import Inspected
from gemmad.wire import PairFiles


def look(files: PairFiles) -> Inspected:
    """The facts of the pair, every file of it checked.

    Raises:
        BadFile: a file cannot be used; names it and says why.
    """
    target = _read_half(_paths(files.target))
    if target.architecture.role != "target":
        raise BadFile("These files are a drafter. It runs only with its target: pull the target.")
    drafter, wrong = _drafter(_paths(files.drafter))
    for name, path in _paths(files.projector).items():
        _check_projector(name, path)
    _check_adapter(_paths(files.adapter))
    return describe(target, drafter, wrong)


def _read_half(files: Files) -> HalfFacts:
    return read_gguf_half(files) if is_gguf(files) else read_hf_half(files)


def _drafter(files: Files) -> tuple[HalfFacts | None, str | None]:
    """The drafter, or why these files are none: another model is no damaged file."""
    if not files:
        return None, None
    found = _kind(files)
    if found is None or found.role != "drafter":
        return None, "the files given as the drafter are another kind of model."
    return _read_half(files), None


def _kind(files: Files) -> Architecture | None:
    """What a half says it is; None: nothing known here."""
    try:
        if is_gguf(files):
            return gguf_architecture(read_parts(_gguf_only(files))[1])
        named = read_settings(CONFIG, files).get("model_type") if CONFIG in files else None
        return MODEL_TYPES.get(named) if isinstance(named, str) else None
    except BadFile as error:
        if "not supported" in str(error):
            return None
        raise


def _gguf_only(files: Files) -> Files:
    return {name: path for name, path in files.items() if name.endswith(".gguf")}


def _check_projector(name: str, path: Path) -> None:
    """A GGUF file of towers, or settings and safetensors."""
    if name.endswith(".gguf"):
        _, gguf = read_parts({name: path})
        if gguf.metadata.get("general.architecture") not in GGUF_PROJECTORS:
            with reading(name):
                raise BadFile("it is no projector of images or audio")
    elif name.endswith(".json"):
        read_settings(name, {name: path})
    elif name.endswith(".safetensors"):
        read_tensors({name: path})


def _check_adapter(files: Files) -> None:
    for name in (name for name in files if name.endswith(".json")):
        with reading(name):
            check_keys(load_object(read_bounded(files[name], SETTINGS.nbytes)))
    if files:
        read_tensors(files)


def _paths(group: Mapping[str, str] | None) -> Files:
    return {name: Path(path) for name, path in (group or {}).items()}

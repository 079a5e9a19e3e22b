"""The user's tuned models: a folder of files, listed with their cards.

Loads no tensor library, so that Slicer's process can list the models.
"""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from SAMFineTuneLib.errors import InputError
from SAMFineTuneLib.files import written_whole
from SAMFineTuneLib.models.model_file import ModelCard, read_card
from SAMFineTuneLib.models.name import SUFFIX, model_name, numbered
from SAMFineTuneLib.user_folders import MODELS_VARIABLE, models_folder


@dataclass(frozen=True)
class TunedModel:
    """A file of the library.

    Attributes:
        name: the model's name, which is the file's name without its suffix.
        path: the file.
        bytes: its size.
        card: the model's card; None if the model cannot be used.
        fault: a text that says why it cannot be used; "" if it can.
    """

    name: str
    path: Path
    bytes: int
    card: ModelCard | None
    fault: str = ""


def list_models() -> list[TunedModel]:
    """Every tuned model, sorted by name; those that cannot be used have a `fault`.

    Raises:
        InputError: the folder exists but cannot be read.
    """
    models = [_described(path) for path in _files()]
    return sorted((each for each in models if each), key=lambda each: each.name.casefold())


def model_named(name: str) -> TunedModel | None:
    """The model called `name`, None if there is none; reads the card of no other model.

    Raises:
        InputError: as `list_models`.
    """
    return next((_described(path) for path in _files() if _name_of(path) == name), None)


def find_model(name: str) -> TunedModel:
    """The model called `name`.

    Raises:
        InputError: there is no such model.
    """
    model = model_named(name)
    if model is not None:
        return model
    known = ", ".join(each.name for each in list_models())
    raise InputError(
        f"there is no tuned model called {name!r}",
        f"choose one of: {known}" if known else "fine-tune or import one first",
        code="no_such_model",
    )


def new_model_path(name: str) -> Path:
    """The path for a new model: no file lies there yet, and every system accepts the name.

    Raises:
        InputError: the folder exists but cannot be read.
    """
    stem = model_name(name) or "model"
    taken = _names()
    free = next(
        each for number in count(1) if (each := numbered(stem, number)).casefold() not in taken
    )
    return models_folder() / f"{free}{SUFFIX}"


def rename_model(model: TunedModel, name: str) -> TunedModel:
    """Rename a model; characters that some system does not allow in a file's name are replaced.

    Raises:
        InputError: another model has the name, no allowed character is left in it, or the file
            cannot be moved.
    """
    stem = model_name(name)
    if not stem:
        raise InputError(
            f"{name!r} cannot be the name of a model", "use letters or digits", code="bad_name"
        )
    # The model's own name in other upper and lower case is the same file on many systems; renaming
    # to it is allowed.
    if stem.casefold() in _names() - {model.name.casefold()}:
        raise InputError(
            f"there is already a model called {stem!r}",
            "choose another name, or rename or delete that one first",
            code="name_taken",
        )
    path = model.path.with_name(f"{stem}{SUFFIX}")
    try:
        model.path.rename(path)
    except OSError as error:
        raise _refused(f"rename {model.name}", error) from error
    return _found(path)


def delete_model(model: TunedModel) -> None:
    """Delete a model's file.

    Raises:
        InputError: it no longer exists, or cannot be deleted.
    """
    try:
        model.path.unlink()
    except OSError as error:
        raise _refused(f"delete {model.name}", error) from error


def export_model(model: TunedModel, file: Path, *, overwrite: bool = False) -> Path:
    """Copy a model out of the library, for another computer or another person.

    Args:
        model: a model that can be used.
        file: where to write it; the suffix of tuned models is added if it is missing. If this is an
            existing folder, the copy is written into it under the model's name.
        overwrite: whether an existing file may be replaced, because the user has agreed.

    Returns:
        The file.

    Raises:
        InputError: the model cannot be used, or the file exists or cannot be written.
    """
    file = Path(file).expanduser().absolute()
    if file.is_dir():
        file = file / f"{model.name}{SUFFIX}"
    elif not file.name.lower().endswith(SUFFIX):
        file = file.with_name(file.name + SUFFIX)
    read_card(model.path)
    if file.is_dir() or (file.exists() and (not overwrite or file.samefile(model.path))):
        raise InputError(
            f"{file} is there already", "name another file, or delete that one", code="file_exists"
        )
    _copy(model.path, file)
    return file


def import_model(file: Path) -> TunedModel:
    """Copy a model into the library under its own name, with a number added if that is taken.

    Raises:
        InputError: there is no such file; it is not a tuned model, damaged or of a newer format; or
            the copy cannot be written.
    """
    file = Path(file).expanduser().absolute()
    read_card(file)
    path = new_model_path(file.name)
    _copy(file, path)
    return _found(path)


def _files() -> list[Path]:
    folder = models_folder()
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"the folder of tuned models, {folder}, cannot be read: {error.strerror or error}",
            f"ask for the right to read it, or name another folder in {MODELS_VARIABLE}",
            code="no_access",
        ) from error
    # A file whose name begins with a dot is still being written.
    return [
        path
        for path in paths
        if path.name.lower().endswith(SUFFIX) and not path.name.startswith(".") and path.is_file()
    ]


def _names() -> set[str]:
    """The names that are taken, case-folded, because many systems ignore case in file names."""
    return {_name_of(path).casefold() for path in _files()}


def _name_of(path: Path) -> str:
    return path.name[: -len(SUFFIX)]


def _described(path: Path) -> TunedModel | None:
    """The model of a file; None if the file was deleted meanwhile."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    try:
        return TunedModel(_name_of(path), path, size, read_card(path))
    except InputError as error:
        return TunedModel(_name_of(path), path, size, None, str(error))


def _found(path: Path) -> TunedModel:
    model = _described(path)
    if model is None:
        raise InputError(
            f"{path} was deleted", "check which program deletes files there", code="no_such_file"
        )
    return model


def _copy(source: Path, target: Path) -> None:
    """Copies a model; the copy appears whole or not at all."""
    try:
        with written_whole(target) as unfinished:
            shutil.copyfile(source, unfinished)
            if unfinished.stat().st_size != source.stat().st_size:
                raise OSError(errno.EIO, "not all of it was written")
    except OSError as error:
        raise _refused(f"copy {source.name} to {target}", error) from error


def _refused(what: str, error: OSError) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(f"cannot {what}: no space left", "free some space", code="no_space")
    return InputError(
        f"cannot {what}: {error.strerror or error}",
        "close programs that use the file, and check that the folder may be written",
        code="not_writable",
    )

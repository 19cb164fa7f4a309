"""Storages of results: what a state holds is a reference to them."""

import importlib
import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

FOLDER_VARIABLE = "RUNSTATE_RESULTS_FOLDER"


class Storage(Protocol):
    """A place where results are kept under keys."""

    def write(self, key: str, content: bytes) -> None:
        """Write the content of a key."""

    def read(self, key: str) -> bytes:
        """Return the content of a key. Raise ValueError if nothing can be read there."""


class LocalStorage:
    """A folder; by default RUNSTATE_RESULTS_FOLDER, or `.runstate/results` in the home folder."""

    def __init__(self, folder: str | Path | None = None) -> None:
        home = Path.home() / ".runstate" / "results"
        self.folder = Path(folder or os.environ.get(FOLDER_VARIABLE) or home).resolve()

    def write(self, key: str, content: bytes) -> None:
        """Write a file, as a whole: another reader never finds half of it."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        part.write_bytes(content)
        part.replace(file)

    def read(self, key: str) -> bytes:
        """Return the content of a file. Raise ValueError if it is missing, or if the key leads out of the folder."""
        try:
            return self._file(key).read_bytes()
        except OSError as error:
            raise ValueError(
                f"The result {key} cannot be read in {self.folder} ({error.strerror}): set {FOLDER_VARIABLE} "
                "to the folder of the program that wrote it."
            ) from error

    def _file(self, key: str) -> Path:
        file = (self.folder / key).resolve()
        if not file.is_relative_to(self.folder):
            raise ValueError(f"The key {key} leads out of the results folder {self.folder}.")
        return file


class FsspecStorage:
    """A folder at a URL of fsspec, such as s3://bucket/results. Needs the package fsspec and that of its protocol."""

    def __init__(self, url: str, **options: Any) -> None:
        files: Any = importlib.import_module("fsspec")
        self.files, self.folder = files.core.url_to_fs(url, **options)

    def write(self, key: str, content: bytes) -> None:
        """Write a file."""
        self.files.makedirs(self.folder, exist_ok=True)
        self.files.pipe_file(self._file(key), content)

    def read(self, key: str) -> bytes:
        """Return the content of a file. Raise ValueError if it is missing, or if the key leads out of the folder."""
        try:
            content: bytes = self.files.cat_file(self._file(key))
        except OSError as error:
            raise ValueError(f"The result {key} cannot be read in {self.folder}: {error}.") from error
        return content

    def _file(self, key: str) -> str:
        if ".." in key.split("/") or key.startswith("/"):
            raise ValueError(f"The key {key} leads out of the results folder {self.folder}.")
        return f"{self.folder}/{key}"


def storage_at(place: str | Path) -> Storage:
    """Return the storage in a folder or at a URL of fsspec."""
    return FsspecStorage(str(place)) if urlsplit(str(place)).netloc else LocalStorage(place)

"""The client ids that a run keeps beside its output, so that a session outlives the process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path

from rxflow.errors import SinkError


class ClientIds:
    """One id for each source, in a small JSON file.

    Args:
        path: The file; made when the first id is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def client_id(self, key: str) -> str:
        """The id for this key: the one of the last run, or a new one, on disk before it is used.

        Raises:
            SinkError: The file can't be read, or is not one of ours.
        """
        ids = self._read()
        if key not in ids:
            ids[key] = f"rxflow-{secrets.token_hex(8)}"
            self._write(ids)
        return ids[key]

    def of(self, address: str) -> dict[str, str]:
        """The ids that were kept for one broker, by their keys.

        Raises:
            SinkError: The file can't be read, or is not one of ours.
        """
        return {key: i for key, i in self._read().items() if key.split(" ", 1)[0] == address}

    def drop(self, key: str) -> None:
        """Keep this id no longer; the next run gets a new one.

        Raises:
            SinkError: The file can't be read or written, or is not one of ours.
        """
        ids = self._read()
        if ids.pop(key, None) is not None:
            self._write(ids)

    def _read(self) -> dict[str, str]:
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise SinkError(f"{self._path}: can't read the client ids: {error}") from error
        ids = None
        with contextlib.suppress(ValueError, RecursionError):
            ids = json.loads(text)
        if not isinstance(ids, dict) or not all(_is_id(each) for each in ids.values()):
            raise SinkError(f"{self._path}: not a file of client ids; move it away")
        return ids

    def _write(self, ids: dict[str, str]) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump(ids, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # else a power cut takes the id, and with it the session
            finally:
                os.close(folder)
        except OSError as error:
            raise SinkError(f"{self._path}: can't keep the client ids: {error}") from error


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value != ""

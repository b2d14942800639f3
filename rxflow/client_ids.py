"""The client ids that a run keeps beside its output, so that a session outlives the process."""

from __future__ import annotations

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

    def _read(self) -> dict[str, str]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise SinkError(f"{self._path}: can't read the client ids: {error}") from error
        try:
            ids = json.loads(text)
        except ValueError:
            ids = None
        if not isinstance(ids, dict) or not all(isinstance(v, str) for v in ids.values()):
            raise SinkError(f"{self._path}: not a file of client ids; move it away")
        return ids

    def _write(self, ids: dict[str, str]) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("w") as file:
                json.dump(ids, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise SinkError(f"{self._path}: can't keep the client ids: {error}") from error

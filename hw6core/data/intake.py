"""What files from elsewhere may be called and how much room they may take, whether an archive or git brings them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from hw6core.errors import DataError
from hw6core.limits import Limits

# Less than file systems allow, more than any data set needs.
_LONGEST_PART, _LONGEST_NAME, _DEEPEST = 255, 1024, 32
_SHOWN = 100


class Intake:
    """Admits files and folders one by one, and refuses the first that breaks a rule.

    Args:
        source: what to call the archive or repository in an error.
    """

    def __init__(self, source: str, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._bytes = 0
        # How each path is spelled and whether it is a folder, by what it is where case does not count.
        self._taken: dict[str, tuple[str, bool]] = {}

    def admit(self, name: str, size: int | None) -> list[str]:
        """The parts of a path that is safe below any folder; the size of a file, None for a folder.

        Raises:
            DataError: the name leads out of the folder, is too long or was there before, also in another case or
                normal form; or the limits are exceeded.
        """
        parts = self._parts(name)
        if size is not None and not parts:
            raise self._refusal(name, "is no name of a file")
        folders = parts if size is None else parts[:-1]
        for end in range(1, len(folders) + 1):
            self._claim(folders[:end], folder=True)
        if size is not None:
            self._claim(parts, folder=False)
            self._bytes += size
        if self._bytes > self._limits.unpacked_bytes:
            raise DataError(f"{self._source} unpacks to more than the {self._limits.unpacked_bytes} bytes allowed")
        return parts

    def refuse_special(self, name: str) -> None:
        """Raises the DataError for a link, a device and the like."""
        raise self._refusal(name, "is neither a file nor a folder")

    def too_many(self) -> DataError:
        return DataError(f"{self._source} has more than the {self._limits.members} files and folders allowed")

    def _parts(self, name: str) -> list[str]:
        """A backslash and a drive count too, so that a name means the same everywhere."""
        slashed = name.replace("\\", "/")
        parts = [part for part in slashed.split("/") if part not in ("", ".")]
        if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed) or ".." in parts or "\0" in name:
            raise self._refusal(name, "leads out of the folder")
        longest = max((_length(part) for part in parts), default=0)
        if longest > _LONGEST_PART or _length(name) > _LONGEST_NAME or len(parts) > _DEEPEST:
            raise DataError(f"{self._source} has a name that is too long or too deep: {_shortened(name)}")
        return parts

    def _claim(self, parts: Sequence[str], *, folder: bool) -> None:
        path = "/".join(parts)
        key = unicodedata.normalize("NFC", path.casefold())
        if key not in self._taken:
            if len(self._taken) >= self._limits.members:
                raise self.too_many()
            self._taken[key] = (path, folder)
        elif not folder or self._taken[key] != (path, folder):
            raise self._refusal(path, "is there twice")

    def _refusal(self, name: str, what: str) -> DataError:
        return DataError(f"{self._source}: {_shortened(name)} {what}; nothing was installed")


def _length(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _shortened(name: str) -> str:
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}...")

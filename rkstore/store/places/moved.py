"""What a push or a pull transferred."""

from dataclasses import dataclass

from rkstore.errors import size


@dataclass(frozen=True)
class Moved:
    """How much a push or a pull transferred."""

    files: int
    bytes: int
    present: int
    """Files that were there already."""

    def __str__(self) -> str:
        return f"{self.files} files, {size(self.bytes)}; {self.present} were there"

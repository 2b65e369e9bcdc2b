"""One file per site, with the columns next to them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput
from rkstore.share.exchange import facts as exported
from rkstore.share.exchange.base import Source
from rkstore.share.exchange.facts import facts_beside
from rkstore.share.exchange.matrices import Ids, Matrix, check_ids, of_matrices
from rkstore.store.natural import natural

if TYPE_CHECKING:
    from rkstore.share.settings import ImportSettings

# Stems of the files that hold columns.
COLUMN_FILES = {"tokens": "token_id", "document": "document", "position": "position"}


def of_files(
    path: Path,
    settings: "ImportSettings",
    suffix: str,
    matrix_in: Callable[[Path], Matrix],
    ids_in: Callable[[Path], Any],
) -> Source:
    """A source of one file, or of a directory of them in natural order.

    Args:
        matrix_in: opens a file of activations.
        ids_in: opens a file of integers, as NumPy.

    Raises:
        BadInput: there are none, or they do not belong together.
    """
    alone = not path.is_dir()
    paths = [path] if alone else _arrays(path, suffix)
    directory = path.parent if alone else path
    facts = facts_beside(directory)
    if alone and facts and path.stem not in facts.codec_fvu:
        facts = None  # they describe other files
    matrices = {file.stem: matrix_in(file) for file in paths}
    like = next(iter(matrices.values()))
    files, columns = {file.name: file for file in paths}, {}
    # The columns beside a single file belong to it only if an export wrote it.
    for stem, name in ({} if alone and not facts else COLUMN_FILES).items():
        file = directory / f"{stem}{suffix}"
        if file.is_file():
            columns[name] = Ids(ids_in(file))
            check_ids(str(file), columns[name], like)
            files[file.name] = file
    if facts:
        files[exported.FILE] = directory / exported.FILE
        facts.check(str(directory / exported.FILE), list(matrices), like.rows)
    return of_matrices(str(path), matrices, files, settings.hook_name, columns, facts)


def _arrays(directory: Path, suffix: str) -> list[Path]:
    """The files of a directory that are not columns, in natural order."""
    found = [file for file in directory.glob(f"*{suffix}") if file.stem not in COLUMN_FILES]
    if not found:
        raise BadInput(f"{directory} has no {suffix} files: give one, or a directory of them")
    return sorted(found, key=lambda file: natural(file.name))

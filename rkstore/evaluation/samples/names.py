"""Names that someone gave to latents, in a file."""

import json

from rkstore.errors import BadInput
from rkstore.store.files import named

# Characters of a name given by hand.
LONGEST_NAME = 200


def read_names(path: str | None, d_sae: int) -> dict[str, str]:
    """The names that someone gave to latents, by number.

    Raises:
        BadInput: the file cannot be read, or names something that is no latent.
    """
    if path is None:
        return {}
    try:
        found = json.loads(named(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read the names in {path}: {error}") from None
    if not isinstance(found, dict):
        raise BadInput(f'{path} must be one object of names, such as {{"2081": "streams"}}')
    for latent, name in found.items():
        known = latent.isascii() and latent.isdecimal() and str(int(latent[:10])) == latent
        if not known or int(latent) >= d_sae:
            raise BadInput(
                f"{path} names latent {latent!r}: the dictionary has {d_sae:,}, from 0 to "
                f"{d_sae - 1}"
            )
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            raise BadInput(
                f"{path} names latent {latent} with no text of 1 to {LONGEST_NAME} characters"
            )
    return found

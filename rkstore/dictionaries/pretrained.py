"""Loading, saving and publishing dictionaries, in the form of Hugging Face's models."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rkstore.errors import BadInput

if TYPE_CHECKING:
    from rkstore.dictionaries.dictionary import Dictionary


class Pretrained:
    """What a :class:`Dictionary` has in common with the models of ``transformers``."""

    metadata: dict[str, Any]
    """What its files say besides its weights, under SAELens' names: ``model_name``,
    ``context_size`` and so on, and under ``rkstore`` how it was trained and on which store.
    Saving writes it again."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        sae_id: str | None = None,
        *,
        layout: str | None = None,
        hook_name: str | None = None,
        hook_name_out: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> "Dictionary":
        """Load a dictionary from a directory or from the Hugging Face Hub, in any layout.

        Only its own files are fetched, into the Hub's cache. No pickle with code is opened.

        Args:
            source: a directory, ``USER/NAME`` of a repository, or ``hf://USER/NAME``.
            sae_id: the directory in it, where it has several dictionaries.
            layout: which program wrote it, one of ``rkstore.dictionaries.LAYOUTS``; None if its
                files say so.
            hook_name: of the rows that it reads, if its files do not say it.
            hook_name_out: of those that a transcoder writes.
            revision: branch, tag or commit of the repository.
            token: for a private repository; that of ``hf auth login`` or ``$HF_TOKEN`` if None.
            cache_dir: directory of the Hub's cache; the usual one if None.

        Raises:
            BadInput: there is no dictionary, or there are several, or a key or a tensor of its
                files cannot be honoured.
            RkstoreError: the connection failed.
        """
        from rkstore.dictionaries.disk import load_dictionary
        from rkstore.dictionaries.hub.fetch import fetched, place_of

        place = place_of(source, sae_id, revision)
        if not isinstance(place, Path):
            place = fetched(place, layout, token=token, cache=cache_dir)
        sites = {"hook_name": hook_name, "hook_name_out": hook_name_out}
        return load_dictionary(place, layout, **sites)[0]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        layout: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write the dictionary to a new or empty directory, which is complete or absent.

        Args:
            layout: one of ``rkstore.dictionaries.LAYOUTS``; by default SAELens' if it has the
                architecture, else rkstore's own.
            metadata: to write instead of its own.

        Raises:
            BadInput: the layout cannot hold it, or something is in the directory.
            RkstoreError: the disk is full or failed.
        """
        from rkstore.dictionaries.convert import write_new

        own = self.metadata if metadata is None else metadata
        write_new(_whole(self), save_directory, layout, own)

    def push_to_hub(
        self,
        repo_id: str,
        sae_id: str | None = None,
        *,
        layout: str | None = None,
        metadata: dict[str, Any] | None = None,
        license: str | None = None,
        commit_message: str | None = None,
        private: bool = True,
        revision: str | None = None,
        token: str | None = None,
    ) -> str:
        """Publish the dictionary as a model of the Hugging Face Hub, with a card, in one commit.

        Args:
            repo_id: ``USER/NAME`` of the repository, which is created if there is none.
            sae_id: the directory in it, for one of several dictionaries.
            layout, metadata: see :meth:`save_pretrained`.
            license: as the Hub names it, such as ``mit``; the card says that it is unknown if
                None.
            private: whether a repository that is created is private.
            revision: branch; ``main`` if None.
            token: that of ``hf auth login`` or ``$HF_TOKEN`` if None.

        Returns:
            Its URL, which :meth:`from_pretrained` takes.

        Raises:
            BadInput: the layout cannot hold it, the token may not write there, or another
                dictionary is in that directory.
            RkstoreError: the connection failed; call it again to continue.
        """
        from rkstore.dictionaries.hub.fetch import place_of
        from rkstore.dictionaries.hub.push import push

        place = place_of(repo_id if "://" in repo_id else f"hf://{repo_id}", sae_id, revision)
        with tempfile.TemporaryDirectory() as directory:
            files = Path(directory, "dictionary")
            self.save_pretrained(files, layout=layout, metadata=metadata)
            push(
                files,
                str(place),
                license=license,
                message=commit_message,
                private=private,
                token=token,
            )
        return str(place)


def _whole(dictionary: Pretrained) -> "Dictionary":
    from rkstore.dictionaries.dictionary import Dictionary

    if not isinstance(dictionary, Dictionary):
        raise BadInput("only a Dictionary can be saved")
    return dictionary

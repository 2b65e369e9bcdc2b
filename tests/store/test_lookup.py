"""Rows by number, slice, list and mask; words, texts and documents; tables."""

import pickle
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import CONTEXT, SITES, make_manifest, make_values, stored
from worded import make_tokenizer, write_worded

from rkstore.errors import BadInput, DamagedStore
from rkstore.share.pull import pull
from rkstore.share.settings import PullSettings
from rkstore.store.manifest import PARTNER_ROW
from rkstore.store.open import open_store
from rkstore.store.paired import PairedStore
from rkstore.store.rows import NoSuchRow
from rkstore.store.store import Store
from rkstore.store.writing.writer import StoreWriter

SITE = "blocks.1.hook_mlp_out"
TEXT = "def one(): return 😀 and über more. def two(): pass\n"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def written(root, tokenizer, ids, document=None, **options):
    """A store of these tokens, blocks of CONTEXT, with its tokenizer."""
    values = {} if document is None else {"document": np.array(document)}
    return write_worded(root, tokenizer, ids, values, **options)


@pytest.fixture
def text_store(tmp_path, tokenizer):
    """TEXT again and again in blocks that begin with BOS; a document a text; the ids by row."""
    own = tokenizer.encode(TEXT).ids
    ids, documents, number, left = [], [], 0, list(own)
    while len(ids) < 25 * CONTEXT:
        if not left:
            number, left = number + 1, list(own)
        if len(ids) % CONTEXT == 0:
            ids, documents = [*ids, 0], [*documents, number]
        else:
            ids, documents = [*ids, left.pop(0)], [*documents, number]
    return written(tmp_path / "text", tokenizer, ids, documents)


ASKED = [
    slice(None),
    slice(3, 150, 7),
    slice(150, 3, -7),
    slice(None, None, -50),
    slice(-10, None),
    slice(10, 5),
    slice(0, 10**9),
    [5, 5, 200, 3, -1],
    np.array([17, 215, 0], np.int32),
    np.arange(216) % 5 == 0,
    [i % 7 == 0 for i in range(216)],
    [],
    7,
    -1,
    np.int64(20),
]


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_rows_are_those_that_an_array_would_give(make_store, codec, asked):
    store, values = make_store(codec=codec)
    if isinstance(asked, list) and not asked:
        asked = np.array(asked, int)
    for site, width in SITES.items():
        x = stored(store.manifest, values[site])[asked]
        found = store[site, asked]
        np.testing.assert_array_equal(found, x)
        assert (found.dtype, found.shape[-1]) == (np.float32, width)
    every = store[asked]
    assert list(every) == ["token_id", "document", "position", *SITES]
    for name, found in every.items():
        np.testing.assert_array_equal(found, store[name, asked])
    for name in ("token_id", "document", "position"):
        np.testing.assert_array_equal(every[name], values[name][asked])


def test_a_name_alone_stands_for_all_rows(make_store):
    store, values = make_store()
    np.testing.assert_array_equal(store[SITE], values[SITE])
    np.testing.assert_array_equal(store["position"], values["position"])


@pytest.mark.parametrize("asked", [216, -217, [0, 216], np.array([-217, 3])], ids=str)
def test_a_row_that_is_not_there_is_refused_as_an_index_is(make_store, asked):
    store, _ = make_store()
    with pytest.raises(IndexError, match=r"row -?21[67] is not in the store at .* rows 0:216"):
        store[SITE, asked]
    with pytest.raises(BadInput):
        store[asked]


@pytest.mark.parametrize(
    "asked",
    [1.5, [1.5], "nothing", None, [[1]], [True], np.zeros(215, bool), slice(0, 9, 0), True, (1, 2)],
)
def test_what_names_no_rows_is_refused(make_store, asked):
    store, _ = make_store()
    with pytest.raises(BadInput):
        store[asked]


def test_each_chunk_is_decoded_once_and_no_others(make_store, monkeypatch):
    store, _ = make_store()
    read = []
    chunk = Store.chunk
    monkeypatch.setattr(Store, "chunk", lambda *a: (read.append(a[1:]), chunk(*a))[1])
    store[SITE, [100, 3, 101, 2, 100]]
    assert read == [(SITE, 0), (SITE, 6)]
    read.clear()
    for _ in store:
        pass
    assert len(read) == len(set(read)) == store.chunks * len(SITES)


def test_iteration_gives_every_row_and_ends(make_store):
    store, values = make_store()
    rows = list(store)
    assert len(rows) == len(store) == 216
    for row in (0, 100, 215):
        assert rows[row].keys() == store[row].keys()
        for name, value in rows[row].items():
            np.testing.assert_array_equal(value, values[name][row])


def test_a_part_keeps_its_numbers(make_store, tmp_path):
    store, values = make_store()
    part, _ = pull(str(store.root), PullSettings(out=str(tmp_path / "part"), rows="64:192"))
    assert len(part) == 128
    np.testing.assert_array_equal(part[SITE], values[SITE][64:192])
    np.testing.assert_array_equal(part[SITE, ::-1], values[SITE][64:192][::-1])
    np.testing.assert_array_equal(part[SITE, 64:100], values[SITE][64:100])
    np.testing.assert_array_equal(part[SITE, -1], values[SITE][191])
    np.testing.assert_array_equal(part[SITE, np.arange(128) == 3], values[SITE][[67]])
    assert len(list(part)) == 128
    for asked in (63, slice(0, 70), [64, 192]):
        with pytest.raises(NoSuchRow, match="which has rows 64:192"):
            part[SITE, asked]


def test_remote_and_pickled_stores_and_pairs_are_looked_up_alike(make_store):
    store, values = make_store()
    tokens = {"token_id": values["token_id"]}
    other, _ = make_store("other", sites={"blocks.0.x": 3}, values=tokens)
    paired = PairedStore(store, other)
    for same, site in (
        (open_store(f"file://{store.root}"), SITE),
        (pickle.loads(pickle.dumps(store)), SITE),
        (paired, f"base:{SITE}"),
        (pickle.loads(pickle.dumps(paired)), f"base:{SITE}"),
    ):
        np.testing.assert_array_equal(same[site, [200, 3]], values[SITE][[200, 3]])
        assert len(list(same)) == len(same) == 216
        np.testing.assert_array_equal(same[5]["token_id"], values["token_id"][5])


def test_a_store_says_in_a_line_what_it_is(make_store):
    store, _ = make_store()
    assert repr(store).startswith(f"<Store {store.where}: 216 rows of blocks.0.mlp.hook_post,")
    assert "\n" not in repr(store)
    empty, _ = make_store("empty", shards=0)
    assert (len(empty), bool(empty), list(empty)) == (0, True, [])


def test_words_have_the_space_they_begin_with(text_store):
    store, _ = text_store
    assert store.tokens(0) == "<bos>"
    assert " one" in store.tokens()
    assert "�" in store.tokens()  # parts of 😀, which only a run of tokens has


def test_a_text_has_its_token_marked_and_characters_whole(text_store):
    store, values = text_store
    emoji = [r for r in range(len(store)) if store.tokens(r) == "�" and r % CONTEXT > 1]
    assert any("«😀»" in store.text(row) for row in emoji)
    for row in (1, 9, 50):
        text = store.text(row, window=3)
        before, rest = text.split("«")
        own, _ = rest.split("»")
        assert own == store.tokens(row)
        whole = store.words.decode(values["token_id"][row - min(3, row % CONTEXT) : row].tolist())
        assert whole.endswith(before)
    assert store.text(9, 0, mark=("[", "]")) == f"[{store.tokens(9)}]"


def test_a_text_stays_in_its_block_and_document(text_store):
    store, values = text_store
    documents = values["document"]
    change = next(r for r in range(1, 200) if documents[r] != documents[r - 1] and r % CONTEXT)
    assert store.text(change, 500).startswith(f"«{store.tokens(change)}»")
    assert store.text(change - 1, 500).endswith(f"«{store.tokens(change - 1)}»")
    start = 3 * CONTEXT
    assert store.text(start, 500).startswith("«<bos>»")


def test_documents_are_the_texts_they_were(text_store):
    store, values = text_store
    found = list(store.documents())
    assert [one.number for one in found] == sorted(set(values["document"].tolist()))
    assert found[0].first_row == 0
    assert all(a.stop_row == b.first_row for a, b in pairwise(found))
    assert [one.text for one in found[:-1]] == [TEXT] * (len(found) - 1)
    assert TEXT.startswith(found[-1].text.rstrip("�"))
    assert sum(map(len, found)) == len(store)


def test_documents_that_are_read_in_several_spans_are_whole(text_store, monkeypatch):
    store, _ = text_store
    whole = list(store.documents())
    for rows in (1, 7, 13):
        monkeypatch.setattr("rkstore.store.lookup.SPAN_ROWS", rows)
        assert list(store.documents()) == whole


def test_a_word_is_found_exactly_and_with_a_space_by_choice(text_store):
    store, values = text_store
    words = np.array(store.tokens())
    np.testing.assert_array_equal(store.find(" one"), np.flatnonzero(words == " one"))
    assert len(store.find(" one"))
    both = np.sort(np.append(store.find(" one"), store.find("one")))
    np.testing.assert_array_equal(store.find("one", spaced=True), both)
    np.testing.assert_array_equal(store.find(0), np.flatnonzero(values["token_id"] == 0))
    np.testing.assert_array_equal(store.find(" one", limit=2), store.find(" one")[:2])
    assert len(store.find("€")) == 0


@pytest.mark.parametrize("span", [2**20, 1, 5, 64])
def test_several_tokens_are_found_at_their_last_row(text_store, monkeypatch, span):
    store, values = text_store
    monkeypatch.setattr("rkstore.store.finding.SPAN_ROWS", span)
    there = 0
    for text in (" and", "über", "😀", "two", " pass"):
        ids = store.words.ids_of(text)
        assert len(ids) == 1
        count = len(ids[0])
        assert count > 1
        tokens, documents = values["token_id"], values["document"]
        expected = [
            r
            for r in range(count - 1, len(store))
            if tuple(tokens[r - count + 1 : r + 1]) == ids[0]
            and documents[r] == documents[r - count + 1]
            and r // CONTEXT == (r - count + 1) // CONTEXT
        ]
        there += len(expected)
        assert store.find(text).tolist() == expected
    assert there > 5


def test_a_sequence_does_not_cross_blocks_or_documents(tmp_path, tokenizer):
    ids = tokenizer.encode("qz").ids
    assert len(ids) == 2
    tokens = (ids * CONTEXT)[:CONTEXT] * 2
    documents = [0, 0, 0, *[1] * (2 * CONTEXT - 3)]
    store, _ = written(tmp_path / "store", tokenizer, tokens, documents)
    assert store.find("qz").tolist() == [1, 5, 7, 9, 11, 13, 15]
    assert 8 not in store.find("zq")
    assert 3 not in store.find("zq")


@pytest.mark.parametrize("word", ["", -1, 2**40, True, 1.5, None])
def test_what_is_no_token_is_refused(text_store, word):
    with pytest.raises(BadInput):
        text_store[0].find(word)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(text_store, limit):
    with pytest.raises(BadInput, match="give 1 or more"):
        text_store[0].find(0, limit=limit)


def test_no_activations_are_read_to_find_a_word(text_store, monkeypatch):
    store, _ = text_store
    monkeypatch.setattr(Store, "stored_chunk", None)
    assert len(store.find("one", spaced=True))
    store.text(40)
    next(store.documents()).text  # noqa: B018


def test_without_a_tokenizer_words_are_refused_and_ids_found(make_store):
    store, values = make_store()
    for ask in (lambda: store.text(3), lambda: store.tokens(3), lambda: store.find("a")):
        with pytest.raises(BadInput, match=r"has no tokenizer, .* harvest it again"):
            ask()
    token = int(values["token_id"][3])
    np.testing.assert_array_equal(store.find(token), np.flatnonzero(values["token_id"] == token))


def test_a_token_that_is_not_in_the_tokenizer_is_refused(tmp_path, tokenizer):
    store, _ = written(tmp_path / "store", tokenizer, [5000] * 16)
    with pytest.raises(BadInput, match="token 5000 is not in the tokenizer"):
        store.text(3)


def test_a_file_that_is_no_tokenizer_is_called_damaged(tmp_path):
    class Wrong:
        def to_str(self):
            return "{}"

    store, _ = written(tmp_path / "store", Wrong(), [1] * 16)
    with pytest.raises(DamagedStore, match="cannot be read by the library tokenizers"):
        store.text(3)


def test_a_tokenizer_that_drops_the_first_space_keeps_it_in_words(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {"<unk>": 0, "▁def": 1, "def": 2, "▁": 3, "a": 4, "▁a": 5}
    made = Tokenizer(models.BPE(vocab, [("▁", "a")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    store, _ = written(tmp_path / "store", made, [1, 2, 4, 5, 1, 1, 2, 2] * 2)
    assert store.tokens([0, 1, 2, 3]) == [" def", "def", "a", " a"]
    assert store.find(" def").tolist() == [0, 4, 5, 8, 12, 13]
    assert store.find("def").tolist() == [1, 6, 7, 9, 14, 15]
    assert store.text(4, 2) == "a a« def» defdef"


@pytest.fixture
def aligned(text_store, tmp_path):
    """Every third row of the text, of another model."""
    first, _ = text_store
    rows = np.arange(1, len(first), 3)
    partner = {"fingerprint": first.manifest.fingerprint, "name": "x"}
    manifest = replace(
        make_manifest(sites={"blocks.0.x": 3}, rows=len(rows), context_size=1),
        source={"paired_with": partner},
        more_columns=(PARTNER_ROW,),
        schema=0,
    )
    others = make_values(manifest) | {PARTNER_ROW: rows}
    with StoreWriter(tmp_path / "aligned", manifest) as writer:
        for shard in range(manifest.shards):
            at = slice(*manifest.rows_of_shard(shard))
            named = [*manifest.columns]
            writer.write_shard(
                {name: others[name][at] for name in manifest.hook_names},
                {name: others[name][at] for name in named},
            )
    return PairedStore(first, Store(tmp_path / "aligned")), rows


def test_the_words_of_an_aligned_pair_are_in_the_first_stores_text(aligned):
    paired, rows = aligned
    first = paired.first
    assert paired.tokens([0, 5]) == first.tokens(rows[[0, 5]])
    assert paired.text(5) == first.text(int(rows[5]))
    for word in (" one", "über", 0):
        expected = np.flatnonzero(np.isin(rows, first.find(word)))
        np.testing.assert_array_equal(paired.find(word), expected)
    whole = {one.number: one.text for one in first.documents()}
    assert all(one.text in whole[one.number] for one in paired.documents())


def test_a_table_has_words_and_activations(text_store):
    store, _ = text_store
    rows = [5, 3, 40]
    frame = store.to_pandas(SITE, rows)
    assert list(frame.columns) == ["token_id", "document", "position", "token", SITE]
    assert frame.index.tolist() == rows
    assert frame.index.name == "row"
    assert frame["token"].tolist() == store.tokens(rows)
    np.testing.assert_array_equal(np.stack(frame[SITE]), store[SITE, rows])
    assert len(store.to_pandas()) == len(store)
    table = store.to_arrow([SITE], rows)
    assert table.column_names == ["row", "token_id", "document", "position", "token", SITE]
    found = table[SITE].combine_chunks().flatten().to_numpy().reshape(3, -1)
    np.testing.assert_array_equal(found, store[SITE, rows])
    with pytest.raises(BadInput, match="is not in the store"):
        store.to_pandas("no site", rows)


def test_a_table_without_a_tokenizer_has_no_words(make_store):
    store, _ = make_store()
    assert list(store.to_pandas(rows=[1]).columns) == ["token_id", "document", "position"]


@pytest.mark.parametrize(("name", "method"), [("pandas", "to_pandas"), ("pyarrow", "to_arrow")])
def test_a_missing_library_is_named(make_store, monkeypatch, name, method):
    store, _ = make_store()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=f"this needs {name}: pip install {name}"):
        getattr(store, method)()

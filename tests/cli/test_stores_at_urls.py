"""Every command that takes a store, with one at a URL: what it does with the directory, or why not.

The dictionary is trained from the URL itself.
"""

import re
import shutil

import pytest
from conftest import flip

from rkstore.share.push import push
from rkstore.training.settings import TrainSettings
from rkstore.training.train import train

SITE = "blocks.1.mlp.hook_post"
CHOSEN = ("--layer", "1", "--hook", "mlp.hook_post")


@pytest.fixture(params=["http", "s3"])
def there(request, harvested, tmp_path, monkeypatch):
    """The URL of the store that all tests share."""
    monkeypatch.setenv("RKSTORE_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        url = request.getfixturevalue("bucket")
        push(str(harvested.root), url)
        return url
    shutil.copytree(harvested.root, tmp_path / "remote")
    return f"{request.getfixturevalue('web').url}/remote"


@pytest.fixture
def run(rkstore):
    def run(*words):
        status, out, err = rkstore(*words)
        assert status == 0, err
        return out

    return run


def dictionary(url, tmp_path):
    """A dictionary of the store."""
    settings = {"layer": "1", "hook": "mlp.hook_post", "d_sae": 24, "k": 4, "steps": 6}
    return train(
        TrainSettings(store=str(url), out=str(tmp_path / "sae"), batch_size=64, **settings)
    )


def test_info_show_and_verify(run, there, harvested):
    assert run("info", there).replace(there, "") == run("info", harvested.root).replace(
        str(harvested.root), ""
    )
    shown = ("--row", 5, *CHOSEN)
    assert run("show", there, *shown) == run("show", harvested.root, *shown)
    assert run("show", "--store", there, *shown) == run("show", harvested.root, *shown)
    verified = run("verify", there)
    assert re.search(rf"{there}: {len(harvested.files())} files in \d+ shards are as rec", verified)


def test_probe_train_and_what_is_made_of_a_dictionary(rkstore, there, harvested, tmp_path):
    """Files and sentences are the same, but for where the store is."""

    def of(store, name):
        out = tmp_path / name
        at = ("--store", store)
        said = [rkstore("probe", *at, *CHOSEN, "--h", 20, "--r", 5, "--out", out / "probe")]
        saved = dictionary(store, out)
        for command in ("evaluate", "quality", "samples", "report"):
            said.append(rkstore(command, saved, *at, "--out", out / command))
        said.append(rkstore("compare", saved, *at))
        assert [status for status, _, _ in said] == [0, 0, 2, 0, 0, 0]  # quality: too few contexts
        return [
            (status, *(re.sub(r"[\d.,]+ (s|rows/s)\b", "", text) for text in texts))
            for status, *texts in said
        ]

    here = str(harvested.root)
    made = {name: of(store, name) for name, store in (("here", here), ("there", there))}

    def without_places(text):
        text = str(text).replace(here, "STORE").replace(there, "STORE")
        return re.sub(r"/(there|here)/", "/", text)

    for one, other in zip(made["here"], made["there"], strict=True):
        assert [without_places(part) for part in one] == [without_places(part) for part in other]
    results = (tmp_path / name / "evaluate" / "results.json" for name in made)
    assert len({without_places(file.read_text()) for file in results}) == 1


def test_export(run, there, harvested, tmp_path):
    words = ("--to", "npy", *CHOSEN)
    run("export", there, *words)
    run("export", harvested.root, *words, "--out", tmp_path / "here")
    name = there.rpartition("/")[2]
    for file in sorted((tmp_path / "here").rglob("*.npy")):
        other = tmp_path / "exports" / f"{name}-npy" / file.relative_to(tmp_path / "here")
        assert other.read_bytes() == file.read_bytes()


def test_verify_names_what_is_damaged_or_missing_at_a_url(rkstore, harvested, web, tmp_path):
    shutil.copytree(harvested.root, tmp_path / "remote")
    flip(tmp_path / "remote" / SITE / "c" / "0" / "0", 5)
    (tmp_path / "remote" / "token_id" / "c" / "0").unlink()
    status, _, err = rkstore("verify", f"{web.url}/remote")
    assert status == 1
    assert f"{SITE}/c/0/0 is not what was written" in err
    assert "token_id/c/0 is missing" in err
    assert f"2 files of {web.url}/remote are not as recorded" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "{url}", "elsewhere"), "is a URL, and this needs a directory: fetch it with"),
        (("push", "--store", "{url}", "elsewhere"), "is a URL, and this needs a directory"),
        (("verify", "{url}", "--repair-from", "copy"), "is a URL, which is not repaired"),
    ],
)
def test_what_a_store_at_a_url_cannot_be_used_for(rkstore, web, words, said):
    url = f"{web.url}/remote"
    status, _, err = rkstore(*(word.format(url=url) for word in words))
    assert (status, said in err) == (2, True), err

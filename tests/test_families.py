"""A new member of a family is one file and one line: here each comes from outside the package."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tree

from rkstore.dictionaries import (
    LAYOUTS,
    SELECTS,
    Dictionary,
    Layout,
    Select,
    load_dictionary,
    save_dictionary,
)
from rkstore.dictionaries.layouts.base import site_of
from rkstore.dictionaries.norms import NORMS
from rkstore.dictionaries.selection import Selection
from rkstore.dictionaries.selects.jumprelu import JumpReLU
from rkstore.dictionaries.selects.relu import ReLU
from rkstore.dictionaries.wirings import WIRINGS, Bank, Wires, Wiring
from rkstore.errors import BadInput
from rkstore.harvest.engines import ENGINES as HARVEST_ENGINES
from rkstore.harvest.engines import base as harvest
from rkstore.harvest.engines.local import Local
from rkstore.harvest.run import prepare, run
from rkstore.harvest.settings import HarvestSettings
from rkstore.rkcnn import DIRECTIONS, SCORES, SUBSETS, Moments
from rkstore.rkcnn.directions import Directions
from rkstore.rkcnn.mine import probe
from rkstore.rkcnn.scores.base import MomentScore
from rkstore.rkcnn.settings import ProbeSettings
from rkstore.rkcnn.subsets import Subsets
from rkstore.settings import Settings, combined, from_yaml, option, replace
from rkstore.share.exchange import EXPORTERS, IMPORTERS
from rkstore.share.exchange.base import Exporter, Importer, Source
from rkstore.share.exchange.exporting import export_store
from rkstore.share.exchange.importing import import_store
from rkstore.share.exchange.matrices import matrix, of_matrices
from rkstore.share.exchange.outgoing import Outgoing
from rkstore.share.settings import ExportSettings, ImportSettings
from rkstore.store.codecs import CODECS
from rkstore.store.codecs.base import Codec, Encoded
from rkstore.store.sites import Site
from rkstore.store.store import Store
from rkstore.training.engines import ENGINES as TRAINING_ENGINES
from rkstore.training.engines import base as training
from rkstore.training.helpers import HELPERS, Helper
from rkstore.training.inits import INITS, Init, Start
from rkstore.training.objective import Pass
from rkstore.training.settings import TrainSettings
from rkstore.training.sitenorms import SITE_NORMS, Normal, OfSite, SiteNorm
from rkstore.training.train import train, train_all


class Power(MomentScore):
    """The sum of the variances, each to some power."""

    name = "power"
    power: float = option(1.0, "Power of the power score.", least=0.0)

    def of_subsets(self, moments: Moments, subsets: np.ndarray) -> np.ndarray:
        return (moments.variance**self.power)[subsets].sum(axis=1)


class Plain(MomentScore):
    """The sum of the variances."""

    name = "plain"

    def of_subsets(self, moments: Moments, subsets: np.ndarray) -> np.ndarray:
        return moments.variance[subsets].sum(axis=1)


class Runs(Subsets):
    """Dimensions that follow one another, a step apart."""

    name = "runs"
    step: int = option(1, "Step between the dimensions of runs.", least=1)

    def distinct(self, d: int, m: int) -> float:
        return d - (m - 1) * self.step

    def draw(self, d: int, m: int, h: int, generator: np.random.Generator) -> np.ndarray:
        first = generator.permutation(int(self.distinct(d, m)))[:h]
        return (first[:, None] + np.arange(m) * self.step).astype(np.int64)


class Axis(Directions):
    """One of the dimensions themselves."""

    name = "axis"
    place: int = option(0, "Which dimension of a subset axis takes.", least=0)

    def axes(self, covariance: Any, subsets: np.ndarray, rows: Any, components: int = 1) -> Any:  # noqa: ARG002
        found = np.zeros((len(subsets), components, subsets.shape[1]))
        found[:, :, self.place] = 1
        return found


class Sign(Codec):
    """The mean of a dimension plus or minus its deviation."""

    name = "sign"
    dtype = np.dtype("u1")
    side = ("mean", "deviation")

    def fit(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"mean": x.mean(axis=0), "deviation": x.std(axis=0)}

    def encode(self, x: np.ndarray, side: dict[str, np.ndarray], massive: Any = None) -> Encoded:  # noqa: ARG002
        return Encoded((x > side["mean"]).astype(self.dtype), side)

    def decode(self, encoded: Encoded, out: np.ndarray | None = None) -> np.ndarray:  # noqa: ARG002
        sign = 2 * encoded.values.astype(np.float32) - 1
        return encoded.side["mean"] + sign * encoded.side["deviation"]

    def decode_tensor(self, values: Any, side: Any) -> Any:
        return side["mean"] + (2 * values.float() - 1) * side["deviation"]


class FromText(Importer):
    """Numbers in lines."""

    name = "text"
    delimiter: str = option(" ", "What separates the numbers of a line.")

    def open(self, path: Path, settings: ImportSettings) -> Source:
        x = np.loadtxt(path, np.float32, delimiter=self.delimiter, ndmin=2)
        found = {path.stem: matrix(str(path), x)}
        return of_matrices(str(path), found, {path.name: path}, settings.hook_name)


class ToText(Exporter):
    """Lines of numbers."""

    name = "text"
    precision: int = option(3, "Digits after the point.", least=0)

    def write(self, outgoing: Outgoing, out: Path) -> None:
        for name in outgoing.hook_names:
            array = outgoing.site(name)
            rows = np.concatenate(list(array.chunks))
            np.savetxt(out / f"{name}.txt", rows, f"%.{self.precision}f")


class Floored(Select):
    """Pre-activations above one floor stay."""

    name = "floored"
    floor: float = option(0.0, "What a floored code must be above.", least=0.0)

    def code(self, pre: torch.Tensor, kept: Selection) -> torch.Tensor:  # noqa: ARG002
        return pre.relu() * (pre > self.floor)

    def at_inference(self, kept: Selection, latents: int) -> tuple[Select, dict[str, torch.Tensor]]:  # noqa: ARG002
        return JumpReLU(), {"threshold": torch.full((latents,), self.floor)}


class Split(Wires):
    """An autoencoder in banks of their own, each with a select of its own."""

    name = "split"
    parts: int = option(2, "Banks of a split dictionary.", least=1)

    def over(self, reads: Sequence[Site], writes: Sequence[Site], latents: int) -> Wiring:
        bank = Bank(latents // self.parts, tuple(reads), tuple(writes))
        return Wiring((bank,) * self.parts, centred=True, together=False)


class Mirrored(Init):
    """The encoder is the decoder's transpose, times a factor."""

    name = "mirrored"
    factor: float = option(1.0, "Scale of a mirrored encoder.")

    def fill(self, start: Start, generator: torch.Generator) -> None:  # noqa: ARG002
        start.tie()
        start.weights.W_enc.mul_(self.factor)


class Stretched(SiteNorm):
    """Rows times a factor."""

    name = "stretched"
    stretch: float = option(1.0, "Factor of stretched rows.", least=0.0)

    def of(self, site: OfSite) -> Normal:  # noqa: ARG002
        return Normal(self.stretch)


class Pull(Helper):
    """Pre-activations are pulled to zero."""

    name = "pull"
    pull: float = option(0.0, "Weight of the pull on pre-activations; 0 is off.", least=0.0)

    @property
    def asked_for(self) -> bool:
        return self.pull > 0

    def loss(self, now: Pass) -> torch.Tensor:
        return self.pull * now.pre.square().mean()


class Told(harvest.Engine):
    """This process, with a line in a file for each shard."""

    name = "told"
    told: str = option("told.txt", "File of the shards that were made.", path=True)

    def shards(self, harvest: Any, writer: Any, advance: Any) -> harvest.Shards:
        for shard in Local().shards(harvest, writer, advance):
            with Path(self.told).open("a", encoding="utf-8") as file:
                file.write(f"{shard}\n")
            yield shard


class Backwards(training.Engine):
    """This process, the last jobs first."""

    name = "backwards"
    most: int = option(2, "Jobs at most.", least=1, identity=False, newer=True)

    def each(
        self,
        jobs: Sequence[Callable[[], training.R]],
        device: str,  # noqa: ARG002
    ) -> list[training.R]:
        if len(jobs) > self.most:
            raise BadInput(f"there are {len(jobs)} jobs: --most is {self.most}")
        return [job() for job in reversed(jobs)][::-1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One site of 300 rows and 12 dimensions."""
    x = np.random.default_rng(0).gamma(0.5, size=(300, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    made = ImportSettings(from_="npy", codec="float32", shard_rows=100, out=str(tmp_path / "store"))
    return import_store(tmp_path / "x.npy", made)


@pytest.fixture
def find(store: Store, tmp_path: Path) -> Callable[..., Any]:
    def found(kind: type[Settings], **given: Any) -> Any:
        settings = kind(store=store.where, h=8, r=3, m=3, out=str(tmp_path / "probe"), **given)
        return probe(settings)[0]  # type: ignore[arg-type]

    return found


def test_a_score_with_an_option(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "power", Power)
    extended = combined(score=SCORES)(ProbeSettings)
    result = find(extended, score="power", power=0)
    assert (result.top_scores == 3).all()  # as many as a subset has dimensions
    assert result.settings["score_method"] == "power"
    assert result.settings["power"] == 0


def test_subsets_with_an_option(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUBSETS, "runs", Runs)
    extended = combined(subsets=SUBSETS)(ProbeSettings)
    result = find(extended, subsets="runs", step=2)
    assert (np.diff(result.all_subsets.numpy()) == 2).all()
    assert result.settings["step"] == 2


def test_directions_with_an_option(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIRECTIONS, "axis", Axis)
    extended = combined(directions=DIRECTIONS)(ProbeSettings)
    result = find(extended, directions="axis", place=1)
    last = result.top_directions.abs().argmax(dim=1)
    assert (last == result.top_subsets[:, 1]).all()


def test_a_member_without_options_needs_nothing_but_its_line(
    find: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="score is 'plain': choose one of kurtosis"):
        ProbeSettings(score="plain")
    monkeypatch.setitem(SCORES, "plain", Plain)
    assert find(ProbeSettings, score="plain").settings["score_method"] == "plain"


def test_an_option_of_a_member_that_is_not_known_is_refused() -> None:
    with pytest.raises(BadInput, match="there is no power"):
        ProbeSettings(power=2)


def test_a_codec(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "sign", Sign())
    (tmp_path / "config.yaml").write_text("from: npy\ncodec: sign\n", "utf-8")
    given = from_yaml(ImportSettings, tmp_path / "config.yaml", {"out": str(tmp_path / "signs")})
    signs, x = import_store(tmp_path / "x.npy", given).read("x"), store.read("x")
    np.testing.assert_array_equal(signs > x.mean(axis=0), x > x.mean(axis=0))


def test_an_importer_with_an_option(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMPORTERS, "text", FromText)
    extended = combined(from_=IMPORTERS)(ImportSettings)
    np.savetxt(tmp_path / "lines.txt", store.read("x"), "%.9g", delimiter=";")
    given = {"from_": "text", "codec": "float32", "out": str(tmp_path / "lines")}
    brought = import_store(tmp_path / "lines.txt", extended(delimiter=";", **given))
    np.testing.assert_array_equal(brought.read("lines"), store.read("x"))


def test_an_exporter_with_an_option(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTERS, "text", ToText)
    extended = combined(to=EXPORTERS)(ExportSettings)
    out = export_store(store, extended(to="text", precision=1, out=str(tmp_path / "out")))
    np.testing.assert_allclose(np.loadtxt(out / "x.txt"), store.read("x"), atol=0.051)
    assert (out / "x.txt").read_text().split()[0].partition(".")[2].isdigit()


class Arrays(Layout):
    """The four arrays of an autoencoder, each a file of NumPy."""

    name = "arrays"

    def found(self, directory: Path) -> bool:
        return (directory / "W_enc.npy").is_file()

    def read(
        self, directory: Path, *, hook_name: str | None = None, hook_name_out: str | None = None
    ) -> tuple[Dictionary, dict[str, Any]]:
        assert hook_name_out is None
        w = {path.stem: torch.from_numpy(np.load(path)) for path in directory.glob("*.npy")}
        sizes = w["W_enc"].shape
        dictionary = Dictionary.of_site(*sizes, ReLU(), hook_name=site_of(None, hook_name))
        dictionary.load_state_dict(w)
        return dictionary, {}

    def refuses(self, dictionary: Dictionary) -> str | None:
        return None if dictionary.pools[0].rule.name == "relu" else "it has only ReLU"

    def write(self, dictionary: Dictionary, directory: Path, metadata: dict[str, Any]) -> None:  # noqa: ARG002
        for name, tensor in dictionary.state_dict().items():
            np.save(directory / f"{name}.npy", tensor.numpy())


def test_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "arrays", Arrays)
    made = Dictionary.of_site(6, 8, ReLU())
    torch.nn.init.normal_(made.W_enc, generator=torch.Generator().manual_seed(0))
    save_dictionary(made, tmp_path, {}, "arrays")
    found, _ = load_dictionary(tmp_path, hook_name="a")
    assert torch.equal(found.W_enc, made.W_enc)
    assert found.wiring.reads[0].hook_name == "a"
    with pytest.raises(BadInput, match="arrays cannot hold this dictionary: it has only ReLU"):
        save_dictionary(Dictionary.of_site(6, 8, JumpReLU()), tmp_path, {}, "arrays")


def test_the_names_of_layouts_are_known_without_torch() -> None:
    program = "import sys\nfrom rkstore.dictionaries import LAYOUTS\nassert 'saelens' in LAYOUTS\n"
    program += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def learn(store: Store, tmp_path: Path) -> Callable[..., Any]:
    """Train three steps: the dictionary as it is loaded, and the identity of its run."""

    def learnt(kind: type[Settings], **given: Any) -> tuple[Dictionary, dict[str, Any]]:
        usual = {"d_sae": 24, "k": 4, "steps": 3, "batch_size": 32, "out": str(tmp_path / "runs")}
        path = train(kind(store=store.where, **usual | given))  # type: ignore[arg-type]
        identity = json.loads((path / "training.json").read_text("utf-8"))["identity"]
        return load_dictionary(path)[0], identity

    return learnt


def test_a_select_with_an_option(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SELECTS, "floored", Floored)

    @combined(dictionary=SELECTS)
    class Extended(TrainSettings):
        dictionary: str = option("floored", "Kind of sparse code.", choices=SELECTS)

    found, identity = learn(Extended, floor=0.5, norm="none")
    assert found.pools[0].rule.name == "jumprelu"  # which it is saved as
    assert (found.pools[0].threshold == 0.5).all()
    assert (identity["dictionary"], identity["floor"]) == ("floored", 0.5)


def test_a_wiring_with_an_option(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIRINGS, "split", Split)
    found, identity = learn(combined(wiring=WIRINGS)(TrainSettings), wiring="split", parts=3)
    assert [bank.latents for bank in found.wiring.banks] == [8, 8, 8]
    assert len(found.pools) == 3
    assert (identity["wiring"], identity["parts"]) == ("split", 3)


def test_a_code_norm(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a function of the norms of a latent's decoder rows."""
    monkeypatch.setitem(NORMS, "largest", lambda norms: norms.amax(dim=0, keepdim=True))
    found, identity = learn(TrainSettings, code_norm="largest")
    assert torch.equal(found.weights(), found.decoder_norms()[0])
    assert identity["code_norm"] == "largest"


def test_an_init_with_an_option(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INITS, "mirrored", Mirrored)
    extended = combined(init=INITS)(TrainSettings)
    # With almost no learning rate it stays as it was initialised.
    found, identity = learn(extended, init="mirrored", factor=0.25, lr=1e-9)
    torch.testing.assert_close(found.W_enc, found.W_dec.T / 4)
    assert (identity["init"], identity["factor"]) == ("mirrored", 0.25)


def test_a_site_norm_with_an_option(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SITE_NORMS, "stretched", Stretched)
    extended = combined(norm=SITE_NORMS)(TrainSettings)
    found, identity = learn(extended, norm="stretched", stretch=2.0)
    without, _ = learn(extended, norm="stretched", stretch=1.0)
    assert not torch.equal(found.W_enc, without.W_enc)
    assert (identity["norm"], identity["stretch"]) == ("stretched", 2.0)


def test_a_helper_with_an_option(learn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without, _ = learn(TrainSettings)
    monkeypatch.setitem(HELPERS, "pull", Pull)
    extended = combined(helpers=HELPERS)(TrainSettings)
    assert torch.equal(learn(extended, name="off")[0].W_enc, without.W_enc)
    found, identity = learn(extended, pull=1e3)
    assert not torch.equal(found.W_enc, without.W_enc)
    assert identity["pull"] == 1e3


def test_an_engine_of_harvests_with_an_option(
    harvested: Store, harvest_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HARVEST_ENGINES, "told", Told)  # type: ignore[arg-type]
    extended = combined(engine=HARVEST_ENGINES)(HarvestSettings)
    usual = dict(harvest_settings(out=str(tmp_path / "made")))
    told = {"engine": "told", "told": str(tmp_path / "shards.txt")}
    made = run(prepare(extended(**usual | told)))
    assert (tmp_path / "shards.txt").read_text("utf-8").split() == list("01234")
    assert tree(made.root) == tree(harvested.root)


def test_an_engine_of_trainings_with_an_option(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRAINING_ENGINES, "backwards", Backwards)  # type: ignore[arg-type]
    extended = combined(engine=TRAINING_ENGINES)(TrainSettings)
    given = {"d_sae": 24, "k": 4, "steps": 3, "batch_size": 32, "seeds": "0-2", "name": "three"}
    given |= {"store": store.where}
    usual = train_all([TrainSettings(**given, out=str(tmp_path / "usual"))])
    other = extended(**given, out=str(tmp_path / "other"), engine="backwards", most=3)
    found = train_all([other])
    assert [path.name for path in found] == [path.name for path in usual]
    assert [tree(path) for path in found] == [tree(path) for path in usual]
    with pytest.raises(BadInput, match="there are 3 jobs: most is 2"):
        train_all([replace(other, most=2)])


def test_an_option_of_another_importer_is_refused(store: Store, tmp_path: Path) -> None:
    given = ImportSettings(from_="npy", dataset=("x",), out=str(tmp_path / "other"))
    with pytest.raises(BadInput, match="dataset has no effect with from_ npy: leave it out"):
        import_store(tmp_path / "x.npy", given)
    assert store.manifest.rows == 300

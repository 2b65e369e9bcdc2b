"""The names of the RkCNN-SAE code: what scripts that were written for it expect."""

import pytest
import torch

import rkstore
from rkstore.errors import BadInput
from rkstore.rkcnn.source import StoreSite
from rkstore.training.rkcnn_sae import SAEConfig, SAETrainer, SparseAutoencoder, create_rkcnn_sae

D, N, SUBSETS = 16, 64, 20


@pytest.fixture
def x():
    return torch.randn(200, D, generator=torch.Generator().manual_seed(0)).relu()


def config(kind=SAEConfig, **options):
    return kind(d_model=D, n_latents=N, **options)


def mined(x, **options):
    sae = rkstore.RkCNNSparseAutoencoder(
        config(rkstore.RkCNNSAEConfig, rkcnn_n_subsets=SUBSETS, **options)
    )
    return sae, sae.initialize_with_rkcnn(x, show_progress=False)


@pytest.mark.parametrize("options", [{}, {"activation": "topk", "k": 5}, {"bias": False}])
def test_a_pass_gives_code_reconstruction_and_pre_activations(x, options):
    sae = SparseAutoencoder(config(**options))
    latents, reconstructed, pre = sae(x)
    torch.testing.assert_close(pre, x @ sae.encoder.weight.T)
    assert torch.equal(latents[latents > 0], pre[latents > 0])
    assert (latents > 0).sum(dim=1).max() <= options.get("k", N)
    torch.testing.assert_close(reconstructed, latents @ sae.get_decoder_directions())


def test_the_loss_is_a_mean_over_everything(x):
    sae = SparseAutoencoder(config(l1_coefficient=0.5))
    latents, reconstructed, _ = sae(x)
    loss, named = sae.compute_loss(x, latents, reconstructed)
    expected = ((x - reconstructed) ** 2).mean() + 0.5 * latents.abs().mean()
    torch.testing.assert_close(loss, expected)
    assert named["total"] == pytest.approx(named["reconstruction"] + 0.5 * named["l1"])


def test_tied_weights_have_no_decoder(x):
    sae = SparseAutoencoder(config(tied_weights=True))
    latents, reconstructed, _ = sae(x)
    assert sae.decoder is None
    torch.testing.assert_close(reconstructed, latents @ sae.encoder.weight)


def test_weights_depend_on_their_seed_alone():
    torch.manual_seed(0)
    one = SparseAutoencoder(config())
    torch.manual_seed(1)
    assert torch.equal(SparseAutoencoder(config()).encoder.weight, one.encoder.weight)
    other = SparseAutoencoder(config(), seed=1)
    assert not torch.equal(other.encoder.weight, one.encoder.weight)


def test_mined_directions_go_into_the_decoder_of_the_first_latents(x):
    sae, count = mined(x)
    plain = SparseAutoencoder(config())
    assert count == SUBSETS  # half of the latents are more than that
    expected = rkstore.mine_directions(x, D, n_directions=SUBSETS, n_subsets=SUBSETS)
    assert torch.equal(sae.get_decoder_directions()[:SUBSETS], expected)
    assert torch.equal(sae.mined_directions, expected)
    assert torch.equal(
        sae.get_decoder_directions()[SUBSETS:], plain.get_decoder_directions()[SUBSETS:]
    )
    assert torch.equal(sae.encoder.weight, plain.encoder.weight)
    assert sae.rkcnn_initialized_mask.nonzero().squeeze(1).tolist() == list(range(SUBSETS))


def test_mined_latents_are_compared_with_the_others(x):
    sae, count = mined(x)
    latents = torch.zeros(10, N)
    latents[0, 0], latents[:, count] = 3.0, 1.0
    stats = sae.get_rkcnn_latent_stats(latents)
    assert (stats["rkcnn_n"], stats["random_n"]) == (count, N - count)
    assert stats["rkcnn_dead_rate"] == pytest.approx(1 - 1 / count)
    assert stats["random_activity_rate"] == pytest.approx(1 / (N - count))
    assert (stats["rkcnn_mean_when_active"], stats["random_mean_when_active"]) == (3, 1)


def test_its_trainer_lowers_the_loss_and_keeps_latents_at_norm_one(x):
    sae = SparseAutoencoder(config())
    trainer = SAETrainer(sae, lr=1e-2)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=64)
    losses = [trainer.train_epoch(batches)["total"] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(sae.decoder.weight.norm(dim=0), torch.ones(N))
    means, latents, reconstructed, rows = trainer.evaluate(batches)
    assert torch.equal(rows, x)
    assert means.keys() == {"total", "reconstruction", "l1"}
    assert (latents.shape, reconstructed.shape) == ((200, N), (200, D))


@pytest.mark.parametrize("options", [{}, {"tied_weights": True}, {"activation": "topk", "k": 5}])
def test_it_becomes_a_dictionary_that_does_the_same(x, options):
    sae, _ = mined(x, **options)
    f, reconstructed = sae.dictionary("blocks.0.hook_resid_post").reconstruct(x)
    torch.testing.assert_close(f, sae(x)[0])
    torch.testing.assert_close(reconstructed, sae(x)[1])


def test_directions_of_a_site_are_those_of_its_rows(make_store):
    store, values = make_store()
    site = "blocks.0.mlp.hook_post"
    sizes = {"n_directions": 4, "subset_size": 3, "n_subsets": 10, "seed": 1}
    found = rkstore.mine_directions(StoreSite(store, site), **sizes)
    assert torch.equal(found, rkstore.mine_directions(values[site], **sizes))


REFUSED = {
    "a topk code needs one": lambda _: SparseAutoencoder(config(activation="topk")),
    "d_model takes": lambda _: SAEConfig(n_latents=3),
    "there is no rkcnn_frction": lambda _: create_rkcnn_sae(D, rkcnn_frction=0.5),
    "16 wide": lambda x: create_rkcnn_sae(D + 1).initialize_with_rkcnn(x),
    "only h=8 subsets": lambda x: rkstore.mine_directions(x, n_directions=9, n_subsets=8),
    "call initialize_with_rkcnn": lambda x: create_rkcnn_sae(D).get_rkcnn_latent_stats(x),
    "no batches": lambda _: SAETrainer(SparseAutoencoder(config())).train_epoch([]),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused(x, words):
    with pytest.raises(BadInput, match=words):
        REFUSED[words](x)

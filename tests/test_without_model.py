"""Everything behind the shards works where no language model can be imported."""

import subprocess
import sys
import textwrap


def test_probe_train_and_evaluate_never_import_a_model_library(harvested, tmp_path):
    program = textwrap.dedent("""
        import sys

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("transformers", "transformer_lens", "datasets"):
                    raise ImportError(f"{name} must not be needed")

        sys.meta_path.insert(0, Refuse())
        try:
            import transformers
        except ImportError:
            print("no transformers")

        from rkstore import cli

        def run(*words):
            sys.argv = ["rkstore", *words]
            cli.main()

        store = sys.argv[1]
        run("info", store)
        run("verify", store)
        run("probe", "--store", store, "--layer", "1", "--h", "40", "--r", "10")
        run("train", "--store", store, "--layer", "1", "--init", "rkcnn", "--k", "4",
            "--d-sae", "96", "--steps", "20", "--batch-size", "64", "--name", "sae")
        run("evaluate", "--store", store, "checkpoints/sae/tiny/sae_20")
        run("export", store, "--to", "npy", "--layer", "1", "--out", "away")
        run("import", "away", "--from", "npy", "--out", "back")
        print("done")
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(harvested.root)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no transformers")
    assert done.stdout.endswith("done\n")


def test_reading_a_store_does_not_wait_for_torch(harvested):
    program = textwrap.dedent("""
        import sys
        import rkstore
        store = rkstore.open(sys.argv[1])
        assert store.read("blocks.1.mlp.hook_post", 3, 40).shape == (37, 64)
        assert "torch" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", program, str(harvested.root)], check=True)


def test_words_need_neither_torch_nor_transformers(harvested):
    program = textwrap.dedent("""
        import sys
        import rkstore
        store = rkstore.open(sys.argv[1])
        print(store.text(20), store.find(store.tokens(20)), next(store.documents()).text)
        assert not {"torch", "transformers", "pandas", "pyarrow"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", program, str(harvested.root)], check=True)

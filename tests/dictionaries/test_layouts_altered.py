"""Files of other programs, altered in one place: refused by name, or read right all the same."""

import json
import shutil

import altered
import pytest
import torch
import yaml
from test_golden_dictionaries import GOLDEN, expected, given, reconstructed, side_by_side

from rkstore.dictionaries import load_dictionary
from rkstore.errors import BadInput

# One of each kind of files.
KINDS = """
    dictionary-learning-AutoEncoder dictionary-learning-MatryoshkaBatchTopKSAE
    dictionary-learning-normalised crosscoder-relu crosscoder-mixed crosscoder-dedicated
    sparsify-skip sparsify-run circuit-tracer-set-jumprelu circuit-tracer-clt-jumprelu
    rkcnn-sae-rkcnn_sae matryoshka-sae-global-matryoshka-topk matryoshka-sae-transcoder
    crosslayer-transcoder-jumprelu crosslayer-transcoder-per-layer-batchtopk
"""
OTHERS = [path for path in GOLDEN if path.name in KINDS.split()]
NAMES = [path.name for path in OTHERS]

# What other programs write beside a dictionary, and what the tests keep there.
BESIDE = ("expected.safetensors", "made.json")
CONFIGS = (".json", ".yaml")


def files_of(path, *endings):
    """The files of a dictionary, by the end of their names."""
    found = (file for file in sorted(path.rglob("*")) if file.name not in BESIDE)
    return [file for file in found if file.suffix in endings]


def holds_the_numbers(path, named):
    """Whether it reads as before; if it is refused, the sentence must name what was altered."""
    out, refusal = expected(path), ""
    try:
        dictionary, _ = load_dictionary(path, **given(path))
    except BadInput as error:
        refusal = str(error)
    if refusal:
        assert any(name in refusal for name in named), refusal
        return False
    f, y = reconstructed(dictionary, out["x"])
    torch.testing.assert_close(side_by_side(f), side_by_side(out["f"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y, out["y"], atol=1e-5, rtol=1e-5)
    return True


def extra_beside(name):
    return altered.extra(f"{name}_2")


ALTERATIONS = {
    "missing": altered.missing,
    "extra": extra_beside,
    "transposed": altered.transposed,
    "wider": altered.wider,
    "flat": altered.flat,
    "NaN": lambda name: altered.with_value(name, float("nan")),
    "infinite": lambda name: altered.with_value(name, float("inf")),
    "whole": lambda name: altered.of_dtype(name, torch.int8),
}


def has_no_effect(alteration, tensor):
    """Whether a tensor is the same afterwards, or holds no such value."""
    square = tensor.dim() < 2 or (tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1])
    return (
        (alteration == "transposed" and square)
        or (alteration in ("wider",) and not tensor.dim())
        or (alteration == "flat" and tensor.dim() < 2)
        or (alteration in ("NaN", "infinite") and not tensor.is_floating_point())
    )


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("path", OTHERS, ids=NAMES)
def test_an_altered_tensor_is_refused_by_name_or_changes_nothing(tmp_path, path, alteration):
    for file in files_of(path, ".pt", ".safetensors"):
        found = altered.load(file)
        for name, tensor in found.items():
            if not isinstance(tensor, torch.Tensor) or has_no_effect(alteration, tensor):
                continue
            copy = shutil.copytree(path, tmp_path / path.name, dirs_exist_ok=True)
            ALTERATIONS[alteration](name)(copy / file.relative_to(path))
            # Where one tensor says the size of others, one of them is named.
            later = "has a threshold_1, whose effect"  # of a layer after one without
            held = holds_the_numbers(copy, (*found, "by its tensors", later))
            unused = name in ("target_rms", "nonlinearity.bandwidth", "threshold")
            unset = name.startswith(("activation_", "target_rms"))
            assert not held or unused or unset or name == "code_normalization_id"


VALUES = [None, "unheard of", -1, [1]]


# Keys without which the program itself computes something else.
DEFAULTS = {
    "sparsify-transcoder": [("transcode",)],
    "sparsify-skip": [("transcode",)],
    "matryoshka-sae-transcoder": [("input_unit_norm",)],
}


def places(document, at=()):
    """Where in a document there is a value."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from places(value, (*at, key))
        else:
            yield (*at, key)


def changed(file, place, value=None, *, remove=False):
    """A key of a configuration gets another value, or is removed."""
    loads, dumps = (
        (yaml.safe_load, yaml.safe_dump)
        if file.suffix == ".yaml"
        else (
            json.loads,
            json.dumps,
        )
    )
    document = inner = loads(file.read_text("utf-8"))
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    file.write_text(dumps(document), "utf-8")


@pytest.mark.parametrize("path", OTHERS, ids=NAMES)
def test_an_altered_key_is_refused_by_name_or_changes_nothing(tmp_path, path):
    for file in files_of(path, *CONFIGS):
        loads = yaml.safe_load if file.suffix == ".yaml" else json.loads
        for place in places(loads(file.read_text("utf-8"))):
            for value in (*VALUES, "removed"):
                copy = shutil.copytree(path, tmp_path / path.name, dirs_exist_ok=True)
                changed(copy / file.relative_to(path), place, value, remove=value == "removed")
                # Sizes contradict the tensors, a class of another layout is no dictionary of this.
                said = ("by its configuration", "holds no dictionary", "the name of a hook")
                said += ("hook that is depends on the model", "whose effect is not known")
                if value == "removed" and place in DEFAULTS.get(path.name, ()):
                    continue
                holds_the_numbers(copy, (*place, *said))


@pytest.mark.parametrize("path", OTHERS, ids=NAMES)
def test_a_key_that_is_not_known_is_refused_by_name(tmp_path, path):
    for file in files_of(path, *CONFIGS):
        copy = shutil.copytree(path, tmp_path / path.name, dirs_exist_ok=True)
        changed(copy / file.relative_to(path), ("gain",), 2)
        with pytest.raises(BadInput, match="gain is 2, whose effect is not known"):
            load_dictionary(copy, **given(copy))


@pytest.mark.parametrize("path", OTHERS, ids=NAMES)
def test_a_damaged_file_is_refused_and_no_code_in_it_runs(tmp_path, path):
    for file in files_of(path, ".pt", ".safetensors"):
        damages = [altered.truncated, altered.with_code, altered.text("no tensors")]
        if file.suffix == ".safetensors":
            matrix = next(name for name, x in altered.load(file).items() if x.dim() > 1)
            damages.append(altered.huge_header(matrix))
        for damage in damages:
            copy = shutil.copytree(path, tmp_path / path.name, dirs_exist_ok=True)
            at = copy / file.relative_to(path)
            damage(at)
            with pytest.raises(BadInput, match="cannot read the dictionary"):
                load_dictionary(copy, **given(copy))
            assert not altered.ran(at).exists()
    for file in files_of(path, *CONFIGS):
        for content in ("{", "[1]", ""):
            copy = shutil.copytree(path, tmp_path / path.name, dirs_exist_ok=True)
            (copy / file.relative_to(path)).write_text(content, "utf-8")
            with pytest.raises(BadInput):
                load_dictionary(copy, **given(copy))

"""An initializer and a study of others: one file each, outside the package."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.plugins import AddressedRegistry
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.initializers import INITIALIZERS, Weights, load_initializer
from chibit.recipes import RECIPES
from chibit.studies import STUDIES

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ADDRESS, STUDY = "my_initializer:orthogonal", "my_study:orthogonal_or_not"
SMALL = ["--num-steps", "2", "--num-episodes", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the examples to work in; what a test registers and imports is forgotten after it."""
    for name in ("my_initializer", "my_study"):
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for registry in (INITIALIZERS, STUDIES):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    yield tmp_path
    RECIPES.pop("orthogonal", None)
    forget()


def forget():
    """As a new process would find things."""
    for name in ("my_initializer", "my_study", "my_broken"):
        sys.modules.pop(name, None)
    for key in set(INITIALIZERS._entries):
        del INITIALIZERS[key]


def trained(pendulum_file, *flags):
    return main(["train", "--data", str(pendulum_file), "--context-length", "3", *SMALL, "--quiet", *flags])


def test_an_initializer_goes_through_every_command(pendulum_file, capsys):
    assert trained(pendulum_file, "--initializer", ADDRESS, "--out", "run") == 0
    record = json.loads(Path("run/config.json").read_text())
    assert (record["arm"], record["config"]["agent"]["init"]) == ("orthogonal", ADDRESS)
    assert json.loads(Path("run/provenance.json").read_text())["initialiser"]["name"] == ADDRESS
    forget()
    for command in (["evaluate", "run"], ["show", "run"], ["train", "--config", "run/config.json"]):
        capsys.readouterr()
        assert main([*command, *(["--out", "copy"] if command[0] == "train" else [])]) == 2
        assert f"give --initializer {ADDRESS} (in Python: import my_initializer)" in capsys.readouterr().err
        assert "my_initializer" not in sys.modules  # no file causes an import
    own = ["--initializer", ADDRESS]
    assert main(["evaluate", "run", "--num-episodes", "1", *own]) == 0
    assert main(["export", "run", "--out", "policy", "--no-video", *own]) == 0
    forget()
    assert main(["train", "--config", "run/config.json", *own, "--out", "copy", "--quiet"]) == 0


def test_its_weights_and_its_argument_arrive():
    INITIALIZERS.load(ADDRESS)
    plain, half = (load_initializer(spec, seed=3).backbone for spec in (ADDRESS, f"{ADDRESS}:0.5"))
    weight = plain.blocks[0].expand.weight.detach()  # (512, 128)
    assert torch.allclose(weight.T @ weight, torch.eye(128), atol=1e-4)
    assert torch.allclose(half.blocks[0].expand.weight, weight / 2)
    assert load_initializer("orthogonal:2").name == "orthogonal:2"
    matched = load_initializer(f"random_matched:{ADDRESS}").backbone.blocks[0].expand.weight.detach()
    assert float(matched.std()) == pytest.approx(float(weight.std()), rel=0.05)


@pytest.mark.parametrize("engine", ["process", pytest.param("pool", marks=pytest.mark.slow)])
def test_a_study_goes_through_engine_and_report(pendulum_file, capsys, engine):
    flags = ["--data", str(pendulum_file), "--seeds", "0", *SMALL, "--num-episodes", "0"]
    flags += ["--root", "all", "--engine", engine]
    assert main(["study", STUDY, *flags]) == 0
    runs = sorted(path.name for path in Path("all/orthogonal_or_not").iterdir() if path.is_dir())
    assert [re.sub(r"-.*", "", name) for name in runs] == ["orthogonal", "random"]
    assert "orthogonal" in Path("all/orthogonal_or_not/report.md").read_text()
    capsys.readouterr()
    assert main(["study", STUDY, *flags, "--dry-run"]) == 0
    assert "2 runs: 2 finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["train", "--initializer", "os:system"], "os:system is no initializer; expected a function under"),
        (["train", "--initializer", "my_broken:f"], "my_broken cannot be imported (ZeroDivisionError"),
        (["train", "--initializer", "gtp2:folder"], "gtp2 cannot be imported (ModuleNotFoundError"),
        (["study", "my_study:RECIPES"], "my_study:RECIPES is no study; expected a chibit.studies.Study"),
        (["study", "my_study:"], "expected a key or MODULE:NAME"),
        (["study", "nowhere:mine"], "nowhere cannot be imported"),
    ],
)
def test_what_is_none_is_refused_in_one_line(flags, words, capsys):
    Path("my_broken.py").write_text("1 / 0")
    assert main([*flags, "--data", "x"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_name_that_is_taken_is_refused():
    Path("my_study.py").write_text(Path("my_study.py").read_text().replace("orthogonal_or_not =", "table2 ="))
    with pytest.raises(InputError, match="my_study:table2: study 'table2' is chibit's already"):
        STUDIES.load("my_study:table2")


def test_installed_packages_bring_theirs(folder, monkeypatch):
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[chibit.initializers]\nany = {ADDRESS}\n[chibit.studies]\nany = {STUDY}\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    for registry in (INITIALIZERS, STUDIES):
        monkeypatch.setattr(registry, "_has_plugins", False)
    assert STUDIES["orthogonal_or_not"].arms == ("random", "orthogonal")
    assert isinstance(load_initializer("orthogonal").backbone, GPT)


def test_a_registry_keeps_order_and_lets_a_definition_be_repeated():
    registry = AddressedRegistry("thing", "things", "--thing", "a thing")
    for source in (len, len, max):
        registry.add(source.__name__, Weights(GPT(GPTConfig(n_layer=1, n_embd=2))), source, source.__name__)
    assert (list(registry), len(registry), registry.key_of("max")) == (["len", "max"], 2, "max")
    with pytest.raises(InputError, match="other: thing 'len' is len already; give it another name"):
        registry.add("len", registry["len"], max, "other")

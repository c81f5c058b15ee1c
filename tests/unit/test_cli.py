import logging
import subprocess
import sys
from pathlib import Path

import pytest

import chibit
import chibit.cli
from chibit.cli import main

POLICY = Path(__file__).parents[1] / "golden" / "v0_1" / "policy" / "config.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'"),
        (["data", "colect"], "unknown command 'data colect'"),
        (["train", "--agent", "td3bc", "--data", "x"], "got 'td3bc'; did you mean 'td3_bc'"),
        (["train", "--recipe", "chibitt", "--data", "x"], "did you mean 'chibit'"),
        (["train", "--agent", "dt", "--recipe", "dt"], "give one of them"),
        (["train", "--agent"], "--agent: needs a value"),
        (["train", "--data", "x", "--init", "chibit"], "--init is --initializer now"),
        (["train", "--data", "x", "--mode=delayed"], "--mode is --reward-mode now"),
        (["train", "--data", "x", "--adam_beta2", "0.5"], "--adam-beta2 is --adam-betas now"),
        (["train", "--data", "x", "--head", "own"], "--head: 'own' is 'linear' now"),
        (["train", "--data", "x", "--timestep-table=fresh"], "--timestep-table: 'fresh' is 'normal' now"),
        (["train", "--data", "x", "--reward-mode", "delayed"], "--reward-mode: 'delayed' is 'sparse' now"),
        (["train", "--config", str(POLICY)], "config.json: is not of a run; give"),
        (["train", "--config", "absent.json"], "absent.json: no such file"),
        (["train", "--data", "x", "--seed", "1", "--data", "y"], "--data: given 2 times, expected once"),
        (["train", "--data", "x", "y", "--more-data", "z"], "--more-data: given 2 times, expected once"),
        (["train", "--data", "x", "--more-data", "y", "--more-data=z"], "--more-data: given 2 times"),
        (["evaluate", "absent"], "not a run directory"),
        (["recipes", "chibitt"], "did you mean 'chibit'"),
        (["recipes", "BC"], "did you mean 'bc'?"),
        (["study", "table22"], "did you mean 'table2'"),
        (["study", "table2", "--arms", "chibitt"], "did you mean 'chibit'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--num-stps", "3", "--data", "x"],
            "Unrecognized options: --num-stps, 3; did you mean --num-steps",
        ),
        (["train"], "Missing from chibit train: --data"),
        (["train", "--data", "x", "--seed", "-1"], "seed: got -1, expected 0 to"),
        (["train", "--data", "x", "--num-steps", "abc"], "--num-steps: invalid literal"),
        (["train", "--data", "x", "--precision", "fp8"], "invalid choice 'fp8'"),
        (["data", "inspect"], "Missing from chibit data inspect"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.endswith(f"see chibit {arguments[0]}{' inspect' if arguments[0] == 'data' else ''} --help\n")
    assert error.count("\n") == 1


def test_a_warning_is_one_line_however_long(capfd, monkeypatch):
    def warn(arguments):
        logging.getLogger("chibit").warning("%s: damaged\nor not", "x" * 300)
        return 0

    monkeypatch.setattr(chibit.cli, "_dispatch", warn)
    assert main([]) == 0
    assert capfd.readouterr().err == f"WARNING: {'x' * 300}: damaged\\nor not\n"


def test_verbose_says_where_a_refusal_comes_from(capsys):
    assert main(["recipes", "chibitt"]) == main(["-v", "recipes", "chibitt"]) == 2
    short, long = capsys.readouterr().err.split("\n", 1)
    assert "find_recipe" not in short and "find_recipe" in long
    assert long.startswith("DEBUG: chibit ") and long.endswith(f"{short}\n")


def test_help_does_not_import_torch():
    code = "import sys; from chibit.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_module_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "chibit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == chibit.__version__


def test_a_current_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["train", "--agent", "bc", "--data", "data.npz", "--out", "run"]) == 2
    assert capsys.readouterr().err == "chibit: the current folder: no such file; check the path\n"

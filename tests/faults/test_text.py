"""Names and paths: printed as they are, refused where they can be none, and flags that would do nothing."""

import contextlib
import io

import numpy as np
import pytest

from chibit.cli import main
from chibit.core.terminal import make_console, text_column
from fault_files import steps

SMALL = [
    "--num-steps",
    "1",
    "--n-layer",
    "1",
    "--n-embd",
    "16",
    "--context-length",
    "4",
    "--batch-size",
    "4",
    "--warmup-steps",
    "1",
    "--quiet",
]
NAMES = ("x[/b]", "[red]y", ":smile:", "[link=x]z")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    columns = steps(60, 3, 1)
    columns["terminations"] = columns.pop("terminals")
    np.savez(folder / "d[-b].npz", **columns)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        assert main(["train", "--data", "d[-b].npz", "--out", NAMES[0], *SMALL]) == 0
    assert f"run directory: {NAMES[0]}" in said.getvalue()
    columns["observations"] = np.zeros((60, 5), np.float32)
    np.savez(folder / "wide.npz", **columns)
    return folder


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_as_it_is(there, capfd, name):
    assert main(["export", NAMES[0], "--out", name + "-policy", "--no-video"]) == 0
    assert capfd.readouterr().out.strip() == name + "-policy"
    for verb in ("report", "show", "recipes", "study"):
        assert main([verb, name + "?"]) == 2
        assert name in capfd.readouterr().err


def test_everything_printed_goes_through_one_console_without_markup():
    said = io.StringIO()
    console = make_console()
    console.file = said
    console.print("[b]x[/b] [/] :smile:")
    console.rule("[/b]")
    assert "[b]x[/b] [/] :smile:" in said.getvalue()
    assert text_column("{task.description}").markup is False


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("train --data d[-b].npz --out /", "out: got '/'"),
        ("export x[/b] --out /", "out: got '/'"),
        ("export x[/b] --out //", "out: got '/"),
        ("data convert . --game Pong --out /", "out: got '/'"),
        ("data convert . --game Pong --out x[/b]", "x[/b] is there already"),
        ("report x[/b] --out /", "out: got '/'"),
        ("evaluate x[/b] --out /", "out: got '/'"),
        ("evaluate x[/b] --out .", "is a folder"),
        ("evaluate x[/b] --out d[-b].npz/y", "in the way of this folder"),
        ("evaluate x[/b] --checkpoint ²", "checkpoint: got '²'"),
        (f"evaluate x[/b] --checkpoint {'9' * 5000}", "checkpoint: got"),
        ("attention x[/b] --checkpoint ²", "checkpoint: got '²'"),
        ("export x[/b] --checkpoint ²", "checkpoint: got '²'"),
        ("attention x[/b] --data wide.npz", "data: wide has observation_shape (5,)"),
        ("train --data d[-b].npz --out new --initializer hf:", "'hf:' names no model"),
        ("train --data d[-b].npz --out new --initializer gpt2:", "'gpt2:' names no model"),
        ("train --data d[-b].npz --out d[-b].npz/new", "is a file and in the way"),
        ("pretrain --corpus absent.txt", "neither a text file"),
        ("pretrain --corpus=", "corpus: got an empty name"),
        ("train --agent bc --data d[-b].npz --target-returns 3", "agent bc takes none"),
        ("study --seeds 3", "name: missing"),
        ("study table2 --dry-run --data [/b]", "'[/b]'"),
        ("study table2 --dry-run --data hopper-mediun", "hopper-medium"),
        ("study table2 --dry-run --root /dev/null/x", "in the way of this folder"),
        ("study table2 --dry-run --device tpu", "device: got 'tpu'"),
        ("study table2 --dry-run --engine process --num-processes 2", "num_processes"),
        ("study table2 --dry-run --ray-address auto", "ray_address"),
        ("data collect breakout-random --num-processes 2", "num_processes"),
    ],
)
def test_what_can_be_no_name_and_flags_that_would_do_nothing(there, capfd, flags, says):
    before = sorted(path.name for path in there.iterdir())
    assert main(flags.split()) == 2
    said = capfd.readouterr().err.strip()
    assert says in said
    assert len([line for line in said.splitlines() if not line.startswith("converting ")]) == 1
    assert sorted(path.name for path in there.iterdir()) == before


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "a\x1b[31m", "a\x00", "x" * 256])
def test_names_that_no_terminal_or_file_system_takes(there, capfd, name):
    assert main(["train", "--data", "d[-b].npz", "--out", name, *SMALL]) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert main(["data", "inspect", name]) == 2
    assert capfd.readouterr().err.count("\n") == 1

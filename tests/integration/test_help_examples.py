"""The examples of every command's help, run one after the other in one folder as a new user would.

They are shortened: fewer steps and episodes, smaller batches. Everything else is as the help shows it.
"""

import os
import shlex
import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

import pytest

from chibit.cli import VERBS
from chibit.commands.completion import arguments_of_commands

ORDER = (
    *("data collect", "data list", "data convert", "data inspect", "train", "evaluate", "judge", "attention"),
    *("export", "words", "study", "report", "recipes", "show", "completion", "pretrain", "quickstart"),
)
SHORT = {
    "data collect": {"--num-steps": "6000"},
    "train": {"--num-steps": "4", "--evaluate-every": "2", "--num-episodes": "1", "--batch-size": "4"},
    "evaluate": {"--num-episodes": "1"},
    "attention": {"--num-windows": "2"},
    "study": {"--num-steps": "2", "--num-episodes": "1"},
    "pretrain": {
        "--num-steps": "1",
        "--batch-tokens": "64",
        "--micro-batch-tokens": "64",
        "--block-length": "32",
        "--n-positions": "32",
        "--num-candidates": "50",
        "--sample-tokens": "0",
        "--num-sequences": "20",
    },
    "quickstart": {"--num-steps": "3", "--collect-steps": "2000"},
}
"""Flags that make a command short, with their values."""


def examples(verb):
    paragraphs = cleandoc(arguments_of_commands()[verb].__doc__).split("\n\n")
    return [" ".join(p.split()).removeprefix("Example: ") for p in paragraphs if p.startswith("Example: ")]


def shortened(command, verb):
    """Words of a command, with other values of its flags, and those flags that it lacks."""
    words = shlex.split(command)
    assert words[: 1 + len(verb.split())] == ["chibit", *verb.split()]
    for flag, value in SHORT.get(verb, {}).items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words[1:]


def test_every_command_has_an_example():
    assert set(ORDER) == set(VERBS)
    assert all(examples(verb) for verb in VERBS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_examples_do_what_the_help_says(tmp_path):
    places = {"MINARI_DATASETS_PATH": str(tmp_path / "minari"), "CHIBIT_HOME": str(tmp_path / "home")}
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, **places, "MUJOCO_GL": "disabled", "PYTHONPATH": source}
    for verb in ORDER:
        for example in examples(verb):
            command, _, out = example.partition(" > ")
            words = [sys.executable, "-m", "chibit", *shortened(command, verb)]
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, (example, done.stderr[-3000:])
            if out:
                (tmp_path / out).write_text(done.stdout)
    made = ("hopper.npz", "runs/mine/hopper/result.json", "hopper-policy/config.json", "chibit.bash")
    pages = ("runs/mine/report.html", "runs/table2/report.html")
    assert all((tmp_path / name).is_file() for name in (*made, *pages))

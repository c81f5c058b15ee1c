"""Completion in the shells themselves, as far as they are installed."""

import shutil
import subprocess

import pytest

from chibit.commands.completion import completion_script

ASK = {
    "bash": """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="${{COMP_WORDS[*]}}"
compopt() {{ :; }}
source {script}; _tyro_chibit; printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    # zsh's own part is told apart from ours: what is given to _describe is what it lists.
    "zsh": """
words=({words}); CURRENT=${{#words}}
_describe() {{ print -l -- "${{(@P)2}}" }}; _files() {{ print FILES }}
source {script}
""",
    "fish": "source {script}; complete -C '{line}'",
}
CASES = [
    (["chibit", ""], {"train", "study", "data"}, {"--help-all"}),
    (["chibit", "tr"], {"train"}, {"report"}),
    (["chibit", "data", ""], {"collect", "convert", "inspect", "list"}, {"train"}),
    (["chibit", "train", "--init"], {"--initializer", "--init-from"}, {"--data"}),
    (["chibit", "train", "--help"], {"--help", "--help-all"}, {"--data"}),
    (["chibit", "study", "--engine", ""], {"auto", "pool", "process", "ray", "stacked"}, {"--engine"}),
]


@pytest.mark.parametrize("shell", ASK)
def test_subcommands_flags_and_values_are_completed(tmp_path, shell):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(completion_script(shell))
    for words, offered, others in CASES:
        quoted = " ".join(word or "''" for word in words)
        asked = ASK[shell].format(words=quoted, line=" ".join(words), script=script)
        plain = {"bash": ["--norc", "-c"], "zsh": ["-fc"], "fish": ["--no-config", "-c"]}[shell]
        run = subprocess.run([found, *plain, asked], capture_output=True, text=True, timeout=60)
        entries = {line.split("\t")[0].split(":")[0].strip() for line in run.stdout.splitlines()}
        assert offered <= entries and not others & entries, (words, entries, run.stderr)
        assert not any("\\" in line for line in run.stdout.splitlines()), run.stdout

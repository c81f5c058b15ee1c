"""The job arrays of docs/cluster.md, run as SLURM would run two of their tasks, on one machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
ARRAYS = [
    code
    for code in re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE.read_text(), re.DOTALL)
    if "--array" in code
]
SMALL = {
    "--seeds": ["0", "1", "2"],
    "--num-processes": ["1"],
    "--stack": ["2"],
    "--arms": ["random"],
    "--num-steps": ["4"],
    "--num-episodes": ["0"],
}
"""What is done of the study in place of what the scripts ask for."""
CHIBIT = """#!{python}
import json, sys
from chibit.cli import main

if __name__ == '__main__':
    small, flags = json.loads('{small}'), {{}}
    for word in sys.argv[3:]:
        if word.startswith('--'):
            flags[word] = last = []
        else:
            last.append(word)
    for name, values in small.items():
        if name in flags or name not in ('--num-processes', '--stack'):
            flags[name] = values
    flags['--root'] = [sys.argv[0].rpartition('/')[0] + '/runs']
    sys.exit(main([*sys.argv[1:3], *(word for name in flags for word in (name, *flags[name]))]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", ARRAYS, ids=["pool", "stack"])
def test_two_tasks_of_an_array_share_the_study(script, tmp_path):
    draw, data = np.random.default_rng(0), tmp_path / "data.npz"
    columns = {"observations": draw.normal(size=(60, 3)), "actions": draw.uniform(-1, 1, (60, 1))}
    np.savez(data, **columns, rewards=draw.normal(size=60), terminations=np.arange(60) % 10 == 9)
    small = json.dumps({**SMALL, "--data": [str(data)]})
    programs = {
        "srun": '#!/bin/bash\nexec "$@"\n',
        "chibit": CHIBIT.format(python=sys.executable, small=small),
        "job.sh": script.replace("/shared/chibit", str(tmp_path / "home")),
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    tasks = [
        subprocess.Popen(
            [tmp_path / "job.sh"], env={**os.environ, **path, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    said = [task.communicate(timeout=500)[0] for task in tasks]
    assert {task.returncode for task in tasks} <= {0, 4}, said  # 4: the other task's last run is not done yet
    runs = sorted((tmp_path / "runs" / "table2").glob("random-*"))
    assert len(runs) == 3
    logs = [(run / "metrics.jsonl").read_text().splitlines() for run in runs]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps == [[4]] * 3  # nothing was done twice
    assert all((run / "result.json").is_file() for run in runs)

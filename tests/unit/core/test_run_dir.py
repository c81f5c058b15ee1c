import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chibit.core import run_dir
from chibit.core.errors import DamagedFileError, InputError, ResourceError
from chibit.core.run_dir import RunDir
from chibit.core.temporary import open_locked


def make(path, **config):
    return RunDir.create(path, arm="dt", study="s", config=config or {"a": 1})


def test_create_and_open(tmp_path):
    run = make(tmp_path / "run")
    assert RunDir.open(tmp_path / "run").description() == run.description()
    assert run.description() == {"schema": 1, "arm": "dt", "study": "s", "config": {"a": 1}}
    assert not run.is_finished
    make(tmp_path / "run")


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"schema": 1, "agent": "bc", "config": {}, "spec": {}, "sha256": "0"}, "a policy"),
        ({"model_type": "gpt2"}, "holds the config.json of something else"),
    ],
)
def test_a_folder_of_something_else_is_no_damaged_run(tmp_path, record, found):
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=found):
        RunDir.open(tmp_path)
    with pytest.raises(InputError, match=f"{found}.*; choose another --out"):
        make(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_another_configuration_is_refused(tmp_path):
    make(tmp_path / "run")
    with pytest.raises(InputError, match=r"another configuration \(a 1, now 2\); choose another --out"):
        make(tmp_path / "run", a=2)
    made = make(tmp_path / "more", data="x", agent={"rate": 0.1, "width": 8}, device="cpu")
    assert make(tmp_path / "more", data="x", agent={"rate": 0.1, "width": 8}, device="cuda").path == made.path
    with pytest.raises(
        InputError, match=r"\(data 'x', now 'y'; rate 0.1, now 0.2; depth None, now 2; \.\.\.\)"
    ):
        make(tmp_path / "more", data="y", agent={"rate": 0.2, "depth": 2})


def test_of_two_that_begin_in_one_folder_at_the_same_moment_one_is_refused(tmp_path, monkeypatch):
    write, together, refused = run_dir.write_atomic, threading.Barrier(2), []

    def write_together(path, content):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.5)
        write(path, content)

    def begin(number):
        try:
            make(tmp_path / "run", a=number)
        except InputError:
            refused.append(number)

    monkeypatch.setattr(run_dir, "write_atomic", write_together)
    threads = [threading.Thread(target=begin, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1 and RunDir.open(tmp_path / "run").description()["config"]["a"] not in refused


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run directory"):
        make(tmp_path)
    with pytest.raises(InputError, match="not a run directory"):
        RunDir.open(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    make(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(DamagedFileError, match="schema 2, expected 1"):
        RunDir.open(tmp_path / "run")


def test_logs_survive_a_torn_line_and_rewind_to_a_step(tmp_path):
    run = make(tmp_path / "run")
    for step in (10, 20, 30):
        run.append_metrics({"step": step, "train/loss": 1.0 / step})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "train/l')
    assert [record["step"] for record in run.read_log("metrics.jsonl")] == [10, 20, 30]
    run.rewind(20)
    run.append_metrics({"step": 30, "train/loss": 0.5})
    assert [record["step"] for record in run.read_log("metrics.jsonl")] == [10, 20, 30]
    assert run.read_log("evaluations.jsonl") == []


def test_a_damaged_line_in_the_middle_is_reported(tmp_path):
    run = make(tmp_path / "run")
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(DamagedFileError, match="line 2"):
        run.read_log("metrics.jsonl")


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN"])
def test_what_is_no_number_is_refused_before_a_log_is_written_anew(tmp_path, number):
    run = make(tmp_path / "run")
    content = f'{{"step": 1, "seconds": 1.0, "train/loss": {number}}}\n{{"step": 2, "seconds": 2.0}}\n'
    (run.path / "metrics.jsonl").write_text(content)
    with pytest.raises(DamagedFileError, match="metrics.jsonl: holds what is no finite number"):
        run.rewind(2)
    assert (run.path / "metrics.jsonl").read_text() == content


def test_nan_never_enters_a_log(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        make(tmp_path / "run").append_metrics({"step": 1, "train/loss": float("nan")})


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    run = make(tmp_path / "run")
    code = (
        "import sys, pathlib\nfrom chibit.core.run_dir import RunDir\n"
        f"run = RunDir.open(pathlib.Path({str(run.path)!r}))\n"
        "with run.lock():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    with pytest.raises(ResourceError, match="another process"), run.lock():
        pass
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with run.lock():
        pass


def test_result_is_the_sign_of_being_finished(tmp_path):
    run = make(tmp_path / "run")
    record = {
        "status": "finished", "steps": 3, "score_unit": "return", "scores": [], "behaviour_mean_return": 1.5,
        "behaviour_score": None,
    }  # fmt: skip
    run.write_result(record)
    assert run.is_finished
    assert run.result() == {"schema": 1, **record}
    (run.path / "result.json").write_text("[]")
    with pytest.raises(DamagedFileError, match="schema"):
        run.result()


def test_a_run_in_the_current_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    assert [RunDir(Path(path)).name for path in (".", "inner/..", "inner", "../mine")] == [
        *("mine", "mine", "inner", "mine")
    ]


def test_only_a_run_that_never_started_is_discarded(tmp_path):
    unstarted = RunDir.create(tmp_path / "unstarted", arm="a", study="s", config={})
    with unstarted.lock():
        RunDir(unstarted.path).discard_unstarted()
        assert unstarted.path.is_dir()
    unstarted.discard_unstarted()
    assert not unstarted.path.exists()
    started = RunDir.create(tmp_path / "started", arm="a", study="s", config={})
    started.append_metrics({"step": 1})
    started.discard_unstarted()
    assert started.path.is_dir() and started.description()["arm"] == "a"
    RunDir(tmp_path / "never").discard_unstarted()


@pytest.mark.parametrize("moment", ["make_folder", "open_locked", "write_atomic", "description", "lock"])
def test_a_folder_that_a_refused_process_removes_at_any_moment_is_made_again(tmp_path, monkeypatch, moment):
    path, removed = tmp_path / "run", []
    owner = RunDir if moment in ("description", "lock") else run_dir
    original = getattr(owner, moment)

    def remove_first(*args, **kwargs):
        if moment == "make_folder":
            original(path)
        if not removed:
            removed.append(moment)
            for entry in path.iterdir():
                entry.unlink()
            path.rmdir()
        return None if moment == "make_folder" else original(*args, **kwargs)

    monkeypatch.setattr(owner, moment, remove_first)
    with RunDir.held(path, arm="dt", study="s", config={"a": 1}) as run:
        assert removed and run.description()["config"] == {"a": 1}
        with pytest.raises(ResourceError, match="another process works on this run"), run.lock():
            pass


def test_what_is_missing_for_good_is_refused_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    make(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "nowhere")
    with (
        pytest.raises(InputError, match="is a link to a file that is not there"),
        RunDir.held(tmp_path / "run", arm="dt", study="s", config={"a": 1}),
    ):
        pass


def test_a_lock_whose_file_was_removed_meanwhile_is_that_of_the_new_file(tmp_path):
    path, held, end = tmp_path / "lock", threading.Event(), threading.Event()

    def wait_for_it():
        with open_locked(path, wait=True):
            held.set()
            end.wait(10)

    with open_locked(path, wait=False):
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not held.wait(0.2)
        path.unlink()
    assert held.wait(10)
    with open_locked(path, wait=False) as is_ours:
        assert not is_ours
    end.set()
    waiting.join()

"""Reading run directories: what is there, what is missing, what is refused and why."""

import json
import shutil

import numpy as np
import pytest

from chibit.core.errors import DamagedFileError, InputError
from chibit.core.run_dir import RunDir
from chibit.judging.judgement import FILE as JUDGEMENTS
from chibit.reporting.read.arms import arm_rank
from chibit.reporting.read.judgements import read_judged
from chibit.reporting.read.run import Excluded, Run, read_run
from chibit.reporting.read.study import differing_keys, flatten, read_study


@pytest.fixture
def run(tmp_path, runs):
    return runs.write_run(tmp_path / "study", "chibit", "hopper-medium-v2", 3, num_evaluations=6)


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_line(path, number, change):
    lines = path.read_text().splitlines()
    record = json.loads(lines[number])
    change(record)
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")


def refused(folder, kind, *words):
    found = read_run(folder)
    assert isinstance(found, Excluded), "the run was accepted"
    assert found.kind == kind, found.reason
    for word in words:
        assert word in found.reason, found.reason
    assert "\n" not in found.reason
    return found


def test_a_whole_run_is_read(run):
    found = read_run(run)
    assert isinstance(found, Run)
    assert (found.arm, found.dataset, found.seed) == ("chibit", "hopper-medium-v2", 3)
    assert [curve.target_return for curve in found.curves] == [3600.0, 1800.0]
    curve = found.curves[0]
    assert curve.steps.tolist() == [5000, 10_000, 15_000, 20_000, 25_000, 30_000]
    assert curve.final_returns.size == 4 * 10
    records = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    expected = [record["normalized_score"] for record in records if record["target_return"] == 3600.0]
    assert curve.scores.tolist() == expected
    assert curve.rules.last == expected[-1]
    assert curve.rules.last4 == pytest.approx(np.mean(expected[-4:]))
    assert curve.rules.best == max(expected)
    assert found.loss.shape == (60, 2)
    assert found.loss[-1, 0] == 30_000


def test_long_logs_are_thinned_to_a_curve_with_both_ends(run):
    records = [{"step": step, "seconds": 0.0, "train/loss": 1.0} for step in range(1, 5001)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    loss = read_run(run).loss
    assert len(loss) == 200
    assert (loss[0, 0], loss[-1, 0]) == (1, 5000)


def test_failed_episodes_are_left_out_and_counted(run):
    def fail(record):
        record["failed_episodes"] = [0, 1]
        record["episode_returns"][:2] = [-1e6, -1e6]

    edit_line(run / "evaluations.jsonl", -2, fail)
    curve = read_run(run).curves[0]
    assert curve.num_failed == 2
    assert curve.mean_returns.min() > -1e5
    assert curve.final_returns.size == 38


class TestRefusals:
    def test_a_folder_that_is_no_run(self, tmp_path):
        refused(tmp_path, "foreign", "config.json")

    def test_config_of_something_else(self, run):
        (run / "config.json").write_text('{"model_type": "gpt2"}')
        refused(run, "foreign", "schema")

    @pytest.mark.parametrize("name", ["config.json", "result.json"])
    def test_another_schema(self, run, name):
        edit(run / name, lambda data: data.update(schema=2))
        refused(run, "other schema", name, "schema 2", "reads 1")

    @pytest.mark.parametrize("name", ["config.json", "provenance.json", "result.json"])
    def test_half_written_json(self, run, name):
        text = (run / name).read_text()
        (run / name).write_text(text[: len(text) // 2])
        refused(run, "damaged", name, "not valid JSON")

    def test_a_field_that_is_there_twice(self, run):
        text = (run / "result.json").read_text()
        (run / "result.json").write_text(text.replace("{", '{"steps": 7,', 1))
        refused(run, "damaged", "result.json", "not valid JSON")

    @pytest.mark.parametrize("content", ["[]", "null", "3", '"text"'])
    def test_json_that_is_no_object(self, run, content):
        (run / "result.json").write_text(content)
        refused(run, "damaged", "result.json")

    def test_bytes_that_are_no_text(self, run):
        (run / "config.json").write_bytes(b"\xff\xfe\x00garbage")
        refused(run, "damaged", "config.json")

    def test_deeply_nested_json(self, run):
        (run / "config.json").write_text("[" * 100_000)
        refused(run, "damaged", "config.json")

    @pytest.mark.parametrize("name", ["evaluations.jsonl", "metrics.jsonl"])
    def test_a_log_cut_in_its_last_line(self, run, name):
        text = (run / name).read_text()
        (run / name).write_text(text[:-20])
        refused(run, "damaged", name, "cut off")

    @pytest.mark.parametrize(
        "line", ["not json", "[]", '{"seconds": 1}', '{"step": true}', '{"step": -1}', '{"step": 1e3}']
    )
    def test_a_log_with_a_foreign_line(self, run, line):
        with open(run / "evaluations.jsonl", "a") as file:
            file.write(line + "\n")
        refused(run, "damaged", "evaluations.jsonl, line 13")

    @pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"high"', "true", "[1]", "1" + "0" * 400])
    def test_scores_that_are_no_finite_number(self, run, value):
        path = run / "evaluations.jsonl"
        lines = path.read_text().splitlines()
        record = json.loads(lines[0])
        record["normalized_score"] = "HERE"
        lines[0] = json.dumps(record).replace('"HERE"', value)
        path.write_text("\n".join(lines) + "\n")
        refused(run, "damaged", "evaluations.jsonl, line 1")

    def test_an_evaluation_without_episodes(self, run):
        edit_line(run / "evaluations.jsonl", 0, lambda record: record.update(episode_returns=[]))
        refused(run, "damaged", "episode_returns: got none")

    def test_an_evaluation_whose_episodes_all_failed(self, run):
        edit_line(
            run / "evaluations.jsonl",
            0,
            lambda r: r.update(failed_episodes=list(range(10)), normalized_score=None),
        )
        curve = read_run(run).curves[0]
        assert curve.steps.tolist() == [10_000, 15_000, 20_000, 25_000, 30_000]
        assert curve.num_failed == 10

    def test_a_target_at_which_every_episode_failed(self, run):
        for number in range(0, 12, 2):
            edit_line(
                run / "evaluations.jsonl",
                number,
                lambda r: r.update(failed_episodes=list(range(10)), normalized_score=None),
            )
        refused(run, "not evaluated", "3600", "failed")

    def test_scores_for_some_evaluations_only(self, run):
        edit_line(run / "evaluations.jsonl", 0, lambda record: record.update(normalized_score=None))
        refused(run, "damaged", "some have none")

    def test_a_step_that_comes_twice(self, run):
        text = (run / "evaluations.jsonl").read_text()
        (run / "evaluations.jsonl").write_text(text + text)
        refused(run, "damaged", "follows step")

    @pytest.mark.parametrize("rule", ["last", "last4", "best"])
    def test_a_result_that_the_evaluations_do_not_give(self, run, rule):
        edit(run / "result.json", lambda data: data["scores"][1].update({rule: 99.0}))
        refused(run, "damaged", f"result.json says {rule} = 99")

    def test_a_result_without_a_target(self, run):
        edit(run / "result.json", lambda data: data["scores"].pop())
        refused(run, "damaged", "no scores for target 1800")

    def test_a_result_with_odd_entries(self, run):
        edit(run / "result.json", lambda data: data.update(scores=[3, {"target_return": [1]}]))
        refused(run, "damaged", "scores[0]")

    def test_a_run_without_evaluations(self, run):
        (run / "evaluations.jsonl").unlink()
        edit(run / "result.json", lambda data: data.update(scores=[]))
        refused(run, "not played", "no score")

    def test_a_missing_provenance(self, run):
        (run / "provenance.json").unlink()
        refused(run, "damaged", "provenance.json")

    @pytest.mark.parametrize("value", [None, 3, "", "x" * 500, "two\nlines", "\x00"])
    def test_an_arm_that_is_no_name(self, run, value):
        edit(run / "config.json", lambda data: data.update(arm=value))
        found = read_run(run)
        assert isinstance(found, Excluded)
        assert "arm" in found.reason

    @pytest.mark.parametrize("value", [None, "0", 1.0, True])
    def test_a_seed_that_is_no_integer(self, run, value):
        edit(run / "config.json", lambda data: data["config"].update(seed=value))
        refused(run, "damaged", "seed")

    def test_an_unfinished_run_says_how_far_it_came(self, tmp_path, runs):
        folder = runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, num_evaluations=4, finished=False)
        found = refused(folder, "unfinished", "no result.json", "step 20,000 of 20,000")
        assert (found.arm, found.dataset, found.seed) == ("dt", "hopper-medium-v2", 0)

    def test_an_unfinished_run_may_have_a_cut_line(self, tmp_path, runs):
        folder = runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, num_evaluations=4, finished=False)
        text = (folder / "metrics.jsonl").read_text()
        (folder / "metrics.jsonl").write_text(text[:-20])
        refused(folder, "unfinished", "step 19,500")

    def test_a_run_that_has_just_begun(self, run):
        for name in ("result.json", "metrics.jsonl", "evaluations.jsonl", "provenance.json"):
            (run / name).unlink()
        refused(run, "unfinished", "nothing logged")

    def test_a_diverged_run_says_so(self, tmp_path, runs):
        folder = runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, finished=False)
        (folder / "divergence.json").write_text(
            json.dumps({"step": 120, "message": "loss is nan", "rows": [1, 2]})
        )
        refused(folder, "diverged", "120", "loss is nan")


class TestStudy:
    def test_arms_data_sets_and_seeds(self, tmp_path, runs):
        study = runs.write_study(
            tmp_path / "s", {"zeta": 0, "chibit": 1, "dt": 0}, runs.NINE[:2], [0, 2], num_evaluations=3
        )
        found = read_study(study)
        assert found.name == "s"
        assert found.arms == ("dt", "chibit", "zeta")
        assert found.datasets == tuple(sorted(runs.NINE[:2]))
        assert found.seeds == (0, 2)
        assert len(found.runs) == 12
        assert found.excluded == ()
        assert found.gaps() == []

    def test_missing_seeds_are_stated_with_the_reason(self, tmp_path, runs):
        study = runs.write_study(
            tmp_path / "s", {"dt": 0, "chibit": 1}, ["hopper-medium-v2"], [0, 1], num_evaluations=3
        )
        runs.write_run(study, "dt", "hopper-medium-v2", 2, num_evaluations=3)
        runs.write_run(study, "chibit", "hopper-medium-v2", 3, num_evaluations=3, finished=False)
        gaps = {gap.arm: gap for gap in read_study(study).gaps()}
        assert gaps["chibit"].seeds == (2, 3)
        assert gaps["chibit"].reasons[0] == "no run"
        assert gaps["chibit"].reasons[1].startswith("unfinished: no result.json")
        assert "dt" not in gaps, "no run has finished with seed 3, so only its own arm lacks it"

    def test_other_folders_are_listed_and_files_and_hidden_folders_are_not(self, tmp_path, runs):
        study = runs.write_study(tmp_path / "s", {"dt": 0}, ["hopper-medium-v2"], [0], num_evaluations=3)
        (study / "notes").mkdir()
        (study / ".tmp-x").mkdir()
        (study / "report.html").write_text("")
        found = read_study(study)
        assert [(entry.name, entry.kind) for entry in found.excluded] == [("notes", "foreign")]

    def test_a_single_run_directory_is_a_study_of_one(self, run):
        assert [found.arm for found in read_study(run).runs] == ["chibit"]

    def test_a_copy_of_a_run_counts_once(self, run):
        shutil.copytree(run, run.with_name("zz-copy"))
        found = read_study(run.parent)
        assert [entry.name for entry in found.runs] == [run.name]
        assert found.excluded[0].kind == "duplicate"
        assert run.name in found.excluded[0].reason

    def test_one_arm_with_two_settings_is_two_arms(self, tmp_path, runs):
        study = tmp_path / "s"
        for length in (20, 1):
            for seed in (0, 1):
                agent = {"context_length": length, "learning_rate": 1e-4}
                runs.write_run(
                    study, "dt", "hopper-medium-v2", seed, num_evaluations=3, settings={"agent": agent}
                )
        found = read_study(study)
        assert found.arms == ("dt (context_length=1)", "dt (context_length=20)")
        assert len(found.runs) == 4
        last = {"agent": {"context_length": 20, "learning_rate": 1e-4}}
        runs.write_run(
            study, "dt", "hopper-medium-v2", 1, num_evaluations=3, settings=last, finished=False, name="other"
        )
        shutil.rmtree(next(study.glob("dt-*-s1-*")))
        [gap] = [gap for gap in read_study(study).gaps() if gap.seeds == (1,)]
        assert gap.reasons[0].startswith("of these or other settings, unfinished: no result.json")

    def test_settings_may_differ_between_data_sets_and_in_what_does_not_matter(self, tmp_path, runs):
        study = tmp_path / "s"
        runs.write_run(study, "dt", "hopper-medium-v2", 0, num_evaluations=3, settings={"device": "cpu"})
        runs.write_run(study, "dt", "hopper-medium-v2", 1, num_evaluations=3, settings={"device": "cuda"})
        runs.write_run(
            study, "dt", "walker2d-medium-v2", 0, num_evaluations=3, settings={"precision": "bf16"}
        )
        assert read_study(study).arms == ("dt",)

    def test_data_of_one_name_and_other_content_is_other_data(self, tmp_path, runs):
        for seed, digest in enumerate(("aaaaaaaabb", "ccccccccdd")):
            runs.write_run(tmp_path, "dt", "hopper-medium-v2", seed, num_evaluations=3, data_hash=digest)
        assert read_study(tmp_path).datasets == ("hopper-medium-v2 (aaaaaaaa)", "hopper-medium-v2 (cccccccc)")

    def test_raw_returns_are_known_as_such(self, tmp_path, runs):
        runs.write_run(tmp_path, "dt", "my-robot", 0, num_evaluations=3, normalized=False)
        runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, num_evaluations=3)
        found = read_study(tmp_path)
        assert not found.is_normalized("my-robot")
        assert found.is_normalized("hopper-medium-v2")

    def test_no_folder_and_an_empty_folder_are_refused(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            read_study(tmp_path / "absent")
        with pytest.raises(InputError, match="no run directories"):
            read_study(tmp_path)


def test_flatten_and_differing_keys():
    first = flatten({"a": {"b": 1, "c": [1]}, "d": None})
    assert first == {"a.b": 1, "a.c": [1], "d": None}
    assert differing_keys([first, {**first, "a.c": [2]}, {**first, "e": 1}]) == ["a.c", "e"]
    assert differing_keys([]) == []


def test_variants_follow_their_arm():
    arms = [
        "bc",
        "gpt2_lamo",
        "mine",
        "chibit_lora",
        "random_matched",
        "random (x=1)",
        "chibit",
        "gpt2",
        "dt",
    ]
    assert sorted(arms, key=arm_rank) == [
        *("dt", "random (x=1)", "random_matched", "chibit", "chibit_lora", "gpt2", "gpt2_lamo", "bc", "mine"),
    ]


def test_settings_that_end_alike_keep_their_whole_name(tmp_path, runs):
    for i, value in enumerate(("", "a")):
        settings = {"precision": f"p{i}", "agent": {"precision": value}}
        runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, num_evaluations=2, settings=settings)
    assert read_study(tmp_path).arms == (
        'dt (agent.precision="", precision=p0)',
        "dt (agent.precision=a, precision=p1)",
    )


def test_why_a_run_failed_is_taken_from_its_log(tmp_path, runs):
    run = runs.write_run(tmp_path / "s", "dt", "hopper-medium-v2", 0, finished=False)
    (run / "train.log").write_text(
        "failed: no data\ntraceback: ...\ncrashed: its process was killed\nresumed\n"
    )
    [entry] = read_study(tmp_path / "s").excluded
    assert entry.reason.endswith("its log says: crashed: its process was killed")
    assert "\n" not in entry.reason


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda data: data.update(arm="a\u202eb")),
        ("config.json", lambda data: data.update(arm="x" * 201)),
        ("provenance.json", lambda data: data.pop("parameters")),
        ("result.json", lambda data: data.pop("behaviour_mean_return")),
        ("result.json", lambda data: data["scores"][0].pop("best_step")),
        ("result.json", lambda data: data.update(parameters={"total": "many"})),
    ],
)
def test_resume_and_report_refuse_the_same_records(tmp_path, runs, name, change):
    path = runs.write_run(tmp_path, "chibit", "hopper-medium-v2", 0, num_evaluations=2)
    run = RunDir(path)
    read = {"config.json": run.description, "provenance.json": run.provenance, "result.json": run.result}[
        name
    ]
    read()
    assert isinstance(read_run(path), Run)
    edit(path / name, change)
    with pytest.raises(DamagedFileError, match=name):
        read()
    refused(path, "damaged", name)


@pytest.mark.parametrize(
    ("horizon", "limit", "is_told"), [(1000, 1000, True), (9, 1000, False), (2000, 1000, False)]
)
def test_only_whole_episodes_are_set_beside_the_simulator(run, runs, horizon, limit, is_told):
    runs.write_judgements(run, {3600.0: 1000.0})
    edit(
        run / JUDGEMENTS, lambda data: data["judgements"][0]["log"].update(horizon=horizon, time_limit=limit)
    )
    played = read_run(run)
    [one] = read_judged(run, played)
    assert one.true_return == (played.curves[0].mean_returns[-1] if is_told else None)

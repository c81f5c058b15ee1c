import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from chibit.core import progress
from chibit.judging import fitting
from chibit.judging.fitting import LENGTHS, FitConfig, fit_log, open_loop
from chibit.judging.judge import Judge
from chibit.judging.judgement import SelfTest
from chibit.judging.steps import read_steps
from chibit.judging.world import WorldConfig
from judging_toys import LENGTH, SETTINGS, Acts, home, make_log

TINY = FitConfig(world=WorldConfig(hidden_sizes=(8,), num_steps=3), clone_steps=3)


@pytest.fixture
def parts(tmp_path):
    return make_log(tmp_path, 20).held_out_split(0.2, 0)


def test_a_model_is_learned_once(parts, tmp_path, monkeypatch):
    first = fit_log(*parts, TINY, cache=tmp_path)
    monkeypatch.setattr(fitting, "_fit", lambda *_: pytest.fail("learned again"))
    again = fit_log(*parts, TINY, cache=tmp_path)
    for module in ("world", "clone"):
        kept, made = (getattr(fitted, module).state_dict() for fitted in (again, first))
        assert kept.keys() == made.keys()
        assert all(kept[name].equal(made[name]) for name in kept)
    assert again.self_test == first.self_test
    assert [sorted(path.name for path in folder.iterdir()) for folder in (tmp_path / "judges").iterdir()] == [
        ["manifest.json", "model.safetensors"]
    ]


def test_what_is_learned_is_shown_with_the_time_left(parts, tmp_path, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(
        progress, "make_console", lambda **_: Console(file=shown, force_terminal=True, width=100)
    )
    fit_log(*parts, TINY, cache=tmp_path / "quiet")
    assert not shown.getvalue()
    fit_log(*parts, TINY, cache=tmp_path, progress=True)
    assert "learning a model of line" in shown.getvalue() and "6/6" in shown.getvalue()
    assert "left" in shown.getvalue()


def test_other_data_seeds_or_settings_are_another_model(parts, tmp_path):
    train, held_out = parts
    others = [
        (train, held_out, dataclasses.replace(TINY, seed=1)),
        (train, held_out, dataclasses.replace(TINY, clone_steps=4)),
        (held_out, train, TINY),
    ]
    for one in [(train, held_out, TINY), *others]:
        fit_log(*one, cache=tmp_path)
    assert len(list((tmp_path / "judges").iterdir())) == 4


def test_what_the_hash_of_the_data_does_not_say_makes_another_model(parts, tmp_path):
    """More choices than the log has taken; the same log with its observations around another offset."""
    choices = make_log(tmp_path, 20, actions=np.resize([0, 1], 20 * LENGTH)).held_out_split(0.2, 0)
    for log, field, value in ((choices, "num_actions", 5), (parts, "state_offset", (300.0,))):
        fit_log(*log, TINY, cache=tmp_path)
        others = [
            dataclasses.replace(one, spec=dataclasses.replace(one.spec, **{field: value})) for one in log
        ]
        assert [one.content_hash for one in others] == [one.content_hash for one in log]
        fitted = fit_log(*others, TINY, cache=tmp_path)
        assert fitted.world.scales.state_mean.numpy() == pytest.approx(
            others[0].observations.mean(0), abs=1e-3
        )
        assert fitted.clone.members.biases[-1].shape[-1] == (5 if field == "num_actions" else 2)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_damaged_model_is_learned_again(parts, tmp_path, caplog, name):
    first = fit_log(*parts, TINY, cache=tmp_path)
    (folder,) = (tmp_path / "judges").iterdir()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / name).write_bytes(content)
    again = fit_log(*parts, TINY, cache=tmp_path)
    assert "learned again" in caplog.text
    assert all(value.equal(again.world.state_dict()[key]) for key, value in first.world.state_dict().items())
    caplog.clear()
    fit_log(*parts, TINY, cache=tmp_path)
    assert not caplog.text


def test_a_manifest_that_lies_is_not_believed(parts, tmp_path, caplog):
    fit_log(*parts, TINY, cache=tmp_path)
    (folder,) = (tmp_path / "judges").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["self_test"]["step_error"] = -1.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert fit_log(*parts, TINY, cache=tmp_path).self_test.step_error > 0
    assert "learned again" in caplog.text


def test_the_same_seed_judges_alike_to_the_bit(tmp_path):
    dataset = make_log(tmp_path, 20)
    settings = dataclasses.replace(SETTINGS, fit=TINY)
    judgements = []
    for name in ("one", "two"):
        torch.manual_seed(len(judgements))  # what was drawn before makes no difference
        judgements.append(Judge(dataset, config=settings, cache=tmp_path / name)(Acts(home)))
    first, again = judgements
    assert first == again


def test_a_fit_leaves_the_global_generator_alone(parts, tmp_path):
    before = torch.get_rng_state()
    fit_log(*parts, TINY, cache=tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def followed(world, train, held_out, length):
    return open_loop(world, held_out, world.residuals(read_steps(train)), length, 0)


def test_the_open_loop_test_tells_a_good_model_from_a_bad_one(line_judge, line_log, tmp_path):
    train, held_out = line_log.held_out_split(0.2, 0)
    good, bad = line_judge.fitted, fit_log(train, held_out, TINY, cache=tmp_path)
    fits, ceilings = zip(*(followed(one.world, train, held_out, 10) for one in (good, bad)), strict=True)
    assert fits[0] > 0.95 and fits[1] < 0.5
    assert ceilings[0] > 0.95 and ceilings[1] < fits[0]
    assert bad.self_test.horizon < 10 < good.self_test.horizon
    assert bad.self_test.unfit and not good.self_test.unfit


def test_stretches_that_cannot_be_compared_are_left_out(line_judge, line_log, tmp_path):
    world = line_judge.fitted.world
    assert followed(world, line_log, line_log, 41) is None  # no episode is that long
    alike = make_log(tmp_path, 20, rewards=np.full(20 * 40, 2.0))
    assert followed(world, line_log, alike, 5) is None


def test_the_horizon_ends_at_the_first_bad_length():
    def horizon(*fits):
        return SelfTest(step_error=0.1, lengths=LENGTHS[: len(fits)], fits=fits).horizon

    assert horizon(0.99, 0.95, 0.9, 0.5, 0.99) == 5
    assert horizon(0.2, 0.99) == 0
    assert horizon() == 0

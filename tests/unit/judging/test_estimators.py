import numpy as np
import pytest

from chibit.core.errors import InputError
from chibit.judging.estimators import other_estimates
from chibit.judging.fitting import Tape
from chibit.judging.judge import discounted_returns
from judging_toys import DISCOUNT, LENGTH, Acts, columns, down, home, make_log, true_value, up


@pytest.mark.parametrize("choose", [up, down, home])
def test_fqe_is_near_where_the_log_has_been_everywhere(line_judge, line_log, choose):
    """The line without its time limit, explored at random: what is left of the value is small."""
    found = other_estimates(Acts(choose), line_log, line_judge.fitted.clone, discount=DISCOUNT)
    starts = line_log.observations[line_log.episode_starts[:-1]]
    assert found.fqe == pytest.approx(true_value(choose, starts, 400).mean(), abs=4.0)
    assert found.num_episodes == line_log.num_episodes


def test_fqe_of_logged_actions_is_the_log(line_judge, tmp_path):
    """Behavior identity: with the logged next actions the value is the log's mean discounted return."""
    log = make_log(tmp_path, rewards=columns(60)["rewards"] + 2.0)
    recorded = Tape(log.actions.reshape(log.num_episodes, LENGTH, -1))
    found = other_estimates(recorded, log, line_judge.fitted.clone, discount=0.8)
    assert found.fqe == pytest.approx(discounted_returns(log, 0.8, LENGTH).mean(), rel=0.05)


def test_importance_sampling_of_the_clone_is_the_log(line_judge, line_log):
    clone = line_judge.fitted.clone
    found = other_estimates(clone.policy(), line_log, clone, discount=DISCOUNT)
    returns = discounted_returns(line_log, DISCOUNT, LENGTH)
    assert abs(found.wis - returns.mean()) < 0.2 * returns.std()
    far = other_estimates(Acts(up), line_log, clone, discount=DISCOUNT)
    assert 1.0 <= far.effective_episodes <= found.num_episodes
    assert far.effective_episodes < 0.5 * line_log.num_episodes


def test_choices_are_refused(line_judge, tmp_path):
    dataset = make_log(tmp_path, 20, actions=np.zeros(20 * 40, np.int64))
    with pytest.raises(InputError, match="actions are discrete, expected continuous ones for FQE"):
        other_estimates(Tape(np.zeros((20, 40))), dataset, line_judge.fitted.clone, discount=DISCOUNT)


def test_episodes_that_were_cut_after_one_step_are_refused(line_judge, tmp_path):
    """There is no next action anywhere, and no end: the value was NaN."""
    log = make_log(tmp_path, 30, 1)
    with pytest.raises(InputError, match="cut after one step, so that FQE has nothing to go by; leave"):
        other_estimates(Acts(up), log, line_judge.fitted.clone, discount=DISCOUNT)

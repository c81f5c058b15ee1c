import dataclasses

import pytest

from chibit.agents import AGENTS
from chibit.agents.recommended import RECOMMENDED, recommended


@pytest.mark.parametrize(
    "name",
    [
        "hopper-medium-replay-v2",
        "mujoco/hopper/medium-replay-v0",
        "chibit/hopper/medium-replay-v0",
        "hopper-medium-replay",
    ],
)
def test_every_spelling_of_a_data_set_gives_the_same_settings(name):
    config = recommended(AGENTS["rebrac"].config(batch_size=7), name)
    assert (config.actor_penalty, config.critic_penalty, config.batch_size) == (0.05, 0.5, 7)


@pytest.mark.parametrize(
    "name",
    [
        *("hopper-expert-v2", "my-hopper-medium.npz", "ant-medium-v2", "hopper-medium/x"),
        *("/data/hopper-medium", "logs/hopper/medium", "hopper-medium-v7", "Hopper-medium-v2"),
        *("./chibit/hopper/medium-v0", "other/hopper/medium-v0"),
    ],
)
def test_other_data_keep_the_defaults(name):
    config = AGENTS["rebrac"].config()
    assert recommended(config, name) == config


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_agents_without_recommendations_keep_their_config(agent):
    config = AGENTS[agent].config()
    if agent not in RECOMMENDED:
        assert recommended(config, "hopper-medium-v2") == config


def test_recommendations_name_agents_and_fields_that_exist():
    for agent, settings in RECOMMENDED.items():
        fields = {field.name for field in dataclasses.fields(AGENTS[agent].config)}
        for (environment, level), changes in settings.items():
            assert set(changes) <= fields
            changed = recommended(AGENTS[agent].config(), f"{environment}-{level}-v2")
            assert all(getattr(changed, name) == value for name, value in changes.items())

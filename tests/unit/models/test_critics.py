import torch

from chibit.models.critics import Critics, HeadedCritic, StateValue, frozen_copy, polyak_update
from chibit.models.mlp import VectorEncoder


def test_critics_value_one_or_many_actions_of_a_state_alike():
    critics = Critics(3, 2, (8, 8))
    states, actions = torch.randn(4, 3), torch.randn(4, 6, 2)
    many = critics(states, actions)
    assert many.shape == (2, 4, 6)
    for m in range(6):
        torch.testing.assert_close(many[:, :, m], critics(states, actions[:, m]))


def test_shapes_of_the_other_value_functions():
    assert StateValue(3, (8,))(torch.randn(5, 3)).shape == (5,)
    assert HeadedCritic(VectorEncoder(3, (8,)), 4, 7)(torch.randn(5, 3)).shape == (5, 4, 7)
    assert VectorEncoder(3, (8, 6))(torch.randn(5, 3)).shape == (5, 6)


def test_polyak_update_moves_a_target_by_the_stated_share():
    critics = Critics(2, 1, (4,))
    target = frozen_copy(critics)
    assert not any(p.requires_grad for p in target.parameters())
    with torch.no_grad():
        for p in critics.parameters():
            p.add_(1.0)
    before = [p.clone() for p in target.parameters()]
    polyak_update(target, critics, 0.25)
    for now, then in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(now, then + 0.25)
    polyak_update(target, critics, 1.0)
    for now, source in zip(target.parameters(), critics.parameters(), strict=True):
        assert torch.equal(now, source)

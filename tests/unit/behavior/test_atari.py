import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atari_toys import write_actor
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.collect.behavior.atari import load_actor, with_dice


def generators(number, seed=0):
    return [np.random.default_rng((seed, i)) for i in range(number)]


def pictures(number):
    return np.random.default_rng(0).integers(0, 256, (number, 4, 84, 84), dtype=np.uint8)


def reference(tensors):
    """The same network out of torch's own layers."""
    layers = [
        nn.Conv2d(4, 4, 8, 4),
        nn.Conv2d(4, 8, 4, 2),
        nn.Conv2d(8, 4, 3, 1),
        nn.Linear(196, 16),
        nn.Linear(16, 4),
    ]
    for name, layer in zip(("conv1", "conv2", "conv3", "linear", "actor"), layers, strict=True):
        layer.load_state_dict({"weight": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]})
    a, b, c, d, e = layers
    return nn.Sequential(a, nn.ReLU(), b, nn.ReLU(), c, nn.ReLU(), nn.Flatten(), d, nn.ReLU(), e)


def test_the_action_of_the_largest_logit_is_taken(tmp_path):
    tensors = write_actor(tmp_path / "a.safetensors", 4)
    act = load_actor(tmp_path / "a.safetensors", 4)
    blocks = np.random.default_rng(0).integers(0, 256, (64, 4, 6, 6), dtype=np.uint8)
    seen = blocks.repeat(14, axis=2).repeat(14, axis=3)
    with torch.no_grad():
        expected = reference(tensors)(torch.from_numpy(seen).float() / 255).argmax(-1).numpy()
    np.testing.assert_array_equal(act(seen), expected)
    assert len(set(expected.tolist())) > 1


def test_the_names_of_the_acktr_files_are_known(tmp_path):
    write_actor(tmp_path / "a.safetensors", 6)
    write_actor(tmp_path / "b.safetensors", 6, aliases=True)
    first, second = (load_actor(tmp_path / f"{name}.safetensors", 6) for name in "ab")
    np.testing.assert_array_equal(first(pictures(9)), second(pictures(9)))


def test_dice_take_their_share_and_leave_the_rest(tmp_path):
    def always_three(observations):
        return np.full(len(observations), 3)

    empty = np.zeros((4000, 0))
    assert (with_dice(always_three, 0.0, 4)(empty, generators(4000)) == 3).all()
    mixed = with_dice(always_three, 0.5, 4)(empty, generators(4000))
    assert abs((mixed == 3).mean() - (0.5 + 0.5 / 4)) < 0.03
    assert abs((with_dice(None, 1.0, 4)(empty, generators(4000)) == 0).mean() - 0.25) < 0.03


def test_a_game_does_not_depend_on_the_games_beside_it(tmp_path):
    write_actor(tmp_path / "a.safetensors", 4)
    act = with_dice(load_actor(tmp_path / "a.safetensors", 4), 0.3, 4)
    alone, beside = generators(1), generators(3)
    for _ in range(20):
        assert act(pictures(1), alone)[0] == act(np.repeat(pictures(1), 3, axis=0), beside)[0]


def test_what_is_no_actor_of_the_game_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="no such file"):
        load_actor(path, 4)
    tensors = write_actor(path, 6)
    with pytest.raises(
        InputError, match=r"actor has shape \(6, 16\), expected \(4, 16\); is it another game's"
    ):
        load_actor(path, 4)
    save_file({**tensors, "conv2.weight": torch.zeros(8, 4, 5, 5)}, path)
    with pytest.raises(InputError, match="conv2 has shape"):
        load_actor(path, 6)
    save_file({**tensors, "linear.bias": torch.full((16,), torch.nan)}, path)
    with pytest.raises(DamagedFileError, match=r"linear\.bias holds a number that is not finite"):
        load_actor(path, 6)
    tensors.pop("actor.bias")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"no tensor actor\.bias; found"):
        load_actor(path, 6)
    path.write_bytes(b"garbage")
    with pytest.raises(DamagedFileError, match="safetensors"):
        load_actor(path, 6)

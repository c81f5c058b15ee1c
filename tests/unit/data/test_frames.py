import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chibit.data.samplers.frames import FrameStacks


def numbered(lengths):
    """Frames of 1 x 2 pixels that show their own row number, from 1, and the starts of their episodes."""
    starts = np.cumsum([0, *lengths])
    frames = np.arange(1, starts[-1] + 1, dtype=np.uint8)[:, None, None].repeat(2, axis=2)
    return frames, starts


def test_stacks_by_hand():
    frames, starts = numbered([3, 4])
    stacks = FrameStacks(frames, starts, 3).stacks(np.array([0, 2, 3, 4, 6]))
    assert stacks.shape == (5, 3, 1, 2)
    assert stacks[..., 0, 0].tolist() == [[0, 0, 1], [1, 2, 3], [0, 0, 4], [0, 4, 5], [5, 6, 7]]


def test_a_window_by_hand_and_what_is_past_its_end():
    frames, starts = numbered([3, 4])
    window = FrameStacks(frames, starts, 2).windows(np.array([1, 3]), 4)
    assert window[..., 0, 0].tolist() == [[[1, 2], [2, 3], [3, 3], [3, 3]], [[0, 4], [4, 5], [5, 6], [6, 7]]]


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    depth=st.integers(1, 4),
    num_steps=st.integers(1, 5),
)
def test_stacks_never_reach_into_another_episode(lengths, depth, num_steps):
    frames, starts = numbered(lengths)
    rows = np.arange(starts[-1])
    windows = FrameStacks(frames, starts, depth).windows(rows, num_steps)[..., 0, 0]
    for row in rows:
        episode = np.searchsorted(starts, row, side="right") - 1
        for step in range(num_steps):
            newest = min(row + step, starts[episode + 1] - 1)
            wanted = [
                i + 1 if i >= starts[episode] else 0 for i in range(row + step - depth + 1, row + step + 1)
            ]
            wanted = [min(value, newest + 1) for value in wanted]
            assert windows[row, step].tolist() == wanted


def test_a_window_holds_each_picture_once():
    frames = np.zeros((200, 84, 84), np.uint8)
    window = FrameStacks(frames, np.array([0, 200]), 4).windows(np.arange(8), 30)
    # The next step, and the next picture of a stack, are one picture further on in the same memory.
    assert window.shape == (8, 30, 4, 84, 84)
    assert window.strides[:3] == (33 * 84 * 84, 84 * 84, 84 * 84)

import pytest
import torch

from chibit.models.mlp import FUSED_MIN_ROWS, MLP, StackedMLP


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_hand(stack, member, x, layer_norm=False):
    last = len(stack.weights) - 1
    for i, (weight, bias) in enumerate(zip(stack.weights, stack.biases, strict=True)):
        x = x @ weight[member] + bias[member]
        if i < last:
            x = x.clamp(min=0)
            if layer_norm:
                x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
                x = x * stack.gains[i][member] + stack.shifts[i][member]
    return x


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("rows", [5, FUSED_MIN_ROWS])
def test_stack_equals_its_members_one_by_one(rows, layer_norm):
    stack = StackedMLP(3, 4, (8, 6), 2, layer_norm=layer_norm)
    for parameter in [*stack.gains, *stack.shifts]:
        torch.nn.init.normal_(parameter)
    x = torch.randn(rows, 4)
    expected = torch.stack([by_hand(stack, member, x, layer_norm) for member in range(3)])
    torch.testing.assert_close(stack(x), expected)


def test_fused_gradient_equals_autograds():
    stack = StackedMLP(2, 5, (16, 8), 1)
    x = torch.randn(FUSED_MIN_ROWS, 5)
    output = stack(x)
    assert "FusedStack" in type(output.grad_fn).__name__  # else this test compares a thing with itself
    probe = torch.randn_like(output)
    fused = torch.autograd.grad((output * probe).sum(), list(stack.parameters()))
    plain_output = torch.stack([by_hand(stack, member, x) for member in range(2)])
    plain = torch.autograd.grad((plain_output * probe).sum(), list(stack.parameters()))
    for ours, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [5, FUSED_MIN_ROWS])
def test_gradient_of_the_input_flows_for_any_number_of_rows(rows):
    stack = StackedMLP(2, 3, (8,), 1)
    x = torch.randn(rows, 3, requires_grad=True)
    (ours,) = torch.autograd.grad(stack(x).sum(), x)
    (expected,) = torch.autograd.grad(sum(by_hand(stack, m, x).sum() for m in range(2)), x)
    torch.testing.assert_close(ours, expected)


def test_autocast_reaches_the_hidden_layers_and_leaves_the_value_in_full_precision():
    stack = StackedMLP(2, 3, (64, 64), 1)
    x = torch.randn(FUSED_MIN_ROWS, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = stack(x)
    assert half.dtype == torch.float32
    assert not torch.equal(half, stack(x))
    torch.testing.assert_close(half, stack(x), atol=0.02, rtol=0.02)


def test_the_first_members_can_be_asked_alone():
    stack = StackedMLP(3, 4, (8, 6), 1, layer_norm=True)
    x = torch.randn(5, 4)
    torch.testing.assert_close(stack(x, 2), stack(x)[:2])


def test_members_start_differently_and_within_the_uniform_bound():
    stack = StackedMLP(2, 100, (10,), 1)
    assert not torch.equal(stack.weights[0][0], stack.weights[0][1])
    assert stack.weights[0].abs().max() <= 0.1 < stack.weights[0].abs().max() * 1.1
    assert stack.biases[0].abs().max() <= 0.1


def test_dropout_acts_in_training_only():
    mlp = MLP(4, (64,), 1, dropout=0.5)
    x = torch.randn(8, 4)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))

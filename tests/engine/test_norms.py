"""Batch norm by the authors' rule, against the sums of their formulas."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from upernet.config import ModelConfig, OptimConfig
from upernet.engine.norms import CumulativeBatchNorm, use_cumulative_norms
from upernet.errors import UserError
from upernet.model.build import build_model
from upernet.tasks import Object

EPS = 1e-5


def layer(channels: int = 2, **options: float) -> CumulativeBatchNorm:
    return CumulativeBatchNorm.of(nn.BatchNorm2d(channels, **options)).train()  # type: ignore[arg-type]


def test_a_batch_worked_out_by_hand() -> None:
    """Values 1, 3, 5, 7: mean 4, biased variance 5, unbiased 20/3. The other channel is constant."""
    norm = layer()
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    y = norm(x)
    torch.testing.assert_close(y[0, 0].flatten(), torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5)
    assert y[0, 1].unique().tolist() == [0]
    # S = 0.999 · S + statistic and n = 0.999 · 1 + 1, from S = 0 and 1.
    torch.testing.assert_close(norm.running_mean, torch.tensor([4.0, 2.0]) / 1.999)
    torch.testing.assert_close(norm.running_var, torch.tensor([0.999 + 20 / 3, 0.999]) / 1.999)
    assert norm.num_batches_tracked.item() == 1


@pytest.mark.parametrize("start", [(0.0, 1.0), (3.0, 0.2)])
def test_running_statistics_are_the_decayed_cumulative_average(start: tuple[float, float]) -> None:
    norm = layer(3)
    norm.running_mean.fill_(start[0])
    norm.running_var.fill_(start[1])
    mean, variance, n = norm.running_mean.double().clone(), norm.running_var.double().clone(), 1.0
    for step in range(300):
        x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(step)) * 2 + step / 100
        norm(x)
        mean = 0.999 * mean + x.double().mean((0, 2, 3))
        variance = 0.999 * variance + x.double().var((0, 2, 3), correction=1)
        n = 0.999 * n + 1
        torch.testing.assert_close(norm.running_mean.double(), mean / n, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance / n, rtol=1e-5, atol=1e-6)


def test_a_variance_below_epsilon_is_raised_to_it_and_has_no_gradient() -> None:
    norm = layer(1).double()
    x = (torch.rand(2, 1, 3, 3, dtype=torch.double) * 1e-3).requires_grad_()
    y = norm(x)
    torch.testing.assert_close(y, (x - x.mean()) / EPS**0.5)
    weights = torch.rand(2, 1, 3, 3, dtype=torch.double)
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(gradient, (weights - weights.mean()) / EPS**0.5)


def test_gradients_are_those_of_the_formula() -> None:
    """Against automatic differentiation of the formula itself, and against finite differences."""
    x = torch.randn(3, 2, 4, 5, dtype=torch.double, requires_grad=True)
    norm = layer().double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    weights = torch.rand_like(x)
    found = torch.autograd.grad((norm(x) * weights).sum(), [x, norm.weight, norm.bias])
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
    plain = (x - mean) / variance.clamp(min=EPS).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    expected = torch.autograd.grad((plain * weights).sum(), [x, norm.weight, norm.bias])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(lambda z: deepcopy(norm)(z), (x,))


def test_evaluation_is_ordinary() -> None:
    ordinary = nn.BatchNorm2d(3, eps=0.5)
    nn.init.uniform_(ordinary.weight)
    nn.init.uniform_(ordinary.running_var, 0.1, 1.0)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(CumulativeBatchNorm.of(ordinary).eval()(x), ordinary.eval()(x), rtol=0, atol=0)


def test_one_value_per_channel_leaves_the_statistics_alone() -> None:
    norm = layer()
    norm.running_mean.fill_(1.0)
    y = norm(torch.full((1, 2, 1, 1), 3.0))
    torch.testing.assert_close(y, torch.full_like(y, 2.0), rtol=1e-4, atol=0)
    assert (norm.num_batches_tracked.item(), norm.running_mean.tolist()) == (0, [1.0, 1.0])


def test_activation_and_tensors_of_timms_layers_stay() -> None:
    theirs = BatchNormAct2d(3, act_layer=nn.PReLU)
    theirs.num_batches_tracked.fill_(99)  # trained elsewhere: the average begins with this run
    module = nn.Sequential(nn.Conv2d(3, 3, 1), theirs)
    names = list(module.state_dict())
    use_cumulative_norms(module)
    norm = module[1]
    assert isinstance(norm, CumulativeBatchNorm)
    assert list(module.state_dict()) == names
    assert norm.weight is theirs.weight
    assert norm.num_batches_tracked.item() == 0
    x = torch.randn(2, 3, 4, 4)
    plain = layer(3)
    torch.testing.assert_close(norm(x), theirs.act(plain(x)))
    norm.eval(), theirs.eval()
    torch.testing.assert_close(norm(x), theirs(x))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_every_norm_of_a_network_is_replaced_and_its_answers_stay(name: str) -> None:
    model = build_model(ModelConfig(backbone=name, width=8), {"object": Object(labels=["a", "b"], width=8)}).eval()
    image = torch.rand(2, 3, 64, 64)
    before, state = model(image)["object"], list(model.state_dict())
    use_cumulative_norms(model)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(type(norm) is CumulativeBatchNorm for norm in norms)
    assert list(model.state_dict()) == state
    torch.testing.assert_close(model(image)["object"], before, rtol=0, atol=0)
    model.train()(image)["object"].sum().backward()
    assert {norm.num_batches_tracked.item() for norm in norms} == {1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_whole_statistics(dtype: torch.dtype) -> None:
    x = torch.randn(4, 2, 8, 8) + 30  # a sum of squares in half precision would lose the variance

    def run(values: Tensor) -> tuple[CumulativeBatchNorm, Tensor]:
        norm = layer()
        return norm, norm(values)

    half, y = run(x.to(dtype))
    whole, expected = run(x.to(dtype).float())
    assert y.dtype == dtype
    assert half.running_var.dtype == torch.float32
    torch.testing.assert_close(half.running_var, whole.running_var)
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)


def test_options_that_contradict_are_told() -> None:
    with pytest.raises(UserError, match=r"optim\.norm_momentum: 0\.1 has no place beside norm_rule cumulative"):
        OptimConfig(norm_rule="cumulative", norm_momentum=0.1)
    with pytest.raises(UserError, match=r"optim\.norm_rule: 'sum' is not one of ordinary, cumulative"):
        OptimConfig(norm_rule="sum")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"optim\.loss_average: 'x' is not one of pixels, batches"):
        OptimConfig(loss_average="x")  # type: ignore[arg-type]

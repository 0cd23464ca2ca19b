import torch
from mmengine.optim import build_optim_wrapper


def test_bfloat16_inside_the_context_only_and_float32_weights():
    model = torch.nn.Linear(8, 4)
    wrapper = build_optim_wrapper(model, dict(type='AutocastOptimWrapper', optimizer=dict(type='SGD', lr=1.0)))
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    with wrapper.optim_context(model):
        y = model(x)
    assert y.dtype == torch.bfloat16 and model(x).dtype == torch.float32
    before = model.bias.detach().clone()
    wrapper.update_params(y.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.bias.detach(), before - 2.0)

"""Adam gives torch's numbers, for transposed matrices too."""

import torch

from rkstore.training.optim import Adam


def test_every_parameter_and_moment_is_as_torchs_adam_leaves_it():
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (5, 7), (9,), ()]
    begun = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in begun] for _ in range(2))
    for parameters in (ours, theirs):
        parameters.append(torch.nn.Parameter(begun[0].clone().T))
    steps = [Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1, fused=True)]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in steps:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
        for name, moment in steps[0].state[a].items():
            assert torch.equal(moment, steps[1].state[b][name])
            assert moment.stride() == steps[1].state[b][name].stride()

"""AdamW for the embedding and the norms, momentum with orthogonal updates for the matrices."""

import torch

MATRIX_RATE, EMBEDDING_RATE, NORM_RATE = 0.02, 0.006, 0.004
MOMENTUM, DECAY = 0.95, 0.01


def orthogonal(update, rounds=5):
    """Brings the singular values of a stack of matrices close to one.

    A quintic Newton-Schulz iteration with the coefficients of the Muon optimizer.
    """
    tall = update.shape[-2] > update.shape[-1]
    x = update.mT if tall else update
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(rounds):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * (square @ square)) @ x
    return (x.mT if tall else x).float()


class Matrices:
    """The matrices of one shape, updated together."""

    def __init__(self, params):
        self.params = params
        self.mean = torch.zeros(len(params), *params[0].shape)

    @torch.no_grad()
    def step(self, rate):
        grads = torch.stack([param.grad for param in self.params])
        self.mean.lerp_(grads, 1 - MOMENTUM)
        update = orthogonal(grads.lerp(self.mean, MOMENTUM))
        update *= max(1.0, update.shape[-2] / update.shape[-1]) ** 0.5
        for param, change in zip(self.params, update):
            param.mul_(1 - rate * DECAY).sub_(change, alpha=rate)
            param.grad = None


class Optimizers:
    """All optimizers as one; `step` takes the share of the full learning rate."""

    def __init__(self, model, pool):
        layers = model.model.layers
        names = [name for name, param in layers[0].named_parameters() if param.ndim == 2]
        self.matrices = [Matrices([layer.get_parameter(name) for layer in layers]) for name in names]
        norms = [param for param in model.parameters() if param.ndim == 1]
        groups = [{"params": [model.model.embed_tokens.weight], "lr": EMBEDDING_RATE}, {"params": norms, "lr": NORM_RATE}]
        self.others = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
        self.full = [group["lr"] for group in self.others.param_groups]
        self.pool = pool

    def step(self, share):
        done = [self.pool.submit(matrices.step, MATRIX_RATE * share) for matrices in self.matrices]
        for group, full in zip(self.others.param_groups, self.full):
            group["lr"] = full * share
        self.others.step()
        self.others.zero_grad(set_to_none=True)
        for one in done:
            one.result()

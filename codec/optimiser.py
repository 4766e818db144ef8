"""What a fit descends with: Muon on the convolutions that are transmitted, Adam on everything else.

Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix, so that all directions of a layer move alike; a kernel
(O, I, k, k) is the matrix (O, I k k). Learned steps, biases, embeddings and the encoder are no such matrices. Which of the two is
better, and by how much, is recorded in bench/results.
"""

from __future__ import annotations

import math
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from .config import FitConfig
from .network import Network

BETAS = (0.9, 0.99)
CLIP = 2.0
NORM_MEMORY = 0.95


class Optimiser:
    """Muon and Adam as one. `rate` factors multiply all learning rates of the configuration."""

    def __init__(self, network: Network, config: FitConfig) -> None:
        self.config = config
        self.kernels: list[nn.Parameter] = []
        if config.optimiser == "muon":
            self.kernels = [layer.weight for layer in network.convolutions()]
        # the same memory seen as matrices, which is all that Muon takes
        self.matrices = [nn.Parameter(kernel.detach().view(kernel.shape[0], -1)) for kernel in self.kernels]
        taken = {id(kernel) for kernel in self.kernels}
        rest = [(name, p) for name, p in network.named_parameters() if id(p) not in taken and p.requires_grad]
        steps = [p for name, p in rest if name.endswith(("log_step", "log_gain"))]
        slow = [p for encoder in network.token_encoders() for p in encoder.parameters()]
        taken |= {id(p) for p in [*steps, *slow]}
        others = [p for _, p in rest if id(p) not in taken]
        groups = [{"params": others}, {"params": steps}, {"params": slow}]
        self.adam = torch.optim.Adam(groups, lr=config.lr, betas=BETAS, fused=True)
        self.muon: torch.optim.Muon | None = None
        if self.matrices:
            self.muon = torch.optim.Muon(
                self.matrices,
                lr=config.matrix_lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        self.norm = 0.0

    def add(self, parameter: nn.Parameter) -> None:
        """Take latents in, or the entries of a codebook."""
        self.adam.add_param_group({"params": [parameter]})

    def set_rate(self, factor: float) -> None:
        """Set the learning rates to `factor` times their peaks."""
        known = (1.0, self.config.step_lr, self.config.token_lr)  # in the order of the groups; what `add` brought comes last
        rates = chain(known, repeat(self.config.latent_lr))
        for group, relative in zip(self.adam.param_groups, rates, strict=False):
            group["lr"] = self.config.lr * factor * relative
        if self.muon is not None:
            for group in self.muon.param_groups:
                group["lr"] = self.config.matrix_lr * factor

    def step(self) -> None:
        """One step along the gradients, which are used up."""
        self._clip()
        self.adam.step()
        if self.muon is not None:
            for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
                matrix.grad = None if kernel.grad is None else kernel.grad.reshape(matrix.shape)
            self.muon.step()  # type: ignore[no-untyped-call]
            for kernel in self.kernels:
                kernel.grad = None
        self.adam.zero_grad(set_to_none=True)

    def _clip(self) -> None:
        """Hold Adam's gradients to twice their running norm: one bad frame must not throw a network into the flat part of its
        activations. Muon's steps have one length anyway.
        """
        parameters = [p for group in self.adam.param_groups for p in group["params"] if p.grad is not None]
        limit = CLIP * self.norm if self.norm else math.inf
        norm = min(float(nn.utils.clip_grad_norm_(parameters, limit)), limit)
        self.norm = NORM_MEMORY * self.norm + (1 - NORM_MEMORY) * norm if self.norm else norm

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, copied."""
        optimisers = [self.adam] if self.muon is None else [self.adam, self.muon]
        moments = [[_copy(o.state[p]) for group in o.param_groups for p in group["params"]] for o in optimisers]
        return {"moments": moments, "norm": self.norm}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state()` that was taken with the same parameters."""
        optimisers = [self.adam] if self.muon is None else [self.adam, self.muon]
        for optimiser, moments in zip(optimisers, state["moments"], strict=True):
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            for parameter, moment in zip(parameters, moments, strict=True):
                optimiser.state[parameter] = _copy(moment)
        self.norm = state["norm"]


def _copy(moments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in moments.items()}

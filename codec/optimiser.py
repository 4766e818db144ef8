"""What a fit descends with: Muon on the convolutions that are transmitted, Adam on everything else.

Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix, so that all directions of a layer move alike; a kernel
(O, I, k, k) is the matrix (O, I k k). Learned steps, biases, embeddings and the encoder are no such matrices. Which of the two is
better, and by how much, is recorded in bench/results.

Learning rates are scalars on the device, changed in place, and no step is read by the host, so that steps can be recorded
(launch.py). PyTorch's Muon reads its rate on the host; so it moves a matrix of zeros at the rate 1, and what becomes of that is
the direction in which the kernel then goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .config import FitConfig
from .network import Network
from .running import RunningMean

BETAS = (0.9, 0.99)
CLIP = 2.0
NORM_MEMORY = 0.95
TINY = 1e-6  # beside a norm of gradients


class Optimiser:
    """Muon and Adam as one. `set_rate` factors multiply all learning rates of the configuration."""

    def __init__(self, network: Network, config: FitConfig) -> None:
        self.config = config
        self.device = next(network.parameters()).device
        self.kernels: list[nn.Parameter] = []
        if config.optimiser == "muon":
            self.kernels = [layer.weight for layer in network.convolutions()]
        taken = {id(kernel) for kernel in self.kernels}
        rest = [(name, p) for name, p in network.named_parameters() if id(p) not in taken and p.requires_grad]
        steps = [p for name, p in rest if name.endswith(("log_step", "log_gain"))]
        slow = [p for encoder in network.token_encoders() for p in encoder.parameters()]
        taken |= {id(p) for p in [*steps, *slow]}
        others = [p for _, p in rest if id(p) not in taken]
        self.rates: list[tuple[Tensor, float]] = []
        groups = [self._group(others, 1.0), self._group(steps, config.step_lr), self._group(slow, config.token_lr)]
        cuda = self.device.type == "cuda"
        self.adam = torch.optim.Adam(groups, betas=BETAS, fused=True, capturable=cuda)
        self.matrix_rate = self._rate(config.matrix_lr)
        self.directions = [nn.Parameter(torch.zeros_like(kernel).flatten(1)) for kernel in self.kernels]
        self.muon: torch.optim.Muon | None = None
        if self.directions:
            self.muon = torch.optim.Muon(
                self.directions, lr=1.0, weight_decay=0.0, momentum=config.momentum, adjust_lr_fn="match_rms_adamw"
            )
        self.norm = RunningMean(NORM_MEMORY, self.device)

    def _rate(self, peak: float) -> Tensor:
        """A learning rate that `set_rate` sets."""
        rate = torch.full((), peak, device=self.device)
        self.rates.append((rate, peak))
        return rate

    def _group(self, parameters: list[nn.Parameter], relative: float) -> dict[str, Any]:
        return {"params": parameters, "lr": self._rate(self.config.lr * relative)}

    def add(self, parameter: nn.Parameter) -> None:
        """Take latents in, or the entries of a codebook."""
        self.adam.add_param_group(self._group([parameter], self.config.latent_lr))

    def set_rate(self, factor: float) -> None:
        """Set the learning rates to `factor` times their peaks."""
        for rate, peak in self.rates:
            rate.fill_(peak * factor)

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients, which are used up."""
        self._clip()
        self.adam.step()
        if self.muon is not None:
            for kernel, direction in zip(self.kernels, self.directions, strict=True):
                direction.grad = None if kernel.grad is None else kernel.grad.reshape(direction.shape)
            self.muon.step()  # type: ignore[no-untyped-call]
            for kernel, direction in zip(self.kernels, self.directions, strict=True):
                if direction.grad is not None:
                    kernel.mul_(1 - self.matrix_rate * self.config.weight_decay)
                    kernel.addcmul_(direction.view_as(kernel), self.matrix_rate)
                    direction.zero_()
        self.forget()

    def forget(self) -> None:
        """Drop all gradients."""
        for parameter in (*self.kernels, *self.directions, *self._parameters()):
            parameter.grad = None

    def _clip(self) -> None:
        """Hold Adam's gradients to twice their running norm: one bad frame must not throw a network into the flat part of its
        activations. Muon's steps have one length anyway.
        """
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        limit = torch.where(self.norm.value == 0, torch.inf, CLIP * self.norm.value)
        factor = (limit / (norm + TINY)).clamp(max=1.0).float()
        for gradient in gradients:
            gradient.mul_(factor)
        self.norm.observe(torch.minimum(norm, limit))

    def _parameters(self) -> Iterator[nn.Parameter]:
        """Adam's."""
        return (p for group in self.adam.param_groups for p in group["params"])

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, copied."""
        moments = [{name: value.clone() for name, value in own.items()} for own in self._moments()]
        return {"moments": moments, "norm": self.norm.value.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back, in place, to a `state()` that was taken with the same parameters."""
        for optimiser, parameter, kept in zip(*self._owners(), state["moments"], strict=True):
            own = optimiser.state[parameter]
            for name, value in own.items():
                value.copy_(kept[name]) if kept else value.zero_()  # nothing is kept of what had not moved yet
            for name in kept.keys() - own.keys():
                own[name] = kept[name].to(parameter.device, copy=True)
        self.norm.value.copy_(state["norm"])

    def _owners(self) -> tuple[list[torch.optim.Optimizer], list[nn.Parameter]]:
        """Every parameter and whose it is."""
        optimisers: list[torch.optim.Optimizer] = [self.adam] if self.muon is None else [self.adam, self.muon]
        pairs = [(o, p) for o in optimisers for group in o.param_groups for p in group["params"]]
        return [owner for owner, _ in pairs], [parameter for _, parameter in pairs]

    def _moments(self) -> list[dict[str, Tensor]]:
        return [owner.state[parameter] for owner, parameter in zip(*self._owners(), strict=True)]

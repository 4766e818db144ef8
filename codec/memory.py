"""What a fit needs of its device's memory, and what is done where less is free: frames are streamed, steps take fewer frames,
then fewer rows.

A step is tried on the `meta` device, where tensors have sizes but no memory, and what lives at once is counted. So nothing is
allocated to know what would be.
"""

from __future__ import annotations

import copy
import math
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nvc.bitstream.errors import MachineError

from .canvas import Canvas
from .codebook import Codebook
from .config import FitConfig
from .distortion import DISTORTIONS, Distortion
from .fit import AT_ONCE
from .latents import Latent
from .network import Network
from .precision import set_half
from .ssim import WINDOW

FLOAT = 4  # bytes
STATES = 3  # of a fit beside the one that goes on: recovery keeps two, and holds a third while it takes one
RATE_BYTES, LATENT_RATE_BYTES = 64, 128  # that rate.py takes for a number; latents are counted in several forms
TABLE_BYTES = 20 << 10  # and for each sequence, of which a table of 511 codes is made, in several copies
TOKEN_COSTS = 6  # floats for each code at each place, while tokens are chosen
BUFFERED = 2  # batches that a step reads (feed.py): frames t, and those of t - 1 for a network with a history
POOLS = 2  # a step that is recorded as a CUDA graph keeps its memory, beside that of the steps in between
LIBRARIES = 256 << 20  # for a fit on CUDA: kernels that are loaded late, and the workspaces of cuBLAS and cuDNN
MARGIN = 1.15  # for blocks that are larger than what lies in them

_CONVOLUTIONS = ("convolution", "convolution_backward")
ADVICE = "use a smaller --segment, --crop or --scale, or --device cpu"


@dataclass(frozen=True)
class Room:
    """How a segment is fitted in the memory that is free: whether its frames are `resident` on the device or streamed from the
    host, `config` with a batch and a band that fit, and the `bytes` that it takes on the device at most.
    """

    resident: bool
    config: FitConfig
    bytes: int

    @classmethod
    def unplanned(cls, config: FitConfig) -> Room:
        """All that is wanted; there is no telling whether any memory holds it."""
        return cls(True, config, sys.maxsize)

    def holds(self, free: int) -> bool:
        """Whether the fit has room in `free` bytes."""
        return self.bytes <= free

    def fits(self, free: int) -> int:
        """How many such fits have room at a time in `free` bytes, which hold one."""
        return free // self.bytes

    def note(self, wanted: FitConfig) -> str:
        """What the user should know: how this differs from a fit that was `wanted`; empty where it does not."""
        said = [] if self.resident else ["frames are streamed from the host"]
        if self.config.batch < wanted.batch:
            said.append(f"a step takes {self.config.batch} frame{'s' * (self.config.batch > 1)} instead of {wanted.batch}")
        if self.config.band < wanted.band:
            said.append(f"a step computes {self.config.band:.0%} of the rows instead of {wanted.band:.0%}")
        return f"little memory on the device: {', '.join(said)}" if said else ""


def plan_memory(network: Network, canvas: Canvas, config: FitConfig, tune: str, device: torch.device, free: int) -> Room:
    """The first of these that takes at most `free` bytes: all on the device; frames streamed; single frames; bands of a half, a
    quarter, ... of the rows. Network and canvas are on the host; passes stay, so smaller steps are more steps.

    MachineError `memory` where nothing fits.
    """
    for resident, tried in _forms(network, canvas, config, tune):
        needed = fit_bytes(network, canvas, tried, tune, device, resident=resident)
        if needed <= free:
            return Room(resident, tried, needed)
    frames, _, height, width = canvas.frames.shape
    side = 2 if canvas.frames.shape[1] == 6 else 1  # a 4:2:0 canvas has four luma phases
    raise MachineError(
        "memory",
        f"to fit {frames} frames of {side * width}x{side * height} takes at least {_mib(needed)} MiB, but {device} has "
        f"{free >> 20} MiB free; {ADVICE}",
    )


def _mib(size: int) -> int:
    return -(-size >> 20)


def _forms(network: Network, canvas: Canvas, config: FitConfig, tune: str) -> Iterator[tuple[bool, FitConfig]]:
    """Ever smaller fits: whether frames are resident, and the settings."""
    yield True, config
    yield False, config
    if min(config.batch, len(canvas.frames)) > 1:
        config = replace(config, batch=1)
        yield False, config
    height = canvas.frames.shape[2]
    least = -(-WINDOW // network.band) if tune == "ssim" else 1  # MS-SSIM needs a window
    count = round(min(config.band, 1.0) * height / network.band) // 2
    while count >= least:
        yield False, replace(config, band=count * network.band / height)
        count //= 2


def fit_bytes(network: Network, canvas: Canvas, config: FitConfig, tune: str, device: torch.device, *, resident: bool) -> int:
    """Bytes that a fit takes on `device`, at most; network and canvas are on the host."""
    frames, channels, height, width = canvas.frames.shape
    picture = channels * height * width
    shown = picture * (frames * resident + BUFFERED * min(config.batch, frames)) + 2 * FLOAT * picture  # and weights
    step = step_bytes(network, canvas, config, tune, device)
    cuda = device.type == "cuda"
    total = _kept_bytes(network, frames, config) + shown + step * (POOLS if cuda else 1)
    return int(MARGIN * total) + (LIBRARIES if cuda else 0)


def _kept_bytes(network: Network, frames: int, config: FitConfig) -> int:
    """Parameters, gradients and moments, and the states that recovery keeps."""
    kernels = sum(layer.weight.numel() for layer in network.convolutions()) if config.optimiser == "muon" else 0
    parameters = sum(parameter.numel() for parameter in network.parameters())
    buffers = sum(tensor.numel() * tensor.element_size() for tensor in network.buffers())
    copies = {1: kernels, 2: parameters - kernels + _latent_numbers(network, frames)}  # by moments: Muon has one, Adam two
    learned = sum(count * (2 + moments + STATES * (1 + moments)) for moments, count in copies.items())
    return FLOAT * learned + (1 + STATES) * buffers


def _latent_numbers(network: Network, frames: int) -> int:
    return sum(frames * math.prod(latent.shape) for latent in network.latents if isinstance(latent, Latent))


def step_bytes(network: Network, canvas: Canvas, config: FitConfig, tune: str, device: torch.device) -> int:
    """Bytes that live at once in a step: activations, gradients, what a convolution may copy, and the rate.

    The largest of: a step with encoders; one without, but with the rate; the passes over whole frames that no gradient needs.
    """
    twin = copy.deepcopy(network).to("meta")
    set_half(twin.convolutions(), True, device)
    frames, channels, height, width = canvas.frames.shape
    batch, encoded = min(config.batch, frames), min(AT_ONCE * config.batch, frames)
    rows = height if config.band >= 1 else max(round(config.band * height / twin.band), 1) * twin.band
    distortion = _distortion(canvas, tune)

    def frames_of(count: int) -> Tensor:
        planes = torch.empty(count, channels, height, width, dtype=torch.uint8, device="meta")
        return planes.float().div_(255).contiguous(memory_format=torch.channels_last)

    def compare(codes: list[Tensor], before: Tensor | None, wanted: Tensor, last: int) -> Tensor:
        return distortion(twin(codes, before, (0, last)), wanted[:, :, :last] * 255, 0, last)[0]

    with torch.no_grad(), _Live() as encoding:
        codes, before = _encode(twin, frames_of(encoded))
    with torch.no_grad(), _Live() as showing:
        compare([code[:batch] for code in codes], None if before is None else before[:batch], frames_of(batch), height)
    with _Live() as free:
        tables = [code[:batch].requires_grad_() for code in codes]
        compare(tables, None if before is None else tables[0], frames_of(batch), rows).backward()  # type: ignore[no-untyped-call]
    twin.zero_grad()
    with _Live() as first:
        wanted = frames_of(batch)
        compare(*_encode(twin, wanted), wanted, rows).backward()  # type: ignore[no-untyped-call]
    most: int = max(encoding.peak, showing.peak, free.peak + _rate_bytes(twin, frames), first.peak)
    return most + _token_bytes(twin, max(batch, encoded))


def _rate_bytes(network: Network, frames: int) -> int:
    """What it takes to count the bits of everything."""
    layers = list(network.convolutions())
    weights = sum(layer.weight.numel() + layer.bias.numel() for layer in layers)
    latents = [latent for latent in network.latents if isinstance(latent, Latent)]
    sequences = 2 * len(layers) + sum(3 * (latent.shape[0] + 1) for latent in latents)  # whole or by channels; in time, two each
    return RATE_BYTES * weights + LATENT_RATE_BYTES * _latent_numbers(network, frames) + TABLE_BYTES * sequences


def _encode(network: Network, frames: Tensor) -> tuple[list[Tensor], Tensor | None]:
    """Latents as the encoders find them, and those of the frames before where a network reads them.

    They stand for their codes, which are of the same size: what finds codes may read numbers, and here are none.
    """
    real = network.encode(frames)
    before = network.encode(frames) if network.history else None
    return [real, *network.encode_details(frames, real, before)], before


def _distortion(canvas: Canvas, tune: str) -> Distortion:
    """What a step minimises, built of real weights, which it looks at, and then without them."""
    distortion: Any = copy.copy(DISTORTIONS[tune](canvas))
    distortion.weights = canvas.weights.to("meta")
    made: Distortion = distortion
    return made


def _token_bytes(network: nn.Module, frames: int) -> int:
    """What the choice of tokens for so many frames takes."""
    books = [module for module in network.modules() if isinstance(module, Codebook)]
    return sum(frames * book.shape[1] * book.shape[2] * book.levels * FLOAT * TOKEN_COSTS for book in books)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that live at once, `peak` at most, among those that were made inside.

    A convolution counts all that it reads and writes twice: libraries copy it to the layout that suits their kernels.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        copied = 0
        if func.overloadpacket.__name__ in _CONVOLUTIONS:
            copied = sum(x.numel() * x.element_size() for x in tree_iter((args, out)) if isinstance(x, Tensor))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        self.peak = max(self.peak, self.now + copied)
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


@contextmanager
def one_line(device: torch.device) -> Iterator[None]:
    """MachineError `memory` for what runs out of memory inside, on the device or on the host."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MachineError("memory", f"out of memory on {device}; {ADVICE}") from error

"""How the steps of a fit are launched: operation by operation, or recorded once and replayed as a whole.

A step is some hundred short operations. On a GPU the host needs longer to launch them than a small network takes to compute, so
steps are recorded as CUDA graphs. A recording repeats the same operations on the same memory: all that changes from step to
step is in tensors that are changed in place, and where anything else changes, at the border of two phases, `reset` drops it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # launches before a recording, as PyTorch asks for: optimisers make their state, cuDNN tries its kernels

Work = Callable[[], None]


class Launcher(ABC):
    """Runs pieces of work, each known by a name under which it always does the same."""

    @abstractmethod
    def run(self, name: str, work: Work) -> None:
        """Do the work of that name."""

    @abstractmethod
    def reset(self) -> None:
        """From here on the names stand for other work."""


class Eager(Launcher):
    """One operation after another."""

    def run(self, name: str, work: Work) -> None:
        work()

    def reset(self) -> None:
        pass


class Recorded(Launcher):
    """Every piece of work is recorded after some launches and replayed from then on.

    A `recorder` takes work, without doing it, and gives what replays it; each phase has a new one. Where it fails, `tell` is told
    why, once, and the work is done operation by operation.
    """

    def __init__(self, recorder: Callable[[], Callable[[Work], Work]], tell: Callable[[str], None]) -> None:
        self.recorder, self.tell = recorder, tell
        self.record = recorder()
        self.replays: dict[str, Work] = {}
        self.launches: Counter[str] = Counter()
        self.failed = False

    def run(self, name: str, work: Work) -> None:
        if name not in self.replays and not self.failed and self.launches[name] >= WARM_UP:
            self._record(name, work)
        self.launches[name] += 1
        self.replays.get(name, work)()

    def _record(self, name: str, work: Work) -> None:
        try:
            self.replays[name] = self.record(work)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed = True
            self.replays.clear()
            self.tell(f"steps could not be recorded as CUDA graphs, and are launched one by one: {first_line(error)}")

    def reset(self) -> None:
        self.replays.clear()
        self.launches.clear()
        self.record = self.recorder()


class CudaRecorder:
    """Records work on the current stream, which must not be the default one, as CUDA graphs that share their memory."""

    def __init__(self) -> None:
        self.pool: Any = None  # torch's own kind of handle

    def __call__(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # of one fit, graphs run one after another, and no tensor in the pool is read after the graph that wrote it
        with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream()):
            work()
        self.pool = self.pool or graph.pool()
        return graph.replay


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class Compiled:
    """A network's `forward` as torch.compile makes it, or as it is where that fails; `tell` is told why, once.

    Short operations between convolutions become one kernel. Every phase of a fit is compiled anew, for about a minute.
    """

    def __init__(self, network: Callable[..., Tensor], tell: Callable[[str], None], backend: str = "inductor") -> None:
        self.network, self.tell, self.backend = network, tell, backend
        self.forward: Callable[..., Tensor] | None = None

    def __call__(self, *arguments: Any) -> Tensor:
        try:
            if self.forward is None:
                self.forward = torch.compile(self.network, dynamic=False, backend=self.backend)
            return self.forward(*arguments)
        except (RuntimeError, ImportError) as error:  # all of the compiler's are
            if self.forward is self.network or isinstance(error, torch.OutOfMemoryError):
                raise
            self.forward = self.network
            self.tell(f"the network could not be compiled, and is run as it is: {first_line(error)}")
            return self.network(*arguments)

"""Two tools for code that must not stop a GPU, on a CPU: one refuses what would, one records operations and replays them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

READS = {
    "_local_scalar_dense": "reads a number",
    "is_nonzero": "reads a number",
    "equal": "reads a comparison",
    "allclose": "reads a comparison",
    "nonzero": "has a shape that depends on values",
    "nonzero_numpy": "has a shape that depends on values",
    "argwhere": "has a shape that depends on values",
    "masked_select": "has a shape that depends on values",
    "bincount": "has a shape that depends on values",
    "_unique": "has a shape that depends on values",
    "_unique2": "has a shape that depends on values",
    "unique_dim": "has a shape that depends on values",
    "unique_consecutive": "has a shape that depends on values",
    "unique_dim_consecutive": "has a shape that depends on values",
    "histogram": "reads the range of the values",
    "multinomial": "checks probabilities on the host",
    "lift_fresh": "is made of Python data: a copy from the host",
    "lift_fresh_copy": "is made of Python data: a copy from the host",
}
READS_OF_PYTHON = ("tolist", "numpy", "__array__", "cpu", "cuda", "item", "__bool__", "__int__", "__float__", "__index__")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")


@contextmanager
def no_host_reads() -> Iterator[None]:
    """Raise AssertionError, naming the operation, where on CUDA the host would wait for the device or copy from or to it.

    What sends a number of the host to a device does so too: `torch.tensor`, a Python list as an index, and a number that is
    assigned to a slice or an index. Constants that are cached per device have to be made before. Backward passes are seen, but
    for `tolist` and `numpy` in one, as those of a CPU run in the thread that asks for them. What a CPU cannot show is a tensor
    that was made on the wrong device: for that, run the same on the device "meta", which knows shapes alone and mixes with no
    other device.
    """
    with _Reads(), _Operations():
        yield


class _Reads(TorchFunctionMode):
    """Reads that are no operations of a CPU tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS_OF_PYTHON:
            raise AssertionError(f"{name} reads a tensor on the host")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if trouble := _trouble(func, args, kwargs):
            raise AssertionError(f"{func} {trouble}")
        return func(*args, **kwargs)


def _trouble(func: Any, args: Any, kwargs: dict[str, Any]) -> str:
    """Why an operation stops a GPU, or nothing."""
    name = func.overloadpacket.__name__
    if name in READS:
        return READS[name]
    if name in INDEXED and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
        return "by a mask has a shape that depends on values"
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "without output_size has a shape that depends on values"
    if name == "histc" and (args[2:4] or (0, 0)) == (0, 0):
        return "without a range reads that of the values"
    places = {tensor.device for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
    if name in ("_to_copy", "copy_", "_copy_from") and len(places | {kwargs.get("device") or next(iter(places))}) > 1:
        return "copies between devices"
    return ""


@dataclass(frozen=True)
class _Entry:
    """An operation with its very arguments, and those of its results that are tensors with memory of their own."""

    func: Any
    args: Any
    kwargs: dict[str, Any]
    made: list[tuple[int, Tensor]]


class Tape:
    """What a CUDA graph does, on a CPU: the operations of a function with the tensors and the Python numbers that they had.

        tape = Tape()
        result = tape.record(work)
        tape.replay()

    Differences: `record` also executes `work` once, where a capture executes nothing; so a record is a step, as a replay is one.
    All that is made on the way stays in memory. Operations that draw random numbers draw new ones at each replay, as with a
    generator that is registered with a graph.
    """

    def __init__(self) -> None:
        self.entries: list[_Entry] = []

    def record(self, work: Callable[[], Any]) -> Any:
        """Run `work` and write its operations down; its result, whose tensors every replay changes.

        AssertionError for what no_host_reads refuses: a capture fails at it, too.
        """
        with ExitStack() as stack:
            for mode in (_Reads(), _Recorder(self.entries), _Operations()):
                stack.enter_context(mode)
            return work()

    @torch.no_grad()
    def replay(self) -> None:
        """Execute the operations again, in order, with results written to where the record has them.

        Views are not made anew: those of the record share the memory already.
        """
        for entry in self.entries:
            results = tree_leaves(entry.func(*entry.args, **entry.kwargs))
            for number, tensor in entry.made:
                tensor.copy_(results[number])


class _Recorder(TorchDispatchMode):
    def __init__(self, entries: list[_Entry]) -> None:
        super().__init__()
        self.entries = entries

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        given = {_memory(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        leaves = enumerate(tree_leaves(results))
        made = [(number, leaf) for number, leaf in leaves if isinstance(leaf, Tensor) and _memory(leaf) not in given]
        if made or func._schema.is_mutable:
            self.entries.append(_Entry(func, args, kwargs, made))
        return results


def _memory(tensor: Tensor) -> int:
    """What tensors have in common that share memory."""
    return tensor.untyped_storage()._cdata

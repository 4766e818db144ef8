"""The families of networks, by the name that `--model` takes. To add one: a file here, and a line below."""

from types import ModuleType

from . import hnerv, vqnerv

FAMILIES: dict[str, ModuleType] = {"hnerv": hnerv, "vqnerv": vqnerv}

"""jinja2's sandbox, faster for what templates do most: the same attributes are let through, and the same calls."""

from __future__ import annotations

from types import BuiltinMethodType, MethodType
from typing import TYPE_CHECKING, Any, Final

from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace

if TYPE_CHECKING:
    from jinja2.runtime import Context

_OTHERS: Final = frozenset(("format", "format_map", "previtem", "nextitem"))
"""Those of a text are wrapped by jinja2; the items of a loop can be anything, these methods too."""
_SAFE: Final = {
    kind: frozenset(name for name in dir(kind) if not name.startswith("_")) - _OTHERS
    for kind in (str, dict, list, LoopContext)
}
"""Attributes of the classes themselves: none of them is internal (`jinja2.sandbox.is_internal_attribute`)."""
_OF_DICT: Final = frozenset(dir(dict))


class FastNamespace(Namespace):
    """A namespace whose names are attributes as Python has them; jinja2's looks each of them up twice in Python."""

    __getattribute__ = object.__getattribute__

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        # Not by setattr: it would set `__class__`.
        self.__dict__[name] = value

    def __repr__(self) -> str:
        return f"<Namespace {self.__dict__!r}>"


class FastSandbox(SandboxedEnvironment):
    """What it does not know itself, it asks its parent about: that takes 2 us for an attribute, most of it checks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals["namespace"] = FastNamespace

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the attribute of an object, or its item of that name."""
        kind = type(obj)
        if kind is dict and attribute not in _OF_DICT:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        if kind is FastNamespace and not attribute.startswith("_"):
            try:
                value = getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
            if type(value) not in (MethodType, BuiltinMethodType):
                return value
        elif attribute in _SAFE.get(kind, ()):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls."""
        if called is FastNamespace or (type(called) is BuiltinMethodType and type(called.__self__) in _SAFE):
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return called(*args, **kwargs)
        return super().call(context, called, *args, **kwargs)

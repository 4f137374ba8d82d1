"""jinja2's sandbox, made faster: it lets through what jinja2's own does, and nothing else."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

import pytest
from jinja2 import Environment, Undefined
from jinja2.sandbox import SandboxedEnvironment, SecurityError

from rbee.worker.chat.attributes import FastSandbox

VALUES: Final[dict[str, Any]] = {
    "text": "a",
    "object": {"role": "user", "items": 1, "_hidden": 2, "__class__": 3, "format": "x"},
    "list": [1],
    "number": 1,
    "nothing": None,
    "class": dict,
    "function": lambda: None,
    "method": "a".format,
    "generator": (number for number in range(3)),
}
NAMES: Final = (
    "role", "items", "get", "keys", "missing", "format", "format_map", "startswith", "append", "mro", "gi_frame",
    "upper", "__class__", "__init__", "__dict__", "_hidden", "__globals__", "__self__", "__code__", "real", "x",
)  # fmt: skip


def kind_of(environment: Environment, value: Any, name: str) -> tuple[str, Any]:
    found = environment.getattr(value, name)
    if not isinstance(found, Undefined):
        return "found", getattr(found, "__name__", found)
    try:
        str(found + "")
    except SecurityError:
        return "unsafe", None
    except Exception:  # noqa: BLE001 (any other one)
        return "undefined", None
    return "undefined", None


def test_an_attribute_is_what_the_sandbox_of_jinja_lets_through() -> None:
    fast, own = FastSandbox(), SandboxedEnvironment()
    for what, name in product(VALUES, NAMES):
        assert kind_of(fast, VALUES[what], name) == kind_of(own, VALUES[what], name), (what, name)


@pytest.mark.parametrize(
    "template",
    [
        "{{ loop_of_all }}{% for m in messages %}{{ loop.index0 }}{{ loop.previtem.role }}{{ loop.last }}{% endfor %}",
        "{% set ns = namespace(n=0, self=2, items=3) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ ns.self }}{{ ns.items }}"
        "{{ ns.missing is defined }}{{ ns }}",
        "{% set ns = namespace({'a': 1}) %}{% set ns.__class__ = 5 %}{{ ns.a }}{{ ns.__class__ is defined }}{{ ns }}",
        "{% set ns = namespace(f=''.join, g='{0.x}'.format) %}{{ ns.f(['a', 'b']) }}{{ ns.g({'x': 1}) }}",
        "{% set ns = namespace() %}{% set ns['a'] = 1 %}{{ ns['a'] }}{{ ns | attr('a') }}",
        "{% for f in ['{0.x}'.format] %}{{ loop.first }}{{ f(1) }}{% endfor %}",
        "{% for x in messages %}{{ messages.append(1) if loop.index < 2 }}{% endfor %}{{ messages | length }}",
        "{{ messages[0].get('role', default=1) }}",
        "{{ {}.popitem() }}",
        "{{ ''.__class__ }}{{ namespace.__init__ }}{{ namespace() | attr('__dict__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ namespace(x='{0.__class__}'.format).x(1) }}",
        "{{ 'a'.join(messages[0].keys()) }}{{ messages[0].items() | list }}",
    ],
)
def test_a_template_writes_what_it_does_with_jinja_alone(template: str) -> None:
    def written(environment: Environment) -> str:
        try:
            return environment.from_string(template).render(messages=[{"role": "user"}, {"role": "b"}])
        except Exception as exc:  # noqa: BLE001 (whatever the template raises)
            return f"{type(exc).__name__}: {exc}"

    assert written(FastSandbox()) == written(SandboxedEnvironment())


def test_nothing_of_a_namespace_but_its_names_is_let_through() -> None:
    for name in ("__init__", "__dict__", "__class__", "__getattribute__"):
        with pytest.raises(SecurityError):
            FastSandbox().from_string(f"{{{{ namespace(a=1).{name}.x }}}}").render()

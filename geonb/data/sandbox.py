"""Chat templates of strangers, rendered in jinja's sandbox under a budget of work.

A template is a program. Jinja's sandbox keeps it from files and from Python; it does not keep it from counting to ten
billion or from doubling a text forty times. Here every round of a loop, every call, filter and operator, and every text that
they are given costs a little of one budget, so that what comes out depends on the template and the messages alone, never on
the speed of the machine, and nothing has to be killed.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

# a thousand turns that each look at all the others; as many characters as no model reads at once
BUDGET, LONGEST = 2_000_000, 4_000_000
_CHARACTERS, _ITEMS, _MACRO = 50, 10, 20  # so many cost as much as one round of a loop; a macro costs so many rounds
_BITS, _WIDTH, _GROWTH = 20_000, 1000, 50_000_000
# of a format: a width of four digits, or one out of an argument
_WIDE_PERCENT, _WIDE_BRACES = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)"), re.compile(r"\{[^{}]*(?:\d{4}|\{)")
_FOUR = re.compile(r"\d{4}")
# filters that only look at the outside of a list; every other one may write all of it
_SHALLOW = frozenset(
    "dictsort groupby items list map max min reject rejectattr reverse round select selectattr sort unique".split()
)
_FREE = frozenset("abs attr count d default first float int last length".split())
_SIZED = frozenset("center expandtabs indent ljust rjust round zfill".split())
# nothing that a conversation needs, and each multiplies sizes in a way of its own
_LEFT_OUT = ("batch", "center", "pprint", "slice", "striptags", "sum", "urlize", "wordwrap", "xmlattr")
_NO_METHODS = frozenset(("encode", "maketrans", "to_bytes", "translate"))
_COUNTED, _WEIGHED, _WRITTEN = "counted by geonb", "weighed by geonb", "written by geonb"  # no template can name these


class TooMuchError(TemplateError):
    """The template asks for more work, or for larger texts, than any conversation needs."""

    def __init__(self) -> None:
        super().__init__("it asks for more work or longer texts than a conversation needs")


_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


def _take(amount: int) -> None:
    left = _left.get()
    if left is not None:
        left[0] -= amount
        if left[0] < 0:
            raise TooMuchError


def _weigh(*values: Any, deep: bool = False) -> None:
    """Pay for `values`: by the length of a text or list, and with `deep` for all that is inside."""
    for value in values:
        if isinstance(value, str):
            if len(value) > LONGEST:
                raise TooMuchError
            _take(1 + len(value) // _CHARACTERS)
        elif deep and isinstance(value, list | tuple | set | frozenset | Mapping):
            _take(2)
            for item in value.items() if isinstance(value, Mapping) else value:
                _weigh(*item, deep=True) if isinstance(value, Mapping) else _weigh(item, deep=True)
        elif deep and isinstance(value, Namespace):
            raise SecurityError("a namespace cannot be written or stored in a list")
        else:
            _take(1 + (len(value) // _ITEMS if hasattr(type(value), "__len__") else 0))


def _refuse_growth(name: str, arguments: tuple, more: Mapping[str, Any]) -> None:
    """What a padding or a replacement can grow to is known before it is made."""
    given = (*arguments, *more.values())
    # the first number may be the value itself: a width never is
    numbers = [abs(value) for value in given[1:] if type(value) is int] if name in _SIZED else []
    grown = 1
    for size in (*(len(str(value)) for value in given if not isinstance(value, int | float)), *numbers):
        grown *= size + 1
    if grown > _GROWTH or any(number > _WIDTH for number in numbers):
        raise TooMuchError


def _refuse_format(text: Any, *arguments: Any, percent: bool) -> None:
    """A format writes its arguments as often as it names them, and as wide as it says."""
    if not isinstance(text, str):
        return
    if percent:
        # the name of an argument may hold anything before the width
        is_wide = _WIDE_PERCENT.search(text) or ("%(" in text and _FOUR.search(text))
    else:
        is_wide = _WIDE_BRACES.search(text.replace("{{", "").replace("}}", ""))
    if is_wide:
        raise SecurityError("a format with a width of four digits, or with one out of an argument, is not allowed")
    _weigh(*arguments, deep=True)
    if (text.count("{") + text.count("%")) * sum(len(str(value)) for value in arguments) > _GROWTH:
        raise TooMuchError


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it is given and for what it makes."""

    @functools.wraps(function)
    def paid(*arguments: Any, **more: Any) -> Any:
        if name in _FREE:
            _take(1)
            return function(*arguments, **more)
        _weigh(*arguments, *more.values(), deep=name not in _SHALLOW)
        if name in _SIZED or name == "replace":
            # the first is jinja's own for some
            own = isinstance(arguments[0], Environment | Context | nodes.EvalContext)
            _refuse_growth(name, arguments[1:] if own else arguments, more)
        if name == "format":
            _refuse_format(arguments[0], *arguments[1:], *more.values(), percent=True)
        found = function(*arguments, **more)
        _weigh(found)
        return found

    return paid


@pass_environment
def _join(environment: Environment, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    read = (lambda item: item) if attribute is None else make_attrgetter(environment, attribute)
    pieces, length = [], 0
    for item in value:
        _weigh(item := read(item), deep=True)
        pieces.append(str(item))
        length += len(pieces[-1]) + len(str(d))
        if length > LONGEST:
            raise TooMuchError
    return str(d).join(pieces)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON that is not escaped for HTML, as transformers writes it."""
    if isinstance(indent, str | int) and (len(indent) if isinstance(indent, str) else indent) > 16:
        raise TooMuchError
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces, length = [], 0
    for piece in encoder.iterencode(x):
        pieces.append(piece)
        length += len(piece)
        if length > LONGEST:
            raise TooMuchError
    return "".join(pieces)


@pass_context
def _finalize(context: Any, value: Any) -> Any:
    # with the context asked for, jinja computes no output while it compiles
    _weigh(value, deep=True)
    return value


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message)[:1000])


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format[:100])


class _Namespace(Namespace):
    """Jinja's namespace without names that lead into Python."""

    def __init__(*arguments: Any, **more: Any) -> None:
        self, found = arguments[0], dict(*arguments[1:], **more)
        for name in found:
            _check_name(name)
        Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}")


def _dict(*arguments: Any, **more: Any) -> dict:
    found = dict(*arguments, **more)
    _weigh(found, deep=True)
    return found


class _Counted:
    """What a loop goes over, each round paid for; `loop.length` works as before."""

    __slots__ = ("cost", "values")

    def __init__(self, values: Any, cost: int) -> None:
        self.values, self.cost = values, cost

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            _take(self.cost)
            yield value

    def __len__(self) -> int:
        return len(self.values)


class _Generation(Extension):
    """`{% generation %}`, by which some templates mark what the assistant writes: here its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Paying(NodeTransformer):
    """Puts the counting into a template's tree."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED, nodes.Const(1 + written // _CHARACTERS))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filtered(one, _WRITTEN) for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, _WEIGHED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, _WEIGHED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, _WEIGHED)
        return node

    def _visit_literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") == "store" else _filtered(node, _WRITTEN)

    visit_List = visit_Tuple = visit_Dict = _visit_literal


def _filtered(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    made = nodes.Filter(node, name, list(arguments), [], None, None)
    made.set_lineno(node.lineno)
    return made


def _weighed(value: Any, *, deep: bool = False) -> Any:
    _weigh(value, deep=deep)
    return value


class _Bounded(ImmutableSandboxedEnvironment):
    """The environment that transformers renders chat templates in, with every step paid for."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        if tuple(int(part) for part in re.findall(r"\d+", version("jinja2"))[:3]) < (3, 1, 6):
            # as transformers does: from older ones a template finds a way out of the sandbox
            raise SecurityError("jinja2 3.1.6 or newer is needed: install it with pip install -U jinja2")
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            optimized=False,
            finalize=_finalize,
        )
        for name in _LEFT_OUT:
            del self.filters[name]
        del self.globals["lipsum"]
        self.filters["tojson"], self.filters["join"] = _tojson, _join
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}
        self.tests = {name: _guarded("list", function) for name, function in self.tests.items()}
        self.filters |= {
            _COUNTED: _Counted,
            _WEIGHED: _weighed,
            _WRITTEN: functools.partial(_weighed, deep=True),
        }
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "namespace": _Namespace,
            "dict": _dict,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _weigh(left, right)
        counts = [value for value in (left, right) if isinstance(value, int)]
        if operator == "*" and len(counts) == 1:
            other = right if counts[0] is left else left
            if hasattr(other, "__len__"):
                _take(max(0, len(other) * counts[0]) // (_CHARACTERS if isinstance(other, str) else _ITEMS))
        elif operator == "*" and len(counts) == 2 and sum(one.bit_length() for one in counts) > _BITS:
            raise TooMuchError
        elif operator == "**" and len(counts) == 2 and left.bit_length() * abs(right) > _BITS:
            raise TooMuchError
        elif operator == "%" and isinstance(left, str):
            _refuse_format(left, right, percent=True)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *arguments: Any, **more: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        _weigh(*arguments, *more.values())
        if isinstance(__obj, Macro | BlockReference | LoopContext):
            left = _left.get()
            _take(left[1] if left is not None else 1)
        else:
            _take(1)
        if isinstance(owner, str):
            _weigh(owner)
            if name == "join" and len(arguments) == 1:
                return _join(__self, arguments[0], owner)
            if name in _SIZED or name == "replace":
                _refuse_growth(name, (owner, *arguments), more)
        elif isinstance(__obj, LoopContext) and arguments:
            arguments = (_Counted(arguments[0], 1), *arguments[1:])
        found = super().call(__context, __obj, *arguments, **more)
        _weigh(found)
        return found

    def wrap_str_format(self, value: Any) -> Any:
        made = super().wrap_str_format(value)
        if made is None:
            return None

        @functools.wraps(made)
        def checked(*arguments: Any, **more: Any) -> str:
            _refuse_format(value.__self__, *arguments, *more.values(), percent=False)
            return made(*arguments, **more)

        return checked


_environment = functools.cache(_Bounded)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> tuple[Template, int]:
    """The template, and what one call of a macro of it costs."""
    environment = _environment()
    tree = environment.parse(source)
    written = sum(len(data.data) for data in tree.find_all(nodes.TemplateData))
    code = environment.compile(_Paying().visit(tree))
    return Template.from_code(environment, code, environment.make_globals(None)), _MACRO + written // _CHARACTERS


def render(source: str, **given: Any) -> str:
    """The text of the template `source` for what is given.

    Raises `TooMuchError` where it asks for too much work, and whatever else jinja and a template raise.

    >>> render("{% for one in names %}{{ one }}.{% endfor %}", names=["a", "b"])
    'a.b.'
    """
    if len(source) > LONGEST:
        raise TooMuchError
    token = _left.set(None)
    try:
        template, cost = _compiled(source)
        _left.set([BUDGET, cost])
        return template.render(**given)
    finally:
        _left.reset(token)

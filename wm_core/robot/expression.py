"""Evaluates the formulas of a robot file: numbers, declared names, operators, some functions.

A formula is parsed by Python and translated piece by piece into functions of ours, so nothing else
can be reached: no attributes, no other calls, no names but the declared ones, bounded in size.
What is not a number stays so: a formula over it is NaN, and so is a comparison, unless the rest
decides it.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wm_core.contract.errors import nearest

MAX_CHARACTERS = 2000
MAX_PIECES = 400  #: of the parsed formula
MAX_DEPTH = 60

Vectors = Mapping[str, Sequence[float]]
_Known = Mapping[str, Any]  # names -> a number or a vector
_Piece = Callable[[_Known], float]


def _carried(function: Callable[..., float]) -> Callable[..., float]:
    """Make what is undefined NaN, and NaN wherever an argument is."""

    def carry(*values: float) -> float:
        if any(value != value for value in values):
            return math.nan
        try:
            result = function(*values)
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf
        return float(result) if isinstance(result, float | int) else math.nan  # no complex number

    return carry


_BINARY: dict[type[ast.operator], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[..., float]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
#: name -> (function, fewest arguments, most arguments)
FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (min, 1, 20),
    "max": (max, 1, 20),
    "clip": (lambda x, low, high: min(max(x, low), high), 3, 3),
    "sqrt": (math.sqrt, 1, 1),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 1),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tanh": (math.tanh, 1, 1),
    "atan2": (math.atan2, 2, 2),
    "hypot": (lambda *x: math.sqrt(sum(v * v for v in x)), 1, 20),
    "sum": (lambda *x: math.fsum(x), 1, 20),
    "mean": (lambda *x: math.fsum(x) / len(x), 1, 20),
    "where": (lambda test, yes, no: yes if test else no, 3, 3),
}
#: functions that take a whole vector, or a part of it such as scan[2:5], as well as numbers
OF_VECTORS = ("min", "max", "hypot", "sum", "mean")
CONSTANTS = {"pi": math.pi}


@dataclass(frozen=True, slots=True)
class Names:
    """Holds the names that a formula may use.

    A number of a vector is ``vector[2]``, ``vector["joint.velocity"]``, or, where only one vector
    has it, its bare name with _ for every other sign: ``joint_velocity``.
    """

    scalars: tuple[str, ...] = ()
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: with their elements

    def bare(self) -> dict[str, list[tuple[str, int]]]:
        """Find every number of a vector by its bare name: all (vector, index) of that name."""
        found: dict[str, list[tuple[str, int]]] = {}
        for vector, elements in self.vectors.items():
            for i, element in enumerate(elements):
                found.setdefault(re.sub(r"\W", "_", element), []).append((vector, i))
        return found


class Expression:
    """Computes one number from declared names.

    Args:
        text: the formula, such as ``progress - 0.1 * abs(turn)``; a condition gives 1 or 0.
        names: what it may use.

    Raises:
        ValueError: for a formula that says anything else; the message shows what and where.
    """

    def __init__(self, text: str, names: Names) -> None:
        self.text = text
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"expected at most {MAX_CHARACTERS} characters, got {len(text)}")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            what = getattr(error, "msg", None) or error
            raise ValueError(f"expected a formula, got {text!r}: {what}") from error
        pieces = sum(1 for _ in ast.walk(tree))
        if pieces > MAX_PIECES:
            raise ValueError(f"expected at most {MAX_PIECES} pieces, got {pieces}")
        self.used: set[str] = set()  #: names of scalars and vectors that it reads
        self._compute = _Translator(names, self.used).number(tree)

    def __call__(self, known: Mapping[str, Any]) -> float:
        """Compute the number; NaN where it is not known.

        Args:
            known: every scalar by name, and every vector (n,) by name.
        """
        return self._compute(known)


class _Translator:
    """Turns the pieces of a parsed formula into functions."""

    def __init__(self, names: Names, used: set[str]) -> None:
        self._names, self._used, self._bare = names, used, names.bare()
        self._depth = 0

    def number(self, node: ast.AST) -> _Piece:
        """Translate a piece that is one number."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"expected brackets within brackets at most {MAX_DEPTH} deep")
        try:
            handler = getattr(self, f"_{type(node).__name__.lower()}", None)
            if handler is None:
                raise self._refused(node, "a number, a name, an operator or a function")
            piece: _Piece = handler(node)
            return piece
        finally:
            self._depth -= 1

    def _refused(self, node: ast.AST, expected: str) -> ValueError:
        return ValueError(f"expected {expected}, got {ast.unparse(node)!r}")

    def _constant(self, node: ast.Constant) -> _Piece:
        if not isinstance(node.value, bool | int | float):
            raise self._refused(node, "a number")
        try:
            value = float(node.value)
        except OverflowError:
            raise self._refused(node, "a smaller number") from None
        return lambda known: value

    def _name(self, node: ast.Name) -> _Piece:
        name = node.id
        if name in CONSTANTS:
            value = CONSTANTS[name]
            return lambda known: value
        if name in self._names.scalars:
            self._used.add(name)
            return lambda known: float(known[name])
        if name in self._names.vectors:
            raise ValueError(
                f"{name!r} has {len(self._names.vectors[name])} numbers; write {name}[0], or one "
                f"of {', '.join(OF_VECTORS)} over it"
            )
        places = self._bare.get(name, [])
        if len(places) > 1:
            written = " or ".join(f"{vector}[{i}]" for vector, i in places)
            raise ValueError(f"{name!r} stands for several numbers; write {written}")
        if not places:
            known_names = [*self._names.scalars, *self._names.vectors, *self._bare, *CONSTANTS]
            raise ValueError(nearest(name, known_names, what="name"))
        return self._element(*places[0])

    def _element(self, vector: str, index: int) -> _Piece:
        self._used.add(vector)
        return lambda known: float(known[vector][index])

    def _subscript(self, node: ast.Subscript) -> _Piece:
        vector, index = self._vector_name(node.value), node.slice
        elements = self._names.vectors[vector]
        if isinstance(index, ast.Constant) and isinstance(index.value, str):
            if index.value not in elements:
                raise ValueError(nearest(index.value, elements, what=f"number of {vector}"))
            return self._element(vector, elements.index(index.value))
        place = self._whole(index)
        if not -len(elements) <= place < len(elements):
            raise ValueError(f"{vector!r} has {len(elements)} numbers, got the index {place}")
        return self._element(vector, place)

    def _vector_name(self, node: ast.AST) -> str:
        name = node.id if isinstance(node, ast.Name) else ""
        if name not in self._names.vectors:
            raise ValueError(
                nearest(name or ast.unparse(node), self._names.vectors, what="vector")
            )
        return name

    def _whole(self, node: ast.AST | None) -> int:
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -1, node.operand
        if not isinstance(node, ast.Constant) or type(node.value) is not int:
            raise (
                self._refused(node, "a whole number as index") if node else ValueError("no index")
            )
        return sign * node.value

    def _unaryop(self, node: ast.UnaryOp) -> _Piece:
        inner = self.number(node.operand)
        if isinstance(node.op, ast.USub):
            return lambda known: -inner(known)
        if isinstance(node.op, ast.UAdd):
            return inner
        if isinstance(node.op, ast.Not):
            return lambda known: _negated(inner(known))
        raise self._refused(node, "one of + - not")

    def _binop(self, node: ast.BinOp) -> _Piece:
        if type(node.op) not in _BINARY:
            raise self._refused(node, "one of + - * / **")
        combine = _carried(_BINARY[type(node.op)])
        left, right = self.number(node.left), self.number(node.right)
        return lambda known: combine(left(known), right(known))

    def _boolop(self, node: ast.BoolOp) -> _Piece:
        parts = [self.number(value) for value in node.values]
        decides = 0.0 if isinstance(node.op, ast.And) else 1.0

        def decide(known: _Known) -> float:
            found = [_truth(part(known)) for part in parts]
            if decides in found:
                return decides
            return math.nan if any(value != value for value in found) else 1.0 - decides

        return decide

    def _compare(self, node: ast.Compare) -> _Piece:
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise self._refused(node, "one of < <= > >= == !=")
        tests = [_carried(_COMPARE[type(op)]) for op in node.ops]
        sides = [self.number(side) for side in (node.left, *node.comparators)]

        def compare(known: _Known) -> float:
            values = [side(known) for side in sides]
            found = [test(a, b) for test, a, b in zip(tests, values, values[1:], strict=False)]
            if 0.0 in found:
                return 0.0
            return math.nan if any(value != value for value in found) else 1.0

        return compare

    def _ifexp(self, node: ast.IfExp) -> _Piece:
        return self._called("where", [node.test, node.body, node.orelse], node)

    def _call(self, node: ast.Call) -> _Piece:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in FUNCTIONS:
            raise ValueError(nearest(name, FUNCTIONS, what="function"))
        if node.keywords or any(isinstance(value, ast.Starred) for value in node.args):
            raise self._refused(node, f"plain arguments of {name}")
        return self._called(name, node.args, node)

    def _called(self, name: str, arguments: Sequence[ast.AST], node: ast.AST) -> _Piece:
        function, least, most = FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self._refused(node, f"{wanted} arguments of {name}")
        if name == "where":
            test, yes, no = map(self.number, arguments)
            return lambda known: _chosen(_truth(test(known)), yes, no, known)
        carried = _carried(function)
        if name in OF_VECTORS and len(arguments) == 1:
            vector = self._part_of_vector(arguments[0])
            if vector is not None:
                return lambda known: carried(*vector(known))
        numbers = [self.number(argument) for argument in arguments]
        if name in ("min", "max") and len(numbers) == 1:
            raise self._refused(node, f"at least 2 numbers, or a vector, in {name}")
        return lambda known: carried(*(number(known) for number in numbers))

    def _part_of_vector(self, node: ast.AST) -> Callable[[_Known], list[float]] | None:
        """Translate a vector or a part of it; None for anything else."""
        if isinstance(node, ast.Name) and node.id in self._names.vectors:
            name, low, high = node.id, None, None
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
            name = self._vector_name(node.value)
            if node.slice.step is not None:
                raise self._refused(node, "a part without a step")
            low, high = (
                None if bound is None else self._whole(bound)
                for bound in (node.slice.lower, node.slice.upper)
            )
        else:
            return None
        if not self._names.vectors[name][low:high]:
            raise self._refused(node, "at least one number")
        self._used.add(name)
        return lambda known: [float(value) for value in known[name][low:high]]


def _truth(value: float) -> float:
    return value if value != value else float(value != 0.0)


def _negated(value: float) -> float:
    return value if value != value else float(value == 0.0)


def _chosen(test: float, yes: _Piece, no: _Piece, known: _Known) -> float:
    if test != test:
        return math.nan
    return yes(known) if test else no(known)

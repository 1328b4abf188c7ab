"""From the text of an expression to its syntax tree: a recursive descent over a dozen forms.

expression = both ("or" both)*               both = term ("and" term)*
term       = "not" term | "rises" "(" expression ")" | "falls" "(" expression ")"
           | ("any" | "all" | "at least" N "of") variable "in" group ":" expression
           | ("ever" | "always") "within" duration ":" expression
           | atom ["since" atom "within" duration]
atom       = sum [("<" | "<=" | ">" | ">=") sum] | "(" expression ")"
sum        = product (("+" | "-") product)*  product = factor (("*" | "/") factor)*
factor     = "-" factor | number [unit] | name ["[" index "]"] | function "(" arguments ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from runtime.errors import SurefootError, nearest
from runtime.units import NUMBER, UNITS, Dimension, parse_unit
from safety.findings import ExpressionError
from safety.syntax import (
    Always,
    And,
    Arithmetic,
    AtLeast,
    Call,
    Compare,
    Edge,
    Ever,
    Name,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Since,
    Type,
)

MOST_TICKS = 1 << 30
"""The longest duration that the monitor's counters hold [ticks]."""
ALL_LANES = -1
"""`count` of an AtLeast whose number of lanes is not known before its group is resolved."""

TIME = parse_unit("s").dimension
FACTOR = "(?:1|" + "|".join(sorted((re.escape(u) for u in UNITS if u != "1"), key=len, reverse=True)) + r")(?:\^\d)?"
TOKEN = re.compile(
    rf"\s*(?:(?P<number>{NUMBER.removeprefix('[+-]?')})"
    rf"(?:\s*(?P<unit>(?:ticks?\b|{FACTOR}(?:[*/]{FACTOR})*(?![A-Za-z0-9_]))))?"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark><=|>=|==|!=|[-+*/<>()\[\],:=]))"
)
WORDS = {
    "and",
    "or",
    "not",
    "any",
    "all",
    "at",
    "least",
    "of",
    "in",
    "ever",
    "always",
    "within",
    "since",
    "rises",
    "falls",
}
FUTURE = {"next", "eventually", "until", "finally", "globally", "will", "before"}


class Token(NamedTuple):
    """A number with its unit, a name, or a mark."""

    kind: str
    text: str
    at: int
    value: float = 0.0
    unit: str = ""


class DurationError(SurefootError):
    """A text that is no duration, or none that can be counted in ticks; a rule file adds the place."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        """What is wrong, and what would be right."""
        super().__init__(f"{message}; {remedy}")
        self.code, self.message, self.remedy = code, message, remedy


def tokenize(text: str) -> list[Token]:
    """Splits an expression; the last token is an empty one of kind "end".

    Raises:
        ExpressionError: A character that the language does not know, or a number that is not finite.
    """
    tokens, position = [], 0
    while text[position:].strip():
        match = TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise ExpressionError(at, "syntax", f"unexpected {text[at]!r}", "see safety/AUTHORING.md for the language")
        kind = match.lastgroup if match.lastgroup != "unit" else "number"
        assert kind is not None
        start = match.start(kind)
        if kind == "number":
            token = Token(kind, match[0].strip(), start, float(match["number"]), match["unit"] or "")
            if not math.isfinite(token.value):
                raise _not_finite(token)
            tokens.append(token)
        else:
            tokens.append(Token(kind, match[kind], start))
        position = match.end()
    return [*tokens, Token("end", "the end", len(text))]


@dataclass
class Parser:
    """Reads one expression; `period` [s] turns durations into ticks."""

    text: str
    period: float

    def __post_init__(self) -> None:
        """Split the text."""
        self.tokens = tokenize(self.text)
        self.position = 0

    @property
    def here(self) -> Token:
        """The token to be read next."""
        return self.tokens[self.position]

    def take(self) -> Token:
        """Reads a token."""
        token = self.here
        self.position += token.kind != "end"
        return token

    def accept(self, *texts: str) -> bool:
        """Reads these tokens if all of them come next."""
        ahead = [t.text for t in self.tokens[self.position : self.position + len(texts)] if t.kind in ("name", "mark")]
        if ahead != list(texts):
            return False
        self.position += len(texts)
        return True

    def expect(self, text: str, after: str) -> None:
        """Reads this token or refuses the expression."""
        if not self.accept(text):
            raise self.error(f"expected {text!r} after {after}, found {self.here.text!r}")

    def name(self, what: str) -> str:
        """Reads a name that is not a word of the language."""
        if self.here.kind != "name" or self.here.text in WORDS:
            raise self.error(f"expected {what}, found {self.here.text!r}")
        return self.take().text

    def error(self, message: str, remedy: str = "see safety/AUTHORING.md for the language") -> ExpressionError:
        """A syntax error at the next token."""
        return ExpressionError(self.here.at, "syntax", message, remedy)

    def finish(self) -> None:
        """Refuses anything that is left."""
        token = self.here
        if token.kind == "end":
            return
        if token.text in ("=", "==", "!="):
            raise ExpressionError(
                token.at,
                "float-equality",
                f"{token.text!r} between numbers is almost never true",
                "compare with < <= > >=, for instance abs(a - b) < tolerance",
            )
        if token.text in FUTURE:
            raise ExpressionError(
                token.at,
                "future",
                f"{token.text!r} would look into the future",
                "a monitor knows the past only: use since, ever within, or after/expect/within on the rule",
            )
        previous = self.tokens[self.position - 1] if self.position else token
        if previous.kind == "number" and token.kind == "name":
            raise ExpressionError(token.at, "unknown-unit", f"unknown unit {token.text!r}", nearest(token.text, UNITS))
        raise self.error(f"unexpected {token.text!r} after {previous.text!r}")

    def expression(self) -> Node:
        """Reads alternatives joined by `or`."""
        at = self.here.at
        items = [self.both()]
        while self.accept("or"):
            items.append(self.both())
        return items[0] if len(items) == 1 else Or(tuple(items), at=at)

    def both(self) -> Node:
        """Reads terms joined by `and`."""
        at = self.here.at
        items = [self.term()]
        while self.accept("and"):
            items.append(self.term())
        return items[0] if len(items) == 1 else And(tuple(items), at=at)

    def term(self) -> Node:
        """Reads a negation, a quantifier, a window, an edge or an atom."""
        at = self.here.at
        if self.here.kind == "name" and self.here.text in FUTURE:
            self.finish()
        if self.accept("not"):
            return Not(self.term(), at=at)
        for word in ("rises", "falls"):
            if self.accept(word, "("):
                body = self.expression()
                self.expect(")", word)
                return Edge(word, body, at=at)
        if self.accept("any"):
            return self.quantified(1, at)
        if self.accept("all"):
            return self.quantified(ALL_LANES, at)
        if self.accept("at", "least"):
            return self.quantified(self.count(), at)
        for word, kind in (("ever", Ever), ("always", Always)):
            if self.accept(word):
                ticks = self.window(word)
                self.expect(":", f"{word} within ...")
                return kind(ticks, self.expression(), at=at)
        first = self.atom()
        if not self.accept("since"):
            return first
        second = self.atom()
        return Since(first, second, self.window("since"), at=at)

    def window(self, word: str) -> int:
        """Reads `within DURATION`."""
        if not self.accept("within"):
            raise ExpressionError(
                self.here.at,
                "unbounded-window",
                f"{word!r} without a window",
                f"a monitor's memory is finite: write '{word} ... within 300 ms'",
            )
        return self.duration()

    def count(self) -> int:
        """Reads `N of`."""
        token = self.take()
        if token.kind != "number" or token.unit or token.value != int(token.value) or token.value < 1:
            raise ExpressionError(
                token.at,
                "syntax",
                f"expected a whole number after 'at least', found {token.text!r}",
                "write 'at least 3 of j in hinges: ...'",
            )
        self.expect("of", f"at least {token.text}")
        return int(token.value)

    def quantified(self, count: int, at: int) -> Node:
        """Reads `j in GROUP: BODY`."""
        variable = self.name("a variable, as in 'any j in hinges: ...'")
        self.expect("in", variable)
        group = self.name("a group of joints")
        self.expect(":", group)
        return AtLeast(count, variable, group, self.expression(), at=at)

    def duration(self) -> int:
        """Reads a duration that is a whole number of ticks."""
        token = self.take()
        if token.kind != "number":
            raise ExpressionError(token.at, "syntax", f"expected a duration, found {token.text!r}", "write '150 ms'")
        try:
            return ticks(token.text, self.period)
        except DurationError as error:
            raise ExpressionError(token.at, error.code, error.message, error.remedy) from None

    def atom(self) -> Node:
        """Reads a comparison, a parenthesised condition, or something that is true or false by itself."""
        at = self.here.at
        start = self.position
        if self.accept("("):
            # A parenthesis may open a condition or a sum: try the sum first, since a condition contains one.
            try:
                self.position = start
                return self.comparison(at)
            except ExpressionError as refused:
                farthest = self.position
                self.position = start + 1
                try:
                    body = self.expression()
                except ExpressionError as again:
                    raise (refused if farthest > self.position else again) from None
                self.expect(")", "a condition")
                return body
        return self.comparison(at)

    def comparison(self, at: int) -> Node:
        """Reads `sum < sum`, or a sum alone (which the checker accepts where it is a truth value)."""
        a = self.sum()
        for operator in ("<=", ">=", "<", ">"):
            if self.accept(operator):
                return Compare(operator, a, self.sum(), at=at)
        if self.here.text in ("=", "==", "!="):
            self.finish()
        return a

    def sum(self) -> Node:
        """Reads products joined by + and -."""
        left = self.product()
        while self.here.text in ("+", "-") and self.here.kind == "mark":
            operator = self.take()
            left = Arithmetic(operator.text, left, self.product(), at=operator.at)
        return left

    def product(self) -> Node:
        """Reads factors joined by * and /."""
        left = self.factor()
        while self.here.text in ("*", "/") and self.here.kind == "mark":
            operator = self.take()
            right = self.factor()
            if operator.text == "/" and not isinstance(right, Number):
                raise ExpressionError(
                    operator.at,
                    "division",
                    "division by something that changes, and may be zero",
                    "divide by constants only; multiply the other side instead",
                )
            left = Arithmetic(operator.text, left, right, at=operator.at)
        return left

    def factor(self) -> Node:
        """Reads a number, a name, a function or a parenthesised sum."""
        token = self.here
        if self.accept("-"):
            inner = self.factor()
            return replace(inner, value=-inner.value) if isinstance(inner, Number) else Negative(inner, at=token.at)
        if token.kind == "number":
            return self.number()
        if self.accept("("):
            inner = self.sum()
            self.expect(")", "a sum")
            return inner
        name = self.name("a value")
        if self.accept("["):
            index = self.name("a variable or a joint's name")
            self.expect("]", index)
            return Name(name, index, at=token.at)
        if self.accept("("):
            arguments: list[Node | int] = [self.sum()]
            while self.accept(","):
                arguments.append(self.duration())
            self.expect(")", f"the arguments of {name}")
            return Call(name, tuple(arguments), at=token.at)
        return Name(name, at=token.at)

    def number(self) -> Number:
        """Reads a constant with its unit."""
        token = self.take()
        if token.unit.startswith("tick"):
            raise ExpressionError(
                token.at,
                "unit-mismatch",
                f"{token.text!r} is a duration, not a value",
                "ticks are for windows and 'for'",
            )
        if self.here.kind == "name" and self.here.text not in WORDS and not token.unit and self.here.text not in FUTURE:
            raise ExpressionError(
                self.here.at, "unknown-unit", f"unknown unit {self.here.text!r}", nearest(self.here.text, UNITS)
            )
        value, dimension = _in_si(token)
        return Number(value, at=token.at, type=Type(dimension=dimension))


def _in_si(token: Token) -> tuple[float, Dimension]:
    """A number with its unit as an SI value and its dimension."""
    try:
        unit = parse_unit(token.unit)
    except SurefootError as error:
        message, _, remedy = str(error).partition("; ")
        raise ExpressionError(token.at, "unknown-unit", message, remedy) from None
    inverse = round(1.0 / unit.scale)
    exact = unit.scale < 1.0 and 1.0 / inverse == unit.scale
    value = token.value / inverse if exact else token.value * unit.scale
    if not math.isfinite(value):
        raise _not_finite(token)
    return value, unit.dimension


def _not_finite(token: Token) -> ExpressionError:
    return ExpressionError(token.at, "not-finite", f"{token.text!r} is not finite", "write a smaller number")


def ticks(text: str, period: float) -> int:
    """Turns "150 ms" or "3 ticks" into a whole number of ticks of `period` [s].

    Raises:
        DurationError: No duration, one too long to be counted, or no whole number of ticks; the nearest ones are named.
    """
    try:
        tokens = tokenize(text)
        token = tokens[0]
        in_ticks = token.unit.startswith("tick")
        value, dimension = (token.value, TIME) if in_ticks else _in_si(token)
    except ExpressionError as error:
        raise DurationError(error.code, error.message, error.remedy) from None
    if len(tokens) != 2 or token.kind != "number" or dimension != TIME:
        raise DurationError("unit-mismatch", f"{text!r} is not a duration", "write '150 ms' or '3 ticks'")
    count = value if in_ticks else value / period
    if count > MOST_TICKS:
        raise DurationError(
            "too-long",
            f"{text!r} is {count:g} ticks, and a monitor counts up to {MOST_TICKS}",
            f"write {MOST_TICKS * period / 3600:g} h or less",
        )
    whole = round(count)
    if abs(count - whole) > 1e-9 * max(1.0, count) or whole < 1:
        low = max(1, int(count))
        raise DurationError(
            "not-whole-ticks",
            f"{text!r} is {count:g} ticks of {period * 1e3:g} ms, not a whole number of ticks",
            f"write {low * period * 1e3:g} ms or {(low + 1) * period * 1e3:g} ms",
        )
    return whole


def parse(text: str, period: float) -> Node:
    """Reads a whole expression.

    Raises:
        ExpressionError: With the offset at which the text stops making sense.
    """
    parser = Parser(text, period)
    node = parser.expression()
    parser.finish()
    return node

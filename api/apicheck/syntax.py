"""A parser for the subset of Rust that a listing of a public API is written in.

Types become nested tuples whose first element names the shape:

    ('path', 'core::result::Result', args)       a type, a trait, a generic parameter or `Self`
    ('assoc', self_type, trait or None, name)    <S as Trait>::Name, Self::Name
    ('ref', lifetime or None, mutable, type)
    ('tuple', types)   ('slice', type)   ('array', type, length)   ('ptr', mutability, type)
    ('dyn', bounds)    ('impl', bounds)  ('fn', inputs, output)    ('never',)   ('infer',)

An argument of a path is ('ty', type), ('lt', name), ('bind', name, type), ('bindb', name, bounds), or,
for `Fn(A) -> B`, the whole of the arguments is ('paren', inputs, output).
A bound is ('lt', name) or ('trait', '?' or '', path).
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(r"\s*(->|::|'[A-Za-z_]\w*|[A-Za-z_]\w*!?|\d+\w*|[^\s\w])")


class ParseError(Exception):
    pass


@dataclass
class Generics:
    """What stands between `<` and `>`, and after `where`."""

    lifetimes: list = field(default_factory=list)
    # Names in order: types, consts.
    params: list = field(default_factory=list)
    # (type, bounds): both the inline ones and those of the where clause.
    predicates: list = field(default_factory=list)


class Parser:
    def __init__(self, text):
        self.text = text
        self.tokens = TOKEN.findall(text)
        self.at = 0

    def peek(self, ahead=0):
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else None

    def next(self):
        token = self.peek()
        self.at += 1
        return token

    def accept(self, token):
        if self.peek() == token:
            self.at += 1
            return True
        return False

    def expect(self, token):
        if not self.accept(token):
            raise ParseError(f"expected {token!r}, found {self.peek()!r} in: {self.text}")

    def done(self):
        if self.peek() is not None:
            raise ParseError(f"did not expect {self.peek()!r} in: {self.text}")

    def list_until(self, close, item):
        items = []
        while not self.accept(close):
            items.append(item())
            if not self.accept(","):
                self.expect(close)
                break
        return items

    def type(self):
        token = self.peek()
        simple = {"&": self.reference, "(": self.tuple, "[": self.slice, "<": self.qualified}
        if token in simple:
            return simple[token]()
        if token in ("dyn", "impl"):
            self.next()
            return (token, self.bounds())
        if token == "*":
            self.next()
            return ("ptr", self.next(), self.type())
        if token == "!":
            self.next()
            return ("never",)
        if token == "_":
            self.next()
            return ("infer",)
        if token in ("fn", "unsafe", "extern", "for"):
            return self.function_pointer()
        return self.path()

    def reference(self):
        self.expect("&")
        lifetime = self.next() if (self.peek() or "").startswith("'") else None
        mutable = self.accept("mut")
        return ("ref", lifetime, mutable, self.type())

    def tuple(self):
        self.expect("(")
        types = self.list_until(")", self.type)
        # `(dyn A + B)` is a parenthesis; `(T)` is how the listings write the tuple `(T,)`.
        if len(types) == 1 and types[0][0] in ("dyn", "impl"):
            return types[0]
        return ("tuple", types)

    def slice(self):
        self.expect("[")
        element = self.type()
        if self.accept(";"):
            length = self.next()
            self.expect("]")
            return ("array", element, length)
        self.expect("]")
        return ("slice", element)

    def function_pointer(self):
        while self.peek() != "fn":
            self.next()
        self.next()
        self.expect("(")
        inputs = self.list_until(")", self.type)
        return ("fn", inputs, self.output())

    def output(self):
        return self.type() if self.accept("->") else ("tuple", [])

    def qualified(self):
        self.expect("<")
        of = self.type()
        trait = self.path() if self.accept("as") else None
        self.expect(">")
        self.expect("::")
        return self.projections(("assoc", of, trait, self.next()))

    def projections(self, base):
        while self.accept("::"):
            base = ("assoc", base, None, self.next())
        return base

    def path(self):
        names = [self.name()]
        while self.peek() == "::" and self.peek(1) not in ("<", None):
            self.next()
            names.append(self.name())
        if names[0] == "Self" and len(names) > 1:
            base = ("path", "Self", [])
            for name in names[1:]:
                base = ("assoc", base, None, name)
            return base
        return ("path", "::".join(names), self.arguments())

    def name(self):
        token = self.next()
        if token is None or not re.match(r"[A-Za-z_]", token):
            raise ParseError(f"expected a name, found {token!r} in: {self.text}")
        return token

    def arguments(self):
        if self.accept("<"):
            return self.list_until(">", self.argument)
        if self.peek() == "(":
            self.next()
            inputs = self.list_until(")", self.type)
            return [("paren", inputs, self.output())]
        return []

    def argument(self):
        if self.peek().startswith("'"):
            return ("lt", self.next())
        if self.peek().isdigit():
            return ("ty", ("path", self.next(), []))
        if self.peek(1) == "=":
            name = self.next()
            self.next()
            return ("bind", name, self.type())
        if self.peek(1) == ":":
            name = self.next()
            self.next()
            return ("bindb", name, self.bounds())
        return ("ty", self.type())

    def bounds(self):
        bounds = [self.bound()]
        while self.accept("+"):
            bounds.append(self.bound())
        return bounds

    def bound(self):
        if self.accept("("):
            bound = self.bound()
            self.expect(")")
            return bound
        if self.peek().startswith("'"):
            return ("lt", self.next())
        modifier = "?" if self.accept("?") else ""
        self.skip_for()
        return ("trait", modifier, self.path())

    def skip_for(self):
        """Skips `for<'a>`: lifetimes bound there are elided in comparing."""
        if self.accept("for"):
            self.expect("<")
            self.list_until(">", self.next)

    def generics(self):
        generics = Generics()
        if self.accept("<"):
            self.list_until(">", lambda: self.parameter(generics))
        return generics

    def parameter(self, generics):
        token = self.next()
        if token.startswith("'"):
            generics.lifetimes.append(token)
            if self.accept(":"):
                self.bounds()
            return
        if token == "const":
            token = self.next()
            self.expect(":")
            self.type()
            generics.params.append(token)
            return
        generics.params.append(token)
        if self.accept(":"):
            generics.predicates.append((("path", token, []), self.bounds()))
        if self.accept("="):
            self.type()

    def where(self, generics):
        if not self.accept("where"):
            return
        while self.peek() is not None:
            self.skip_for()
            if self.peek().startswith("'"):
                self.next()
                self.expect(":")
                self.bounds()
            else:
                subject = self.type()
                self.expect(":")
                if self.peek() not in (",", None):
                    generics.predicates.append((subject, self.bounds()))
            if not self.accept(","):
                break


def walk(node, visit):
    """Calls `visit` for each tuple inside `node`, outermost first."""
    if isinstance(node, (list, tuple)):
        if isinstance(node, tuple) and node and isinstance(node[0], str):
            visit(node)
        for child in node:
            walk(child, visit)

"""Reduces the lines of a listing to one form each, so that two ways of saying the same compare equal.

What does not matter to a user is taken away: the names of type parameters and lifetimes, the order of
bounds, whether a bound stands inline or after `where`, or on the impl or on its method, how `Self` is
spelt, where a type is defined as opposed to where it is public, and the arguments of a trait inside
`<T as Trait<…>>::Name` (rustdoc leaves them out where the source does).
"""

import itertools
import re
from dataclasses import dataclass

from apicheck.syntax import Generics, ParseError, Parser, walk

STANDARD = ("core", "std", "alloc")
BOX_ERROR = Parser("alloc::boxed::Box<dyn core::error::Error + Send + Sync>").type()


@dataclass
class Entry:
    """One thing that a listing says: what it is about, what it says in canonical form, and how it was written."""

    key: str
    canon: str
    text: str
    # It follows from another entry, or was derived: not worth a line among the additions.
    implied: bool = False


class Names:
    """Which paths mean the same item."""

    def __init__(self, declared, aliases, family):
        # The paths at which listings declare an item, by last name.
        self.declared = {}
        for path in declared:
            self.declared.setdefault(path.split("::")[-1], []).append(path.split("::"))
        # A public path of ours → the one of the item's public paths that stands for it.
        self.aliases = aliases
        # The names of our crates.
        self.family = family
        self.cache = {}

    def canonical(self, path):
        if path not in self.cache:
            self.cache[path] = self.resolve(path)
        return self.cache[path]

    def resolve(self, path):
        names = path.split("::")
        if len(names) == 1:
            return path
        if names[0] in STANDARD:
            return "::".join(["std", *names[1:2], *names[-1:]] if len(names) > 2 else ["std", names[-1]])
        if path in self.aliases:
            return self.aliases[path]
        if names[0] not in self.family:
            # Another package's item: the modules between are private as often as not.
            return "::".join(names if len(names) < 3 else [names[0], names[1], names[-1]])
        public = self.public_path(names)
        return self.aliases.get(public, public)

    def public_path(self, names):
        """The declared path of an item that a signature calls by where it is defined."""
        candidates = [path for path in self.declared.get(names[-1], []) if self.leads_to(path, names)]
        if candidates:
            return "::".join(max(candidates, key=len))
        root = names[0] if names[0] in ("tower_service", "tower_layer", "tower_test") else "tower"
        return f"{root}::…::{names[-1]}"

    @staticmethod
    def leads_to(path, names):
        rest = iter(names)
        return all(name in rest for name in path)


class Scope:
    """How names are written inside one entry."""

    def __init__(self, names, renamed=None, lifetimes=None, this=None):
        self.names = names
        self.renamed = renamed or {}
        self.lifetimes = lifetimes or {}
        self.this = this

    def type(self, of):
        return getattr(self, f"type_{of[0]}")(*of[1:])

    def type_path(self, path, arguments):
        first, _, rest = path.partition("::")
        if path == "Self" and self.this:
            return self.this
        if first in self.renamed:
            # `T::Error`, in the listings' shorthand.
            return "::".join(filter(None, [self.renamed[first], rest]))
        name = path.split("::")[-1]
        if name == "BoxError":
            return Scope(self.names).type(BOX_ERROR)
        canonical = self.names.canonical(path)
        # How a trait of ours is sealed is our own affair.
        if name == "Sealed":
            return "Sealed"
        return canonical + self.arguments(arguments)

    def arguments(self, arguments):
        if arguments and arguments[0][0] == "paren":
            _, inputs, output = arguments[0]
            return f"({', '.join(map(self.type, inputs))}) -> {self.type(output)}"
        texts = [text for text in map(self.argument, arguments) if text]
        return f"<{', '.join(texts)}>" if texts else ""

    def argument(self, argument):
        kind = argument[0]
        if kind == "lt":
            return self.lifetime(argument[1])
        if kind == "bind":
            return f"{argument[1]} = {self.type(argument[2])}"
        if kind == "bindb":
            return f"{argument[1]}: {self.bounds(argument[2])}"
        return self.type(argument[1])

    def lifetime(self, name):
        return name if name == "'static" else self.lifetimes.get(name, "")

    def type_assoc(self, of, trait, name):
        if trait is None or of == ("path", "Self", []):
            return f"{self.type(of)}::{name}"
        bare = self.type(("path", trait[1], []))
        return f"<{self.type(of)} as {bare}>::{name}"

    def type_ref(self, lifetime, mutable, of):
        lifetime = self.lifetime(lifetime) if lifetime else ""
        return f"&{lifetime + ' ' if lifetime else ''}{'mut ' if mutable else ''}{self.type(of)}"

    def type_ptr(self, mutability, of):
        return f"*{mutability} {self.type(of)}"

    def type_tuple(self, types):
        return f"({', '.join(map(self.type, types))}{',' if len(types) == 1 else ''})"

    def type_slice(self, of):
        return f"[{self.type(of)}]"

    def type_array(self, of, length):
        return f"[{self.type(of)}; {length}]"

    def type_dyn(self, bounds):
        return f"(dyn {self.bounds(bounds)})"

    def type_impl(self, bounds):
        return f"(impl {self.bounds(bounds)})"

    def type_fn(self, inputs, output):
        return f"fn({', '.join(map(self.type, inputs))}) -> {self.type(output)}"

    def type_never(self):
        return "!"

    def type_infer(self):
        return "_"

    def bounds(self, bounds):
        return " + ".join(sorted(set(filter(None, map(self.bound, bounds)))))

    def bound(self, bound):
        if bound[0] == "lt":
            # A bound by a named lifetime is implied wherever the two meet in a type.
            return "'static" if bound[1] == "'static" else ""
        return self.marker(bound[1] + self.type(bound[2]))

    @staticmethod
    def marker(text):
        """The listings, and `BOX_ERROR` above, name some traits of the prelude without a path."""
        name = text.lstrip("?").split("::")[-1]
        if name in ("Send", "Sync", "Sized", "Unpin", "Copy"):
            return "?" * text.startswith("?") + name
        return text

    def where(self, predicates):
        merged = {}
        for subject, bounds in predicates:
            merged.setdefault(self.type(subject), set()).update(filter(None, map(self.bound, bounds)))
        clauses = [f"{subject}: {' + '.join(sorted(bounds))}" for subject, bounds in sorted(merged.items()) if bounds]
        return f" where {', '.join(clauses)}" if clauses else ""


def names_in(node):
    """The one-word paths and the lifetimes in `node`, in the order in which they first appear."""
    found = []

    def visit(part):
        if part[0] == "path":
            found.append(part[1].split("::")[0])
        elif part[0] in ("lt", "ref") and part[1]:
            found.append(part[1])

    walk(node, visit)
    return list(dict.fromkeys(found))


def lifetimes_that_matter(declared, node):
    """A lifetime named once is as good as elided."""
    uses = []

    def visit(part):
        if part[0] in ("lt", "ref") and part[1]:
            uses.append(part[1])

    walk(node, visit)
    kept = [name for name in declared if uses.count(name) > 1]
    return {name: f"'{number}" for number, name in enumerate(kept)}


def smallest(fixed, free, write):
    """Renames `fixed` by position, and `free` in whichever order gives the least text."""
    renamed = {name: f"${number}" for number, name in enumerate(fixed)}
    orders = itertools.permutations(free) if len(free) < 6 else [free]
    texts = []
    for order in orders:
        more = {name: f"${number + len(fixed)}" for number, name in enumerate(order)}
        texts.append(write({**renamed, **more}))
    return min(texts)


class Reader:
    """Turns the lines of a listing into entries. Which impl or trait a line belongs to is told by those before it."""

    def __init__(self, names):
        self.names = names
        self.entries = []
        self.leave()

    def leave(self):
        self.impl = None
        self.owner = None
        self.owner_generics = Generics()

    def read(self, lines):
        self.leave()
        for line in lines:
            line = line.strip()
            if line and not is_projection_unpin(line):
                try:
                    self.line(line)
                except (ParseError, IndexError, AttributeError, TypeError) as error:
                    raise SystemExit(f"cannot read this line of a listing: {line}\n  {error!r}")
        return self.entries

    def add(self, key, canon, text, implied=False):
        self.entries.append(Entry(key, canon, text, implied))

    def line(self, line):
        attribute = re.match(r"#\[(\w+)\] ", line)
        rest = line[attribute.end() :] if attribute else line
        attribute = attribute[1] if attribute else ""
        if rest.startswith("impl"):
            return self.impl_line(rest, attribute)
        _, _, rest = rest.partition("pub ")
        words = re.match(r"((?:const |async |unsafe )*(?:fn|struct|enum|trait|type|mod|use|macro|const|static)) ", rest)
        kind = words[1] if words else "variant"
        rest = rest[words.end() :] if words else rest
        if kind in ("mod", "use", "macro"):
            self.leave()
            return self.add(f"{kind} {rest}", f"{kind} {rest}", line)
        if kind.endswith("fn"):
            return self.function_line(kind, rest, line)
        return getattr(self, f"{kind}_line")(rest, attribute, line)

    # Declarations

    def declaration(self, word, rest, attribute, line):
        self.leave()
        path = re.match(r"\w+(?:::\w+)*", rest)[0]
        parser = Parser(rest[len(path) :])
        generics = parser.generics()
        fields = self.fields(parser)
        supers = parser.bounds() if parser.accept(":") else []
        parser.where(generics)
        parser.done()
        self.owner, self.owner_generics = path, generics
        renamed = {name: f"${number}" for number, name in enumerate(generics.params)}
        scope = Scope(self.names, renamed)
        types = f"({', '.join(scope.type(of) for of in fields)})" if fields else ""
        lifetimes = f"'{len(generics.lifetimes)} " if generics.lifetimes else ""
        params = f"<{lifetimes}{', '.join(renamed.values())}>"
        bounds = scope.bounds(supers)
        canon = f"{attribute} {word} {path}{params}{types}{': ' + bounds if bounds else ''}"
        self.add(f"{word} {path}", canon + scope.where(generics.predicates), line)

    def fields(self, parser):
        """The public fields of a tuple struct. That a private one makes it a tuple is no one's business."""
        if not parser.accept("("):
            return []
        fields = []
        while not parser.accept(")"):
            if not parser.accept("_"):
                parser.accept("pub")
                fields.append(parser.type())
            parser.accept(",")
        return fields

    def struct_line(self, rest, attribute, line):
        self.declaration("struct", rest, attribute, line)

    def enum_line(self, rest, attribute, line):
        self.declaration("enum", rest, attribute, line)

    def trait_line(self, rest, attribute, line):
        self.declaration("trait", rest, attribute, line)

    def owner_scope(self, more=()):
        params = [*self.owner_generics.params, *more]
        return Scope(self.names, {name: f"${number}" for number, name in enumerate(params)})

    def variant_line(self, rest, _attribute, line):
        """A variant, or a public field of a struct with named ones."""
        path = re.match(r"\w+(::\w+)*", rest)[0]
        parser = Parser(rest[len(path) :])
        scope = self.owner_scope()
        if parser.accept(":"):
            canon = f"{path}: {scope.type(parser.type())}"
        elif parser.peek() == "{":
            canon = rest
        else:
            canon = f"{path}({', '.join(scope.type(of) for of in self.fields(parser))})"
        self.add(f"variant {path}", canon, line)

    # Associated types, aliases, constants

    def type_line(self, rest, _attribute, line):
        if self.impl and (name := self.member(rest)) is not None:
            parser = Parser(name)
            name = parser.next()
            parser.expect("=")
            value = self.impl.scope.type(parser.type())
            self.add(f"{self.impl.key} type {name}", f"{self.impl.bare} type {name} = {value}", line, implied=True)
            return
        if self.owner and rest.startswith(self.owner + "::"):
            parser = Parser(rest[len(self.owner) + 2 :])
            name = parser.next()
            scope = self.owner_scope()
            bounds = scope.bounds(parser.bounds()) if parser.accept(":") else ""
            value = f" = {scope.type(parser.type())}" if parser.accept("=") else ""
            parser.done()
            key = f"type {self.owner}::{name}"
            self.add(key, f"{key}: {bounds}{value}", line)
            return
        self.leave()
        path = re.match(r"\w+(?:::\w+)*", rest)[0]
        parser = Parser(rest[len(path) :])
        generics = parser.generics()
        parser.expect("=")
        scope = Scope(self.names, {name: f"${number}" for number, name in enumerate(generics.params)})
        self.add(f"type {path}", f"type {path} = {scope.type(parser.type())}", line)

    def const_line(self, rest, _attribute, line):
        self.add(f"const {rest.split(':')[0]}", f"const {rest}", line)

    static_line = const_line

    # Functions

    def member(self, rest):
        prefix = self.impl.of_text + "::"
        return rest[len(prefix) :] if rest.startswith(prefix) else None

    def function_line(self, kind, rest, line):
        if self.impl and (tail := self.member(rest)) is not None:
            if self.impl.trait:
                # The trait fixes the signature; whether the impl says more is not a user's business.
                name = re.match(r"\w+", tail)[0]
                self.add(f"{self.impl.key} fn {name}", f"{self.impl.bare} fn {name}", line, implied=True)
            else:
                self.method(kind, tail, line)
        elif self.owner and rest.startswith(self.owner + "::") and not self.impl:
            self.trait_function(kind, rest[len(self.owner) + 2 :], line)
        else:
            self.leave()
            self.free_function(kind, rest, line)

    def signature(self, text):
        name = re.match(r"\w+", text)[0]
        parser = Parser(text[len(name) :])
        generics = parser.generics()
        parser.expect("(")
        inputs = parser.list_until(")", lambda: self.argument(parser))
        output = parser.output()
        parser.where(generics)
        parser.done()
        return name, generics, inputs, output

    @staticmethod
    def argument(parser):
        if parser.peek() in ("_",) and parser.peek(1) == ":":
            parser.next()
            parser.next()
        # `self`, `&self` and `&mut self` parse as types.
        return parser.type()

    def write_function(self, scope, kind, name, params, inputs, output, predicates):
        arguments = ", ".join(scope.type(of) for of in inputs)
        params = f"<{len(params)}>" if params else ""
        return f"{kind} {name}{params}({arguments}) -> {scope.type(output)}{scope.where(predicates)}"

    def free_function(self, kind, rest, line):
        path, _, last = re.match(r"\w+(?:::\w+)*", rest)[0].rpartition("::")
        name, generics, inputs, output = self.signature(rest[len(path) + 2 :])
        renamed = {name: f"${number}" for number, name in enumerate(generics.params)}
        scope = Scope(self.names, renamed, lifetimes_that_matter(generics.lifetimes, (inputs, output)))
        path = f"{path}::{last}"
        self.add(f"fn {path}", self.write_function(scope, kind, path, generics.params, inputs, output, generics.predicates), line)

    def trait_function(self, kind, rest, line):
        name, generics, inputs, output = self.signature(rest)
        scope = self.owner_scope(generics.params)
        scope.lifetimes = lifetimes_that_matter(generics.lifetimes, (inputs, output))
        path = f"{self.owner}::{name}"
        self.add(f"fn {path}", self.write_function(scope, kind, path, generics.params, inputs, output, generics.predicates), line)

    def method(self, kind, tail, line):
        name, generics, inputs, output = self.signature(tail)
        impl = self.impl
        mine = {name: f"$m{number}" for number, name in enumerate(generics.params)}
        lifetimes = lifetimes_that_matter(
            [*impl.generics.lifetimes, *generics.lifetimes], (impl.of, inputs, output)
        )

        def write(renamed):
            scope = Scope(self.names, {**renamed, **mine}, lifetimes)
            scope.this = scope.type(impl.of)
            predicates = [*impl.generics.predicates, *generics.predicates]
            path = f"{scope.this}::{name}"
            return self.write_function(scope, kind, path, generics.params, inputs, output, predicates)

        self.add(f"method {impl.of_key}::{name}", smallest(*impl.order, write), line)

    # Impls

    def impl_line(self, rest, attribute):
        self.leave()
        self.impl = Impl(self.names, rest)
        if self.impl.trait:
            self.add(self.impl.key, self.impl.canon, rest, implied=bool(attribute))


class Impl:
    """The head of an impl block."""

    def __init__(self, names, line):
        parser = Parser(line[len("impl") :])
        self.generics = parser.generics()
        self.trait, self.of = None, parser.type()
        if parser.accept("for"):
            self.trait, self.of = self.of, parser.type()
        parser.where(self.generics)
        parser.done()
        # The members' lines begin with the type as written here.
        head = re.sub(r" where .*", "", line)
        self.of_text = head.split(" for ")[-1] if self.trait else strip_generics(head[len("impl") :]).strip()
        self.names = names
        params = self.generics.params
        fixed = [name for name in names_in((self.of, self.trait)) if name in params]
        self.order = fixed, [name for name in params if name not in fixed]
        plain = Scope(names, {name: "_" for name in params})
        self.of_key = plain.type((*self.of[:2], [])) if self.of[0] == "path" else plain.type(self.of)
        if self.trait:
            self.write_trait_impl(plain)

    def write_trait_impl(self, plain):
        lifetimes = lifetimes_that_matter(self.generics.lifetimes, (self.of, self.trait))
        self.key = f"impl {plain.type(self.trait)} for {plain.type(self.of)}"
        best = {}

        def write(renamed):
            scope = Scope(self.names, renamed, lifetimes)
            head = f"impl {scope.type(self.trait)} for {scope.type(self.of)}"
            text = head + scope.where(self.generics.predicates)
            best[text] = scope, head
            return text

        self.canon = smallest(*self.order, write)
        self.scope, self.bare = best[self.canon]
        self.scope.this = self.scope.type(self.of)


def strip_generics(text):
    """What follows the `<…>` that `text` begins with."""
    if not text.startswith("<"):
        return text
    depth = 0
    for at, letter in enumerate(text):
        arrow = text[at - 1 : at + 1] == "->"
        depth += (letter == "<") - (letter == ">" and not arrow)
        if depth == 0:
            return text[at + 1 :]
    return text


def is_projection_unpin(line):
    """The `Unpin` impls that pin-projection macros write; the fixtures of traits have what they mean."""
    return line.startswith("impl") and ("PinnedFieldsOf" in line or "__Origin" in line)


def declared_paths(lines):
    """Every path at which a listing declares a type, a trait, an alias or a re-export."""
    paths = []
    for line in lines:
        match = re.match(r"(?:#\[\w+\] )?pub (?:struct|enum|trait|use|type) (\w+(?:::\w+)*)", line)
        if match and not (line.startswith("pub type") and re.search(r"::[A-Z]\w*::", match[1])):
            paths.append(match[1])
    return paths

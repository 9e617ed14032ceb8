"""Compares derives and auto traits with the fixtures `*.traits.txt`.

A listing leaves out what is derived and what the compiler infers, so there is a fixture for these, of lines
such as `tower::timeout::Timeout<T>: Send if T: Send`. Ours may ask for less than listed, never for more.
"""

import re

from apicheck.canonical import Scope, is_projection_unpin
from apicheck.rustdoc import MARKERS
from apicheck.syntax import Parser, walk


class Line:
    def __init__(self, text):
        self.text = text
        head, _, condition = text.partition(" if ")
        self.path = re.match(r"\w+(?:::\w+)*", head)[0]
        parser = Parser(head[len(self.path) :])
        self.generics = parser.generics().params
        self.trait = head.rpartition(": ")[2]
        # A pinned projection is Unpin if its pinned fields are, whatever they are.
        self.pinned = "<pinned fields>" in condition
        self.condition = re.sub(r"<pinned fields>: Unpin(, )?", "", condition)

    def bounds(self):
        parser = Parser(f"where {self.condition}")
        generics = Parser("").generics()
        if self.condition:
            parser.where(generics)
        return conditions(generics.predicates, self.generics)


def conditions(predicates, params):
    """{(subject, marker trait)}, type parameters by position and projections without their trait."""
    scope = ShortScope({name: f"${number}" for number, name in enumerate(params)})
    found = set()
    for subject, bounds in predicates:
        for bound in bounds:
            name = bound[2][1].split("::")[-1] if bound[0] == "trait" else None
            if name in MARKERS:
                found.add((scope.type(subject), name))
    return found


class ShortScope(Scope):
    """Writes `<S as Service<Request>>::Future` as `S::Future`."""

    def __init__(self, renamed):
        super().__init__(NoNames(), renamed)

    def type_assoc(self, of, _trait, name):
        return f"{self.type(of)}::{name}"


class NoNames:
    @staticmethod
    def canonical(path):
        return path.split("::")[-1]


def ours(world):
    """path → {trait: (is negative, is pinned, conditions)}"""
    types = {}
    for path, (bounds, impls) in world.marker_impls().items():
        traits = types.setdefault(path, {})
        implied = own_conditions(bounds)
        for trait, negative, header in impls:
            pinned = is_projection_unpin(header)
            traits[trait] = negative, pinned, set() if pinned else header_conditions(header) - implied
    return types


def own_conditions(bounds):
    """What a type asks of its parameters before any trait is implemented."""
    parser = Parser(bounds)
    generics = parser.generics()
    parser.where(generics)
    return conditions(generics.predicates, generics.params)


def header_conditions(header):
    parser = Parser(header[len("impl") :])
    generics = parser.generics()
    parser.type()
    parser.expect("for")
    of = parser.type()
    parser.where(generics)
    # By position among the type's arguments, as the fixture has them.
    params = []
    walk(of, lambda part: params.append(part[1]) if part[0] == "path" and part[1] in generics.params else None)
    return conditions(generics.predicates, params)


def compare(fixture_lines, world):
    """Yields (the listed line, what ours says instead) for each that does not hold."""
    have = ours(world)
    for text in fixture_lines:
        line = Line(text)
        if line.path not in have:
            yield text, "there is no such type"
            continue
        trait = line.trait.lstrip("!")
        found = have[line.path].get(trait)
        problem = judge(line, found)
        if problem:
            yield text, problem


def judge(line, found):
    trait = line.trait.lstrip("!")
    if line.trait.startswith("!"):
        return None if found and found[0] else f"it is {trait}"
    if found is None or found[0]:
        return f"it is not {trait}"
    _, pinned, needs = found
    if line.pinned:
        return None
    if pinned:
        return f"{trait} depends on pinned fields"
    extra = sorted(needs - line.bounds())
    if extra:
        return "it needs also " + ", ".join(f"{subject}: {name}" for subject, name in extra)
    return None

"""Shows that the comparison bites: takes our own listing as the one to match, and spoils a copy of it.

It works on our API as it is, so there is no sample to go stale: each case names the line that it spoils,
and it is an error if there is no such line.
"""

import re


def drop(pattern):
    """Takes the line that matches away."""
    return lambda lines: edited(lines, pattern, lambda line: None)


def change(pattern, old, new):
    """Puts `new` for `old` in the lines that match."""
    return lambda lines: edited(lines, pattern, lambda line: replaced(line, old, new))


def insert(pattern, new):
    """Puts the line `new` before the first that matches."""
    def edit(lines):
        at = next((at for at, line in enumerate(lines) if re.search(pattern, line)), None)
        if at is None:
            raise SystemExit(f"self-test: no line matches {pattern}")
        return [*lines[:at], new, *lines[at:]]

    return edit


def edited(lines, pattern, edit):
    if not any(re.search(pattern, line) for line in lines):
        raise SystemExit(f"self-test: no line matches {pattern}")
    kept = [edit(line) if re.search(pattern, line) else line for line in lines]
    return [line for line in kept if line is not None]


def replaced(line, old, new):
    if old not in line:
        raise SystemExit(f"self-test: `{old}` is not in: {line}")
    return line.replace(old, new)


WHERE = (
    "<Inner: core::fmt::Debug, Outer: core::fmt::Debug> core::fmt::Debug for tower_layer::Stack<Inner, Outer>",
    "<Inner, Outer> core::fmt::Debug for tower_layer::Stack<Inner, Outer> where Outer: core::fmt::Debug, Inner: core::fmt::Debug",
)

# (what was done, the edit, is it to be noticed?)
API = [
    ("nothing", lambda lines: list(lines), False),
    ("a struct is missing", drop(r"^pub struct tower_layer::Identity"), True),
    ("a function is missing", drop(r"^pub fn tower_layer::layer_fn"), True),
    ("a module is missing", drop(r"^pub mod tower::timeout$"), True),
    ("a re-export is missing", drop(r"^pub use tower::Service$"), True),
    ("a method is missing", drop(r"^pub const fn tower_layer::Identity::new\("), True),
    ("a trait's method is missing", drop(r"^pub fn tower_service::Service::poll_ready\("), True),
    ("an impl is missing", drop(r"^impl<F> core::fmt::Debug for tower_layer::LayerFn<F>|^pub fn tower_layer::LayerFn<F>::fmt"), True),
    ("an associated type is missing", drop(r"^pub type tower_layer::Identity::Service ="), True),
    ("an enum's variant is missing", drop(r"^pub tower::util::Either::Left"), True),
    ("an enum's variant is new", insert(r"^pub tower::util::Either::Left", "pub tower::util::Either::Middle(A)"), True),
    ("a function is no longer const", change(r"^pub const fn tower_layer::Identity::new\(", "const fn", "fn"), True),
    ("an argument's type changed", change(r"^pub fn tower_service::Service::call\(", "Request)", "&Request)"), True),
    ("arguments changed places", change(r"^pub const fn tower_layer::Stack<.*::new\(", "(Inner, Outer)", "(Outer, Inner)"), True),
    ("a return type changed", change(r"^pub fn tower_layer::layer_fn", "-> tower_layer::LayerFn<T>", "-> T"), True),
    ("a receiver changed", change(r"^pub fn tower_layer::Layer::layer\(", "&self", "&mut self"), True),
    ("a bound on an impl grew", change(r"^impl<F> core::fmt::Debug for tower_layer::LayerFn<F>", "<F> core", "<F: core::clone::Clone> core"), True),
    ("a bound on an impl is gone", change(r"^impl<.*Service<Request> for alloc::boxed::Box<S>", "?core::marker::Sized", "'static"), True),
    ("a bound on a method grew", change(r"^pub fn tower_layer::layer_fn", "<T>", "<T: core::clone::Clone>"), True),
    ("an associated type's bound changed", change(r"^pub type tower_service::Service::Future: ", "::Future<", "::Stream<"), True),
    ("an associated type's value changed", change(r"^pub type tower_layer::Identity::Service = S", "= S", "= ()"), True),
    ("a type parameter was added", change(r"^pub struct tower_layer::LayerFn<F>", "<F>", "<F, G>"), True),
    ("a supertrait is gone", change(r"^pub trait tower::util::ServiceExt<", ": tower_service::Service<Request>", ""), True),
    # What does not matter to a user must pass.
    ("a type parameter has another name", change(r"^pub fn tower_layer::layer_fn", "T", "Function"), False),
    ("an impl's parameters stand in another order", change(r"^impl<F, S, Out> tower_layer::Layer<S>", "<F, S, Out>", "<Out, S, F>"), False),
    ("bounds moved to another place", change(r"^impl<Inner: .*core::fmt::Debug for tower_layer::Stack", *WHERE), False),
    ("a type is named by where it is defined", change(r"^pub fn tower_layer::layer_fn", "-> tower_layer::", "-> tower_layer::layer_fn::"), False),
]

# (what is wrong with the line, the line, is it to be noticed?)
TRAITS = [
    ("nothing", "tower_layer::LayerFn<F>: Copy if F: Copy", False),
    ("the parameter has another name", "tower_layer::LayerFn<T>: Copy if T: Copy", False),
    ("it is not implemented", "tower_layer::Identity: Copy", True),
    ("ours asks for more", "tower_layer::LayerFn<F>: Copy", True),
    ("ours asks for less", "tower_layer::Identity: Clone if F: Clone", False),
    ("it must not be implemented", "tower_layer::Identity: !Send", True),
    ("no such type", "tower_layer::Identities: Send", True),
]


def run(api, traits):
    """`api` and `traits` give what the comparison reports for a case."""
    cases = [(name, api(edit), noticed) for name, edit, noticed in API]
    cases += [(f"traits: {name}", traits(line), noticed) for name, line, noticed in TRAITS]
    failed = [(name, found) for name, found, noticed in cases if bool(found) != noticed]
    for name, found in failed:
        print(f"self-test FAILED: {name}: {found or 'not noticed'}")
    print(f"self-test: {len(cases) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0

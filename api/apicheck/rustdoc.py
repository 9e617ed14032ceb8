"""Reads rustdoc's JSON of our crates, and writes the public API of some of them as a listing.

The umbrella `tower` only re-exports: the walk follows each `pub use` into the crate that has the item,
and lists the item at the path where the user finds it, as if it were defined there.
"""

import json

KNOWN_FORMATS = range(54, 58)

# What a type's derives and auto traits are compared by.
MARKERS = ("Clone Copy Debug Default PartialEq Eq PartialOrd Ord Hash Send Sync Unpin").split()


class UnknownFormat(Exception):
    pass


def kind_of(item):
    return next(iter(item["inner"]))


class Crate:
    def __init__(self, file):
        doc = json.loads(file.read_text())
        version = doc["format_version"]
        if version not in KNOWN_FORMATS:
            known = f"{KNOWN_FORMATS.start} to {KNOWN_FORMATS.stop - 1}"
            raise UnknownFormat(
                f"{file.name} has rustdoc's JSON format {version}; this script knows {known}. "
                "See what changed in the rustdoc-types crate, mend api/apicheck/rustdoc.py, and add the number there."
            )
        self.index = doc["index"]
        self.paths = doc["paths"]
        self.root = self.index[str(doc["root"])]
        self.name = self.root["name"]

    def item(self, id):
        return self.index.get(str(id))

    def definition(self, id):
        """The path by which an id is known: (crate, names…)."""
        summary = self.paths.get(str(id))
        return tuple(summary["path"]) if summary else None


class World:
    """All our crates, and where each of their items is public."""

    def __init__(self, crates, roots):
        self.crates = {crate.name: crate for crate in crates}
        self.roots = [root for root in roots if root in self.crates]
        # (crate, id) → the paths in `roots` at which the item is public
        self.public = {}
        self.definitions = {
            (definition, crate.paths[id]["kind"]): (crate, int(id))
            for crate in crates
            for id, summary in crate.paths.items()
            if (definition := tuple(summary["path"])) and summary["crate_id"] == 0
        }
        self.found = []
        self.required = {}
        for root in self.roots:
            crate = self.crates[root]
            self.visit_module(crate, crate.root, root, ())

    # Where things are

    def locate(self, crate, id):
        """The crate of ours that holds the item, and its id there; None if it is not ours."""
        item = crate.item(id)
        if item is not None and item["crate_id"] == 0:
            return crate, item["id"]
        summary = crate.paths.get(str(id))
        if summary is None:
            return None
        path = tuple(summary["path"])
        exact = self.definitions.get((path, summary["kind"]))
        return exact or self.locate_private(path, summary["kind"])

    def locate_private(self, path, kind):
        """Another crate knows an item of a private module by its definition, its own by where it is public."""
        for (other, other_kind), place in self.definitions.items():
            same_ends = other[0] == path[0] and other[-1] == path[-1]
            if same_ends and other_kind == kind and is_subsequence(other, path):
                return place
        return None

    def path_text(self, crate, id, fallback):
        place = self.locate(crate, id)
        if place:
            holder, own_id = place
            paths = self.public.get((holder.name, own_id))
            if paths:
                return min(paths, key=lambda path: (path.count("::"), path))
            definition = holder.definition(own_id)
            return "::".join(definition) if definition else fallback
        definition = crate.definition(id)
        return "::".join(definition) if definition else fallback

    # The walk

    def visit_module(self, crate, module, path, seen):
        self.found.append(("mod", path, crate, module))
        seen = (*seen, (crate.name, module["id"]))
        for id in module["inner"]["module"]["items"]:
            item = crate.item(id)
            if item is not None and item["visibility"] == "public":
                self.visit(crate, item, path, seen)

    def visit(self, crate, item, path, seen):
        if kind_of(item) == "use":
            self.visit_use(crate, item["inner"]["use"], path, seen)
        else:
            self.visit_item(crate, item, f"{path}::{item['name']}", seen)

    def visit_use(self, crate, use, path, seen):
        place = self.locate(crate, use["id"]) if use["id"] is not None else None
        if use["is_glob"]:
            if place and kind_of(place[0].item(place[1])) == "module":
                holder, module = place[0], place[0].item(place[1])
                for id in module["inner"]["module"]["items"]:
                    item = holder.item(id)
                    if item is not None and item["visibility"] == "public":
                        self.visit(holder, item, path, seen)
            return
        name = f"{path}::{use['name']}"
        if place is None or self.is_foreign(place[0], path):
            self.found.append(("use", name, crate, None))
        else:
            self.visit_item(place[0], place[0].item(place[1]), name, seen)

    def is_foreign(self, crate, path):
        """Packages that upstream publishes on their own are re-exported by name, not listed again."""
        return crate.name in self.roots and crate.name != path.split("::")[0]

    def visit_item(self, crate, item, path, seen):
        if kind_of(item) == "module":
            if (crate.name, item["id"]) not in seen:
                self.visit_module(crate, item, path, seen)
            return
        if kind_of(item) == "use":
            self.visit_use(crate, {**item["inner"]["use"], "name": path.split("::")[-1]}, path.rpartition("::")[0], seen)
            return
        self.public.setdefault((crate.name, item["id"]), []).append(path)
        self.found.append((kind_of(item), path, crate, item))

    # The listing

    def listing(self):
        lines = []
        for kind, path, crate, item in self.found:
            write = getattr(self, f"list_{kind}", None)
            if write:
                lines += write(path, crate, item)
        for crate in self.crates.values():
            for item in crate.index.values():
                if kind_of(item) == "impl" and item["crate_id"] == 0:
                    lines += self.list_impl(crate, item)
        return lines

    def list_mod(self, path, _crate, _item):
        return [f"pub mod {path}"]

    def list_use(self, path, _crate, _item):
        return [f"pub use {path}"]

    def list_macro(self, path, _crate, _item):
        return [f"pub macro {path}!"]

    list_proc_macro = list_macro

    def list_struct(self, path, crate, item):
        struct = item["inner"]["struct"]
        attribute = "#[non_exhaustive] " if "non_exhaustive" in item["attrs"] else ""
        fields, lines = "", []
        if isinstance(struct["kind"], dict) and "tuple" in struct["kind"]:
            fields = self.tuple_fields(crate, struct["kind"]["tuple"])
        elif isinstance(struct["kind"], dict):
            for id in struct["kind"]["plain"]["fields"]:
                field = crate.item(id)
                if field:
                    lines.append(f"pub {path}::{field['name']}: {self.type(crate, field['inner']['struct_field'])}")
        params, where = self.generics(crate, struct["generics"])
        return [f"{attribute}pub struct {path}{params}{fields}{where}", *lines]

    def tuple_fields(self, crate, ids):
        fields = [crate.item(id) if id is not None else None for id in ids]
        if not any(fields):
            return "(_)"
        texts = [f"pub {self.type(crate, field['inner']['struct_field'])}" if field else "_" for field in fields]
        return f"({', '.join(texts)})"

    def list_enum(self, path, crate, item):
        enum = item["inner"]["enum"]
        attribute = "#[non_exhaustive] " if "non_exhaustive" in item["attrs"] else ""
        params, where = self.generics(crate, enum["generics"])
        lines = [f"{attribute}pub enum {path}{params}{where}"]
        for id in enum["variants"]:
            variant = crate.item(id)
            if variant:
                lines.append(f"pub {path}::{variant['name']}{self.variant(crate, variant['inner']['variant']['kind'])}")
        return lines

    def variant(self, crate, kind):
        if kind == "plain":
            return ""
        ids = kind["tuple"] if "tuple" in kind else kind["struct"]["fields"]
        types = []
        for id in ids:
            field = crate.item(id)
            name = "" if "tuple" in kind else f"{field['name']}: "
            types.append(f"{name}{self.type(crate, field['inner']['struct_field'])}")
        return f"({', '.join(types)})" if "tuple" in kind else f"{{{', '.join(types)}}}"

    def list_type_alias(self, path, crate, item):
        alias = item["inner"]["type_alias"]
        params, where = self.generics(crate, alias["generics"])
        return [f"pub type {path}{params} = {self.type(crate, alias['type'])}{where}"]

    def list_function(self, path, crate, item):
        return [self.function(path, crate, item)]

    def list_constant(self, path, crate, item):
        return [f"pub const {path}: {self.type(crate, item['inner']['constant']['type'])}"]

    def list_trait(self, path, crate, item):
        trait = item["inner"]["trait"]
        params, where = self.generics(crate, trait["generics"])
        supers = self.bounds(crate, trait["bounds"])
        lines = [f"pub trait {path}{params}{': ' + supers if supers else ''}{where}"]
        for id in trait["items"]:
            member = crate.item(id)
            if member is None:
                continue
            lines.append(self.member(path, crate, member))
            # A trait that users implement must not gain an item that they have to write.
            self.required[f"{path}::{member['name']}"] = self.is_required(member) and "Sealed" not in supers
        return lines

    def is_required(self, member):
        inner = member["inner"]
        if "function" in inner:
            return not inner["function"]["has_body"]
        return inner.get("assoc_type", {}).get("type") is None

    def member(self, owner, crate, item):
        inner = item["inner"]
        if "function" in inner:
            return self.function(f"{owner}::{item['name']}", crate, item)
        if "assoc_type" in inner:
            assoc = inner["assoc_type"]
            bounds = self.bounds(crate, assoc["bounds"])
            value = f" = {self.type(crate, assoc['type'])}" if assoc["type"] is not None else ""
            return f"pub type {owner}::{item['name']}{': ' + bounds if bounds else ''}{value}"
        return f"pub const {owner}::{item['name']}: {self.type(crate, inner['assoc_const']['type'])}"

    def list_impl(self, crate, item):
        impl = item["inner"]["impl"]
        if impl["is_synthetic"] or impl["blanket_impl"] is not None or impl["is_negative"]:
            return []
        if not self.is_public_impl(crate, impl):
            return []
        params, where = self.generics(crate, impl["generics"])
        of = self.type(crate, impl["for"])
        trait = f"{self.trait(crate, impl['trait'])} for " if impl["trait"] else ""
        # `#[derive]`d ones are told apart for the list of additions alone.
        derived = "#[automatically_derived] " if "automatically_derived" in item["attrs"] else ""
        members = [crate.item(id) for id in impl["items"]]
        visible = [m for m in members if m and (impl["trait"] or m["visibility"] == "public")]
        lines = [self.member(of, crate, m) for m in visible] + self.provided(crate, impl, of)
        if not lines and not impl["trait"]:
            return []
        return [f"{derived}impl{params} {trait}{of}{where}", *lines]

    def provided(self, crate, impl, of):
        """The methods that an impl of a trait of ours leaves to the trait. (A trait of `std` may gain some.)"""
        if not impl["trait"] or not self.locate(crate, impl["trait"]["id"]):
            return []
        return [f"pub fn {of}::{name}()" for name in impl["provided_trait_methods"]]

    def is_public_impl(self, crate, impl):
        of, trait = impl["for"], impl["trait"]
        if "resolved_path" in of and not self.is_public_or_foreign(crate, of["resolved_path"]["id"]):
            return False
        return not trait or self.is_public_or_foreign(crate, trait["id"])

    def is_public_or_foreign(self, crate, id):
        place = self.locate(crate, id)
        if place:
            return (place[0].name, place[1]) in self.public
        definition = crate.definition(id)
        return definition is not None and definition[0] not in self.crates

    # Derives and auto traits

    def marker_impls(self):
        """path → its own bounds and [(trait, is negative, predicates)] for every public type."""
        types = {}
        for kind, path, crate, item in self.found:
            if kind not in ("struct", "enum"):
                continue
            params, where = self.generics(crate, item["inner"][kind]["generics"])
            impls = []
            for id in item["inner"][kind]["impls"]:
                impl = crate.item(id)["inner"]["impl"]
                name = impl["trait"]["path"].split("::")[-1] if impl["trait"] else None
                if name in MARKERS and impl["blanket_impl"] is None:
                    impls.append((name, impl["is_negative"], self.impl_header(crate, impl)))
            types[path] = (f"{params}{where}", impls)
        return types

    # What a listing does not say

    def facts(self):
        """Lines that say which type parameters have a default, and which items of traits have a body."""
        lines = []
        for kind, path, crate, item in self.found:
            inner = item["inner"][kind] if item and kind in item["inner"] else {}
            if kind in ("struct", "enum", "trait", "type_alias"):
                lines += [f"default {path} {text}" for text in self.defaults(crate, inner["generics"])]
            if kind == "trait":
                members = filter(None, map(crate.item, inner["items"]))
                lines += [f"provided {path}::{m['name']}" for m in members if not self.is_required(m)]
        return lines

    def defaults(self, crate, generics):
        for param in generics["params"]:
            default = param["kind"].get("type", {}).get("default")
            if default is not None:
                # The name will do: where a type of std is defined changes with the compiler.
                yield f"{param['name']} = {self.type(crate, default).split('::')[-1]}"

    def impl_header(self, crate, impl):
        params, where = self.generics(crate, impl["generics"])
        return f"impl{params} {self.trait(crate, impl['trait'])} for {self.type(crate, impl['for'])}{where}"

    # Types, as text

    def function(self, path, crate, item):
        function = item["inner"]["function"]
        header = function["header"]
        words = [word for word in ("const", "async", "unsafe") if header[f"is_{word}"]]
        params, where = self.generics(crate, function["generics"])
        inputs = [self.input(crate, *argument) for argument in function["sig"]["inputs"]]
        output = function["sig"]["output"]
        arrow = f" -> {self.type(crate, output)}" if output is not None else ""
        return f"pub {' '.join([*words, 'fn'])} {path}{params}({', '.join(inputs)}){arrow}{where}"

    def input(self, crate, name, of):
        if name == "self":
            text = self.type(crate, of)
            short = {"Self": "self", "&Self": "&self", "&mut Self": "&mut self"}
            return short.get(text, text)
        return self.type(crate, of)

    def type(self, crate, of):
        kind, value = next(iter(of.items()))
        return getattr(self, f"type_{kind}")(crate, value)

    def type_generic(self, _crate, name):
        return name

    type_primitive_names = {"never": "!", "unit": "()"}

    def type_primitive(self, _crate, name):
        return self.type_primitive_names.get(name, name)

    def type_resolved_path(self, crate, path):
        return self.path_text(crate, path["id"], path["path"]) + self.arguments(crate, path["args"])

    def type_qualified_path(self, crate, path):
        of = self.type(crate, path["self_type"])
        arguments = self.arguments(crate, path["args"])
        if of == "Self" or path["trait"] is None:
            return f"{of}::{path['name']}{arguments}"
        return f"<{of} as {self.trait(crate, path['trait'])}>::{path['name']}{arguments}"

    def type_borrowed_ref(self, crate, ref):
        lifetime = f"{ref['lifetime']} " if ref["lifetime"] else ""
        return f"&{lifetime}{'mut ' if ref['is_mutable'] else ''}{self.type(crate, ref['type'])}"

    def type_raw_pointer(self, crate, pointer):
        return f"*{'mut' if pointer['is_mutable'] else 'const'} {self.type(crate, pointer['type'])}"

    def type_tuple(self, crate, types):
        return f"({', '.join(self.type(crate, of) for of in types)})"

    def type_slice(self, crate, of):
        return f"[{self.type(crate, of)}]"

    def type_array(self, crate, array):
        return f"[{self.type(crate, array['type'])}; {array['len']}]"

    def type_impl_trait(self, crate, bounds):
        return f"impl {self.bounds(crate, bounds)}"

    def type_dyn_trait(self, crate, dyn):
        bounds = [self.trait(crate, poly["trait"]) for poly in dyn["traits"]]
        bounds += [dyn["lifetime"]] if dyn["lifetime"] else []
        return f"(dyn {' + '.join(bounds)})"

    def type_function_pointer(self, crate, pointer):
        inputs = ", ".join(self.type(crate, of) for _, of in pointer["sig"]["inputs"])
        output = pointer["sig"]["output"]
        return f"fn({inputs}){' -> ' + self.type(crate, output) if output is not None else ''}"

    def type_infer(self, _crate, _value):
        return "_"

    def trait(self, crate, path):
        return self.path_text(crate, path["id"], path["path"]) + self.arguments(crate, path["args"])

    def arguments(self, crate, arguments):
        if arguments is None:
            return ""
        kind, value = next(iter(arguments.items()))
        if kind == "parenthesized":
            inputs = ", ".join(self.type(crate, of) for of in value["inputs"])
            output = f" -> {self.type(crate, value['output'])}" if value["output"] is not None else ""
            return f"({inputs}){output}"
        texts = [self.argument(crate, argument) for argument in value["args"]]
        texts += [self.constraint(crate, constraint) for constraint in value["constraints"]]
        return f"<{', '.join(texts)}>" if texts else ""

    def argument(self, crate, argument):
        if argument == "infer":
            return "_"
        kind, value = next(iter(argument.items()))
        if kind == "type":
            return self.type(crate, value)
        return value if kind == "lifetime" else value["expr"]

    def constraint(self, crate, constraint):
        kind, value = next(iter(constraint["binding"].items()))
        if kind == "equality":
            return f"{constraint['name']} = {self.type(crate, value['type'])}"
        return f"{constraint['name']}: {self.bounds(crate, value)}"

    def bounds(self, crate, bounds):
        return " + ".join(filter(None, (self.bound(crate, bound) for bound in bounds)))

    def bound(self, crate, bound):
        kind, value = next(iter(bound.items()))
        if kind == "outlives":
            return value
        if kind == "use":
            return None
        modifier = "?" if value["modifier"] == "maybe" else ""
        return modifier + self.trait(crate, value["trait"])

    def generics(self, crate, generics):
        params = []
        for param in generics["params"]:
            kind, value = next(iter(param["kind"].items()))
            if kind == "type" and value["is_synthetic"]:
                continue
            bounds = self.bounds(crate, value["bounds"]) if kind == "type" else ""
            const = "const " if kind == "const" else ""
            of = f": {self.type(crate, value['type'])}" if kind == "const" else ""
            params.append(f"{const}{param['name']}{of}{': ' + bounds if bounds else ''}")
        predicates = [self.predicate(crate, predicate) for predicate in generics["where_predicates"]]
        where = ", ".join(filter(None, predicates))
        return (f"<{', '.join(params)}>" if params else ""), (f" where {where}" if where else "")

    def predicate(self, crate, predicate):
        kind, value = next(iter(predicate.items()))
        if kind == "bound_predicate":
            return f"{self.type(crate, value['type'])}: {self.bounds(crate, value['bounds'])}"
        # Which lifetime outlives which follows from the types that they stand in.
        return None


def is_subsequence(short, long):
    rest = iter(long)
    return all(name in rest for name in short)

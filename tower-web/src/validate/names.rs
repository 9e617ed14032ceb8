//! What fields are called in a request, of which `garde` tells their names in Rust.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::mem::discriminant;

use garde::Validate;
use garde::error::Kind;
use serde_core::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde_core::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_core::forward_to_deserialize_any;
use serde_json::Value;

/// How many values are read again, at most, to find the names of all the fields that are told of a document; and how many times the
/// largest is read as a whole. A refusal mustn't cost much more than what it refuses.
const READ_AGAIN: usize = 100_000;
const TRIES: std::ops::RangeInclusive<usize> = 8..=256;

/// The path to a field in Rust's names, and what is wrong with it.
type Broken = (String, String);

/// A document, and the names that its reader has asked for.
pub(super) struct Names<'a> {
    document: &'a Value,
    /// The fields of the struct at each pointer.
    fields: HashMap<String, &'static [&'static str]>,
    /// The messages of a document that was changed, each with its path.
    judge: fn(Value) -> Option<Vec<Broken>>,
    /// How often it may be read again.
    tries: Cell<usize>,
    /// What was found by trying, and what wasn't: the items of a list have the same names.
    tried: RefCell<HashMap<(Shape, String), Option<String>>>,
}

/// The place of a struct, whichever the item of a list that it is: its pointer without indices, and what fields it has.
type Shape = (String, Option<&'static [&'static str]>);

impl<'a> Names<'a> {
    pub(super) fn of<T>(document: &'a Value) -> Self
    where
        T: DeserializeOwned + Validate<Context: Default>,
    {
        let fields = RefCell::default();
        // What it makes is of no interest, and that of a form may fail: its numbers are text.
        let _ = T::deserialize(Node {
            value: document,
            pointer: String::new(),
            fields: &fields,
        });
        Self {
            document,
            fields: fields.into_inner(),
            judge: |document| {
                let value = T::deserialize(document).ok()?;
                let report = match value.validate() {
                    Ok(()) => return Some(Vec::new()),
                    Err(report) => report,
                };
                let told = report.iter();
                Some(
                    told.map(|(path, error)| (path.to_string(), error.message().to_owned()))
                        .collect(),
                )
            },
            tries: Cell::new((READ_AGAIN / size(document)).clamp(*TRIES.start(), *TRIES.end())),
            tried: RefCell::default(),
        }
    }

    /// The steps to a field, from the root of the document.
    pub(super) fn resolve(&self, path: &garde::Path, message: &str) -> Vec<String> {
        let parts: Vec<(Kind, String)> = path
            // Hidden, as it is what `garde::select!` calls; the displayed path can't be taken apart, as keys may have dots.
            // It begins with the innermost.
            .__iter()
            .rev()
            .map(|(kind, part)| (kind, part.to_string()))
            .filter(|(kind, _)| *kind != Kind::None)
            .collect();
        let broken = (path.to_string(), message.to_owned());
        let mut steps = Vec::new();
        for (at, (kind, part)) in parts.iter().enumerate() {
            let rest = &parts[at + 1..];
            let mut node = self.document.pointer(&pointer(&steps));
            // The variant of an enum has a member of its own around its fields.
            if let (Some(Value::Object(object)), Kind::Key) = (node, kind) {
                if let (Some((variant, inner)), None) =
                    (object.iter().next(), self.fields.get(&pointer(&steps)))
                {
                    let is_around = object.len() == 1 && !alike(variant, part);
                    if is_around && has(inner, part) {
                        steps.push(variant.clone());
                        node = Some(inner);
                    }
                }
            }
            match (kind, node) {
                // A struct of one field without a name is what it holds.
                (Kind::Index, Some(Value::Array(_))) => steps.push(part.clone()),
                (Kind::Index, _) => {}
                (_, node) => match self.member(&steps, node, part, rest, &broken) {
                    Member::Called(name) => steps.push(name),
                    Member::Flattened => {}
                },
            }
        }
        steps
    }

    fn member(
        &self,
        steps: &[String],
        node: Option<&Value>,
        part: &str,
        rest: &[(Kind, String)],
        broken: &Broken,
    ) -> Member {
        let fields = self.fields.get(&pointer(steps)).copied();
        let there = match node {
            Some(Value::Object(object)) => object.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let names = match fields {
            Some(fields) => fields.to_vec(),
            None => there.clone(),
        };
        let own = names
            .iter()
            .find(|name| **name == part)
            .or_else(|| names.iter().find(|name| alike(name, part)));
        if let Some(name) = own {
            return Member::Called((*name).to_owned());
        }
        // A struct that has a flattened one in it is read as a map.
        let is_below = rest.first().is_some_and(|(_, next)| {
            let next = next.as_str();
            there.iter().any(|name| alike(name, next))
        });
        if fields.is_none() && is_below {
            return Member::Flattened;
        }
        let shape = (self.shape(steps), fields);
        let key = (shape, part.to_owned());
        let known = self.tried.borrow().get(&key).cloned();
        let is_there = |name: &Option<String>| match name {
            Some(name) => names.contains(&&**name),
            None => true,
        };
        let name = known.filter(is_there).unwrap_or_else(|| {
            let name = self.tried(steps, &names, rest, broken);
            self.tried.borrow_mut().insert(key, name.clone());
            name
        });
        if let Some(name) = name {
            return Member::Called(name);
        }
        match fields.is_none() && !rest.is_empty() {
            true => Member::Flattened,
            false => Member::Called(part.to_owned()),
        }
    }

    /// The pointer, without the indices.
    fn shape(&self, steps: &[String]) -> String {
        let mut node = Some(self.document);
        let mut shape = String::new();
        for step in steps {
            shape.push('/');
            node = match node {
                Some(Value::Array(items)) => step.parse().ok().and_then(|at: usize| items.get(at)),
                other => {
                    shape.push_str(&escape(step));
                    other.and_then(|value| value.get(step))
                }
            };
        }
        shape
    }

    /// The one of these names on which the rule depends: with another value in its place, the rule isn't broken, or not in
    /// this way.
    fn tried(
        &self,
        steps: &[String],
        names: &[&str],
        rest: &[(Kind, String)],
        broken: &Broken,
    ) -> Option<String> {
        let parent = pointer(steps);
        let depends = |name: &str, other: &Value| {
            let mut document = self.document.clone();
            let object = document.pointer_mut(&parent)?.as_object_mut()?;
            object.insert(name.to_owned(), other.clone());
            let told = (self.judge)(document)?;
            Some(!told.contains(broken))
        };
        let others = others();
        // What is of the value's own type is most likely read, so that it comes first for all the names.
        for is_alike in [true, false] {
            for name in names {
                let own = self.document.pointer(&format!("{parent}/{}", escape(name)));
                // What has something below it has something to go down to.
                if !rest.is_empty() && !own.is_some_and(|own| own.is_object() || own.is_array()) {
                    continue;
                }
                let kind = |value: &Value| discriminant(value);
                let others = others
                    .iter()
                    .filter(|other| own.is_some_and(|own| kind(own) == kind(other)) == is_alike);
                for other in others {
                    self.tries.set(self.tries.get().checked_sub(1)?);
                    if depends(name, other) == Some(true) {
                        return Some((*name).to_owned());
                    }
                }
            }
        }
        None
    }
}

/// How many values there are in this one, with itself.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members.values().map(size).sum(),
        _ => 0,
    }
}

/// What is put in the place of a value, to see whether a rule still holds.
fn others() -> [Value; 11] {
    use serde_json::json;

    [
        json!(null),
        json!(""),
        json!("aaaaaaaa"),
        json!("a@example.org"),
        json!("https://example.org"),
        json!(1),
        json!(100),
        json!(1_000_000),
        json!([]),
        json!(true),
        json!(false),
    ]
}

enum Member {
    Called(String),
    /// It has no member of its own: its fields stand among those around it.
    Flattened,
}

fn has(value: &Value, part: &str) -> bool {
    let object = value.as_object();
    object.is_some_and(|object| object.keys().any(|name| alike(name, part)))
}

/// Whether two names are of the same words: `first_name`, `firstName`, `FIRST-NAME`.
fn alike(one: &str, other: &str) -> bool {
    let words = |name: &str| {
        name.chars()
            .filter(|char| !matches!(char, '_' | '-'))
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    one == other || words(one) == words(other)
}

/// The steps as a JSON pointer (RFC 6901).
pub(super) fn pointer(steps: &[String]) -> String {
    steps.iter().fold(String::new(), |mut pointer, step| {
        pointer.push('/');
        pointer.push_str(&escape(step));
        pointer
    })
}

fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// A value in a document that writes down which fields its reader asks for.
struct Node<'a> {
    value: &'a Value,
    pointer: String,
    fields: &'a RefCell<HashMap<String, &'static [&'static str]>>,
}

impl<'a> Node<'a> {
    fn below(&self, step: &str, value: &'a Value) -> Self {
        Self {
            value,
            pointer: format!("{}/{}", self.pointer, escape(step)),
            fields: self.fields,
        }
    }

    fn members(&self) -> impl Iterator<Item = (String, Self)> {
        let object = self.value.as_object();
        object.into_iter().flatten().map(|(name, value)| {
            let node = self.below(name, value);
            (name.clone(), node)
        })
    }
}

/// Why a value couldn't be read. Nobody is told.
#[derive(Debug)]
struct Unread;

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value doesn't fit")
    }
}

impl std::error::Error for Unread {}

impl de::Error for Unread {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> IntoDeserializer<'de, Unread> for Node<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Unread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.value {
            Value::Array(values) => {
                let nodes = values.iter().enumerate();
                let nodes = nodes.map(|(at, value)| self.below(&at.to_string(), value));
                visitor.visit_seq(SeqDeserializer::new(nodes))
            }
            Value::Object(_) => visitor.visit_map(MapDeserializer::new(self.members())),
            plain => plain.clone().deserialize_any(visitor).map_err(|_| Unread),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        let pointer = self.pointer.clone();
        self.fields.borrow_mut().insert(pointer, fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        match self.value {
            Value::String(variant) => visitor.visit_enum(variant.as_str().into_deserializer()),
            _ => visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(
                self.members(),
            ))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_same_words_are_alike() {
        for name in [
            "first_name",
            "firstName",
            "FirstName",
            "first-name",
            "FIRST_NAME",
        ] {
            assert!(alike(name, "first_name"), "{name}");
        }
        assert!(!alike("first", "first_name"));
    }

    #[test]
    fn a_pointer_is_escaped() {
        assert_eq!(
            pointer(&["a/b".into(), "~".into(), "0".into()]),
            "/a~1b/~0/0"
        );
        assert_eq!(pointer(&[]), "");
    }
}

//! Pairs for types with a flattened field.
//!
//! Of what belongs to a field with `#[serde(flatten)]`, serde asks a format what it is before it knows what it is wanted for. Pairs are
//! text, and one that stands alone is no list, so that a number or a list in such a field is refused. Here the refusals say what
//! is wanted: text that is a number is tried as one where a number was, one value more each time, until all fit or none is left to try.
//!
//! It is slower than to read them once, and only types with such a field come here.

use std::cell::Cell;
use std::fmt;

use serde_core::de::value::SeqDeserializer;
use serde_core::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess,
    Unexpected, Visitor,
};
use serde_core::forward_to_deserialize_any;

use super::Malformed;

/// How long the pairs may be that are read more than once, and how many values are tried as something else than text: nobody shall make
/// much work with little.
pub(super) const MOST_BYTES: usize = 64 * 1024;
const MOST_TRIALS: usize = 64;

/// Reads the pairs, which are decoded already.
pub(super) fn parse<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Malformed> {
    let mut entries = grouped(pairs);
    let mut trials = 0;
    loop {
        let fault = match T::deserialize(Pairs(&entries)) {
            Ok(value) => return Ok(value),
            Err(fault) => fault,
        };
        trials += 1;
        if trials > MOST_TRIALS || !reshape(&mut entries, &fault, trials) {
            return Err(fault.told(&entries));
        }
    }
}

/// All values of a name, where it was first.
struct Entry {
    name: String,
    values: Vec<String>,
    shape: Shape,
    /// In which trial it became that.
    since: usize,
    /// Whether it has been tried as something else, and was text.
    is_text: bool,
    /// Whether it has been tried as a list, and was none.
    is_single: bool,
    /// Whether it was asked what it is. If not, it belongs to no flattened field.
    is_asked: Cell<bool>,
}

/// What an entry says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Text, or a list of it where there are many.
    Text,
    /// The number or truth that the text is.
    Typed,
    List,
    TypedList,
    Nothing,
}

impl Shape {
    fn is_typed(self) -> bool {
        matches!(self, Self::Typed | Self::TypedList)
    }
}

fn grouped(pairs: Vec<(String, String)>) -> Vec<Entry> {
    let mut places = std::collections::HashMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for (name, value) in pairs {
        let place = *places.entry(name.clone()).or_insert(entries.len());
        match entries.get_mut(place) {
            Some(entry) => entry.values.push(value),
            None => entries.push(Entry {
                name,
                values: vec![value],
                shape: Shape::Text,
                since: 0,
                is_text: false,
                is_single: false,
                is_asked: Cell::new(false),
            }),
        }
    }
    entries
}

/// Makes one of the entries what the refusal asks for. Says whether there was one.
fn reshape(entries: &mut [Entry], fault: &Fault, trial: usize) -> bool {
    if let Given::List = fault.given {
        return unlist(entries);
    }
    for entry in entries {
        let is_meant = match &fault.field {
            Some(field) => *field == entry.name,
            None => entry.is_asked.get(),
        };
        let Some(shape) = entry.reshaped(fault).filter(|_| is_meant) else {
            continue;
        };
        if entry.shape.is_typed() && !shape.is_typed() {
            entry.is_text = true;
        }
        entry.shape = shape;
        entry.since = trial;
        return true;
    }
    false
}

/// Takes back what was made a list last, and is none.
fn unlist(entries: &mut [Entry]) -> bool {
    let lists = entries.iter_mut().filter(|entry| {
        matches!(entry.shape, Shape::List | Shape::TypedList) && entry.values.len() == 1
    });
    let Some(entry) = lists.max_by_key(|entry| entry.since) else {
        return false;
    };
    entry.is_single = true;
    entry.shape = match entry.shape {
        Shape::TypedList => Shape::Typed,
        _ => Shape::Text,
    };
    true
}

impl Entry {
    /// What it has to be, if it is what the refusal is about.
    fn reshaped(&self, fault: &Fault) -> Option<Shape> {
        let has = |text: &str| self.values.iter().any(|value| value == text);
        let may_be_list = fault.wants_list && !self.is_single;
        match (&fault.given, self.shape) {
            (Given::Text(text), Shape::Text) if has(text) && fault.wants_list => {
                may_be_list.then_some(Shape::List)
            }
            (Given::Text(text), shape) if has(text) && !self.is_text && is_typed(text) => {
                match shape {
                    Shape::Text => Some(Shape::Typed),
                    Shape::List => Some(Shape::TypedList),
                    _ => None,
                }
            }
            (Given::Typed(told), shape) if shape.is_typed() => {
                if !self.values.iter().any(|value| is_same(value, told)) {
                    return None;
                }
                match shape {
                    Shape::Typed if fault.wants_list => may_be_list.then_some(Shape::TypedList),
                    Shape::Typed => Some(Shape::Text),
                    _ => Some(Shape::List),
                }
            }
            (Given::Other, Shape::Text) if fault.field.is_some() && has("") => Some(Shape::Nothing),
            _ => None,
        }
    }
}

/// What a text is, if it isn't only text.
enum Typed {
    Nothing,
    Truth(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

fn typed(text: &str) -> Option<Typed> {
    match text {
        "" => return Some(Typed::Nothing),
        // As a box is sent that was ticked.
        "true" | "on" => return Some(Typed::Truth(true)),
        "false" => return Some(Typed::Truth(false)),
        _ => {}
    }
    if let Ok(number) = text.parse() {
        return Some(Typed::Unsigned(number));
    }
    if let Ok(number) = text.parse() {
        return Some(Typed::Signed(number));
    }
    let number: f64 = text.parse().ok()?;
    // `nan` and `inf` are words.
    number.is_finite().then_some(Typed::Float(number))
}

fn is_typed(text: &str) -> bool {
    typed(text).is_some()
}

/// Whether a text was told as this.
fn is_same(text: &str, told: &str) -> bool {
    match typed(text) {
        Some(Typed::Truth(truth)) => truth.to_string() == told,
        Some(Typed::Unsigned(number)) => number.to_string() == told,
        Some(Typed::Signed(number)) => number.to_string() == told,
        Some(Typed::Float(number)) => number.to_string() == told,
        Some(Typed::Nothing) | None => false,
    }
}

/// Why the pairs don't fit.
#[derive(Debug)]
struct Fault {
    /// Known of what isn't flattened.
    field: Option<String>,
    detail: String,
    given: Given,
    wants_list: bool,
}

/// What was there, where something else was wanted.
#[derive(Debug)]
enum Given {
    Text(String),
    Typed(String),
    List,
    Other,
}

impl Fault {
    fn told(self, entries: &[Entry]) -> Malformed {
        let has = |entry: &&Entry| match &self.given {
            Given::Text(text) => entry.values.contains(text),
            Given::Typed(told) => entry.values.iter().any(|value| is_same(value, told)),
            Given::List => entry.values.len() > 1,
            Given::Other => false,
        };
        let found = || entries.iter().find(has).map(|entry| entry.name.clone());
        Malformed {
            field: Some(self.field.clone().or_else(found).unwrap_or_default()),
            detail: self.detail,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            field: None,
            detail: message.to_string(),
            given: Given::Other,
            wants_list: false,
        }
    }

    fn invalid_type(given: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self {
            field: None,
            detail: format!("invalid type: {given}, expected {wanted}"),
            given: match given {
                Unexpected::Str(text) => Given::Text(text.to_owned()),
                Unexpected::Bool(truth) => Given::Typed(truth.to_string()),
                Unexpected::Unsigned(number) => Given::Typed(number.to_string()),
                Unexpected::Signed(number) => Given::Typed(number.to_string()),
                Unexpected::Float(number) => Given::Typed(number.to_string()),
                Unexpected::Seq => Given::List,
                _ => Given::Other,
            },
            wants_list: wanted.to_string().contains("sequence"),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            field: Some(field.to_owned()),
            ..Self::custom("is missing")
        }
    }
}

/// All pairs.
struct Pairs<'a>(&'a [Entry]);

impl<'de> Deserializer<'de> for Pairs<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries {
            left: self.0.iter(),
            current: None,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'a> {
    left: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.left.next();
        let name = self.current.map(|entry| Text(&entry.name, false));
        name.map(|name| seed.deserialize(name)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.current.take() else {
            return Err(Fault::custom("a value without a name"));
        };
        seed.deserialize(Value(entry)).map_err(|fault| Fault {
            field: Some(entry.name.clone()),
            ..fault
        })
    }
}

/// The values of a name.
struct Value<'a>(&'a Entry);

impl<'a> Value<'a> {
    fn all(&self, typed: bool) -> SeqDeserializer<impl Iterator<Item = Text<'a>> + use<'a>, Fault> {
        SeqDeserializer::new(self.0.values.iter().map(move |value| Text(value, typed)))
    }

    /// The only one.
    fn text(&self, wanted: &dyn Expected) -> Result<Text<'a>, Fault> {
        match &*self.0.values {
            [value] => Ok(Text(value, false)),
            _ => Err(Fault::invalid_type(Unexpected::Seq, wanted)),
        }
    }
}

/// What is one text goes to that.
macro_rules! of_one {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.text(&visitor)?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.0.is_asked.set(true);
        let is_typed = self.0.shape.is_typed();
        match (self.0.shape, &*self.0.values) {
            (Shape::Nothing, _) => visitor.visit_none(),
            (Shape::Text | Shape::Typed, [value]) => Text(value, is_typed).deserialize_any(visitor),
            _ => visitor.visit_seq(self.all(is_typed)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.shape {
            Shape::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(self.all(false))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(self.all(false))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.text(&visitor)?
            .deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    of_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_identifier
    }

    forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct tuple_struct map struct
    }
}

/// One of them, and whether it says that it is the number that it is.
struct Text<'a>(&'a str, bool);

macro_rules! parsed {
    ($($method:ident $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.0.parse().map_err(Fault::custom)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match typed(self.0).filter(|_| self.1) {
            None => visitor.visit_str(self.0),
            Some(Typed::Nothing) => visitor.visit_none(),
            Some(Typed::Truth(truth)) => visitor.visit_bool(truth),
            Some(Typed::Unsigned(number)) => visitor.visit_u64(number),
            Some(Typed::Signed(number)) => visitor.visit_i64(number),
            Some(Typed::Float(number)) => visitor.visit_f64(number),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match typed(self.0) {
            Some(Typed::Truth(truth)) => visitor.visit_bool(truth),
            _ => {
                let wanted = &"\"true\", \"on\" or \"false\"";
                Err(Fault::invalid_value(Unexpected::Str(self.0), wanted))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let name: serde_core::de::value::StrDeserializer<'_, Fault> = self.0.into_deserializer();
        visitor.visit_enum(name)
    }

    parsed! {
        deserialize_i8 visit_i8;
        deserialize_i16 visit_i16;
        deserialize_i32 visit_i32;
        deserialize_i64 visit_i64;
        deserialize_i128 visit_i128;
        deserialize_u8 visit_u8;
        deserialize_u16 visit_u16;
        deserialize_u32 visit_u32;
        deserialize_u64 visit_u64;
        deserialize_u128 visit_u128;
        deserialize_f32 visit_f32;
        deserialize_f64 visit_f64;
        deserialize_char visit_char;
    }

    forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Fault> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::parse;
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Search {
        q: Option<String>,
        exact: Option<bool>,
        year: Option<u16>,
        #[serde(flatten)]
        page: Page,
        #[serde(flatten)]
        filter: Filter,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Page {
        limit: u32,
        after: Option<i64>,
        #[serde(default)]
        all: bool,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Filter {
        #[serde(default)]
        tag: Vec<String>,
        #[serde(default)]
        id: Vec<u8>,
        ratio: Option<f32>,
        note: Option<String>,
    }

    fn search(pairs: &str) -> Result<Search, Malformed> {
        parse(pairs.as_bytes())
    }

    #[test]
    fn numbers_truths_and_lists_are_read_where_they_are_flattened() {
        let all = "q=5&exact=on&year=&limit=5&after=-3&all=true&tag=9&id=5&id=6&ratio=1.5&note=7";
        let wanted = Search {
            q: Some("5".into()),
            exact: Some(true),
            year: None,
            page: Page {
                limit: 5,
                after: Some(-3),
                all: true,
            },
            filter: Filter {
                tag: vec!["9".into()],
                id: vec![5, 6],
                ratio: Some(1.5),
                note: Some("7".into()),
            },
        };
        assert_eq!(search(all).unwrap(), wanted);
        let mut pairs: Vec<_> = all.split('&').collect();
        pairs.reverse();
        let reversed = search(&pairs.join("&")).unwrap();
        assert_eq!(reversed.page, wanted.page);
        assert_eq!(reversed.filter.id, [6, 5]);
        // What looks alike is told apart.
        let alike = search("note=5&limit=5&tag=5").unwrap();
        assert_eq!(
            (alike.page.limit, &*alike.filter.tag),
            (5, &["5".to_owned()][..])
        );
        assert_eq!(alike.filter.note.as_deref(), Some("5"));
    }

    #[test]
    fn what_is_empty_is_none() {
        let search = search("limit=1&after=&note=&q=").unwrap();
        assert_eq!((search.page.after, search.q), (None, Some(String::new())));
    }

    #[test]
    fn what_doesnt_fit_is_named() {
        let refused = |pairs| search(pairs).unwrap_err();
        let name = |pairs| refused(pairs).field.unwrap();
        assert_eq!(name("limit=many"), "limit");
        assert_eq!(name("limit=1&year=x"), "year");
        assert_eq!(name("limit=1&id=1&id=x"), "id");
        assert_eq!(name("limit=1&limit=2"), "limit");
        assert_eq!(
            refused("q=x"),
            Malformed {
                field: Some("limit".into()),
                detail: "is missing".into()
            }
        );
    }

    /// The same without any struct inside.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Flat {
        q: Option<String>,
        year: Option<u16>,
        limit: u32,
        after: Option<i64>,
        #[serde(default)]
        all: bool,
        #[serde(default)]
        tag: Vec<String>,
        #[serde(default)]
        id: Vec<u8>,
        note: Option<String>,
    }

    fn pairs() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let word = || "[a-c]{1,2}|[5-9][0-9]{4}";
        let one = |name: &'static str, value: BoxedStrategy<String>| {
            proptest::option::of(value).prop_map(move |value| value.map(|value| (name, value)))
        };
        let many = |name: &'static str, value: BoxedStrategy<String>| {
            let values = proptest::collection::vec(value, 0..3);
            values.prop_map(move |values| values.into_iter().map(|value| (name, value)).collect())
        };
        let all = (
            one("q", word().boxed()),
            one("year", (0..9_u16).prop_map(|year| year.to_string()).boxed()),
            one(
                "limit",
                (1000..9000_u32).prop_map(|n| n.to_string()).boxed(),
            ),
            one("after", (-9..-1_i64).prop_map(|n| n.to_string()).boxed()),
            one("all", "true|false".boxed()),
            many("tag", word().boxed()),
            many("id", (10..99_u8).prop_map(|id| id.to_string()).boxed()),
            one("note", word().boxed()),
        );
        all.prop_flat_map(|(q, year, limit, after, all, tag, id, note)| {
            let tag: Vec<_> = tag;
            let id: Vec<_> = id;
            let pairs = [q, year, limit, after, all, note].into_iter().flatten();
            Just(pairs.chain(tag).chain(id).collect::<Vec<_>>()).prop_shuffle()
        })
    }

    proptest! {
        #[test]
        fn what_is_flattened_is_read_as_what_isnt(pairs in pairs()) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let pairs = pairs.join("&");
            let flat = parse::<Flat>(pairs.as_bytes());
            let read = search(&pairs).map(|search| Flat {
                q: search.q,
                year: search.year,
                limit: search.page.limit,
                after: search.page.after,
                all: search.page.all,
                tag: search.filter.tag,
                id: search.filter.id,
                note: search.filter.note,
            });
            prop_assert_eq!(read, flat);
        }
    }

    #[test]
    fn trials_come_to_an_end() {
        use std::fmt::Write as _;

        let mut pairs = String::from("limit=7");
        for number in 0..1000 {
            write!(pairs, "&n{number}=7&limit=x").unwrap();
        }
        assert!(search(&pairs).is_err());
        let long = format!("limit=7&q={}", "x".repeat(MOST_BYTES));
        assert!(search(&long).is_err());
    }
}

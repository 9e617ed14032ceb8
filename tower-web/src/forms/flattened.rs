//! Pairs for types with a flattened field.
//!
//! Of what belongs to a field with `#[serde(flatten)]`, serde asks a format what it is before it knows what it is wanted for. Pairs are
//! text, and one that stands alone is no list, so that a number or a list in such a field is refused. Here the refusals say what
//! is wanted: text that is a number is tried as one where a number was, one value more each time, until all fit or none is left to try.
//!
//! It is slower than to read them once, and only types with such a field come here.

use std::cell::Cell;
use std::fmt;

use serde_core::de::{DeserializeOwned, Error, Expected, Unexpected};

use super::Malformed;

mod typed;
mod values;

use self::typed::{is_same, is_typed};
use self::values::Pairs;

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

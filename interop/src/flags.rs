//! The official form of flags: `--name=value`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The flags that a program was started with.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    values: BTreeMap<String, String>,
}

/// A flag that can't be read.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidFlag {
    /// It isn't of the form `--name=value`.
    Shape(String),
    /// Its value isn't what it should be.
    Value {
        /// The flag's name.
        name: String,
        /// What it was set to.
        value: String,
    },
}

impl fmt::Display for InvalidFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(given) => write!(f, "`{given}` is not of the form `--name=value`"),
            Self::Value { name, value } => write!(f, "`--{name}` can't be `{value}`"),
        }
    }
}

impl std::error::Error for InvalidFlag {}

impl Flags {
    /// Reads a program's arguments. The last of several of the same name counts, and one without a value is `true`.
    ///
    /// # Errors
    ///
    /// [`InvalidFlag::Shape`] for what isn't a flag.
    ///
    /// # Example
    ///
    /// ```
    /// use interop::flags::Flags;
    ///
    /// let flags = Flags::parse(["--port=10000", "--use_tls"].map(String::from))?;
    /// assert_eq!(flags.get("port")?, Some(10_000));
    /// assert!(flags.is_set("use_tls")?);
    /// assert!(!flags.is_set("use_test_ca")?);
    /// # Ok::<_, interop::flags::InvalidFlag>(())
    /// ```
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, InvalidFlag> {
        let mut values = BTreeMap::new();
        for argument in arguments {
            let Some(flag) = argument.strip_prefix("--").filter(|flag| !flag.is_empty()) else {
                return Err(InvalidFlag::Shape(argument));
            };
            let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
            values.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { values })
    }

    /// A flag's value, if it was given.
    ///
    /// # Errors
    ///
    /// [`InvalidFlag::Value`] where it doesn't parse.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, InvalidFlag> {
        let Some(value) = self.values.get(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(InvalidFlag::Value {
                name: name.to_owned(),
                value: value.clone(),
            }),
        }
    }

    /// Whether a flag was given as `true`.
    ///
    /// # Errors
    ///
    /// [`InvalidFlag::Value`] where it is neither `true` nor `false`.
    pub fn is_set(&self, name: &str) -> Result<bool, InvalidFlag> {
        Ok(self.get(name)?.unwrap_or(false))
    }

    /// The names that were given and that `known` lacks. Official scripts pass flags that only some programs have.
    pub fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let names = self.values.keys().map(String::as_str);
        names.filter(|name| !known.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, InvalidFlag> {
        Flags::parse(arguments.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn what_is_not_a_flag_is_named() {
        for wrong in ["port=1", "-p", "--"] {
            assert_eq!(
                parse(&[wrong]).unwrap_err(),
                InvalidFlag::Shape(wrong.to_owned())
            );
        }
    }

    #[test]
    fn a_value_that_does_not_parse_is_named() {
        let flags = parse(&["--port=http", "--use_tls=maybe"]).unwrap();
        assert_eq!(
            flags.get::<u16>("port").unwrap_err().to_string(),
            "`--port` can't be `http`"
        );
        assert!(flags.is_set("use_tls").is_err());
    }

    #[test]
    fn an_empty_value_counts_as_none() {
        assert_eq!(parse(&["--port="]).unwrap().get::<u16>("port"), Ok(None));
    }

    #[test]
    fn a_value_may_have_an_equals_sign() {
        let flags = parse(&["--extra=a=b"]).unwrap();
        assert_eq!(flags.get("extra"), Ok(Some("a=b".to_owned())));
    }
}

//! What the environment says about the defaults.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::Defaults;

/// What all our variables begin with.
const PREFIX: &str = "TOWER_WEB_";

/// A variable of the environment that says nothing that is understood.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvironmentError {
    variable: String,
    value: String,
    expected: Cow,
}

type Cow = std::borrow::Cow<'static, str>;

impl EnvironmentError {
    /// The name of the variable.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// What it was set to.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            value,
            expected,
        } = self;
        write!(f, "the environment has {variable}={value:?}: {expected}")
    }
}

/// As displayed, since this is what a `main` that returns it prints.
impl fmt::Debug for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for EnvironmentError {}

/// What the environment says that isn't among the [`Defaults`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) listen: Option<String>,
}

impl Defaults {
    /// These, changed by what the process's environment says.
    ///
    /// # Errors
    ///
    /// Fails where a variable that begins with `TOWER_WEB_` has a value that isn't understood, or is none of the
    /// [table's](super): a limit that is misspelt would otherwise be none.
    pub fn with_environment(self) -> Result<Self, EnvironmentError> {
        Ok(self.with_variables(of_process())?.0)
    }

    pub(crate) fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Orders), EnvironmentError> {
        let mut orders = Orders::default();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            if let Err(expected) = self.set(&mut orders, name, value.trim()) {
                return Err(EnvironmentError {
                    variable,
                    value,
                    expected,
                });
            }
        }
        Ok((self, orders))
    }

    fn set(&mut self, orders: &mut Orders, name: &str, value: &str) -> Result<(), Cow> {
        match name {
            "ACCESS_LOG" => self.access_log = switch(value)?,
            "LISTEN" => orders.listen = Some(value.to_owned()),
            "HANDLER_TIMEOUT" => self.handler_timeout = unless_off(value, time)?,
            "BODY_LIMIT" => self.body_limit = unless_off(value, size)?,
            "MAX_IN_FLIGHT" => self.max_in_flight = unless_off(value, count)?,
            "REQUEST_ID" => self.request_id = switch(value)?,
            "TRACE_CONTEXT" => self.trace_context = switch(value)?,
            "SPAN" => self.span = switch(value)?,
            "SECURITY_HEADERS" => self.security_headers = switch(value)?,
            "COMPRESSION" => self.compression = switch(value)?,
            "METRICS" => self.metrics = switch(value)?,
            "ADMIN" => self.admin = unless_off(value, |value| Ok(value.to_owned()))?,
            "HEALTH" => self.health = switch(value)?,
            "MAX_CONNECTIONS" => self.max_connections = unless_off(value, count)?,
            "HEAD_TIMEOUT" => self.head_timeout = time(value)?,
            "IDLE_TIMEOUT" => self.idle_timeout = unless_off(value, time)?,
            "BODY_TIMEOUT" => self.body_timeout = unless_off(value, time)?,
            "WRITE_TIMEOUT" => self.write_timeout = unless_off(value, time)?,
            "HOST_CHECK" => self.host_check = switch(value)?,
            "DRAIN_TIMEOUT" => self.drain_timeout = time(value)?,
            "DRAIN_DELAY" => self.drain_delay = time(value)?,
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

/// The names after the prefix, as `set` knows them.
const NAMES: &[&str] = &[
    "ACCESS_LOG",
    "ADMIN",
    "BODY_LIMIT",
    "BODY_TIMEOUT",
    "COMPRESSION",
    "DRAIN_DELAY",
    "DRAIN_TIMEOUT",
    "HANDLER_TIMEOUT",
    "HEAD_TIMEOUT",
    "HEALTH",
    "HOST_CHECK",
    "IDLE_TIMEOUT",
    "LISTEN",
    "MAX_CONNECTIONS",
    "MAX_IN_FLIGHT",
    "METRICS",
    "REQUEST_ID",
    "SECURITY_HEADERS",
    "SPAN",
    "TRACE_CONTEXT",
    "WRITE_TIMEOUT",
];

fn unknown() -> Cow {
    let known: Vec<String> = NAMES.iter().map(|name| format!("{PREFIX}{name}")).collect();
    format!("there is no such variable; there are {}", known.join(", ")).into()
}

/// The variables of the process that are text. Others aren't ours.
pub(crate) fn of_process() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into()))
    })
}

fn unless_off<T>(
    value: &str,
    read: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, String> {
    match value.to_ascii_lowercase().as_str() {
        "off" | "none" => Ok(None),
        _ => match read(value) {
            Ok(value) => Ok(Some(value)),
            Err(expected) => Err(format!("{expected}, or off")),
        },
    }
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" | "yes" => Ok(true),
        "off" | "false" | "0" | "no" => Ok(false),
        _ => Err("it must be on or off"),
    }
}

fn count(value: &str) -> Result<usize, &'static str> {
    match value.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("it must be a number above zero"),
    }
}

/// `30s`, `500ms`, `2m`, `1h`, or seconds.
fn time(value: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "it must be a time, as 30s, 500ms, 2m or 1h";
    let (number, unit) = split(value).ok_or(EXPECTED)?;
    let milliseconds = match &*unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED),
    };
    let time = number.checked_mul(milliseconds).ok_or(EXPECTED)?;
    match time {
        0 => Err("it must be a time above zero, as 30s, 500ms, 2m or 1h"),
        _ => Ok(Duration::from_millis(time)),
    }
}

/// `2MB`, `64KiB`, or bytes.
fn size(value: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "it must be a size, as 2MB, 64KiB, or bytes";
    let (number, unit) = split(value).ok_or(EXPECTED)?;
    let bytes = match &*unit {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err(EXPECTED),
    };
    number.checked_mul(bytes).ok_or(EXPECTED)
}

/// The digits, and what follows them in small letters.
fn split(value: &str) -> Option<(u64, String)> {
    let end = value
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(value.len());
    let (digits, unit) = value.split_at(end);
    Some((digits.parse().ok()?, unit.trim().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<(Defaults, Orders), EnvironmentError> {
        let own = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Defaults::new().with_variables(own)
    }

    #[test]
    fn variables_win_over_the_code() {
        let (defaults, orders) = read(&[
            ("HOME", "/root"),
            ("TOWER_WEB_LISTEN", "0.0.0.0:80"),
            ("TOWER_WEB_HANDLER_TIMEOUT", "500ms"),
            ("TOWER_WEB_BODY_LIMIT", "64KiB"),
            ("TOWER_WEB_MAX_IN_FLIGHT", "off"),
            ("TOWER_WEB_REQUEST_ID", "false"),
            ("TOWER_WEB_DRAIN_TIMEOUT", " 2m "),
        ])
        .unwrap();
        let expected = Defaults::new()
            .handler_timeout(Duration::from_millis(500))
            .body_limit(64 * 1024)
            .max_in_flight(None)
            .request_id(false)
            .drain_timeout(Duration::from_secs(120));
        assert_eq!(defaults, expected);
        assert_eq!(orders.listen.as_deref(), Some("0.0.0.0:80"));
    }

    #[test]
    fn a_bad_value_is_told_with_its_variable() {
        let error = read(&[("TOWER_WEB_HANDLER_TIMEOUT", "soon")]).unwrap_err();
        assert_eq!(
            (error.variable(), error.value()),
            ("TOWER_WEB_HANDLER_TIMEOUT", "soon")
        );
        assert_eq!(
            error.to_string(),
            "the environment has TOWER_WEB_HANDLER_TIMEOUT=\"soon\": it must be a time, as 30s, 500ms, 2m or 1h, or off"
        );
    }

    #[test]
    fn a_misspelt_variable_is_told_with_those_that_there_are() {
        let error = read(&[("TOWER_WEB_HANDLER_TIMEOUTS", "1s")]).unwrap_err();
        assert!(
            error.to_string().contains("TOWER_WEB_HANDLER_TIMEOUT,"),
            "{error}"
        );
    }

    #[test]
    fn each_variable_that_there_is_can_be_set() {
        for name in NAMES {
            let variable = format!("{PREFIX}{name}");
            let fits = |value: &str| read(&[(&variable, value)]).is_ok();
            assert!(fits("on") || fits("1s") || fits("1"), "{name}");
        }
    }

    #[test]
    fn what_the_table_says_is_what_there_is() {
        let table = include_str!("../defaults.rs");
        for name in NAMES {
            assert!(table.contains(&format!("| `{PREFIX}{name}` |")), "{name}");
        }
        for named in table.split(&format!("`{PREFIX}")).skip(1) {
            let name = named.split('`').next().unwrap();
            assert!(NAMES.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_is_no_time_or_size_is_refused() {
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "0s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
        for bad in ["", "MB", "-1", "1TB", "18446744073709551615GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(size("2MB"), Ok(2_000_000));
        assert!(count("0").is_err());
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value: String) {
            for name in NAMES {
                let _ = read(&[(&format!("{PREFIX}{name}"), &value)]);
            }
        }
    }
}

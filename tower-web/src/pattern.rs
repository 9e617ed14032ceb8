//! The paths of routes: `/users/{id}`, `/files/{*path}`, `/reports/{year}.json`.

use std::fmt::{self, Write as _};

/// A path with captures, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
    names: Vec<String>,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    /// A capture of at least one byte, between what must stand before and after it.
    Capture {
        prefix: String,
        suffix: String,
    },
    /// All the rest of the path, at least one byte. It is the last.
    Rest,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatternError {
    NoSlash,
    Brace,
    Name,
    TwoInASegment,
    RestNotLast,
    SameName,
    Habit,
    Query,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSlash => "a path begins with `/`",
            Self::Brace => {
                "a brace is never closed, or never opened; write `{{` for a brace itself"
            }
            Self::Name => "a capture's name is an identifier, as `{id}` or `{*rest}`",
            Self::TwoInASegment => "there is one capture at most between two slashes",
            Self::RestNotLast => "`{*rest}` is a segment of its own, the last",
            Self::SameName => "two captures have the same name",
            Self::Habit => "a capture is written `{id}`, or `{*rest}` for all the rest",
            Self::Query => "a path ends where the query begins",
        })
    }
}

impl Pattern {
    pub(crate) fn parse(path: &str) -> Result<Self, PatternError> {
        let mut pattern = Self {
            segments: Vec::new(),
            names: Vec::new(),
        };
        let path = path.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        for segment in path.split('/') {
            if pattern.segments.last() == Some(&Segment::Rest) {
                return Err(PatternError::RestNotLast);
            }
            // As captures are written elsewhere: literals here that no request has.
            if segment.starts_with([':', '*', '<']) {
                return Err(PatternError::Habit);
            }
            if segment.contains(['?', '#']) {
                return Err(PatternError::Query);
            }
            let (segment, name) = parse_segment(segment)?;
            if let Some(name) = name {
                if pattern.names.contains(&name) {
                    return Err(PatternError::SameName);
                }
                pattern.names.push(name);
            }
            pattern.segments.push(segment);
        }
        Ok(pattern)
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

/// The pattern without its captures' names: what two routes have in common that answer the same paths.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Capture { prefix, suffix } => write!(f, "/{prefix}{{}}{suffix}")?,
                Segment::Rest => f.write_str("/{*}")?,
            }
        }
        Ok(())
    }
}

fn parse_segment(text: &str) -> Result<(Segment, Option<String>), PatternError> {
    let mut before = String::new();
    let mut after = String::new();
    let mut name: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let literal = if name.is_some() {
            &mut after
        } else {
            &mut before
        };
        match char {
            '{' | '}' if chars.peek() == Some(&char) => {
                chars.next();
                push_encoded(literal, char);
            }
            '{' => {
                if name.is_some() {
                    return Err(PatternError::TwoInASegment);
                }
                let mut inside = String::new();
                loop {
                    match chars.next() {
                        Some('}') => break,
                        Some(char) => inside.push(char),
                        None => return Err(PatternError::Brace),
                    }
                }
                name = Some(inside);
            }
            '}' => return Err(PatternError::Brace),
            char => push_encoded(literal, char),
        }
    }
    let Some(name) = name else {
        return Ok((Segment::Literal(before), None));
    };
    if let Some(name) = name.strip_prefix('*') {
        if !before.is_empty() || !after.is_empty() {
            return Err(PatternError::RestNotLast);
        }
        return Ok((Segment::Rest, Some(identifier(name)?)));
    }
    let name = identifier(&name)?;
    Ok((
        Segment::Capture {
            prefix: before,
            suffix: after,
        },
        Some(name),
    ))
}

/// A literal stands in a pattern as people write it, and in a request's path percent-encoded.
fn push_encoded(literal: &mut String, char: char) {
    if char.is_ascii_graphic() {
        literal.push(char);
        return;
    }
    let mut utf8 = [0; 4];
    for byte in char.encode_utf8(&mut utf8).bytes() {
        // Writing to a string can't fail.
        let _ = write!(literal, "%{byte:02X}");
    }
}

fn identifier(name: &str) -> Result<String, PatternError> {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if begins && chars.all(|c| c.is_alphanumeric() || c == '_') {
        Ok(name.to_owned())
    } else {
        Err(PatternError::Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart() {
        let pattern = Pattern::parse("/users/{id}/v{version}.json/{*rest}").unwrap();
        assert_eq!(pattern.names(), ["id", "version", "rest"]);
        assert_eq!(pattern.to_string(), "/users/{}/v{}.json/{*}");
        assert_eq!(pattern.segments().len(), 4);
    }

    #[test]
    fn literals_are_encoded_and_doubled_braces_are_braces() {
        let pattern = Pattern::parse("/café/{{x}}").unwrap();
        assert_eq!(
            pattern.segments(),
            [
                Segment::Literal("caf%C3%A9".into()),
                Segment::Literal("{x}".into())
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        for (path, error) in [
            ("", PatternError::NoSlash),
            ("users", PatternError::NoSlash),
            ("/{id", PatternError::Brace),
            ("/id}", PatternError::Brace),
            ("/{}", PatternError::Name),
            ("/{*}", PatternError::Name),
            ("/{1}", PatternError::Name),
            ("/{a}-{b}", PatternError::TwoInASegment),
            ("/{*rest}/x", PatternError::RestNotLast),
            ("/x{*rest}", PatternError::RestNotLast),
            ("/{a}/{a}", PatternError::SameName),
            ("/:id", PatternError::Habit),
            ("/a/*rest", PatternError::Habit),
            ("/<id>", PatternError::Habit),
            ("/a?b=c", PatternError::Query),
        ] {
            assert_eq!(Pattern::parse(path), Err(error), "{path}");
        }
    }
}

//! Paths of routes, built from what their captures are to be.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a capture of type `T` can be filled with, in a path that is built.
///
/// A `T` that can be displayed, and for a `String` also a `&str`.
#[diagnostic::on_unimplemented(
    message = "a capture of type `{T}` can't be filled with `{Self}`",
    label = "not a `{T}`, or can't be displayed"
)]
pub trait ToSegment<T> {
    /// Its text, before it is encoded.
    fn to_segment(&self) -> String;
}

impl<T: fmt::Display> ToSegment<T> for T {
    fn to_segment(&self) -> String {
        self.to_string()
    }
}

impl ToSegment<String> for &str {
    fn to_segment(&self) -> String {
        (*self).to_owned()
    }
}

impl ToSegment<String> for &String {
    fn to_segment(&self) -> String {
        (*self).clone()
    }
}

/// Builds the path of a route: `Users::fetch_path(7)`.
#[derive(Debug)]
#[must_use]
pub struct PathBuilder {
    path: String,
}

impl PathBuilder {
    /// What stands before the first capture.
    pub fn new(literal: &str) -> Self {
        Self {
            path: String::new(),
        }
        .literal(literal)
    }

    /// What stands between captures.
    pub fn literal(mut self, literal: &str) -> Self {
        // Beyond ASCII only: a literal is the program's own.
        self.path.extend(utf8_percent_encode(literal, CONTROLS));
        self
    }

    /// A capture. A slash in it is encoded.
    pub fn segment<T>(mut self, value: impl ToSegment<T>) -> Self {
        self.path
            .extend(utf8_percent_encode(&value.to_segment(), RESERVED));
        self
    }

    /// All the rest, slashes and all.
    pub fn rest<T>(mut self, value: impl ToSegment<T>) -> Self {
        self.path
            .extend(utf8_percent_encode(&value.to_segment(), RESERVED_BUT_SLASH));
        self
    }

    /// The path.
    pub fn finish(self) -> String {
        self.path
    }
}

/// All but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const RESERVED_BUT_SLASH: &AsciiSet = &RESERVED.remove(b'/');

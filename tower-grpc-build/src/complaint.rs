//! What is wrong with a file, where.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The files can't be compiled.
///
/// It prints as compilers do: the file, line and column, and the line itself. A build script whose `main` returns it
/// shows just that.
pub struct Error {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn in_proto(error: protox::Error, includes: &[&Path]) -> Self {
        // What is printed for debugging has the place, what is displayed hasn't.
        let text = locate(&format!("{error:?}"), includes);
        Self {
            text,
            source: Some(error.into()),
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self {
            text: format!("{}: {error}", path.display()),
            source: Some(error.into()),
        }
    }

    pub(crate) fn other(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            source: None,
        }
    }
}

/// Names the file by its path, and shows the line that is meant.
fn locate(complaint: &str, includes: &[&Path]) -> String {
    let Some(place) = Place::read(complaint) else {
        return complaint.to_owned();
    };
    let mut paths = includes.iter().map(|include| include.join(place.file));
    let Some(path) = paths.find(|path| path.is_file()) else {
        return complaint.to_owned();
    };
    let (line, column) = (place.line, place.column);
    let head = format!("{}:{line}:{column}: {}", path.display(), place.message);
    let source = fs::read_to_string(&path).unwrap_or_default();
    let Some(shown) = source.lines().nth(line.saturating_sub(1)) else {
        return head;
    };
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    // Tabs stay tabs, so that the mark stands below what it marks.
    let indent: String = shown
        .chars()
        .take(column.saturating_sub(1))
        .map(|char| if char == '\t' { '\t' } else { ' ' })
        .collect();
    format!("{head}\n{margin} |\n{number} | {shown}\n{margin} | {indent}^")
}

struct Place<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
}

impl<'a> Place<'a> {
    /// Reads `file:line:column: message`, in which a file may have colons, too.
    fn read(complaint: &'a str) -> Option<Self> {
        let (place, message) = complaint.split_once(": ")?;
        let mut parts = place.rsplitn(3, ':');
        let column = parts.next()?.parse().ok()?;
        let line = parts.next()?.parse().ok()?;
        let file = parts.next()?.trim_end_matches(':');
        Some(Self {
            file,
            line,
            column,
            message,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

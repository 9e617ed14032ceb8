//! The paths of routes, as far as the macros must know them: their captures.
//!
//! `tower-web` parses them again, as it also meets paths that no macro has seen.

/// A path taken apart.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// What stands between the captures: one more than there are captures.
    pub(crate) literals: Vec<String>,
    pub(crate) captures: Vec<Capture>,
}

#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) name: String,
    /// Whether it takes all the rest of the path.
    pub(crate) rest: bool,
}

impl Pattern {
    pub(crate) fn parse(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err("a path begins with `/`".to_owned());
        }
        check_habits(path)?;
        let mut pattern = Self {
            literals: Vec::new(),
            captures: Vec::new(),
        };
        let mut literal = String::new();
        let mut chars = path.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '{' | '}' if chars.peek() == Some(&char) => {
                    chars.next();
                    literal.push(char);
                }
                '{' => {
                    let mut inside = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(char) => inside.push(char),
                            None => {
                                return Err(
                                    "`{` is never closed; write `{{` for a brace itself".to_owned()
                                );
                            }
                        }
                    }
                    pattern.literals.push(std::mem::take(&mut literal));
                    pattern.push(&inside)?;
                }
                '}' => return Err("`}` was never opened; write `}}` for a brace itself".to_owned()),
                char => literal.push(char),
            }
        }
        pattern.literals.push(literal);
        pattern.check_segments()?;
        Ok(pattern)
    }

    fn push(&mut self, inside: &str) -> Result<(), String> {
        let (name, rest) = match inside.strip_prefix('*') {
            Some(name) => (name, true),
            None => (inside, false),
        };
        if syn::parse_str::<syn::Ident>(name).is_err() {
            return Err(format!(
                "`{{{inside}}}` isn't a capture: write `{{name}}`, or `{{*name}}` for all the rest"
            ));
        }
        if self.captures.iter().any(|own| own.name == name) {
            return Err(format!("two captures are named `{name}`"));
        }
        self.captures.push(Capture {
            name: name.to_owned(),
            rest,
        });
        Ok(())
    }

    fn check_segments(&self) -> Result<(), String> {
        for (at, capture) in self.captures.iter().enumerate() {
            let (before, after) = (&self.literals[at], &self.literals[at + 1]);
            if at > 0 && !before.contains('/') {
                return Err("there is one capture at most between two slashes".to_owned());
            }
            if capture.rest
                && !(before.ends_with('/') && after.is_empty() && at + 1 == self.captures.len())
            {
                return Err(format!(
                    "`{{*{}}}` takes all the rest: it stands behind a slash, and last",
                    capture.name
                ));
            }
        }
        Ok(())
    }

    /// What two paths have in common that match the same requests.
    pub(crate) fn key(&self) -> String {
        let mut key = self.literals[0].clone();
        for (capture, literal) in self.captures.iter().zip(&self.literals[1..]) {
            key.push_str(if capture.rest { "{*}" } else { "{}" });
            key.push_str(literal);
        }
        key
    }
}

/// Refuses what means a capture elsewhere: it would be a literal here that no request has.
fn check_habits(path: &str) -> Result<(), String> {
    for segment in path.split('/') {
        let name = segment.trim_matches([':', '*', '<', '>']);
        if segment.starts_with([':', '<']) {
            return Err(format!(
                "`{segment}` isn't a capture here: write `{{{name}}}`"
            ));
        }
        if segment.starts_with('*') {
            let name = if name.is_empty() { "rest" } else { name };
            return Err(format!(
                "`{segment}` isn't a capture here: write `{{*{name}}}` for all the rest"
            ));
        }
        if segment.contains(['?', '#']) {
            return Err(
                "a path ends where the query begins: take that as an argument, `Query<…>`"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// A path below a prefix. `/` is the prefix itself.
pub(crate) fn join(prefix: &str, path: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    match path {
        "/" if !prefix.is_empty() => prefix.to_owned(),
        path => format!("{prefix}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_as_they_are_written_elsewhere_are_told_how_they_are_here() {
        for (path, told) in [
            ("/users/:id", "write `{id}`"),
            ("/users/<id>/posts", "write `{id}`"),
            ("/files/*path", "write `{*path}`"),
            ("/files/*", "write `{*rest}`"),
            ("/search?q={q}", "`Query<…>`"),
        ] {
            let message = Pattern::parse(path).unwrap_err();
            assert!(message.contains(told), "{path}: {message}");
        }
        assert!(Pattern::parse("/users:batch/a*b/{id}").is_ok());
    }
}

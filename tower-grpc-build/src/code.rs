//! Code in the comments of a file. Rustdoc takes it for Rust, and runs it as tests, unless it says what else it is.

use prost_types::FileDescriptorSet;

/// Has code in comments say that it is text, unless it says what it is.
pub(crate) fn mark(files: &mut FileDescriptorSet) {
    let infos = files
        .file
        .iter_mut()
        .flat_map(|file| &mut file.source_code_info);
    for location in infos.flat_map(|info| &mut info.location) {
        let attached = [
            &mut location.leading_comments,
            &mut location.trailing_comments,
        ];
        let attached = attached.into_iter().flatten();
        for comment in attached.chain(&mut location.leading_detached_comments) {
            *comment = marked(comment);
        }
    }
}

/// The same Markdown, but for code that doesn't say what it is: that becomes a fenced block of text.
///
/// Code is fenced (CommonMark 0.31, section 4.5), or indented by four columns or more after a blank line (section 4.4),
/// counted from where the text begins, or that of the list's item that it is in (section 5.2).
fn marked(comment: &str) -> String {
    let begin = comment.lines().filter_map(indentation).min().unwrap_or(0);
    let mut marked = Marked {
        begin,
        text_begin: begin,
        ..Marked::default()
    };
    comment.lines().for_each(|line| marked.take(line));
    marked.end_block();
    marked.write_blanks();
    marked.text
}

#[derive(Default)]
struct Marked<'a> {
    text: String,
    /// The column of all of it.
    begin: usize,
    /// The column of the text that we are in, which in a list is further in.
    text_begin: usize,
    /// What has opened the fenced block that we are in.
    fence: Option<&'a str>,
    /// Whether we are in an indented block.
    is_block: bool,
    /// How many blank lines have come that aren't written yet.
    blanks: usize,
}

/// What is around a block that was indented. Nobody writes it in code.
const FENCE: &str = "~~~";

impl<'a> Marked<'a> {
    fn take(&mut self, line: &'a str) {
        let Some(column) = indentation(line) else {
            self.blanks += 1;
            return;
        };
        let content = line.trim();
        if let Some(open) = self.fence {
            if content.starts_with(open) && fence(content) == content {
                self.fence = None;
            }
            self.write(line);
            return;
        }
        // It can't interrupt a paragraph.
        let is_apart = self.is_block || self.blanks > 0 || self.text.is_empty();
        if is_apart && column >= self.text_begin + 4 {
            self.take_code(&content_from(line, column - self.text_begin - 4));
            return;
        }
        self.end_block();
        self.text_begin = match item(content) {
            Some(marker) => column + marker,
            None if column == self.begin => column,
            None => column.min(self.text_begin),
        };
        let open = fence(content);
        self.fence = Some(open).filter(|open| !open.is_empty());
        self.write(line.trim_end());
        if self.fence.is_some() && open == content {
            self.text.pop();
            self.text.push_str("text\n");
        }
    }

    fn take_code(&mut self, code: &str) {
        let indent = " ".repeat(self.text_begin);
        if !std::mem::replace(&mut self.is_block, true) {
            self.write(&format!("{indent}{FENCE}text"));
        }
        self.write(&format!("{indent}{code}"));
    }

    fn end_block(&mut self) {
        if std::mem::take(&mut self.is_block) {
            // Before the blank lines, which aren't of the block.
            let indent = " ".repeat(self.text_begin);
            self.text.push_str(&format!("{indent}{FENCE}\n"));
        }
    }

    fn write(&mut self, line: &str) {
        self.write_blanks();
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn write_blanks(&mut self) {
        let blanks = std::mem::take(&mut self.blanks);
        self.text.extend(std::iter::repeat_n('\n', blanks));
    }
}

/// The column in which the line begins, of tabs to every fourth. Blank ones don't.
fn indentation(line: &str) -> Option<usize> {
    let mut column = 0;
    for character in line.chars() {
        match character {
            '\t' => column += 4 - column % 4,
            ' ' => column += 1,
            _ => return Some(column),
        }
    }
    None
}

/// What is in the line, after so many columns.
fn content_from(line: &str, columns: usize) -> String {
    format!("{}{}", " ".repeat(columns), line.trim_start())
}

/// The three or more characters that begin or end a fenced block; none if it does neither.
fn fence(content: &str) -> &str {
    for mark in ['`', '~'] {
        let rest = content.trim_start_matches(mark);
        let fence = &content[..content.len() - rest.len()];
        if fence.len() >= 3 && !(mark == '`' && rest.contains('`')) {
            return fence;
        }
    }
    ""
}

/// How wide a list's marker is, with the space after it, where an item begins.
fn item(content: &str) -> Option<usize> {
    let digits = content.bytes().take_while(u8::is_ascii_digit).count();
    let marks: &[char] = if digits > 0 {
        &['.', ')']
    } else {
        &['-', '*', '+']
    };
    content[digits..].strip_prefix(marks)?.strip_prefix(' ')?;
    Some(digits + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_marked(comment: &str, expected: &str) {
        assert_eq!(marked(comment), expected, "{comment}");
    }

    #[test]
    fn prose_stays_as_it_is() {
        for prose in [
            "",
            " One line.\n",
            " Two\n lines.\n\n And a paragraph.\n",
            " - an item\n\n   and more of it\n   - one in it\n\n     and more of that\n 12. another\n\n     with more\n",
            " A paragraph\n         that goes on far to the right\n",
            " Code in a ```line```.\n ```so``` too\n",
        ] {
            assert_marked(prose, prose);
        }
    }

    #[test]
    fn fenced_code_that_says_nothing_is_text() {
        assert_marked(
            " So:\n ```\n a\n\n    b\n ```\n\n Or so:\n ~~~~\n ~~~\n ```\n ~~~~\n",
            " So:\n ```text\n a\n\n    b\n ```\n\n Or so:\n ~~~~text\n ~~~\n ```\n ~~~~\n",
        );
    }

    #[test]
    fn fenced_code_that_says_what_it_is_stays() {
        for code in [" ```json\n {}\n ```\n", " ```rust\n let x = 1;\n ```\n"] {
            assert_marked(code, code);
        }
    }

    #[test]
    fn indented_code_is_fenced() {
        assert_marked(
            " So:\n\n     let x = ;\n       more\n\n     let y\n\n Prose.\n",
            " So:\n\n ~~~text\n let x = ;\n   more\n\n let y\n ~~~\n\n Prose.\n",
        );
        assert_marked("Tab:\n\n\tcode\n", "Tab:\n\n~~~text\ncode\n~~~\n");
    }

    #[test]
    fn code_in_a_list_is_further_in() {
        assert_marked(
            " - an item\n\n       code\n\n   more\n\n Prose.\n\n     code\n",
            " - an item\n\n   ~~~text\n   code\n   ~~~\n\n   more\n\n Prose.\n\n ~~~text\n code\n ~~~\n",
        );
    }

    #[test]
    fn a_fence_that_nothing_ends_hides_the_rest() {
        assert_marked(" ```\n a\n\n     b\n", " ```text\n a\n\n     b\n");
    }
}

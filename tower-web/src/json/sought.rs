//! Where a value is that was refused without its place.
//!
//! What is in a field with `#[serde(flatten)]`, or in an enum with `#[serde(tag = …)]` or `#[serde(untagged)]`, serde reads before it knows what
//! it is wanted for. When it is refused, the way to it is forgotten, and the message has nothing but the value.

use serde_json::Value;

/// How long a document may be that is sought through: one that is refused shall cost little more than one that isn't.
const MOST_BYTES: usize = 64 * 1024;

/// The pointer to the value that this message is about, if there is just one such.
pub(super) fn pointer(document: &[u8], message: &str) -> Option<String> {
    if document.len() > MOST_BYTES {
        return None;
    }
    let told = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    let document: Value = serde_json::from_slice(document).ok()?;
    let mut found = Vec::new();
    seek(&document, &mut String::new(), told, &mut found);
    match &mut found[..] {
        [only] => Some(std::mem::take(only)),
        _ => None,
    }
}

fn seek(value: &Value, way: &mut String, told: &str, found: &mut Vec<String>) {
    let length = way.len();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                way.push('/');
                way.push_str(&name.replace('~', "~0").replace('/', "~1"));
                seek(member, way, told, found);
                way.truncate(length);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                way.push('/');
                way.push_str(&index.to_string());
                seek(value, way, told, found);
                way.truncate(length);
            }
        }
        value => {
            // As serde tells what was unexpected.
            let name = match value {
                Value::String(text) => format!("string {text:?}"),
                Value::Number(number) if number.is_f64() => format!("floating point `{number}`"),
                Value::Number(number) => format!("integer `{number}`"),
                Value::Bool(truth) => format!("boolean `{truth}`"),
                _ => "null".to_owned(),
            };
            if told
                .strip_prefix(&*name)
                .is_some_and(|rest| rest.starts_with(", expected"))
            {
                found.push(way.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_where_there_is_one_such() {
        let document = br#"{"a": [1, {"b/c": "x"}], "d": 1.5, "e": true, "f": "y", "g": "y"}"#;
        for (message, wanted) in [
            (
                r#"invalid type: string "x", expected u32"#,
                Some("/a/1/b~1c"),
            ),
            ("invalid type: integer `1`, expected a string", Some("/a/0")),
            (
                "invalid type: floating point `1.5`, expected u8",
                Some("/d"),
            ),
            ("invalid value: boolean `true`, expected that", Some("/e")),
            (r#"invalid type: string "y", expected u32"#, None),
            (r#"invalid type: string "z", expected u32"#, None),
            ("missing field `x`", None),
        ] {
            assert_eq!(pointer(document, message).as_deref(), wanted, "{message}");
        }
        let long = format!(r#"["x", "{}"]"#, "y".repeat(MOST_BYTES));
        assert_eq!(
            pointer(long.as_bytes(), r#"invalid type: string "x", expected u32"#),
            None
        );
        assert_eq!(pointer(b"{", "invalid type: null, expected x"), None);
    }
}

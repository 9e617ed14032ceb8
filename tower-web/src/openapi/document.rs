//! The document: all operations together.

use std::collections::BTreeSet;

use http::StatusCode;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Description, Docs, Operation, Shared, fragment};
use crate::handler::Answers;
use crate::problem::MEDIA_TYPE;

/// The methods that a route for any is described with.
const ANY: [&str; 5] = ["delete", "get", "patch", "post", "put"];

/// Describes these routes. What fits badly together is a fault, and left out.
pub(crate) fn document<'a>(
    docs: &Docs,
    routes: impl Iterator<Item = (&'a Answers, &'a str, Description)>,
    faults: &mut Vec<String>,
) -> Value {
    let mut shared = shared();
    let mut any = Vec::new();
    let mut paths = Map::new();
    let mut first = None;
    let mut ids = BTreeSet::new();
    let mut tags = BTreeSet::new();
    for (answers, path, description) in routes {
        first.get_or_insert(description.about);
        let path = documented_path(path);
        let mut operation = operation(&mut shared, description);
        name(&mut operation, description, &mut ids, &mut tags);
        match answers {
            Answers::One(method) => {
                let item = paths.entry(path).or_insert_with(|| json!({}));
                item[method.as_str().to_ascii_lowercase()] = operation;
            }
            Answers::Any => any.push((path, operation)),
            Answers::Fallback => {}
        }
    }
    for (path, operation) in any {
        let item = paths.entry(path).or_insert_with(|| json!({}));
        for method in ANY {
            if item.get(method).is_none() {
                let mut operation = operation.clone();
                let id = operation["operationId"].as_str().unwrap_or_default();
                operation["operationId"] = json!(format!("{id}_{method}"));
                item[method] = operation;
            }
        }
    }
    let title = docs.title.as_deref();
    let version = docs.version.as_deref();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": title.or(first.and_then(|about| about.package)).unwrap_or("API"),
            "version": version.or(first.and_then(|about| about.version)).unwrap_or("0.0.0"),
        },
        "paths": paths,
    });
    if !tags.is_empty() {
        document["tags"] = tags.iter().map(|tag| json!({"name": tag})).collect();
    }
    let schemas = schemas(&mut shared, &mut document);
    document["components"] = json!({"schemas": schemas});
    if !shared.security.is_empty() {
        document["components"]["securitySchemes"] = Value::Object(shared.security);
    }
    bound(&mut document);
    for fragment in &docs.fragments {
        fragment::merge(&mut document, fragment, &mut ids, faults);
    }
    document
}

pub(super) fn shared() -> Shared {
    Shared {
        incoming: settings().into_generator(),
        outgoing: settings().for_serialize().into_generator(),
        security: Map::new(),
    }
}

/// Says how large a number may be, of those of which only the format is told: a format need not be understood.
fn bound(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let limits = match object.get("format").and_then(Value::as_str) {
                Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                _ => None,
            };
            if let (Some((least, most)), true) = (limits, object.contains_key("type")) {
                object.entry("minimum").or_insert(least);
                object.entry("maximum").or_insert(most);
            }
            object.values_mut().for_each(bound);
        }
        Value::Array(values) => values.iter_mut().for_each(bound),
        _ => {}
    }
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    })
}

/// `{*path}` is a parameter as any other there, and a brace of the path itself can't stand in it.
fn documented_path(path: &str) -> String {
    path.replace("{*", "{")
        .replace("{{", "%7B")
        .replace("}}", "%7D")
}

fn operation(shared: &mut Shared, description: Description) -> Value {
    let mut operation = Operation::new(shared);
    (description.describe)(&mut operation);
    // Limits, timeouts, whatever fails: each is told in the same way.
    let other = operation.response("default", None);
    other["content"][MEDIA_TYPE] = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
    let Operation {
        parameters,
        body,
        responses,
        security,
        is_security_optional,
        ..
    } = operation;
    let mut own = json!({"responses": responses});
    if !parameters.is_empty() {
        own["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = body {
        own["requestBody"] = body;
    }
    if !security.is_empty() {
        let mut choices = vec![Value::Object(security)];
        if is_security_optional {
            choices.push(json!({}));
        }
        own["security"] = Value::Array(choices);
    }
    own
}

fn name(
    operation: &mut Value,
    description: Description,
    ids: &mut BTreeSet<String>,
    tags: &mut BTreeSet<String>,
) {
    let about = description.about;
    let mut id = about.function.trim_start_matches("r#").to_owned();
    if let Some(resource) = about.resource {
        let resource = resource.split('<').next().unwrap_or_default();
        let resource = resource.rsplit("::").next().unwrap_or_default();
        id = format!("{}_{id}", in_snakes(resource));
        operation["tags"] = json!([resource]);
        tags.insert(resource.to_owned());
    }
    operation["operationId"] = json!(unique(id, ids));
    let (summary, rest) = sentences(about.docs);
    if !summary.is_empty() {
        operation["summary"] = json!(summary);
    }
    if !rest.is_empty() {
        operation["description"] = json!(rest);
    }
    if about.is_deprecated {
        operation["deprecated"] = json!(true);
    }
}

/// The name of an operation, with a number where it is taken.
pub(super) fn unique(id: String, ids: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{id}_{number}"));
    let mut names = std::iter::once(id.clone()).chain(numbered);
    let id = names.find(|id| !ids.contains(id)).unwrap_or(id);
    ids.insert(id.clone());
    id
}

/// `BlogPosts` as `blog_posts`.
fn in_snakes(name: &str) -> String {
    let mut snakes = String::new();
    for char in name.chars() {
        if char.is_uppercase() && !snakes.is_empty() {
            snakes.push('_');
        }
        snakes.extend(char.to_lowercase());
    }
    snakes
}

/// The first sentence, and the rest: it ends with its full stop, or with its paragraph.
fn sentences(docs: &str) -> (String, &str) {
    let docs = docs.trim();
    let paragraph = docs.find("\n\n").unwrap_or(docs.len());
    let stop = docs[..paragraph]
        .match_indices(['.', '!', '?'])
        .map(|(at, _)| at + 1)
        .find(|&end| {
            docs[end..].starts_with(char::is_whitespace) && !docs[..end].ends_with("e.g.")
        });
    let end = stop.unwrap_or(paragraph);
    (docs[..end].replace('\n', " "), docs[end..].trim())
}

/// What a status means.
pub(super) fn reason(status: &str) -> &'static str {
    match status {
        "default" => "a problem",
        "3XX" => "elsewhere",
        status => status
            .parse::<u16>()
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .and_then(|status| status.canonical_reason())
            .unwrap_or("a response"),
    }
}

const PREFIX: &str = "#/components/schemas/";

/// The schemas of what comes in and of what goes out, together. Where a type has two, that of what goes out is called
/// `…Output`.
fn schemas(shared: &mut Shared, document: &mut Value) -> Map<String, Value> {
    let mut schemas = shared.incoming.take_definitions(true);
    let outgoing = shared.outgoing.take_definitions(true);
    let mut differ: BTreeSet<String> = BTreeSet::new();
    // A type that refers to one of two kinds has two kinds itself.
    loop {
        let more: Vec<String> = outgoing
            .iter()
            .filter(|(name, schema)| {
                let is_other = schemas.get(*name).is_some_and(|own| own != *schema);
                let refers = refers_to(schema, &differ) && schemas.contains_key(*name);
                !differ.contains(*name) && (is_other || refers)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        differ.extend(more);
    }
    for (name, mut schema) in outgoing {
        rename(&mut schema, &differ);
        match differ.contains(&name) {
            true => schemas.insert(format!("{name}Output"), schema),
            false => schemas.insert(name, schema),
        };
    }
    if let Some(paths) = document["paths"].as_object_mut() {
        let items = paths.values_mut().filter_map(Value::as_object_mut);
        for operation in items.flat_map(|item| item.values_mut()) {
            rename(&mut operation["responses"], &differ);
        }
    }
    schemas.insert("Problem".to_owned(), problem());
    schemas
}

fn refers_to(schema: &Value, names: &BTreeSet<String>) -> bool {
    match schema {
        Value::Object(object) => object.iter().any(|(key, value)| match value.as_str() {
            Some(target) if key == "$ref" => target
                .strip_prefix(PREFIX)
                .is_some_and(|name| names.contains(name)),
            _ => refers_to(value, names),
        }),
        Value::Array(values) => values.iter().any(|value| refers_to(value, names)),
        _ => false,
    }
}

fn rename(schema: &mut Value, names: &BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        let name = target.strip_prefix(PREFIX);
                        if name.is_some_and(|name| names.contains(name)) {
                            target.push_str("Output");
                        }
                    }
                    value => rename(value, names),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

/// RFC 9457, section 3.1, and what is ours.
fn problem() -> Value {
    json!({
        "title": "Problem",
        "description": "What went wrong with a request (RFC 9457).",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "description": "Names this kind of problem."},
            "status": {"type": "integer", "minimum": 100, "maximum": 599},
            "title": {"type": "string", "description": "The kind of problem, in words."},
            "detail": {"type": "string", "description": "What went wrong this time."},
            "instance": {"type": "string", "format": "uri-reference"},
            "request_id": {"type": "string", "description": "What the request is called in logs."},
            "errors": {
                "type": "array",
                "description": "The fields that were refused.",
                "items": {
                    "type": "object",
                    "properties": {
                        "detail": {"type": "string"},
                        "pointer": {"type": "string", "description": "A JSON pointer into the body (RFC 6901)."},
                        "in": {"enum": ["path", "query", "header", "cookie", "body"]},
                        "name": {"type": "string"},
                    },
                    "required": ["detail"],
                },
            },
        },
        "required": ["status", "title"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_the_summary() {
        assert_eq!(sentences("Fetch. More."), ("Fetch.".into(), "More."));
        assert_eq!(sentences("Fetch\none"), ("Fetch one".into(), ""));
        assert_eq!(
            sentences("Of 1.5 things\n\nMore."),
            ("Of 1.5 things".into(), "More.")
        );
        assert_eq!(sentences(""), (String::new(), ""));
    }

    #[test]
    fn a_rest_is_a_parameter_as_any_other() {
        assert_eq!(documented_path("/a/{*rest}/{{x}}"), "/a/{rest}/%7Bx%7D");
    }
}

//! The document of what has no signature: of a mounted service.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::document::unique;
use crate::routing::Where;

/// A document, the prefix below which its paths are, and who says so.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) place: Where,
    pub(crate) prefix: String,
    pub(crate) document: Value,
}

/// Puts a fragment into the document. What is there stays.
pub(super) fn merge(
    document: &mut Value,
    fragment: &Fragment,
    ids: &mut BTreeSet<String>,
    faults: &mut Vec<String>,
) {
    let mut fault = |what: String| faults.push(format!("{}: {what}", fragment.place));
    let Some(own) = fragment.document.as_object() else {
        return fault("a document of OpenAPI is an object".to_owned());
    };
    let version = own
        .get("openapi")
        .map_or("3.1", |version| version.as_str().unwrap_or_default());
    if !version.starts_with("3.1") {
        return fault(format!(
            "its document is of OpenAPI `{version}`, and this is one of 3.1: its schemas are written otherwise"
        ));
    }
    if let Some(paths) = own.get("paths") {
        let Some(paths) = paths.as_object() else {
            return fault("the `paths` of its document are no object".to_owned());
        };
        for (path, item) in paths {
            merge_path(document, fragment, path, item, ids, &mut fault);
        }
    }
    if let Some(components) = own.get("components").and_then(Value::as_object) {
        for (section, named) in components {
            let named = named.as_object().into_iter().flatten();
            for (name, component) in named {
                let there = &mut document["components"][section][name];
                if there.is_null() {
                    *there = component.clone();
                } else if there != component {
                    fault(format!(
                        "`#/components/{section}/{name}` of its document isn't what is called so here: rename one of them"
                    ));
                }
            }
        }
    }
    if let Some(tags) = own.get("tags").and_then(Value::as_array) {
        let mut all = document["tags"].as_array().cloned().unwrap_or_default();
        let is_new = |tag: &&Value| all.iter().all(|other| other["name"] != tag["name"]);
        let new: Vec<_> = tags.iter().filter(is_new).cloned().collect();
        all.extend(new);
        document["tags"] = Value::Array(all);
    }
}

fn merge_path(
    document: &mut Value,
    fragment: &Fragment,
    path: &str,
    item: &Value,
    ids: &mut BTreeSet<String>,
    fault: &mut impl FnMut(String),
) {
    let (Some(item), true) = (item.as_object(), path.starts_with('/')) else {
        return fault(format!(
            "`{path}` in its document is no path with an object"
        ));
    };
    let path = match path {
        "/" if !fragment.prefix.is_empty() => fragment.prefix.clone(),
        path => format!("{}{path}", fragment.prefix),
    };
    // What holds for the whole other document holds for each of its operations.
    let security = fragment.document.get("security");
    let mut added = Map::new();
    for (key, value) in item {
        let mut value = value.clone();
        if let Some(operation) = value.as_object_mut().filter(|_| is_method(key)) {
            if let Some(Value::String(id)) = operation.get_mut("operationId") {
                *id = unique(std::mem::take(id), ids);
            }
            if let (Some(security), false) = (security, operation.contains_key("security")) {
                operation.insert("security".to_owned(), security.clone());
            }
        }
        match document["paths"][&path].get(key) {
            Some(_) => fault(format!("`{key}` of `{path}` is described twice")),
            None => {
                added.insert(key.clone(), value);
            }
        }
    }
    let there = &mut document["paths"][&path];
    match there.as_object_mut() {
        Some(there) => there.extend(added),
        None => *there = json!(added),
    }
}

fn is_method(key: &str) -> bool {
    matches!(
        key,
        "get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace"
    )
}

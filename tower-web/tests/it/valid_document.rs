//! Documents are what OpenAPI 3.1 says that they are, and change only where it is seen.

use std::path::Path;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};
use tower_web::App;

use crate::document;

#[path = "../../../examples/hello-web/main.rs"]
mod hello_web;

#[path = "../../examples/described.rs"]
mod described;

const OPENAPI: &str = "https://spec.openapis.org/oas/3.1/schema/2022-10-07";

/// What is wrong with a document, a line each, by the published schema.
fn faults(document: &Value) -> Vec<String> {
    let published: Value =
        serde_json::from_str(include_str!("../openapi-3.1/schema.json")).unwrap();
    assert_eq!(published["$id"], OPENAPI);
    let registry = Registry::new()
        .add(OPENAPI, &published)
        .unwrap()
        .prepare()
        .unwrap();
    // It leaves open what a schema is, for this.
    let dialect = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://tower.example/openapi",
        "$ref": OPENAPI,
        "$defs": {"schema": {"$dynamicAnchor": "meta", "$ref": "https://json-schema.org/draft/2020-12/schema"}},
    });
    let options = jsonschema::options().with_registry(&registry);
    let validator: Validator = options
        .should_validate_formats(true)
        .build(&dialect)
        .unwrap();
    let errors = validator.iter_errors(document);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[track_caller]
pub(crate) fn assert_valid(document: &Value) {
    let faults = faults(document);
    assert!(faults.is_empty(), "{document:#}\n{faults:#?}");
}

/// Compares with what is committed, or writes it where `WRITE_SNAPSHOTS` asks for that.
#[track_caller]
fn assert_snapshot(file: &str, document: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&file, format!("{document:#}\n")).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    // As documents, and not as texts: which features of `serde_json` are on decides the order of members.
    let is_same = serde_json::from_str::<Value>(&committed).unwrap() == *document;
    let hint = "run it with WRITE_SNAPSHOTS=1, and look at the difference";
    assert!(
        is_same,
        "{} isn't the document any more: {hint}",
        file.display()
    );
}

#[test]
fn the_document_of_a_rich_application_is_valid() {
    assert_valid(&document::app().openapi());
}

#[test]
fn the_documents_of_the_examples_are_valid() {
    assert_valid(&described::app().openapi());
    assert_valid(&hello_web::app().openapi());
    // Its own test keeps this file as it is.
    let todo = include_str!("../../../examples/todo/openapi.json");
    assert_valid(&serde_json::from_str(todo).unwrap());
}

#[test]
fn the_document_of_an_application_without_routes_is_valid() {
    assert_valid(&App::new().openapi());
}

#[test]
fn what_is_invalid_is_found() {
    let valid = document::app().openapi();
    let spoilt = |pointer: &str, value: Value| {
        let mut document = valid.clone();
        *document.pointer_mut(pointer).unwrap() = value;
        faults(&document)
    };
    assert!(!spoilt("/paths/~1users/get/responses", json!({"two hundred": {}})).is_empty());
    assert!(
        !spoilt(
            "/paths/~1users~1{id}/get/parameters/0/required",
            json!(false)
        )
        .is_empty()
    );
    // Schemas are looked at as well, however deep.
    let age = "/components/schemas/User/properties/friends/items";
    assert!(!spoilt(age, json!({"type": "nothing"})).is_empty());
    assert!(spoilt(age, json!({"type": "string"})).is_empty());
}

#[test]
fn the_document_of_a_rich_application_changes_only_on_purpose() {
    assert_snapshot(
        "tests/openapi-3.1/document.json",
        &document::app().openapi(),
    );
}

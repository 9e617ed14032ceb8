//! The document of an application's API.

use serde_json::Value;

use super::App;
use crate::openapi::{Docs, Fragment, document, unknown};
use crate::routing::{Draft, Where};

impl App {
    /// The document of this application's API: see [`openapi`](crate::openapi).
    pub fn openapi(&self) -> Value {
        // What is wrong with it, `build` tells.
        document_of(&self.drafts, &self.docs, &mut Vec::new())
    }

    /// Calls the API something else than the package, and gives it another version.
    pub fn openapi_info(mut self, title: impl Into<String>, version: impl Into<String>) -> Self {
        self.docs.title = Some(title.into());
        self.docs.version = Some(version.into());
        self
    }

    /// Leaves out `/openapi.json` and `/docs`, which the feature `openapi` adds.
    pub fn without_docs(mut self) -> Self {
        self.docs.is_hidden = true;
        self
    }

    /// Refuses to be [built](Self::build) where a type in a route's signature is one of which the document can't tell anything: one without
    /// a schema, an argument or a response that doesn't [describe](crate::openapi::Describe) itself. All of them are told at once, with
    /// their places. Off by default.
    ///
    /// What has no signature isn't asked: mounted services, fallbacks.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tower_web::prelude::*;
    ///
    /// #[derive(Deserialize)]
    /// struct NewUser {
    ///     name: String,
    /// }
    ///
    /// #[post("/users")]
    /// async fn create(new: Json<NewUser>) -> String {
    ///     new.0.name
    /// }
    ///
    /// assert!(App::new().route(create).build().is_ok());
    /// let error = App::new().route(create).require_schemas().build().unwrap_err();
    /// assert!(error.to_string().contains("NewUser` has no schema"));
    /// ```
    pub fn require_schemas(mut self) -> Self {
        self.docs.requires_schemas = true;
        self
    }

    /// Puts what a [mounted](Self::mount) service says of itself into the document: its own document of OpenAPI 3.1, or a part of one, whose
    /// paths are below `prefix`. Its `paths`, `components` and `tags` are taken, and its `security` for its operations.
    ///
    /// What contradicts the rest (an operation that is there, another schema of the same name) keeps the application from being
    /// [built](Self::build).
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_web::prelude::*;
    ///
    /// let app = App::new().describe_mount("/legacy", json!({
    ///     "paths": {"/users": {"get": {"responses": {"200": {"description": "all users"}}}}},
    /// }));
    /// assert!(app.openapi()["paths"]["/legacy/users"]["get"].is_object());
    /// ```
    #[track_caller]
    pub fn describe_mount(mut self, prefix: &str, document: Value) -> Self {
        self.docs.fragments.push(Fragment {
            place: Where::Call(
                "the description of a mounted service",
                std::panic::Location::caller(),
            ),
            prefix: prefix.trim_end_matches('/').to_owned(),
            document,
        });
        self
    }

    /// What a nested application has described comes along, and what it requires of its own routes is asked now.
    pub(super) fn take_docs(&mut self, prefix: &str, drafts: &[Draft], docs: Docs) {
        if docs.requires_schemas {
            self.faults.extend(unknown(drafts));
        }
        let fragments = docs.fragments.into_iter();
        self.docs
            .fragments
            .extend(fragments.map(|fragment| Fragment {
                prefix: format!("{prefix}{}", fragment.prefix),
                ..fragment
            }));
    }
}

fn document_of(drafts: &[Draft], docs: &Docs, faults: &mut Vec<String>) -> Value {
    let routes = drafts
        .iter()
        .filter_map(|draft| Some((&draft.answers, &*draft.path, draft.description?)));
    document(docs, routes, faults)
}

/// What is wrong with the document, or with what it is made of.
pub(super) fn check(drafts: &[Draft], docs: &Docs, faults: &mut Vec<String>) {
    if docs.requires_schemas {
        faults.extend(unknown(drafts));
    }
    // Else nothing can be, and it is made when it is asked for.
    if !docs.fragments.is_empty() {
        document_of(drafts, docs, faults);
    }
}

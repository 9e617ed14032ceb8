#![deny(warnings)]
#![allow(dead_code)]

use std::collections::BTreeMap;

use garde::Validate;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tower_web::extract::{Extract, RequestHead, WholeBody};
use tower_web::prelude::*;
use tower_web::validate::Unchecked;
use tower_web::{Body, Rejection};

#[derive(Deserialize, Validate)]
struct NewUser {
    #[garde(length(min = 1))]
    name: String,
}

/// Has no rules, and so doesn't know of those within.
#[derive(Deserialize)]
struct Bag<T>(BTreeMap<String, T>);

struct Signed<T>(T);

impl<T: DeserializeOwned + Send> Extract for Signed<T> {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let Json(value) = Json::<T>::extract(head, body).await?;
        Ok(Self(value))
    }
}

#[post("/signed")]
async fn signed(new: Signed<NewUser>) -> String {
    new.0.name
}

#[post("/many")]
async fn many(new: Json<Bag<NewUser>>) -> String {
    new.0.0.into_values().map(|user| user.name).collect()
}

#[post("/known")]
async fn known(new: Unchecked<Json<Bag<NewUser>>>) -> String {
    new.0.0.0.into_values().map(|user| user.name).collect()
}

fn main() {}

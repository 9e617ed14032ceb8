use serde::Deserialize;
use tower_web::extract::{Extract, RequestHead, WholeBody};
use tower_web::prelude::*;
use tower_web::{Body, Rejection};

#[derive(Deserialize)]
struct Plain {
    name: String,
}

struct Signed(Plain);

impl Extract for Signed {
    type Body = WholeBody;
    type Rejection = Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Rejection> {
        let plain: Json<Plain> = Json::extract(head, body).await?;
        Ok(Self(plain.0))
    }
}

#[post("/signed")]
async fn signed(new: Signed) -> String {
    new.0.name
}

fn main() {}

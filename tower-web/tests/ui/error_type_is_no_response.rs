use tower_web::prelude::*;

#[get("/")]
async fn index() -> Result<String, std::num::ParseIntError> {
    let number: u8 = "7".parse()?;
    Ok(number.to_string())
}

fn main() {}

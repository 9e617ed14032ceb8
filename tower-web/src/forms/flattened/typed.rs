//! The number, the truth or the nothing that a text may be.

/// What a text is, if it isn't only text.
pub(super) enum Typed {
    Nothing,
    Truth(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

pub(super) fn typed(text: &str) -> Option<Typed> {
    match text {
        "" => return Some(Typed::Nothing),
        // As a box is sent that was ticked.
        "true" | "on" => return Some(Typed::Truth(true)),
        "false" => return Some(Typed::Truth(false)),
        _ => {}
    }
    if let Ok(number) = text.parse() {
        return Some(Typed::Unsigned(number));
    }
    if let Ok(number) = text.parse() {
        return Some(Typed::Signed(number));
    }
    let number: f64 = text.parse().ok()?;
    // `nan` and `inf` are words.
    number.is_finite().then_some(Typed::Float(number))
}

pub(super) fn is_typed(text: &str) -> bool {
    typed(text).is_some()
}

/// Whether a text was told as this.
pub(super) fn is_same(text: &str, told: &str) -> bool {
    match typed(text) {
        Some(Typed::Truth(truth)) => truth.to_string() == told,
        Some(Typed::Unsigned(number)) => number.to_string() == told,
        Some(Typed::Signed(number)) => number.to_string() == told,
        Some(Typed::Float(number)) => number.to_string() == told,
        Some(Typed::Nothing) | None => false,
    }
}

//! What the compiler says to plausible mistakes: the message stands at the user's token and says what to do.

#[test]
fn mistakes_are_told_at_the_token_with_what_to_do() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[cfg(feature = "validate")]
#[test]
fn rules_that_might_be_skipped_are_told() {
    trybuild::TestCases::new().compile_fail("tests/ui-validate/*.rs");
}

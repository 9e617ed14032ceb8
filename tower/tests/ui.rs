//! What the compiler says after plausible mistakes. The messages are part of the interface.

/// The compiler that the snapshots were made with. Others word their messages differently.
const SNAPSHOTS_OF: &str = "rustc 1.95.0";

#[test]
fn plausible_mistakes_give_the_messages_in_the_snapshots() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc)
        .arg("--version")
        .output()
        .expect("the compiler that cargo runs with");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.starts_with(SNAPSHOTS_OF) {
        println!("not compared: the snapshots are of {SNAPSHOTS_OF}, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

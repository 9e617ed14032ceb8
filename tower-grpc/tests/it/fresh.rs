//! The code in the repository that is generated.

use std::fs;
use std::path::Path;

/// Generates into a directory, and compares with another; with `UPDATE` set it is written there.
fn assert_fresh(proto: &str, include: &str, generated: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let name = Path::new(proto).file_stem().unwrap().to_str().unwrap();
    tower_grpc_build::configure()
        .emit_rerun_if_changed(false)
        .file_descriptor_set(match proto.contains("v1alpha") {
            true => format!("{name}-v1alpha"),
            false => name.to_owned(),
        })
        .out_dir(out.path())
        .compile(&[root.join(include).join(proto)], &[root.join(include)])
        .unwrap();
    for file in fs::read_dir(out.path()).unwrap() {
        let file = file.unwrap();
        let kept = root.join(generated).join(file.file_name());
        let now = fs::read(file.path()).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&kept, now).unwrap();
        } else {
            assert!(
                fs::read(&kept).is_ok_and(|before| before == now),
                "{} isn't fresh: run the test with UPDATE=1",
                kept.display()
            );
        }
    }
}

#[test]
fn generated_code_is_fresh() {
    assert_fresh("grpc/health/v1/health.proto", "proto", "src/pb");
    assert_fresh("grpc/reflection/v1/reflection.proto", "proto", "src/pb");
    assert_fresh(
        "grpc/reflection/v1alpha/reflection.proto",
        "proto",
        "src/pb",
    );
    assert_fresh("echo.proto", "tests/it/proto", "tests/it/proto");
}

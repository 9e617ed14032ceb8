//! The code in the repository that is generated.

use std::fs;
use std::path::Path;

/// Generates into a directory, and compares with another; with `UPDATE` set it is written there.
fn assert_fresh(proto: &str, include: &str, generated: &str, descriptor: Option<&str>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let mut builder = tower_grpc_build::configure().emit_rerun_if_changed(false);
    if let Some(descriptor) = descriptor {
        builder = builder.file_descriptor_set(descriptor);
    }
    builder
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
    let v1 = "grpc/reflection/v1/reflection.proto";
    let v1alpha = "grpc/reflection/v1alpha/reflection.proto";
    assert_fresh(
        "grpc/health/v1/health.proto",
        "proto",
        "src/pb",
        Some("health"),
    );
    assert_fresh(v1, "proto", "src/pb", Some("reflection"));
    assert_fresh(v1alpha, "proto", "src/pb", Some("reflection-v1alpha"));
    assert_fresh(
        "echo.proto",
        "tests/it/proto",
        "tests/it/proto",
        Some("echo"),
    );
    let guide = "src/guide/helloworld";
    assert_fresh("helloworld.proto", guide, guide, None);
}

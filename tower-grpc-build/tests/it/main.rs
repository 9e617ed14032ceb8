//! What is generated, and what is said of files that are wrong.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tower_grpc_build::{Builder, Error, configure};

/// A directory with files in it.
fn with_files(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

/// Compiles `a.proto`, and gives the code of the package `a`.
fn compiled(
    files: &[(&str, &str)],
    with: impl FnOnce(Builder) -> Builder,
) -> Result<String, Error> {
    let directory = with_files(files);
    let root = directory.path();
    with(configure().emit_rerun_if_changed(false))
        .out_dir(root)
        .compile(&[root.join("a.proto")], &[root])?;
    Ok(fs::read_to_string(root.join("a.rs")).unwrap())
}

fn code(proto: &str, with: impl FnOnce(Builder) -> Builder) -> String {
    compiled(&[("a.proto", proto)], with).unwrap()
}

const SHOP: &str = r#"syntax = "proto3";
package a;

// Sells things.
service Shop {
  // Sells one thing.
  rpc Sell(Thing) returns (Thing);
  rpc Old(Thing) returns (Thing) { option deprecated = true; }
  rpc Watch(Thing) returns (stream Thing);
  rpc New(stream Thing) returns (Thing);
}

service Bank {
  rpc Pay(Thing) returns (Thing);
}

message Thing {
  bytes data = 1;
}
"#;

#[test]
fn all_services_of_a_package_share_its_modules() {
    let code = code(SHOP, |builder| builder);
    assert_eq!(code.matches("pub mod client {").count(), 1);
    assert_eq!(code.matches("pub mod server {").count(), 1);
    for name in [
        "pub struct ShopClient<S>",
        "pub struct BankClient<S>",
        "pub trait Shop:",
        "pub trait Bank:",
        "pub struct ShopServer<T>",
    ] {
        assert!(code.contains(name), "{name} is missing");
    }
}

#[test]
fn comments_and_deprecations_carry_over() {
    let code = code(SHOP, |builder| builder);
    assert_eq!(
        code.matches("/// Sells one thing.").count(),
        2,
        "client and server"
    );
    assert_eq!(code.matches("/// Sells things.").count(), 2);
    assert_eq!(code.matches("#[deprecated]").count(), 2);
    let silent = self::code(SHOP, |builder| builder.disable_comments("."));
    assert!(!silent.contains("Sells one thing"));
}

#[test]
fn code_in_comments_is_no_test() {
    let proto = r#"syntax = "proto3";
package a;
// Like so:
//
//     {"id": 1}
message Thing {}
// ```
// grpcurl a.Shop/Sell
// ```
service Shop { rpc Sell(Thing) returns (Thing); }
"#;
    let code = code(proto, |builder| builder);
    assert_eq!(code.matches("/// ~~~text\n").count(), 1);
    assert_eq!(
        code.matches("/// ```text\n").count(),
        2,
        "client and server"
    );
}

#[test]
fn a_method_whose_name_is_taken_gets_another() {
    let code = code(SHOP, |builder| builder);
    assert!(
        code.contains("pub async fn new_("),
        "the client has a `new` of its own"
    );
    assert!(code.contains("fn new("), "the server hasn't");
    assert!(code.contains("\"/a.Shop/New\""));
}

#[test]
fn only_what_is_wanted_is_generated() {
    let client = code(SHOP, |builder| builder.server(false));
    assert!(client.contains("pub mod client") && !client.contains("pub mod server"));
    let server = code(SHOP, |builder| builder.client(false));
    assert!(!server.contains("pub mod client") && server.contains("pub mod server"));
}

#[test]
fn a_codec_of_ones_own_is_used() {
    let code = code(SHOP, |builder| builder.codec_path("crate::Json"));
    assert!(code.contains("<crate::Json as ::std::default::Default>::default()"));
    assert!(!code.contains("codec::Prost"));
}

#[test]
fn attributes_go_where_they_are_meant() {
    let code = code(SHOP, |builder| {
        builder
            .type_attribute("a.Thing", "#[derive(Marked)]")
            .field_attribute("a.Thing.data", "#[field]")
            .server_attribute("a.Shop", "#[server]")
            .client_attribute("Bank", "#[client]")
    });
    for attribute in ["#[derive(Marked)]", "#[field]", "#[server]", "#[client]"] {
        assert_eq!(code.matches(attribute).count(), 1, "{attribute}");
    }
}

#[test]
fn bytes_may_share_memory() {
    let plain = code(SHOP, |builder| builder);
    assert!(plain.contains("pub data: ::prost::alloc::vec::Vec<u8>"));
    let shared = code(SHOP, |builder| builder.bytes("."));
    assert!(shared.contains("pub data: ::prost::bytes::Bytes"));
}

#[test]
fn types_that_there_are_already_are_used() {
    let code = code(SHOP, |builder| {
        builder.extern_path(".a.Thing", "crate::Thing")
    });
    assert!(!code.contains("pub struct Thing"));
    assert!(code.contains("crate::Thing") && !code.contains("super::crate"));
}

#[test]
fn well_known_types_are_there() {
    let proto = r#"syntax = "proto3";
package a;
import "google/protobuf/empty.proto";
import "google/protobuf/timestamp.proto";
service Clock { rpc Now(google.protobuf.Empty) returns (google.protobuf.Timestamp); }
"#;
    let code = code(proto, |builder| builder);
    assert!(
        code.contains("IntoRequest<()>"),
        "an empty message is nothing"
    );
    assert!(code.contains("::prost_types::Timestamp"));
}

#[test]
fn files_import_each_other() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package a; import \"sub/b.proto\"; service S { rpc M(b.T) returns (b.T); }",
        ),
        (
            "sub/b.proto",
            "syntax = \"proto3\"; package b; message T {}",
        ),
    ];
    let code = compiled(&files, |builder| builder).unwrap();
    assert!(code.contains("super::super::b::T"));
}

#[test]
fn services_of_two_packages_stay_apart() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package a; import \"b.proto\"; service Mine { rpc M(b.T) returns (b.T); }",
        ),
        (
            "b.proto",
            "syntax = \"proto3\"; package b; message T {} service Theirs { rpc M(T) returns (T); }",
        ),
    ];
    let code = compiled(&files, |builder| builder).unwrap();
    assert!(code.contains("MineClient") && !code.contains("TheirsClient"));
}

#[test]
fn older_syntax_is_read() {
    let proto = "syntax = \"proto2\"; package a; message T { required int32 n = 1; optional string s = 2 [default = \"x\"]; }";
    assert!(code(proto, |builder| builder).contains("pub struct T"));
}

#[test]
fn the_descriptor_set_has_the_files_and_their_imports() {
    let directory = with_files(&[("a.proto", SHOP)]);
    let root = directory.path();
    configure()
        .emit_rerun_if_changed(false)
        .file_descriptor_set("shop")
        .out_dir(root)
        .compile(&[root.join("a.proto")], &[root])
        .unwrap();
    let set = fs::read(root.join("shop.bin")).unwrap();
    let set = <prost_types::FileDescriptorSet as prost::Message>::decode(&*set).unwrap();
    assert_eq!(set.file[0].name(), "a.proto");
    assert_eq!(set.file[0].service.len(), 2);
}

fn complaint(files: &[(&str, &str)]) -> String {
    let error = compiled(files, |builder| builder).unwrap_err();
    assert_eq!(
        format!("{error:?}"),
        error.to_string(),
        "a build script prints it so"
    );
    error.to_string()
}

#[test]
fn a_broken_file_is_named_with_line_and_column() {
    for (proto, place, shown) in [
        (
            "syntax = \"proto3\";\nmessage {\n}\n",
            "a.proto:2:9:",
            "2 | message {\n  |         ^",
        ),
        (
            "syntax = \"proto3\";\nmessage M {\n\tNothing n = 1;\n}\n",
            "a.proto:3:2:",
            "3 | \tNothing n = 1;\n  | \t^",
        ),
        (
            "syntax = \"proto3\";\nmessage M {\n  int32 a = 1;\n  int32 b = 1;\n}\n",
            "a.proto:4:13:",
            "4 |   int32 b = 1;",
        ),
    ] {
        let said = complaint(&[("a.proto", proto)]);
        assert!(said.contains(place), "{said}");
        assert!(said.contains(shown), "{said}");
    }
}

#[test]
fn an_import_that_is_missing_is_shown() {
    let said = complaint(&[("a.proto", "syntax = \"proto3\";\nimport \"no.proto\";\n")]);
    assert!(
        said.contains("no.proto") && said.contains("a.proto:2:"),
        "{said}"
    );
}

#[test]
fn a_file_in_an_import_is_named_itself() {
    let said = complaint(&[
        ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
        ("b.proto", "syntax = \"proto3\";\n\noops\n"),
    ]);
    assert!(said.contains("b.proto:3:1:"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let missing = PathBuf::from("no/such/file.proto");
    let error = configure()
        .emit_rerun_if_changed(false)
        .out_dir(".")
        .compile(&[missing], &["no/such"])
        .unwrap_err();
    assert!(error.to_string().contains("file.proto"), "{error}");
}

//! Whatever a client sends: every extractor takes it or refuses it, with a problem, and none panics or hangs.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_web::Method;

use crate::targets;

/// Sends a request, and judges the answer.
fn answered(
    method: Method,
    path: &str,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
) -> Result<(), TestCaseError> {
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    targets::judge(method, path, headers.collect(), body).map_err(TestCaseError::fail)
}

/// What stands in headers, by chance or by malice.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        "(Bearer|basic|Basic|BEARER) ?[ -~]{0,20}".prop_map(String::into_bytes),
        "bytes=[0-9,\\- ]{0,20}".prop_map(String::into_bytes),
        "(W/)?\"[a-z\",*]{0,10}".prop_map(String::into_bytes),
        "[a-z%0-9=; ,]{0,30}".prop_map(String::into_bytes),
        "(Mon|Sun), [0-9]{2} (Nov|Feb) [0-9]{1,5} [0-9:]{5,8} GMT".prop_map(String::into_bytes),
        "(keep-alive, )?(Upgrade|websocket|13|close)".prop_map(String::into_bytes),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = proptest::sample::select(vec![
        "authorization",
        "x-api-key",
        "cookie",
        "user-agent",
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "accept-encoding",
        "content-type",
        "last-event-id",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "origin",
    ]);
    proptest::collection::vec((name, value()), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_head(id in "[0-9%a-f]{1,5}", name in "[a-z%0-9]{1,8}", query in "[a-z%0-9=&+]{0,20}", headers in headers()) {
        answered(Method::GET, &format!("/head/{id}/{name}?{query}"), headers, Vec::new())?;
    }

    #[test]
    fn credentials_of_all_kinds(headers in headers()) {
        answered(Method::GET, "/credentials", headers, Vec::new())?;
    }

    #[test]
    fn a_websocket_s_handshake(headers in headers()) {
        answered(Method::GET, "/websocket", headers, Vec::new())?;
    }

    #[test]
    fn a_file_s_conditions(headers in headers()) {
        answered(Method::GET, "/file", headers, Vec::new())?;
    }

    #[test]
    fn a_form(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "(many|one)=[0-9a-z%&=]{0,20}".prop_map(String::into_bytes),
    ]) {
        let urlencoded = || vec![("content-type", b"application/x-www-form-urlencoded".to_vec())];
        answered(Method::POST, "/form", urlencoded(), body)?;
    }

    #[test]
    fn a_document(body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "[\\[\\]{}\":,a-z0-9 ]{0,40}".prop_map(String::into_bytes),
        "\\{\"(many|one)\": ?[\\[\\]0-9a-z,\"]{0,10}\\}".prop_map(String::into_bytes),
    ]) {
        answered(Method::POST, "/json", vec![("content-type", b"application/json".to_vec())], body)?;
    }

    #[test]
    fn a_form_with_files(boundary in "[x\"; =]{0,4}", body in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        "(--x\r\n|--x--|\r\n|content-disposition: form-data; |name=|filename=|\"|a|content-type: text/plain){0,20}".prop_map(String::into_bytes),
    ]) {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        answered(Method::POST, "/multipart", vec![("content-type", content_type.into_bytes())], body)?;
    }
}

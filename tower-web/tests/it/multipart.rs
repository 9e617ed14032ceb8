//! Forms with files, as a client sends them.

use tower_web::multipart::Multipart;
use tower_web::prelude::*;
use tower_web::testing::TestResponse;

/// Says what is in the form.
#[post("/")]
async fn tell(mut form: Multipart) -> Result<String, Problem> {
    let mut told = String::new();
    while let Some(field) = form.next_field().await? {
        let (name, file) = (
            field.name().to_owned(),
            field.file_name().map(str::to_owned),
        );
        let text = field.text().await?;
        told.push_str(&format!("{name} {file:?} {text}\n"));
    }
    Ok(told)
}

/// Reads nothing of the fields but their names.
#[post("/names")]
async fn names(mut form: Multipart) -> Result<String, Problem> {
    let mut names = Vec::new();
    while let Some(field) = form.next_field().await? {
        names.push(field.name().to_owned());
    }
    Ok(names.join(","))
}

#[post("/small")]
async fn small(form: Multipart) -> Result<String, Problem> {
    let mut form = form.with_max_field(4).with_max_fields(2);
    let mut size = 0;
    while let Some(mut field) = form.next_field().await? {
        while let Some(chunk) = field.chunk().await? {
            size += chunk.len();
        }
    }
    Ok(size.to_string())
}

#[post("/optional")]
async fn optional(form: Option<Multipart>) -> &'static str {
    if form.is_some() { "some" } else { "none" }
}

fn app() -> App {
    App::new()
        .route(tell)
        .route(names)
        .route(small)
        .route(optional)
}

fn part(head: &str, text: &str) -> String {
    format!("--x\r\ncontent-disposition: form-data; {head}\r\n\r\n{text}\r\n")
}

async fn send(path: &str, body: impl Into<Body>) -> TestResponse {
    let request = app()
        .test()
        .post(path)
        .header("content-type", "multipart/form-data; boundary=x");
    request.body(body).await
}

#[tokio::test]
async fn fields_and_files_are_read_in_their_order() {
    let body = format!(
        "{}{}{}--x--\r\n",
        part("name=\"b\"", "2\r\n3"),
        part("name=\"a\"; filename=\"photo.jpg\"", "data"),
        part("name=\"b\"", ""),
    );
    let expected = "b None 2\r\n3\na Some(\"photo.jpg\") data\nb None \n";
    send("/", body.clone()).await.assert_text(expected);
    send("/names", body).await.assert_text("b,a,b");
}

#[tokio::test]
async fn a_file_s_name_leads_nowhere() {
    for (sent, told) in [
        ("../../etc/passwd", "Some(\"passwd\")"),
        ("C:\\\\dir\\\\a.txt", "Some(\"a.txt\")"),
        ("..", "None"),
        ("dir/", "None"),
    ] {
        let body = format!(
            "{}--x--\r\n",
            part(&format!("name=f; filename=\"{sent}\""), "")
        );
        send("/", body).await.assert_text(format!("f {told} \n"));
    }
}

#[tokio::test]
async fn what_is_too_large_is_a_413_that_names_the_field() {
    let ok = format!("{}{}--x--\r\n", part("name=a", "1234"), part("name=b", "1"));
    send("/small", ok).await.assert_text("5");

    let large = format!("{}--x--\r\n", part("name=a", "12345"));
    let problem = send("/small", large).await.assert_problem(413);
    assert_eq!(problem["errors"][0]["name"], "a");
    assert_eq!(problem["errors"][0]["detail"], "is larger than 4 bytes");

    let many = format!("{0}{0}{0}--x--\r\n", part("name=a", "1"));
    let problem = send("/small", many).await.assert_problem(413);
    assert_eq!(problem["detail"], "the form has more than 2 fields");
}

#[tokio::test]
async fn text_in_memory_is_bounded_by_itself() {
    let body = format!("{}--x--\r\n", part("name=a", &"x".repeat((1 << 20) + 1)));
    let problem = send("/", body).await.assert_problem(413);
    assert_eq!(
        problem["errors"][0]["detail"],
        "is larger than 1048576 bytes"
    );
}

#[tokio::test]
async fn the_limit_of_bodies_bounds_the_whole() {
    let body = format!("{}--x--\r\n", part("name=a", &"x".repeat(3_000_000)));
    send("/names", body.clone()).await.assert_problem(413);
    // The same where its length isn't known beforehand.
    let chunks = body
        .into_bytes()
        .chunks(10_000)
        .map(|chunk| Ok::<_, tower_web::BoxError>(chunk.to_vec()))
        .collect::<Vec<_>>();
    let streamed = Body::from_stream(tokio_stream::iter(chunks));
    send("/names", streamed).await.assert_problem(413);
}

#[tokio::test]
async fn what_is_malformed_is_a_400() {
    for body in [
        String::new(),
        "no form at all".to_owned(),
        "--x\r\n".to_owned(),
        "--x\r\ncontent-disposition: form-data; name=a\r\n".to_owned(),
        part("name=a", "no end"),
        format!("{}--x--\r\n", part("", "no name")),
        "--x\r\nbroken header\r\n\r\n--x--\r\n".to_owned(),
    ] {
        let response = send("/", body.clone()).await;
        assert_eq!(response.status(), 400, "{body:?}: {response:?}");
        response.assert_problem(400);
    }
    let body = b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n\xff\r\n--x--\r\n".to_vec();
    let problem = send("/", body).await.assert_problem(400);
    assert_eq!(problem["errors"][0]["name"], "a");
}

#[tokio::test]
async fn another_type_is_a_415_and_a_missing_boundary_is_told() {
    let client = app().test();
    let typed = |value: &str| client.post("/").header("content-type", value);
    typed("application/json").await.assert_problem(415);
    client.post("/").await.assert_problem(415);
    let problem = typed("multipart/form-data").await.assert_problem(400);
    assert_eq!(problem["errors"][0]["name"], "content-type");
}

#[tokio::test]
async fn an_optional_form_is_none_only_without_a_body() {
    let client = app().test();
    client.post("/optional").await.assert_text("none");
    client
        .post("/optional")
        .body("text")
        .await
        .assert_problem(415);
}

/// Over every cut of a form: each is told, and none is taken for a whole one.
#[tokio::test]
async fn a_form_that_breaks_off_anywhere_is_refused() {
    let body = format!(
        "{}{}--x--",
        part("name=a", "1"),
        part("name=b; filename=c", "2")
    );
    let client = app().test();
    for end in 0..body.len() {
        let request = client
            .post("/")
            .header("content-type", "multipart/form-data; boundary=x");
        let response = request.body(body[..end].to_owned()).await;
        assert_eq!(response.status(), 400, "{:?}", &body[..end]);
    }
}

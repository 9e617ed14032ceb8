//! Rules of values, which no argument breaks.

use std::collections::BTreeMap;

use garde::Validate;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_web::extract::{Extract, NoBody, RequestHead, WholeBody};
use tower_web::prelude::*;
use tower_web::validate::{Checked, HasRules, Unchecked};

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
struct NewUser {
    #[garde(length(min = 1))]
    first_name: String,
    #[garde(range(max = 150))]
    age_in_years: u8,
    #[garde(inner(length(min = 3)))]
    #[serde(default)]
    nick_names: Vec<String>,
    #[garde(dive)]
    #[serde(default)]
    home_addresses: Vec<Address>,
    #[garde(dive)]
    #[serde(default)]
    pets_by_name: BTreeMap<String, Pet>,
    #[garde(required, inner(length(min = 2)))]
    #[serde(default)]
    last_name: Option<String>,
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "kebab-case")]
struct Address {
    #[garde(length(min = 5))]
    zip_code: String,
    #[garde(dive)]
    lines: Vec<Line>,
}

#[derive(Deserialize, Validate)]
struct Line {
    #[garde(length(min = 1))]
    #[serde(rename = "txt")]
    content: String,
}

#[derive(Deserialize, Validate)]
struct Pet {
    #[garde(range(min = 1))]
    #[serde(rename = "legCount")]
    legs: u8,
}

fn valid() -> Value {
    json!({"firstName": "Ann", "ageInYears": 36, "lastName": "Lee"})
}

#[post("/users")]
async fn create(new: Json<NewUser>) -> String {
    new.0.first_name
}

fn pointers(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap();
    let named = |error: &Value| {
        let name = error.get("pointer").or_else(|| error.get("name")).unwrap();
        name.as_str().unwrap().to_owned()
    };
    errors.iter().map(named).collect()
}

async fn refused(app: App, path: &str, body: &Value) -> Vec<String> {
    let response = app.test().post(path).json(body).await;
    pointers(&response.assert_problem(422))
}

#[tokio::test]
async fn what_keeps_the_rules_comes_through() {
    let client = App::new().route(create).test();
    let response = client.post("/users").json(&valid()).await;
    response.assert_text("Ann");
}

#[tokio::test]
async fn all_fields_that_break_rules_are_told_in_wire_names() {
    let body = json!({
        "firstName": "",
        "ageInYears": 200,
        "nickNames": ["anna", "a"],
        "homeAddresses": [
            {"zip-code": "12345", "lines": []},
            {"zip-code": "1", "lines": [{"txt": "a"}, {"txt": ""}]},
        ],
        "petsByName": {"a/b": {"legCount": 0}},
    });
    let told = refused(App::new().route(create), "/users", &body).await;
    let mut wanted = [
        "#/firstName",
        "#/ageInYears",
        "#/nickNames/1",
        "#/homeAddresses/1/zip-code",
        "#/homeAddresses/1/lines/1/txt",
        "#/petsByName/a~1b/legCount",
        "#/lastName",
    ];
    let mut told: Vec<_> = told.iter().map(String::as_str).collect();
    told.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(told, wanted);
}

#[derive(Deserialize, Validate)]
struct Order {
    #[garde(range(min = 1))]
    #[serde(rename = "qty")]
    amount: u32,
    #[garde(length(min = 1))]
    #[serde(rename = "sku")]
    article: String,
    #[garde(dive)]
    #[serde(flatten)]
    place: Place,
    #[garde(dive)]
    payment: Payment,
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
struct Place {
    #[garde(length(min = 2))]
    country_code: String,
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Payment {
    CreditCard {
        #[garde(length(min = 4))]
        card_number: String,
    },
    Cash,
}

#[post("/orders")]
async fn order(_: Json<Order>) {}

#[tokio::test]
async fn renamed_and_flattened_fields_are_told_as_they_came() {
    let body = json!({"qty": 0, "sku": "", "countryCode": "x", "payment": {"creditCard": {"cardNumber": "1"}}});
    let told = refused(App::new().route(order), "/orders", &body).await;
    // A flattened struct is validated after the fields around it.
    assert_eq!(
        told,
        [
            "#/qty",
            "#/sku",
            "#/payment/creditCard/cardNumber",
            "#/countryCode"
        ]
    );
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
struct Search {
    #[garde(range(max = 100))]
    page_size: u32,
    #[garde(length(max = 2))]
    #[serde(default)]
    tag: Vec<String>,
}

#[get("/search")]
async fn search(search: Query<Search>) -> String {
    search.page_size.to_string()
}

#[get("/maybe")]
async fn maybe(search: Option<Query<Search>>) -> String {
    search.map_or(0, |search| search.page_size).to_string()
}

#[post("/form")]
async fn form(form: Form<Search>, _method: tower_web::Method) -> String {
    form.page_size.to_string()
}

#[derive(Deserialize, Validate)]
struct Flattened {
    #[garde(length(min = 1))]
    q: String,
    #[garde(dive)]
    #[serde(flatten)]
    search: Search,
}

#[get("/flattened")]
async fn flattened(query: Query<Flattened>) -> String {
    format!("{} {:?}", query.search.page_size, query.search.tag)
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Happening {
    Created { id: u32 },
}

#[post("/happenings")]
async fn happened(happening: Json<Happening>) -> String {
    let Happening::Created { id } = happening.0;
    id.to_string()
}

#[tokio::test]
async fn a_member_of_a_tagged_enum_that_doesnt_fit_is_pointed_to() {
    let body = json!({"type": "created", "id": "seven"});
    let told = refused(App::new().route(happened), "/happenings", &body).await;
    assert_eq!(told, ["#/id"]);
}

#[tokio::test]
async fn parameters_of_a_flattened_struct_are_read_and_told_by_their_names() {
    let client = App::new().route(flattened).test();
    let response = client.get("/flattened?q=a&pageSize=7&tag=b").await;
    response.assert_text("7 [\"b\"]");
    let problem = client.get("/flattened?q=&pageSize=700").await;
    let problem = problem.assert_problem(422);
    assert_eq!(pointers(&problem), ["q", "pageSize"]);
    let problem = client.get("/flattened?q=a&pageSize=many").await;
    assert_eq!(pointers(&problem.assert_problem(400)), ["pageSize"]);
}

#[tokio::test]
async fn parameters_are_told_by_their_names() {
    let client = App::new().route(search).route(maybe).route(form).test();
    client.get("/search?pageSize=7").await.assert_text("7");
    let response = client.get("/search?pageSize=700&tag=a&tag=b&tag=c").await;
    let problem = response.assert_problem(422);
    assert_eq!(pointers(&problem), ["pageSize", "tag"]);
    assert_eq!(problem["errors"][0]["in"], "query");

    client.get("/maybe").await.assert_text("0");
    client.get("/maybe?pageSize=700").await.assert_problem(422);

    let type_ = "application/x-www-form-urlencoded";
    let send = |body: &'static str| {
        client
            .post("/form")
            .header("content-type", type_)
            .body(body)
    };
    send("pageSize=7").await.assert_text("7");
    let problem = send("pageSize=700").await.assert_problem(422);
    assert_eq!(pointers(&problem), ["pageSize"]);
    assert_eq!(problem["errors"][0]["in"], "body");
}

#[post("/many")]
async fn many(_: Json<Vec<NewUser>>, _also: Option<Query<Vec<(String, String)>>>) {}

#[tokio::test]
async fn a_list_of_what_has_rules_has_them_too() {
    let body = json!([valid(), {"firstName": "", "ageInYears": 1, "lastName": "Lee"}]);
    let told = refused(App::new().route(many), "/many", &body).await;
    assert_eq!(told, ["#/1/firstName"]);
}

#[derive(Deserialize)]
struct Free {
    name: String,
}

#[post("/free")]
async fn free(free: Json<Free>) -> String {
    free.0.name
}

struct Credentials;

impl Extract for Credentials {
    type Body = NoBody;
    type Rejection = tower_web::Rejection;

    async fn extract(_: &mut RequestHead, (): ()) -> Result<Self, Self::Rejection> {
        Ok(Self)
    }
}

#[post("/several")]
async fn several(_first: Credentials, new: Json<NewUser>, free: Option<Bearer>) -> String {
    format!("{} {}", new.0.first_name, free.is_some())
}

#[tokio::test]
async fn types_without_rules_stay_as_they_are() {
    let client = App::new().route(free).route(several).test();
    let response = client.post("/free").json(&json!({"name": ""})).await;
    response.assert_text("");
    let response = client.post("/several").json(&valid()).await;
    response.assert_text("Ann false");
    let response = client
        .post("/several")
        .json(&json!({"firstName": "", "ageInYears": 1}));
    response.await.assert_problem(422);
}

#[post("/handled")]
async fn handled(new: Result<Json<NewUser>, tower_web::Rejection>) -> String {
    match new {
        Ok(new) => new.0.first_name,
        Err(rejection) => format!("refused: {}", rejection.field().unwrap().1),
    }
}

#[tokio::test]
async fn a_handler_may_answer_itself_and_gets_no_value_that_breaks_rules() {
    let client = App::new().route(handled).test();
    let response = client
        .post("/handled")
        .json(&json!({"firstName": "", "ageInYears": 1, "lastName": "Lee"}))
        .await;
    response.assert_text("refused: /firstName");
}

struct Store<T>(std::marker::PhantomData<fn() -> T>);

#[resource("/store")]
impl<T> Store<T>
where
    T: serde::de::DeserializeOwned + Send + Validate<Context = ()> + 'static,
{
    #[post("/")]
    async fn add(&self, _new: Json<T>) -> &'static str {
        "added"
    }

    #[post("/unchecked")]
    async fn add_unchecked(&self, _new: Unchecked<Json<T>>) -> &'static str {
        "added"
    }
}

#[tokio::test]
async fn a_generic_resource_checks_rules_where_its_bounds_tell_of_them() {
    let store = || Store::<NewUser>(std::marker::PhantomData);
    let client = App::new().resource(store()).test();
    client
        .post("/store")
        .json(&valid())
        .await
        .assert_text("added");
    let broken = json!({"firstName": "", "ageInYears": 1});
    client
        .post("/store")
        .json(&broken)
        .await
        .assert_problem(422);
    let unchecked = client.post("/store/unchecked").json(&broken).await;
    unchecked.assert_text("added");
}

/// Extractors of one's own, made of those that there are.
struct Signed(String);

impl Extract for Signed {
    type Body = WholeBody;
    type Rejection = tower_web::Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Self::Rejection> {
        let Query(page) = Query::<Search>::extract(head, ()).await?;
        let new = Json::<NewUser>::extract_optional(head, body).await?;
        Ok(Self(format!("{} {}", page.page_size, new.is_some())))
    }
}

struct Enveloped<T>(T);

impl<T: HasRules> Extract for Enveloped<T> {
    type Body = WholeBody;
    type Rejection = tower_web::Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Self::Rejection> {
        let Json(new) = Json::extract(head, body).await?;
        Ok(Self(new))
    }
}

impl<T: HasRules> Checked for Enveloped<T> {}

struct WithoutRules(String);

impl Extract for WithoutRules {
    type Body = WholeBody;
    type Rejection = tower_web::Rejection;

    async fn extract(head: &mut RequestHead, body: Body) -> Result<Self, Self::Rejection> {
        let Json(free) = Json::<Free>::extract(head, body).await?;
        Ok(Self(free.name))
    }
}

#[post("/signed")]
async fn signed(signed: Signed) -> String {
    signed.0
}

#[post("/enveloped")]
async fn enveloped(new: Enveloped<NewUser>) -> String {
    new.0.first_name
}

#[post("/without")]
async fn without_rules(free: WithoutRules) -> String {
    free.0
}

#[tokio::test]
async fn an_extractor_made_of_others_skips_no_rules() {
    let client = App::new()
        .route(signed)
        .route(enveloped)
        .route(without_rules)
        .test();
    let broken = json!({"firstName": "", "ageInYears": 1, "lastName": "Lee"});
    let post = |path: &str, body: &Value| client.post(path).json(body);

    post("/signed?pageSize=7", &valid())
        .await
        .assert_text("7 true");
    client
        .post("/signed?pageSize=7")
        .await
        .assert_text("7 false");
    let problem = post("/signed?pageSize=700", &valid())
        .await
        .assert_problem(422);
    assert_eq!(pointers(&problem), ["pageSize"]);
    let problem = post("/signed?pageSize=7", &broken)
        .await
        .assert_problem(422);
    assert_eq!(pointers(&problem), ["#/firstName"]);

    post("/enveloped", &valid()).await.assert_text("Ann");
    post("/enveloped", &broken).await.assert_problem(422);
    post("/without", &json!({"name": "Bo"}))
        .await
        .assert_text("Bo");
}

#[tokio::test]
async fn what_is_no_document_is_refused_as_ever() {
    let client = App::new().route(create).test();
    client.post("/users").body("{}").await.assert_problem(415);
    let typed = || {
        client
            .post("/users")
            .header("content-type", "application/json")
    };
    typed().body("{").await.assert_problem(400);
    typed().body("{}").await.assert_problem(422);
}

/// A name that nothing but trying can find, in a flattened struct among many members.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "its rules alone are of interest")]
struct Purchase {
    #[garde(dive)]
    line_items: Vec<Article>,
    #[garde(skip)]
    contact_mail: Option<String>,
    #[garde(skip)]
    notes: Vec<String>,
    #[garde(skip)]
    colours: Vec<String>,
    #[garde(skip)]
    express: Option<bool>,
    #[garde(skip)]
    weight: Option<f64>,
    #[serde(flatten)]
    #[garde(dive)]
    place: Destination,
}

#[derive(Deserialize, Validate)]
struct Article {
    #[serde(rename = "sku")]
    #[garde(length(min = 2))]
    number: String,
    #[serde(rename = "qty")]
    #[garde(range(min = 1))]
    amount: u32,
}

#[derive(Deserialize, Validate)]
struct Destination {
    #[serde(rename = "zip")]
    #[garde(length(min = 4))]
    postal_code: String,
}

#[post("/purchases")]
async fn purchase(_: Json<Purchase>) {}

#[tokio::test]
async fn a_renamed_field_is_found_among_many_members() {
    let body = json!({
        "colours": ["red", "blue"], "contactMail": "ann@example.org", "express": true, "lineItems": [{"sku": "a", "qty": 1}],
        "notes": [], "weight": 7.5, "zip": "1",
    });
    let told = refused(App::new().route(purchase), "/purchases", &body).await;
    assert_eq!(told, ["#/lineItems/0/sku", "#/zip"]);
}

#[tokio::test]
async fn a_long_list_that_breaks_rules_is_told_in_its_own_time() {
    // Looking for each name anew would take hours.
    let line = json!({"sku": "a", "qty": 0});
    let body = json!({"lineItems": vec![line; 20_000], "notes": [], "colours": [], "zip": "12345"});
    let told = refused(App::new().route(purchase), "/purchases", &body).await;
    assert_eq!(told.len(), 1000);
    assert_eq!(told[998..], ["#/lineItems/499/qty", "#/lineItems/499/sku"]);
}

//! The error codes that the gateway definition fixes, for all operations of the permission area; and how empty ids and
//! filters in a request are handled.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::site::Site;
use crate::permissions::{BAD_INPUT, FORBIDDEN};

const MEDIA_TYPE: u64 = 10_115_000;
const DONE: u64 = 102_000;

/// The failure codes of each operation, as the gateway definition lists them; every operation also has 31501000 and
/// 31201000.
const DEFINED: [(&str, &[u64]); 15] = [
    ("get_permission_catalog", &[31_601_000, 31_605_000]),
    ("get_my_permissions", &[31_601_000, 31_605_000]),
    ("list_roles", &[]),
    ("create_role", &[BAD_INPUT, 31_101_000, 31_303_000]),
    ("update_role", &[BAD_INPUT, 31_301_000, 31_309_000]),
    ("delete_role", &[31_301_000, 31_309_000, 31_312_000]),
    ("list_role_permissions", &[31_301_000]),
    ("replace_role_permissions", &[BAD_INPUT, 31_301_000, 31_601_000]),
    ("list_user_roles", &[]),
    ("assign_user_role", &[BAD_INPUT, 31_301_000, 31_303_000]),
    ("revoke_user_role", &[31_301_000]),
    ("list_role_mappings", &[]),
    ("upsert_role_mapping", &[BAD_INPUT, 31_301_000]),
    ("delete_role_mapping", &[BAD_INPUT, 31_301_000]),
    ("reload_policy", &[31_601_000, 31_605_000]),
];

/// The codes that the gateway definition lists for an operation, or `None` if it does not define the operation.
pub fn defined(id: &str) -> Option<&'static [u64]> {
    DEFINED.iter().find(|(operation, _)| *operation == id).map(|(_, codes)| *codes)
}

/// Whether an operation may answer with this code. Beside the defined codes: success, bad input, media type, a missing
/// permission, and load.
fn may_be(id: &str, code: u64) -> bool {
    const LOAD: [u64; 2] = [31_604_000, 31_606_000];
    let is_common = [DONE, BAD_INPUT, MEDIA_TYPE, FORBIDDEN, 31_501_000, 31_201_000].contains(&code);
    let is_common = is_common || LOAD.contains(&code);
    match defined(id) {
        Some(codes) => is_common || codes.contains(&code),
        None => is_common || code / 1_000_000 == 31,
    }
}

/// One operation of the document, with a valid body.
struct Operation {
    id: String,
    method: Method,
    path: String,
    body: Option<Value>,
    /// Fields of the body that must be ids.
    ids: Vec<String>,
    /// Names of the query parameters, all of them optional.
    filters: Vec<String>,
}

async fn operations(site: &Site) -> Vec<Operation> {
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
            let schema =
                reference.map(|path| &document["components"]["schemas"][path.rsplit('/').next().expect("name")]);
            let is_id = |name: &Value| {
                let name = name.as_str().expect("a name").to_owned();
                schema.is_some_and(|schema| schema["properties"][&name]["format"] == "uuid").then_some(name)
            };
            let required = schema.and_then(|schema| schema["required"].as_array().cloned()).unwrap_or_default();
            let of_document = roster::kernel::http::openapi::Operation { method, path, id: "", value: operation };
            let query: Vec<&Value> =
                of_document.parameters(&document).filter(|parameter| parameter["in"] == "query").collect();
            let is_free = query.iter().all(|parameter| parameter["required"] != true);
            all.push(Operation {
                id: operation["operationId"].as_str().expect("id").into(),
                method: method.to_uppercase().parse().expect("a method"),
                path: format!("/api/v1{path}"),
                body: schema.map(|schema| schema["example"].clone()),
                ids: required.iter().filter_map(is_id).collect(),
                filters: query
                    .iter()
                    .filter(|_| is_free)
                    .map(|parameter| parameter["name"].as_str().expect("a name").to_owned())
                    .collect(),
            });
        }
    }
    all
}

/// The path with its parameters replaced by these values.
fn expand(path: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value))
}

#[tokio::test]
async fn every_code_of_the_permission_area_is_in_the_gateway_definition() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, role) = (acme.member_with_role("viewer").await, acme.role("editor", &[]).await);
    let nil = uuid::Uuid::nil().to_string();
    let asserted = |uid: &str, tenant: &str| site.internal().with("x-uid", uid).with("x-tenant-id", tenant);
    let callers: [(&str, As<'_>, bool); 9] = [
        ("nobody", site.nobody(), false),
        ("a garbage token", site.bearer("garbage"), false),
        ("a foreign tenant", acme.owner().with("x-tenant-id", &bolt.id), true),
        ("no tenant of this name", acme.owner().with("x-tenant-id", "nowhere"), true),
        ("a gateway's foreign tenant", asserted(&member.uid, "bolt"), true),
        ("a gateway's unknown tenant", asserted(&member.uid, "nowhere"), true),
        ("a gateway's unknown member", asserted(&nil, "acme"), false),
        ("a member without rights", member.caller(), false),
        ("the owner", acme.owner(), false),
    ];
    let places: [&[(&str, &str)]; 3] = [
        &[("id", &role), ("uid", &member.uid), ("role_id", &role)],
        &[("id", &nil), ("uid", &nil), ("role_id", &nil)],
        &[("id", "odd"), ("uid", "odd"), ("role_id", "odd")],
    ];
    let mut seen = 0;
    for operation in operations(&site).await.iter().filter(|each| each.path.starts_with("/api/v1/permissions/")) {
        let Operation { id, method, path, body, .. } = operation;
        seen += usize::from(defined(id).is_some());
        for (who, caller, is_elsewhere) in &callers {
            for place in places {
                let path = expand(path, place);
                for body in [body.clone(), None, body.as_ref().map(|_| json!({"odd": 1}))] {
                    let code = caller.send(method.clone(), &path, body).await.body["code"].as_u64().expect("a code");
                    assert!(may_be(id, code), "{who}: {method} {path}: {code}");
                }
            }
            // The catalog belongs to the site, and operations that take no gateway credential ask for another
            // credential first.
            let told = caller.send(method.clone(), &expand(path, places[0]), body.clone()).await;
            let code = told.body["code"].as_u64().expect("a code");
            if *is_elsewhere && id != "get_permission_catalog" && defined(id).is_some() && code != 31_501_000 {
                assert!(defined(id).expect("codes").contains(&31_301_000), "{who}: {id}: {code}");
                assert_eq!(told.is(31_301_000).word(), "organization_not_found", "{who}: {id}");
            }
        }
    }
    assert_eq!(seen, DEFINED.len());
}

#[tokio::test]
async fn an_empty_required_id_is_bad_input() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (member, role) = (acme.member().await, acme.role("editor", &[]).await);
    let place = [("id", &*role), ("uid", &*member.uid), ("uuid", "0123456789abcdef")];

    let mut seen = Vec::new();
    for operation in operations(&site).await {
        for id in &operation.ids {
            let mut body = operation.body.clone().expect("an example");
            body[id] = json!("");
            let reply = acme.admin().send(operation.method.clone(), &expand(&operation.path, &place), Some(body)).await;
            assert_eq!(reply.is(BAD_INPUT).fields(), [format!("body.{id}")], "{}", operation.id);
            seen.push(operation.id.clone());
        }
    }
    assert!(seen.contains(&"assign_user_role".to_owned()), "{seen:?}");
    let assign = format!("/api/v1/permissions/users/{}/roles", member.uid);
    acme.owner().post(&assign, json!({"role_id": "odd"})).await.is(31_301_000);
}

#[tokio::test]
async fn empty_filters_are_ignored_and_an_empty_limit_is_the_default_in_every_list() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (member, role) = (acme.member_with_role("viewer").await, acme.role("editor", &[]).await);
    let known = json!({"sub": "sub-1", "username": "kim"});
    site.internal().post("/internal/users/upsert-by-sub", known).await.done();

    let mut limits = 0;
    for operation in operations(&site).await {
        // The export does not answer with JSON.
        if operation.method != Method::GET || operation.filters.is_empty() || operation.id == "export_audit" {
            continue;
        }
        let id = if operation.path.contains("/roles/") { &role } else { &member.uid };
        let place = [("id", &**id), ("member_id", &*member.uid), ("authentik_sub", "sub-1"), ("name", "none")];
        let path = expand(&operation.path, &place);
        let caller = if path.contains("/internal/") { site.internal() } else { acme.admin() };
        let empty = |name: &String| format!("{name}={}", if name == "limit" { "0" } else { "" });
        let query = operation.filters.iter().map(empty).collect::<Vec<_>>().join("&");
        let plain = caller.get(&path).await;
        let emptied = caller.get(&format!("{path}?{query}")).await;

        assert_eq!(plain.status, if operation.id == "get_plugin_log" { 404 } else { 200 }, "{path}: {plain:?}");
        assert_eq!(emptied.body["code"], plain.body["code"], "{path}?{query}: {emptied:?}");
        assert_eq!(emptied.body["data"], plain.body["data"], "{path}?{query}");
        limits += usize::from(operation.filters.contains(&"limit".to_owned()));
        // Values that are not empty are still validated.
        if operation.filters.contains(&"limit".to_owned()) {
            caller.get(&format!("{path}?limit=-1&offset=")).await.is(BAD_INPUT);
        }
    }
    assert!(limits > 20, "{limits}");
}

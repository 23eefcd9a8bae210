//! Accounts at Authentik. The real server cannot be installed here, so a stub server enforces the form of its admin API
//! as its own client package (2026.8) describes it: it refuses unknown fields, requires the required ones, and keeps
//! usernames unique.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use poem::Response;
use serde_json::{Map, Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::site::Site;
use crate::harness::stub_server::{StubRequest, StubServer, json as answer};

const TOKEN: &str = "an-api-token-for-tests";

/// The state of the stub: accounts by pk.
#[derive(Default)]
struct State {
    accounts: BTreeMap<i64, Value>,
    /// When set, every request is answered with this status.
    failure: Option<u16>,
    /// Method and path of every change.
    changes: Vec<String>,
}

/// The stub server.
pub struct Authentik {
    server: StubServer,
    state: Arc<Mutex<State>>,
}

impl Authentik {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let served = state.clone();
        Self { server: StubServer::start(move |asked| serve(&mut served.lock().expect("no panic"), &asked)), state }
    }

    /// The lines of `roster.toml` that configure this Authentik.
    pub fn settings(&self) -> String {
        static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
        // Written once, because a server that reads the file while it is rewritten finds it empty.
        let folder = FOLDER.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a directory");
            std::fs::write(folder.path().join("token"), TOKEN).expect("the token");
            folder
        });
        let file = folder.path().join("token");
        format!("authentik.url = \"{}\"\nauthentik.token_file = \"{}\"\n", self.server.url, file.display())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }

    fn account(&self, pk: i64) -> Value {
        self.state().accounts[&pk].clone()
    }

    /// Adds an account that another program created.
    fn add(&self, fields: Value) -> i64 {
        let mut state = self.state();
        let fields = fields.as_object().expect("fields").clone();
        insert(&mut state, fields)
    }
}

fn insert(state: &mut State, fields: Map<String, Value>) -> i64 {
    let pk = state.accounts.keys().max().copied().unwrap_or(4) + 1;
    let mut account = json!({
        "pk": pk, "username": "", "name": "", "is_active": true, "last_login": null,
        "date_joined": "2026-11-22T00:00:00Z", "is_superuser": false, "groups": [], "groups_obj": [], "roles": [],
        "roles_obj": [], "email": "", "avatar": "data:,", "attributes": {}, "uid": format!("{pk:064x}"), "path": "users",
        "type": "internal", "uuid": uuid::Uuid::now_v7().to_string(), "password_change_date": "2026-11-22T00:00:00Z",
        "last_updated": "2026-11-22T00:00:00Z",
    });
    for (name, value) in fields {
        account[name] = value;
    }
    state.accounts.insert(pk, account);
    pk
}

fn serve(state: &mut State, asked: &StubRequest) -> Response {
    if let Some(status) = state.failure {
        return if status == 200 {
            Response::builder().content_type("text/html").body("<!doctype html><title>Welcome</title>")
        } else {
            answer(status, &json!({"detail": "it fails"}))
        };
    }
    if asked.authorization != format!("Bearer {TOKEN}") {
        return answer(403, &json!({"detail": "Token invalid/expired"}));
    }
    // Django answers a path without its trailing slash with a redirect, which does not preserve a POST.
    let Some(path) = asked.path.strip_prefix("/api/v3/core/users/") else {
        return answer(404, &json!({"detail": "Not found."}));
    };
    match (asked.method.as_str(), path) {
        ("GET", "") => list(state, asked),
        ("POST", "") => {
            state.changes.push("POST".into());
            match checked(state, asked, None) {
                Ok(fields) => {
                    let pk = insert(state, fields);
                    answer(201, &state.accounts[&pk])
                }
                Err(faults) => answer(400, &faults),
            }
        }
        (method, path) => {
            let pk = path.strip_suffix('/').and_then(|pk| pk.parse::<i64>().ok());
            let Some(pk) = pk.filter(|pk| state.accounts.contains_key(pk)) else {
                return answer(404, &json!({"detail": "No User matches the given query."}));
            };
            if method == "PATCH" {
                state.changes.push(format!("PATCH {pk}"));
                match checked(state, asked, Some(pk)) {
                    Ok(fields) => {
                        let account = state.accounts.get_mut(&pk).expect("an account");
                        fields.into_iter().for_each(|(name, value)| account[name] = value);
                    }
                    Err(faults) => return answer(400, &faults),
                }
            }
            answer(if matches!(method, "GET" | "PATCH") { 200 } else { 405 }, &state.accounts[&pk])
        }
    }
}

fn list(state: &State, asked: &StubRequest) -> Response {
    let [(name, username)] = asked.query.as_slice() else { return answer(400, &json!({"query": ["one filter"]})) };
    assert_eq!(name, "username");
    let found: Vec<&Value> = state.accounts.values().filter(|account| account["username"] == **username).collect();
    let pagination = json!({"next": 0, "previous": 0, "count": found.len(), "current": 1, "total_pages": 1,
        "start_index": 1, "end_index": found.len()});
    answer(200, &json!({"pagination": pagination, "results": found, "autocomplete": {}}))
}

/// Validates `UserRequest` for a new account and `PatchedUserRequest` for an existing one.
fn checked(state: &State, asked: &StubRequest, pk: Option<i64>) -> Result<Map<String, Value>, Value> {
    const FIELDS: [&str; 10] =
        ["username", "name", "is_active", "last_login", "groups", "roles", "email", "attributes", "path", "type"];
    let body: Value = serde_json::from_str(&asked.body).map_err(|e| json!({"detail": e.to_string()}))?;
    let fields = body.as_object().cloned().ok_or_else(|| json!({"detail": "not an object"}))?;
    let mut faults = Map::new();
    let mut fault = |name: &str, why: &str| drop(faults.insert(name.to_owned(), json!([why])));
    for name in ["username", "name"].iter().filter(|name| pk.is_none() && !fields.contains_key(**name)) {
        fault(name, "This field is required.");
    }
    for (name, value) in &fields {
        let is_right = match name.as_str() {
            "username" => value.as_str().is_some_and(|text| (1..=150).contains(&text.chars().count())),
            "name" => value.is_string(),
            // An e-mail may be empty; otherwise it must be an address.
            "email" => value.as_str().is_some_and(|text| text.len() <= 254 && (text.is_empty() || text.contains('@'))),
            "is_active" => value.is_boolean(),
            "attributes" => value.is_object(),
            _ => FIELDS.contains(&name.as_str()),
        };
        if !is_right {
            fault(name, "Not a valid value.");
        }
    }
    let is_taken =
        |username: &Value| state.accounts.iter().any(|(other, a)| a["username"] == *username && Some(*other) != pk);
    if fields.get("username").is_some_and(is_taken) {
        fault("username", "This field must be unique.");
    }
    if faults.is_empty() { Ok(fields) } else { Err(faults.into()) }
}

// ── callers ──

async fn site_of(authentik: &Authentik) -> Site {
    Site::with(&authentik.settings()).await
}

async fn ensure(caller: &As<'_>, body: Value) -> Reply {
    caller.post("/internal/authentik/users/ensure", body).await
}

async fn member(site: &Site, uid: &Value) -> Value {
    site.admin().get(&format!("/admin/members/{}", uid.as_str().expect("uid"))).await.data()
}

async fn members(site: &Site) -> Value {
    site.admin().get("/admin/members").await.data()["total"].clone()
}

#[tokio::test]
async fn a_new_member_gets_an_account_and_the_same_request_again_changes_nothing() {
    let authentik = Authentik::start();
    let site = site_of(&authentik).await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim"});

    let made = ensure(&site.internal(), body.clone()).await.data();

    let account = authentik.account(5);
    assert_eq!((&made["result"], &made["authentik_user_id"]), (&json!("created"), &json!("5")));
    assert_eq!(made["authentik_sub"], account["uid"]);
    assert_eq!(account["attributes"], json!({"roster_uid": made["uid"]}));
    let names = ["username", "name", "email", "is_active"].map(|name| account[name].clone());
    assert_eq!(names, [json!("kim"), json!("Kim"), json!("kim@example.org"), json!(true)]);
    let local = member(&site, &made["uid"]).await;
    assert_eq!(local["authentik_sub"], account["uid"]);
    assert_eq!((&local["authentik_user_id"], &local["status"]), (&json!("5"), &json!("active")));
    let audited = site.last_audit_entry().await;
    assert_eq!(audited["action"], "member.ensure_authentik");
    assert!(!audited.to_string().contains("kim@example.org"), "{audited}");

    let again = ensure(&site.client(&["members:write"]).await, body).await.data();
    let repeated = json!({"uid": made["uid"], "authentik_sub": made["authentik_sub"], "authentik_user_id": "5", "result": "updated"});
    assert_eq!(again, repeated);
    assert_eq!(authentik.changes(), ["POST"]);
    let by_sub = ensure(&site.internal(), json!({"sub": made["authentik_sub"]})).await.data();
    assert_eq!(by_sub, repeated);
}

#[tokio::test]
async fn an_existing_member_gets_an_account_with_its_own_names() {
    let authentik = Authentik::start();
    let site = site_of(&authentik).await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim"});
    let local = site.admin().post("/admin/members", body).await.data();

    let made = ensure(&site.internal(), json!({"uid": local["uid"], "sub": "chosen-subject"})).await.data();

    assert_eq!((&made["uid"], &made["authentik_sub"]), (&local["uid"], &json!("chosen-subject")));
    let account = authentik.account(5);
    assert_eq!((&account["username"], &account["email"]), (&json!("kim"), &json!("kim@example.org")));
    let by_sub = site.internal().get("/internal/members/by-sub/chosen-subject").await.data();
    assert_eq!((&by_sub["uid"], &by_sub["authentik_user_id"]), (&local["uid"], &json!("5")));

    // Names in the request change on both sides, and so does the status.
    let body = json!({"sub": "chosen-subject", "username": "kim.l", "email": "kl@example.org", "display_name": "Kim L.", "is_active": false});
    let changed = ensure(&site.internal(), body).await.data();
    assert_eq!(changed["result"], "updated");
    let account = authentik.account(5);
    let names = ["username", "name", "email", "is_active"].map(|name| account[name].clone());
    assert_eq!(names, [json!("kim.l"), json!("Kim L."), json!("kl@example.org"), json!(false)]);
    let local = member(&site, &made["uid"]).await;
    assert_eq!(
        (&local["username"], &local["email"], &local["status"]),
        (&json!("kim.l"), &json!("kl@example.org"), &json!("suspended"))
    );

    // An account that was deleted at Authentik is created again.
    authentik.state().accounts.clear();
    authentik.add(json!({"username": "somebody"}));
    let remade = ensure(&site.internal(), json!({"uid": made["uid"]})).await.data();
    assert_eq!(
        (&remade["result"], &remade["authentik_user_id"], &remade["authentik_sub"]),
        (&json!("created"), &json!("6"), &json!("chosen-subject"))
    );
    assert_eq!(authentik.account(6)["is_active"], false);
    assert_eq!(member(&site, &made["uid"]).await["authentik_user_id"], "6");
}

#[tokio::test]
async fn an_existing_account_keeps_its_values() {
    let authentik = Authentik::start();
    let site = site_of(&authentik).await;
    let attributes = json!({"phone": "1", "settings": {"locale": "en"}});
    let pk = authentik
        .add(json!({"username": "kim", "email": "old@example.org", "attributes": attributes, "is_active": false}));

    let body = json!({"username": "kim", "email": "new@example.org", "display_name": "Kim"});
    let made = ensure(&site.internal(), body).await.data();

    assert_eq!((&made["result"], &made["authentik_user_id"]), (&json!("updated"), &json!(pk.to_string())));
    let account = authentik.account(pk);
    assert_eq!(
        (&account["email"], &account["name"], &account["is_active"]),
        (&json!("old@example.org"), &json!("Kim"), &json!(false))
    );
    let attributes = json!({"phone": "1", "settings": {"locale": "en"}, "roster_uid": made["uid"]});
    assert_eq!(account["attributes"], attributes);
    assert_eq!(member(&site, &made["uid"]).await["email"], "new@example.org");
}

#[tokio::test]
async fn accounts_of_others_are_not_taken_over() {
    let authentik = Authentik::start();
    let site = site_of(&authentik).await;
    let admin = authentik.add(json!({"username": "akadmin", "is_superuser": true}));
    let program = authentik.add(json!({"username": "outpost", "type": "service_account"}));
    let first = ensure(&site.internal(), json!({"username": "kim"})).await.data();
    let other = site.admin().post("/admin/members", json!({"username": "lee"})).await.data();
    let before = (authentik.changes().len(), members(&site).await);

    for username in ["akadmin", "outpost"] {
        let reply = ensure(&site.internal(), json!({"username": username, "email": "mine@example.org"})).await;
        assert_eq!(reply.is(29_505_000).word(), "forbidden", "{username}");
    }
    for (body, word) in [
        (json!({"uid": other["uid"], "username": "kim"}), "username_exists"),
        (json!({"uid": other["uid"], "sub": first["authentik_sub"]}), "member_exists"),
        (json!({"uid": first["uid"], "sub": "another-subject"}), "member_exists"),
        (json!({"username": "lee"}), "username_exists"),
        (json!({"username": "new", "email": "admin@example.org"}), "email_exists"),
    ] {
        assert_eq!(ensure(&site.internal(), body.clone()).await.is(29_303_000).word(), word, "{body}");
    }
    // The member of this account was renamed here, and another member has its former name: the account still belongs to
    // the first member.
    let renamed = format!("/admin/members/{}", first["uid"].as_str().expect("uid"));
    site.admin().patch(&renamed, json!({"username": "kim2"})).await.done();
    site.admin()
        .patch(&format!("/admin/members/{}", other["uid"].as_str().expect("uid")), json!({"username": "kim"}))
        .await
        .done();
    let reply = ensure(&site.internal(), json!({"uid": other["uid"]})).await;
    assert_eq!(reply.is(29_303_000).word(), "member_exists");

    assert_eq!((authentik.changes().len(), members(&site).await), before);
    assert_eq!(
        (authentik.account(admin)["attributes"].clone(), authentik.account(program)["attributes"].clone()),
        (json!({}), json!({}))
    );
}

#[tokio::test]
async fn a_failing_authentik_changes_nothing_here() {
    let authentik = Authentik::start();
    let site = Site::with(&format!("{}neighbours.failures = 1000", authentik.settings())).await;
    let known = ensure(&site.internal(), json!({"username": "lee"})).await.data();
    let before = members(&site).await;

    for failure in [200, 302, 401, 403, 404, 500, 503] {
        authentik.state().failure = Some(failure);
        let bodies = [
            json!({"username": "kim", "email": "kim@example.org"}),
            json!({"uid": known["uid"], "display_name": "Lee", "is_active": false}),
        ];
        for body in bodies {
            let reply = ensure(&site.internal(), body).await;
            assert_eq!((reply.status, reply.is(29_602_000).word()), (502, "neighbour_failed"), "{failure}");
        }
    }

    assert_eq!(members(&site).await, before);
    let lee = member(&site, &known["uid"]).await;
    assert_eq!((&lee["display_name"], &lee["status"]), (&Value::Null, &json!("active")));
    authentik.state().failure = None;
    let made = ensure(&site.internal(), json!({"username": "kim"})).await.data();
    assert_eq!(made["result"], "created");
    assert!(!site.log().contains(TOKEN));
}

#[tokio::test]
async fn bad_requests_are_refused_before_authentik_is_called() {
    let authentik = Authentik::start();
    let site = site_of(&authentik).await;
    let nameless = site.admin().post("/admin/members", json!({"email": "only@example.org"})).await.data();

    for body in [
        json!({}),
        json!({"email": "kim@example.org"}),
        json!({"username": "a b"}),
        json!({"username": "kim", "email": "x"}),
    ] {
        assert_eq!(ensure(&site.internal(), body.clone()).await.status, 400, "{body}");
    }
    ensure(&site.internal(), json!({"uid": "019abcde-0000-7000-8000-000000000000"})).await.is(29_301_000);
    let reply = ensure(&site.internal(), json!({"uid": nameless["uid"]})).await;
    assert_eq!(reply.is(10_101_000).fields(), ["body.username"]);
    assert_eq!((authentik.server.asked(), members(&site).await), (0, json!(2)));

    // A client in a tenant does not find a foreign member, and a member that it creates belongs to the tenant.
    let acme = site.organization("acme").await;
    let inside = site.internal().with("x-tenant-id", "acme");
    ensure(&inside, json!({"uid": nameless["uid"], "username": "only"})).await.is(29_301_000);
    let made = ensure(&inside, json!({"username": "kim"})).await.data();
    let found = acme.owner().get("/admin/members?keyword=kim").await.data();
    assert_eq!(found["items"][0]["uid"], made["uid"]);
}

#[tokio::test]
async fn without_settings_the_error_names_the_missing_settings() {
    let site = Site::start().await;
    let reply = ensure(&site.internal(), json!({"username": "kim"})).await;
    assert_eq!((reply.status, reply.is(29_605_000).word()), (501, "authentik_not_configured"));
    let reply = ensure(&site.client(&["members:read"]).await, json!({"username": "kim"})).await;
    assert_eq!(reply.is(32_505_000).word(), "scope_not_allowed");
}

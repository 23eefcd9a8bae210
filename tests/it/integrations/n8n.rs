//! The workflow of `packaging/n8n`: its structure, and its calls against a real Roster. A small program plays the part
//! of n8n.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::site::Site;
use crate::harness::stub_server::{self, StubServer};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/n8n/new-user.json");

fn workflow() -> Value {
    serde_json::from_str(&std::fs::read_to_string(FILE).expect("the workflow")).expect("JSON")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

#[test]
fn the_workflow_has_the_structure_that_n8n_imports_and_no_secret() {
    /// Node types and versions that work in n8n 1 and 2.
    const KNOWN: [(&str, f64); 4] = [("webhook", 2.0), ("httpRequest", 4.2), ("if", 2.2), ("respondToWebhook", 1.1)];
    let workflow = workflow();
    let fields: BTreeSet<&str> = workflow.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["id", "name", "active", "settings", "nodes", "connections"]));
    assert_eq!(workflow["active"], false);
    assert_eq!(workflow["settings"]["executionOrder"], "v1");
    // A stored execution would contain the key of the new user.
    assert_eq!(workflow["settings"]["saveDataSuccessExecution"], "none");
    assert_eq!(workflow["settings"]["saveDataErrorExecution"], "none");

    let nodes = workflow["nodes"].as_array().expect("nodes");
    let known: BTreeSet<&str> = names(&workflow["nodes"]).into_iter().collect();
    let ids: BTreeSet<&str> = nodes.iter().map(|node| node["id"].as_str().expect("an id")).collect();
    assert_eq!((known.len(), ids.len()), (nodes.len(), nodes.len()), "every name and id is there once");
    let readme = std::fs::read_to_string(Path::new(FILE).with_file_name("README.md")).expect("README.md");
    let mut credentials: BTreeMap<&str, &str> = BTreeMap::new();
    let mut reached = BTreeSet::from(["Form"]);
    for node in nodes {
        let name = node["name"].as_str().expect("a name");
        let kind = node["type"].as_str().and_then(|kind| kind.strip_prefix("n8n-nodes-base.")).expect("a type");
        assert!(KNOWN.contains(&(kind, node["typeVersion"].as_f64().expect("a version"))), "{name}");
        for (_, credential) in node["credentials"].as_object().into_iter().flatten() {
            assert_eq!(credential.as_object().expect("a reference").len(), 2, "{name}: id and name, and no data");
            let (id, called) = (credential["id"].as_str().expect("id"), credential["name"].as_str().expect("name"));
            assert_eq!(*credentials.entry(id).or_insert(called), called, "{id}");
            assert!(readme.contains(&format!("| `{id}` | {called} |")), "README.md does not say what {id} is");
        }
        let outputs = match (kind, node["onError"].as_str()) {
            ("respondToWebhook", _) => 0,
            ("if", _) | (_, Some("continueErrorOutput")) => 2,
            _ => 1,
        };
        let ways = workflow["connections"][name]["main"].as_array().cloned().unwrap_or_default();
        assert_eq!(ways.len(), outputs, "{name}");
        for way in &ways {
            let [next] = way.as_array().expect("a way").as_slice() else { panic!("{name} leads to one node each") };
            reached.extend(known.get(next["node"].as_str().expect("a node")));
            assert_eq!((&next["type"], &next["index"]), (&json!("main"), &json!(0)), "{name}");
        }
    }
    assert_eq!(reached, known, "every node can be reached, and every connection leads to one");
    let from: BTreeSet<&str> =
        workflow["connections"].as_object().expect("connections").keys().map(String::as_str).collect();
    assert!(from.is_subset(&known));
    assert_eq!(credentials.len(), 3);
}

/// A WordPress that creates and deletes users.
fn wordpress() -> (StubServer, Arc<Mutex<BTreeMap<u64, String>>>) {
    let users: Arc<Mutex<BTreeMap<u64, String>>> = Arc::default();
    let known = users.clone();
    let stub = StubServer::start(move |asked| {
        let mut users = known.lock().expect("no panic");
        assert_eq!(asked.authorization, "Basic YWRtaW46eA==");
        if asked.method == "DELETE" {
            assert!(asked.query.contains(&("force".into(), "true".into())), "{asked:?}");
            let id = asked.path.rsplit('/').next().and_then(|id| id.parse().ok()).expect("a number");
            return stub_server::json(200, &json!({"deleted": users.remove(&id).is_some()}));
        }
        let body: Value = serde_json::from_str(&asked.body).expect("JSON");
        let username = body["username"].as_str().expect("a name").to_owned();
        assert!(body["password"].as_str().is_some_and(|text| text.len() > 20), "{body}");
        if users.values().any(|known| *known == username) {
            return stub_server::json(500, &json!({"code": "existing_user_login"}));
        }
        let id = users.keys().last().unwrap_or(&16) + 1;
        users.insert(id, username);
        stub_server::json(201, &json!({"id": id}))
    });
    (stub, users)
}

async fn play(wordpress: &str, roster: &str, client: &Value, execution: &str, form: Value) -> Value {
    let setup = json!({
        "form": form,
        "execution": execution,
        "hosts": {"https://wordpress.example.org": wordpress, "https://roster.example.org": roster},
        "headers": {
            "WordPress administrator": {"authorization": "Basic YWRtaW46eA=="},
            "Roster client": {"X-API-Key": client["api_key"], "X-Client-Key": client["client_key"]},
        },
    });
    let player = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counterparts/play_n8n.mjs");
    let output =
        tokio::process::Command::new("node").args([player, FILE, &setup.to_string()]).output().await.expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn a_form_creates_the_person_everywhere_or_nowhere() {
    let site = Site::start().await;
    site.organization("acme").await;
    let (stub, users) = wordpress();
    let scopes = json!({"name": "n8n", "scopes": ["members:write", "quotas:write"]});
    let client = site.admin().post("/admin/api-clients", scopes).await.data();
    let run = async |execution: &str, form: Value| play(&stub.url, &site.url, &client, execution, form).await;
    let there = || users.lock().expect("no panic").len();
    let form = json!({"username": "kim", "email": "kim@example.org", "quota_size": 5_000, "org_code": "acme"});

    let made = run("1", form.clone()).await;
    assert_eq!((&made["status"], &made["body"]["quota_size"]), (&json!(201), &json!(5_000)), "{made}");
    assert!(!made["body"].to_string().contains("muser_"), "the key stays in the execution: {made}");
    let path = format!("/admin/users/{}", made["body"]["id"].as_str().expect("id"));
    let user = site.admin().get(&path).await.data();
    assert_eq!((&user["wordpress_id"], &user["sftpgo_username"]), (&json!(17), &json!("kim")));

    // The same form again: WordPress already has the username.
    let again = run("2", form).await;
    assert_eq!((&again["status"], &again["body"]["failed"]), (&json!(409), &json!("wordpress")), "{again}");
    // Roster already has the e-mail: the user at WordPress is deleted again.
    let refused = run("3", json!({"username": "kim2", "email": "kim@example.org"})).await;
    assert_eq!((&refused["status"], &refused["body"]["failed"]), (&json!(409), &json!("roster")), "{refused}");
    assert_eq!(there(), 1);
    // It is unknown whether Roster has created the user, so the workflow asks for manual action. A request without an
    // answer is made three times.
    let gone =
        play(&stub.url, "http://127.0.0.1:9", &client, "4", json!({"username": "lee", "email": "l@x.org"})).await;
    assert_eq!((&gone["status"], gone["calls"].as_array().expect("calls").len()), (&json!(502), 4), "{gone}");
    assert_eq!(there(), 2);
    // The answer to execution 1 was lost and n8n repeats the request: no second user is created, and none is deleted.
    users.lock().expect("no panic").clear();
    let repeat = json!({"username": "kim", "email": "kim@example.org", "quota_size": 5_000, "org_code": "acme"});
    let repeated = run("1", repeat).await;
    assert_eq!((&repeated["status"], there()), (&json!(502), 1), "{repeated}");
    assert!(repeated["body"]["why"].as_str().expect("why").contains("secret_not_kept"), "{repeated}");
    let incomplete = run("5", json!({"username": "max"})).await;
    assert_eq!((&incomplete["status"], &incomplete["calls"]), (&json!(400), &json!([])));
}

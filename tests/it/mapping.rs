//! Role mappers in the sync: their input, the roles that result from their answers, and that a failure changes nothing.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::counterparts::{CLIENT_SECRET, Oidc, query};
use crate::hostile::until;
use crate::plugins::put;
use crate::site::{As, Organization, Site};
use crate::stub_server::{self, StubServer};
use crate::wasm_fixtures;

const P: &str = "/api/v1/permissions";
const PLUGINS: &str = "/api/v1/plugins";
const BAD_INPUT: u64 = 10_101_000;
const NOT_HELD: u64 = 31_505_000;

// ── helpers ──

/// Uploads and enforces a component. Returns the epoch of the activation.
pub async fn enforce(organization: &Organization<'_>, plugin: &str, component: &[u8]) -> u64 {
    put(&organization.owner(), plugin, component.to_vec(), json!({"mode": "enforce"})).await
}

/// The same in watch mode.
async fn watch(organization: &Organization<'_>, plugin: &str, component: &[u8]) -> u64 {
    put(&organization.owner(), plugin, component.to_vec(), json!({"mode": "shadow"})).await
}

async fn deactivate(organization: &Organization<'_>, plugin: &str) {
    organization.owner().post(&format!("{PLUGINS}/{plugin}/deactivate"), json!({})).await.done();
}

/// The metrics of an enforced or watched plugin since its activation.
async fn figures(organization: &Organization<'_>, plugin: &str, mode: &str) -> Value {
    let plugin = organization.owner().get(&format!("{PLUGINS}/{plugin}")).await.data();
    let activations = plugin["activations"].as_array().expect("activations");
    activations.iter().find(|activation| activation["mode"] == mode).expect("an activation")["figures"].clone()
}

/// The newest line of a plugin's log.
async fn last_line(organization: &Organization<'_>, plugin: &str) -> String {
    let log = organization.owner().get(&format!("{PLUGINS}/{plugin}/log")).await.data();
    log["items"][0]["message"].as_str().unwrap_or_else(|| panic!("no line: {log}")).to_owned()
}

fn sha256(component: &[u8]) -> String {
    hex::encode(Sha256::digest(component))
}

async fn map(organization: &Organization<'_>, source: &str, external_key: &str, role_key: &str) {
    let body = json!({"external_source": source, "external_key": external_key, "internal_role_key": role_key});
    organization.admin().put(&format!("{P}/role-mappings"), body).await.done();
}

fn sync_url(uid: &str) -> String {
    format!("{P}/users/{uid}/roles/sync")
}

/// Syncs the source `ldap` as the owner.
async fn sync(organization: &Organization<'_>, uid: &str, keys: Value) -> Value {
    let body = json!({"source": "ldap", "external_keys": keys});
    organization.owner().post(&sync_url(uid), body).await.data()
}

/// The roles of a member, as `source:key`.
async fn roles(organization: &Organization<'_>, uid: &str) -> Vec<String> {
    let held = organization.admin().get(&format!("{P}/users/{uid}/roles")).await.data();
    let text = |role: &Value, name: &str| role[name].as_str().expect("text").to_owned();
    let held = held["user_roles"].as_array().expect("roles").clone();
    let mut found: Vec<String> =
        held.iter().map(|role| format!("{}:{}", text(role, "source"), text(role, "role_key"))).collect();
    found.sort();
    found
}

/// An organization with these roles, which hold no permissions.
async fn organization<'s>(site: &'s Site, org_code: &str, keys: &[&str]) -> Organization<'s> {
    let organization = site.organization(org_code).await;
    for key in keys {
        organization.role(key, &[]).await;
    }
    organization
}

/// The outcome of the newest plugin call.
fn outcome(synced: &Value) -> &str {
    let plugins = synced["plugins"].as_array().unwrap_or_else(|| panic!("no plugins: {synced}"));
    plugins.last().expect("a plugin")["outcome"].as_str().expect("a word")
}

// ── answers of a mapper ──

#[tokio::test]
async fn the_answer_of_a_mapper_replaces_the_roles_of_the_table() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor", "author", "helper"]).await;
    let member = acme.member().await;
    map(&acme, "ldap", "staff", "editor").await;
    acme.assign(&member.uid, &acme.role_id("helper").await).await;
    let helper = json!({"role_id": acme.role_id("helper").await, "source": "scim"});
    acme.owner().post(&format!("{P}/users/{}/roles", member.uid), helper).await.done();
    let without = sync(&acme, &member.uid, json!(["staff", "lost"])).await;
    assert_eq!(without, json!({"added": ["editor"], "removed": [], "kept": [], "unknown": ["lost"]}));

    let mapper = wasm_fixtures::naming(&["author"]);
    enforce(&acme, "departments", &mapper).await;
    let mut synced = sync(&acme, &member.uid, json!(["staff", "lost"])).await;

    let fuel = synced["plugins"][0]["fuel"].take();
    assert!(fuel.as_u64().is_some_and(|fuel| fuel > 0), "{fuel}");
    let answer =
        json!({"name": "departments", "version": 1, "sha256": sha256(&mapper), "outcome": "roles", "fuel": null});
    let expected = json!({"added": ["author"], "removed": ["editor"], "kept": [], "unknown": ["lost"], "ignored": [],
        "plugins": [answer]});
    assert_eq!(synced, expected);
    assert_eq!(roles(&acme, &member.uid).await, ["ldap:author", "manual:helper", "scim:helper"]);
    let entry = site.last_audit_entry().await;
    assert_eq!(entry["action"], "assignment.sync");
    let by = json!([{"name": "departments", "version": 1, "sha256": sha256(&mapper), "fuel": fuel}]);
    assert_eq!(entry["after"], json!({"source": "ldap", "added": ["author"], "removed": ["editor"], "plugins": by}));

    // After deactivation, the roles of the table apply again.
    deactivate(&acme, "departments").await;
    let back = sync(&acme, &member.uid, json!(["staff"])).await;
    assert_eq!(back, json!({"added": ["editor"], "removed": ["author"], "kept": [], "unknown": []}));
}

#[tokio::test]
async fn a_mapper_gets_keys_claims_and_the_roles_of_the_table() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor", "film", "acme"]).await;
    let member = acme.member().await;
    map(&acme, "ldap", "staff", "editor").await;
    let claims = json!({"department": "film", "roster.roles": ["film"], "org_code": "film"});
    let body = json!({"source": "ldap", "external_keys": ["staff"], "claims": claims});
    let named = async |component: Vec<u8>| {
        enforce(&acme, "mapper", &component).await;
        let mut body = body.clone();
        body["dry_run"] = json!(true);
        let synced = acme.owner().post(&sync_url(&member.uid), body).await.data();
        assert_eq!(outcome(&synced), "roles");
        (synced["added"].clone(), synced["ignored"].clone())
    };
    assert_eq!(named(wasm_fixtures::naming_claim("department", 9, 0)).await, (json!(["film"]), json!([])));
    // Facts with the host's prefix come from the host, even if the source sends the same names.
    assert_eq!(named(wasm_fixtures::naming_claim("roster.roles", 9, 0)).await, (json!(["editor"]), json!([])));
    assert_eq!(named(wasm_fixtures::naming_claim("org_code", 9, 0)).await, (json!(["acme"]), json!([])));
    // The groups are the keys of the request; claims are not groups.
    assert_eq!(named(wasm_fixtures::naming_groups()).await, (json!([]), json!(["staff"])));
}

#[tokio::test]
async fn mappers_run_in_order_and_each_gets_the_previous_answer() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["one", "two"]).await;
    let member = acme.member().await;
    let (both, first) = (wasm_fixtures::naming(&["two", "one"]), wasm_fixtures::naming_claim("roster.roles", 1, 0));
    let asked = |synced: &Value| -> Vec<String> {
        let plugins = synced["plugins"].as_array().expect("plugins").iter();
        plugins.map(|p| format!("{} {}", p["name"], p["outcome"]).replace('"', "")).collect()
    };
    enforce(&acme, "both", &both).await;

    enforce(&acme, "first", &first).await;
    let synced = sync(&acme, &member.uid, json!([])).await;
    assert_eq!((&synced["added"], asked(&synced)), (&json!(["two"]), vec!["both roles".into(), "first roles".into()]));

    // In the opposite order it selects from the roles of the table, of which there are none.
    deactivate(&acme, "both").await;
    enforce(&acme, "both", &both).await;
    let synced = sync(&acme, &member.uid, json!([])).await;
    assert_eq!((&synced["kept"], asked(&synced)), (&json!(["two"]), vec!["first roles".into(), "both roles".into()]));
    assert_eq!(roles(&acme, &member.uid).await, ["ldap:one", "ldap:two"]);

    // The first failure ends the sequence.
    enforce(&acme, "broken", &wasm_fixtures::trapping_mapper()).await;
    enforce(&acme, "last", &wasm_fixtures::naming(&[])).await;
    let failed = sync(&acme, &member.uid, json!([])).await;
    assert_eq!((&failed["failed"], &failed["kept"]), (&json!(true), &json!(["one", "two"])));
    assert_eq!(asked(&failed), ["first roles", "both roles", "broken trap"]);
}

#[tokio::test]
async fn the_filter_of_a_plugin_of_both_kinds_does_not_affect_mapping() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["staff"]).await;
    let member = acme.member().await;
    let both = wasm_fixtures::authorizer_and_mapper(
        "",
        "(call $abstain)",
        "(call $list (local.get $groups) (local.get $groups_count))",
    );
    put(&acme.owner(), "both", both, json!({"mode": "enforce", "filter": {"permissions": ["nothing.at.all"]}})).await;
    // A plugin that is only an authorizer is not called.
    enforce(&acme, "other", &wasm_fixtures::denying("no")).await;

    let synced = sync(&acme, &member.uid, json!(["staff"])).await;

    assert_eq!((&synced["added"], synced["plugins"].as_array().map(Vec::len)), (&json!(["staff"]), Some(1)));
}

#[tokio::test]
async fn roles_that_cannot_be_assigned_are_skipped_and_listed() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor", "closed"]).await;
    let globex = organization(&site, "globex", &["theirs"]).await;
    let member = acme.member().await;
    let closed = format!("{P}/roles/{}", acme.role_id("closed").await);
    acme.owner().patch(&closed, json!({"status": "close"})).await.done();
    let named = ["tenant_owner", "theirs", "platform_admin", "nowhere", "editor", "closed", "viewer"];
    enforce(&acme, "bold", &wasm_fixtures::naming(&named)).await;

    let synced = sync(&acme, &member.uid, json!([])).await;

    assert_eq!(synced["added"], json!(["editor", "viewer"]));
    assert_eq!(synced["ignored"], json!(["closed", "nowhere", "platform_admin", "tenant_owner", "theirs"]));
    assert_eq!(synced["failed"], Value::Null);
    assert_eq!(roles(&acme, &member.uid).await, ["ldap:editor", "ldap:viewer"]);
    drop(globex);
}

#[tokio::test]
async fn a_dry_sync_calls_the_mappers_and_changes_nothing() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor"]).await;
    let member = acme.member().await;
    enforce(&acme, "mapper", &wasm_fixtures::naming(&["editor"])).await;
    let before = site.last_audit_entry().await["id"].clone();

    let body = json!({"source": "ldap", "external_keys": [], "dry_run": true});
    let synced = acme.owner().post(&sync_url(&member.uid), body).await.data();

    assert_eq!((&synced["added"], outcome(&synced)), (&json!(["editor"]), "roles"));
    assert_eq!(roles(&acme, &member.uid).await, [""; 0]);
    assert_eq!(site.last_audit_entry().await["id"], before);
}

#[tokio::test]
async fn a_mapper_assigns_no_role_beyond_what_the_caller_of_the_sync_holds() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["plain"]).await;
    acme.role("strong", &["roster.role.delete"]).await;
    let member = acme.member().await;
    let syncer = acme.member_with(&["roster.assignment.sync"]).await;
    let body = json!({"source": "ldap", "external_keys": []});
    enforce(&acme, "mapper", &wasm_fixtures::naming(&["strong", "plain"])).await;

    let refused = syncer.caller().post(&sync_url(&member.uid), body.clone()).await;
    assert_eq!(refused.is(NOT_HELD).word(), "not_held");
    assert_eq!(roles(&acme, &member.uid).await, [""; 0]);

    enforce(&acme, "mapper", &wasm_fixtures::naming(&["plain"])).await;
    let given = syncer.caller().post(&sync_url(&member.uid), body.clone()).await.data();
    assert_eq!(given["added"], json!(["plain"]));

    // A caller without the permission causes no call, and neither does an unknown member.
    enforce(&acme, "mapper", &wasm_fixtures::trapping_mapper()).await;
    assert_eq!(member.caller().post(&sync_url(&member.uid), body.clone()).await.word(), "forbidden");
    assert_eq!(acme.owner().post(&sync_url("no-id"), body.clone()).await.word(), "subject_not_found");
    let manual = json!({"source": "manual", "external_keys": []});
    assert_eq!(acme.owner().post(&sync_url(&member.uid), manual).await.is(BAD_INPUT).fields(), ["body.source"]);
    assert!(!site.log().contains("a role mapper failed"), "{}", site.log());
}

// ── failures ──

/// A site on which a member holds the role `kept` from the source `ldap`.
async fn holding_kept<'s>(site: &'s Site) -> (Organization<'s>, String) {
    let acme = organization(site, "acme", &["kept", "other"]).await;
    let member = acme.member().await;
    map(&acme, "ldap", "staff", "kept").await;
    assert_eq!(sync(&acme, &member.uid, json!(["staff"])).await["added"], json!(["kept"]));
    let uid = member.uid.clone();
    (acme, uid)
}

#[tokio::test]
async fn every_failure_leaves_the_roles_unchanged_and_is_reported() {
    let site = Site::with("plugins.failures = 100").await;
    let (acme, uid) = holding_kept(&site).await;
    let many: Vec<String> = (0..257).map(|n| format!("r{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        ("trap", wasm_fixtures::trapping_mapper(), None, "unreachable"),
        ("deadline", wasm_fixtures::looping_mapper(), Some(1), ""),
        ("rule_error", wasm_fixtures::refusing_mapper("no such department"), None, "no such department"),
        ("output", wasm_fixtures::naming(&many), None, "257"),
        ("output", wasm_fixtures::naming(&["Not A Key"]), None, "cannot be"),
        ("output", wasm_fixtures::naming(&["\u{e9}diteur"]), None, "cannot be"),
        ("output", wasm_fixtures::naming(&[""]), None, "cannot be"),
        ("output", wasm_fixtures::naming(&["kept", "kept"]), None, "twice"),
        ("output", wasm_fixtures::role_mapper("", "(call $list (i32.const 0) (i32.const -1))"), None, ""),
    ];
    let syncs = || -> i64 {
        let count = "select count(*) from audit where action = 'assignment.sync'";
        site.rows().query_row(count, [], |row| row.get(0)).expect("a number")
    };
    let before = syncs();
    for (n, (word, component, deadline_ms, says)) in cases.into_iter().enumerate() {
        let mut how = json!({"mode": "enforce"});
        if let Some(ms) = deadline_ms {
            how["deadline_ms"] = json!(ms);
        }
        put(&acme.owner(), "mapper", component, how).await;

        let synced = sync(&acme, &uid, json!(["lost"])).await;

        assert_eq!(outcome(&synced), word, "{n}: {synced}");
        let fields = (&synced["added"], &synced["removed"], &synced["kept"], &synced["failed"], &synced["unknown"]);
        assert_eq!(fields, (&json!([]), &json!([]), &json!(["kept"]), &json!(true), &json!(["lost"])), "{n}");
        let message = synced["plugins"][0]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{n}: {message}");
        assert_eq!(roles(&acme, &uid).await, ["ldap:kept"], "{n}");
    }
    assert_eq!(syncs(), before);
    // The author finds the cause in the plugin's log, the operator in the server's.
    assert!(last_line(&acme, "mapper").await.starts_with("output: "));
    site.logged("a role mapper failed");
}

#[tokio::test]
async fn a_mapper_may_answer_with_256_roles() {
    let site = Site::start().await;
    let (acme, uid) = holding_kept(&site).await;
    let mut many: Vec<String> = (0..255).map(|n| format!("r{n}")).collect();
    many.push("other".into());
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    enforce(&acme, "mapper", &wasm_fixtures::naming(&many)).await;

    let synced = sync(&acme, &uid, json!(["staff"])).await;

    assert_eq!((&synced["added"], &synced["removed"]), (&json!(["other"]), &json!(["kept"])));
    assert_eq!(synced["ignored"].as_array().map(Vec::len), Some(255));
}

#[tokio::test]
async fn the_cause_of_a_mapper_s_failure_is_shown_only_with_the_right_to_see_plugins() {
    let site = Site::with("plugins.failures = 2").await;
    let (acme, uid) = holding_kept(&site).await;
    enforce(&acme, "mapper", &wasm_fixtures::refusing_mapper("secret text")).await;
    let body = json!({"source": "ldap", "external_keys": []});
    let ask = async |who: As<'_>| who.post(&sync_url(&uid), body.clone()).await.data()["plugins"][0].clone();

    let client = site.client(&["permissions:write"]).await.with("x-tenant-id", &acme.id);
    let seen = ask(client).await;
    assert_eq!((&seen["outcome"], &seen["message"]), (&json!("rule_error"), &Value::Null));
    let seen = ask(acme.owner()).await;
    assert!(seen["message"].as_str().is_some_and(|message| message.contains("secret text")), "{seen}");

    // After the second failure the plugin is quarantined, and still no role changes.
    assert_eq!(ask(acme.owner()).await["outcome"], "quarantined");
    assert_eq!(roles(&acme, &uid).await, ["ldap:kept"]);
}

#[tokio::test]
async fn an_input_at_its_limit_is_sent_to_the_mapper_and_one_byte_more_is_not() {
    let site = Site::with("plugins.input_bytes = 1024").await;
    let (acme, uid) = holding_kept(&site).await;
    enforce(&acme, "mapper", &wasm_fixtures::naming(&["other"])).await;
    let ask = async |bytes: usize| {
        let keys: Vec<String> = (0..bytes.div_ceil(200))
            .map(|n| format!("{n}").repeat(200)[..200.min(bytes - 200 * n)].to_owned())
            .collect();
        let body = json!({"source": "ldap", "external_keys": keys, "dry_run": true});
        outcome(&acme.owner().post(&sync_url(&uid), body).await.data()).to_owned()
    };

    // Two ids, the source, and the host's own claims: a short claim counts as the positions of its two texts.
    let own = 36 + 36 + "ldap".len() + "roster.roles".len() + 2 * 8 + "now_ms1763740800000".len();
    assert_eq!(ask(1024 - own).await, "roles");
    assert_eq!(ask(1024 - own + 1).await, "input");
}

#[tokio::test]
async fn a_mapper_call_that_finds_no_free_slot_in_time_leaves_the_roles_unchanged() {
    let settings = "plugins.calls_per_organization = 1\nplugins.wait_ms = 1\nplugins.map_roles_ms = 10000\n\
                    plugins.map_roles_fuel = 10000000000";
    let site = Site::with(settings).await;
    let (acme, uid) = holding_kept(&site).await;
    enforce(&acme, "slow", &wasm_fixtures::naming_claim("roster.roles", 9, 100_000_000)).await;
    sync(&acme, &uid, json!(["staff"])).await;

    let (a, b, c) = tokio::join!(
        sync(&acme, &uid, json!(["staff"])),
        sync(&acme, &uid, json!(["staff"])),
        sync(&acme, &uid, json!(["staff"]))
    );

    let outcomes = [outcome(&a), outcome(&b), outcome(&c)];
    assert!(outcomes.contains(&"roles") && outcomes.contains(&"busy"), "{outcomes:?}");
    assert_eq!(roles(&acme, &uid).await, ["ldap:kept"]);
}

#[tokio::test]
async fn a_mapper_whose_stored_bytes_were_changed_is_not_run() {
    let mut site = Site::start().await;
    let uid = {
        let (acme, uid) = holding_kept(&site).await;
        enforce(&acme, "mapper", &wasm_fixtures::naming(&["other"])).await;
        uid
    };
    let compiled = site.path().join("compiled-plugins");
    let other = wasm_fixtures::naming(&["kept", "other"]);
    site.while_stopped("update plugin_components set component = ?1", [other]);
    // The compiled component is removed too, so nothing can run.
    site.kill();
    std::fs::remove_dir_all(compiled).expect("the folder of compiled plugins");
    site.start_again();
    let acme = Organization { site: &site, id: "acme".into(), owner_token: site.admin_token.clone() };

    let body = json!({"source": "ldap", "external_keys": []});
    let synced = acme.admin().post(&sync_url(&uid), body).await.data();

    assert_eq!((outcome(&synced), &synced["kept"]), ("unavailable", &json!(["kept"])));
}

// ── watch mode ──

#[tokio::test]
async fn a_watched_mapper_has_no_effect_and_its_differences_are_counted() {
    let site = Site::start().await;
    let (acme, uid) = holding_kept(&site).await;
    let counted = async |plugin: &str| {
        let figures = figures(&acme, plugin, "shadow").await;
        (figures["calls"].clone(), figures["differed"].clone())
    };
    let unchanged = json!({"added": [], "removed": [], "kept": ["kept"], "unknown": []});
    watch(&acme, "same", &wasm_fixtures::naming(&["kept", "nowhere"])).await;
    watch(&acme, "other", &wasm_fixtures::naming(&["other"])).await;
    watch(&acme, "broken", &wasm_fixtures::trapping_mapper()).await;

    assert_eq!(sync(&acme, &uid, json!(["staff"])).await, unchanged);

    assert_eq!(counted("same").await, (json!({"roles": 1}), json!(0)));
    assert_eq!(counted("other").await, (json!({"roles": 1}), json!(1)));
    assert_eq!(last_line(&acme, "other").await, "ldap: in force it would add [other] and drop [kept]");
    assert_eq!(counted("broken").await, (json!({"trap": 1}), json!(0)));
    assert!(site.log().contains("a shadow plugin differs"), "{}", site.log());

    // The watched next version of a plugin gets the same input as the enforced one, even if the enforced one fails.
    enforce(&acme, "mapper", &wasm_fixtures::trapping_mapper()).await;
    watch(&acme, "mapper", &wasm_fixtures::naming_claim("roster.roles", 9, 0)).await;
    let failed = sync(&acme, &uid, json!(["staff"])).await;
    assert_eq!((&failed["failed"], &failed["kept"]), (&json!(true), &json!(["kept"])));
    assert_eq!(counted("mapper").await, (json!({"roles": 1}), json!(1)));
    let line = "ldap: in force it would have answered [kept], where the version in force failed";
    let log = acme.owner().get(&format!("{PLUGINS}/mapper/log")).await.data();
    let messages: Vec<&str> =
        log["items"].as_array().expect("lines").iter().filter_map(|line| line["message"].as_str()).collect();
    assert!(messages.contains(&line), "{messages:?}");
}

// ── organizations ──

#[tokio::test]
async fn a_mapper_is_not_called_in_another_organization_s_sync() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor"]).await;
    let globex = organization(&site, "globex", &["editor"]).await;
    let member = acme.member().await;
    globex.link(&member.uid).await;
    map(&acme, "ldap", "staff", "editor").await;
    enforce(&globex, "mapper", &wasm_fixtures::trapping_mapper()).await;

    let synced = sync(&acme, &member.uid, json!(["staff"])).await;

    assert_eq!(synced, json!({"added": ["editor"], "removed": [], "kept": [], "unknown": []}));
    assert_eq!(outcome(&sync(&globex, &member.uid, json!(["staff"])).await), "trap");
    assert_eq!(roles(&globex, &member.uid).await, [""; 0]);
}

// ── changes during a call ──

#[tokio::test]
async fn an_answer_of_a_replaced_version_is_never_applied() {
    let settings = "plugins.map_roles_ms = 10000\nplugins.map_roles_fuel = 10000000000";
    let site = Site::with(settings).await;
    let acme = organization(&site, "acme", &["role1", "role2", "role3"]).await;
    let member = acme.member().await;
    // Each version takes some time to answer, during which the next one replaces it.
    let versions: Vec<Vec<u8>> = (1..=3)
        .map(|n| {
            let role = format!("role{n}");
            let spin = "(local $spins i64) (local.set $spins (i64.const 20000000))
                (loop $spin (local.set $spins (i64.sub (local.get $spins) (i64.const 1)))
                  (br_if $spin (i64.gt_s (local.get $spins) (i64.const 0))))";
            let data = format!("(data (i32.const 1024) \"\\08\\04\\00\\00\\05\\00\\00\\00{role}\")");
            wasm_fixtures::role_mapper(&data, &format!("{spin} (call $list (i32.const 1024) (i32.const 1))"))
        })
        .collect();
    enforce(&acme, "mapper", &versions[0]).await;
    let body = json!({"source": "ldap", "external_keys": []});
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let answers = std::sync::atomic::AtomicUsize::new(0);
    // Two calls run at any time. The third answer from now on therefore belongs to a call that began from now on; the
    // others wait for theirs.
    let answered_by_this_version = async || {
        let enough = answers.load(std::sync::atomic::Ordering::SeqCst) + 3;
        let answered = || (answers.load(std::sync::atomic::Ordering::SeqCst) >= enough).then_some(());
        until("mappers answer", answered).await;
    };

    let switch = async {
        let mut since = Vec::new();
        for component in &versions[1..] {
            answered_by_this_version().await;
            since.push(enforce(&acme, "mapper", component).await);
        }
        answered_by_this_version().await;
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        since
    };
    let go_on = async || {
        let mut seen = Vec::new();
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            let reply = acme.owner().post(&sync_url(&member.uid), body.clone()).await;
            seen.push((reply.epoch(), reply.data()));
            answers.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        seen
    };
    let (since, a, b) = tokio::join!(switch, go_on(), go_on());

    let mut versions_seen = std::collections::BTreeSet::new();
    for (epoch, synced) in a.into_iter().chain(b) {
        // A sync raises the epoch itself, so a sync after a switch reports a higher one.
        let version = 1 + since.iter().filter(|since| epoch >= **since).count();
        assert_eq!(
            (outcome(&synced), &synced["plugins"][0]["version"]),
            ("roles", &json!(version)),
            "{epoch} {since:?}"
        );
        let role = json!([format!("role{version}")]);
        assert!(synced["added"] == role || synced["kept"] == role, "{synced}");
        versions_seen.insert(version);
    }
    assert_eq!(versions_seen.len(), 3);
}

#[tokio::test]
async fn a_table_that_changes_during_a_mapper_call_is_read_again() {
    let settings = "plugins.map_roles_ms = 10000\nplugins.map_roles_fuel = 10000000000";
    let site = Site::with(settings).await;
    let acme = organization(&site, "acme", &["before", "after"]).await;
    let member = acme.member().await;
    map(&acme, "ldap", "staff", "before").await;
    // The first plugin has answered when the second starts.
    enforce(&acme, "first", &wasm_fixtures::naming_claim("roster.roles", 9, 0)).await;
    enforce(&acme, "mapper", &wasm_fixtures::naming_claim("roster.roles", 9, 200_000_000)).await;
    sync(&acme, &member.uid, json!([])).await;
    let answers = async || figures(&acme, "first", "enforce").await["calls"]["roles"].as_u64().expect("a number");
    let before = answers().await;

    let change = async {
        let answered = async { while answers().await == before {} };
        tokio::time::timeout(std::time::Duration::from_secs(60), answered).await.expect("an answer of the first");
        map(&acme, "ldap", "staff", "after").await;
        std::time::Instant::now()
    };
    let ask = async {
        let synced = sync(&acme, &member.uid, json!(["staff"])).await;
        (synced, std::time::Instant::now())
    };
    let ((synced, answered), changed) = tokio::join!(ask, change);

    assert!(changed < answered, "the mapper was too fast for this test");
    assert_eq!(synced["added"], json!(["after"]));
    assert_eq!(roles(&acme, &member.uid).await, ["ldap:after"]);
}

// ── sign-ins ──

const REDIRECT: &str = "http://127.0.0.1:9/callback";

/// A certified provider, and a site that is configured for it as `lab` with the role claim `groups`.
async fn lab(users: Value) -> (Oidc, Site) {
    let oidc = Oidc::start(json!({"users": users, "clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}]}));
    let secret = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("mapping-client.secret");
    std::fs::write(&secret, CLIENT_SECRET).expect("written");
    let site = Site::with(&format!(
        "[[oidc]]\nname = \"lab\"\nissuer = {:?}\nclient_id = \"roster\"\nclient_secret_file = {secret:?}\n\
         redirect_uris = [{REDIRECT:?}]\norganization = \"acme\"\nrole_claims = [\"groups\"]\n",
        oidc.issuer
    ))
    .await;
    (oidc, site)
}

/// Signs in with the provider and returns the member's uid.
async fn sign_in(oidc: &Oidc, site: &Site, login: &str) -> String {
    let binding = "a-value-that-the-program-of-a-portal-keeps";
    let url = format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={binding}");
    let url = site.nobody().get(&url).await.data()["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = oidc.sign_in(&url, login, REDIRECT).await;
    let body = json!({
        "code": query(&callback, "code"), "state": query(&callback, "state"), "redirect_uri": REDIRECT,
        "binding": binding,
    });
    let tokens = site.nobody().post("/auth/oidc/exchange", body).await.data();
    let me = site.bearer(tokens["access_token"].as_str().expect("a token")).get("/me").await.data();
    me["uid"].as_str().expect("uid").to_owned()
}

#[tokio::test]
async fn a_sign_in_with_a_provider_calls_the_mappers_of_each_organization() {
    let alice = json!({"groups": ["roster:film", "staff"], "name": "Alice", "preferred_username": "alice",
        "email": "alice@example.org", "email_verified": true, "department": "sound"});
    let (oidc, site) = lab(json!({"alice": alice})).await;
    let acme = organization(&site, "acme", &["film", "sound", "by-table"]).await;
    let globex = organization(&site, "globex", &["by-table"]).await;
    map(&acme, "oidc", "staff", "by-table").await;
    map(&globex, "oidc", "staff", "by-table").await;
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/group-mapper/group-mapper.wasm");
    let shipped = std::fs::read(shipped).expect("the example");
    enforce(&acme, "groups", &shipped).await;

    // The first sign-in calls the mapper too, before the member exists.
    let uid = sign_in(&oidc, &site, "alice").await;
    assert_eq!(roles(&acme, &uid).await, ["oidc:by-table", "oidc:film"]);
    let after: String = site
        .rows()
        .query_row("select after from audit where action = 'member.arrive' and after like '%plugins%'", [], |row| {
            row.get(0)
        })
        .expect("an entry");
    let after: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!((&after["added"], &after["plugins"][0]["name"]), (&json!(["by-table", "film"]), &json!("groups")));
    assert_eq!(after["plugins"][0]["sha256"], sha256(&shipped));

    // The mapper gets every claim of the provider; another organization of the member uses its own table.
    globex.link(&uid).await;
    enforce(&acme, "groups", &wasm_fixtures::naming_claim("department", 9, 0)).await;
    assert_eq!(sign_in(&oidc, &site, "alice").await, uid);
    assert_eq!(roles(&acme, &uid).await, ["oidc:sound"]);
    assert_eq!(roles(&globex, &uid).await, ["oidc:by-table"]);

    // A failing mapper does not prevent the sign-in and removes no role here; in the other organization the table still
    // applies.
    oidc.set_user("alice", json!({"groups": []})).await;
    enforce(&acme, "groups", &wasm_fixtures::trapping_mapper()).await;
    assert_eq!(sign_in(&oidc, &site, "alice").await, uid);
    assert_eq!(roles(&acme, &uid).await, ["oidc:sound"]);
    assert_eq!(roles(&globex, &uid).await, [""; 0]);
    site.logged("a role mapper failed");
}

#[tokio::test]
async fn a_sign_in_with_wordpress_calls_no_mapper_of_an_inactive_organization() {
    let stub = StubServer::start(|_| {
        stub_server::json(200, &json!({"id": 7, "username": "kim", "name": "Kim", "roles": ["author", "editor"]}))
    });
    let settings = format!("wordpress.url = {:?}\nwordpress.organization = \"acme\"", stub.url);
    let site = Site::with(&settings).await;
    let acme = organization(&site, "acme", &["author", "editor"]).await;
    enforce(&acme, "first", &wasm_fixtures::naming_claim("roles", 1, 0)).await;
    let sign_in = async || {
        let body = json!({"username": "kim", "application_password": "x"});
        let tokens = site.nobody().post("/auth/wordpress", body).await.data();
        let me = site.bearer(tokens["access_token"].as_str().expect("a token")).get("/me").await.data();
        me["uid"].as_str().expect("uid").to_owned()
    };
    let status = async |word: &str| {
        site.admin().post(&format!("/admin/organizations/{}/{word}", acme.id), json!({})).await.done();
    };

    let uid = sign_in().await;
    assert_eq!(roles(&acme, &uid).await, ["wordpress:author"]);

    enforce(&acme, "first", &wasm_fixtures::naming(&["editor"])).await;
    status("deactivate").await;
    assert_eq!(sign_in().await, uid);
    status("activate").await;
    assert_eq!(roles(&acme, &uid).await, ["wordpress:author"]);
    assert_eq!(figures(&acme, "first", "enforce").await["calls"], json!({}));

    assert_eq!(sign_in().await, uid);
    assert_eq!(roles(&acme, &uid).await, ["wordpress:editor"]);
}

//! Answers of role mappers: their input, and the roles that result.

use serde_json::{Value, json};

use super::{PLUGINS, enforce, organization, outcome, roles, sha256, sync};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::{BAD_INPUT, NOT_HELD, P, sync_url};
use crate::plugins::put;

async fn deactivate(organization: &Organization<'_>, plugin: &str) {
    organization.owner().post(&format!("{PLUGINS}/{plugin}/deactivate"), json!({})).await.done();
}

// ── answers of a mapper ──

#[tokio::test]
async fn the_answer_of_a_mapper_replaces_the_roles_of_the_table() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor", "author", "helper"]).await;
    let member = acme.member().await;
    acme.map("ldap", "staff", "editor").await;
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
    acme.map("ldap", "staff", "editor").await;
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

// ── organizations ──

#[tokio::test]
async fn a_mapper_is_not_called_in_another_organization_s_sync() {
    let site = Site::start().await;
    let acme = organization(&site, "acme", &["editor"]).await;
    let globex = organization(&site, "globex", &["editor"]).await;
    let member = acme.member().await;
    globex.link(&member.uid).await;
    acme.map("ldap", "staff", "editor").await;
    enforce(&globex, "mapper", &wasm_fixtures::trapping_mapper()).await;

    let synced = sync(&acme, &member.uid, json!(["staff"])).await;

    assert_eq!(synced, json!({"added": ["editor"], "removed": [], "kept": [], "unknown": []}));
    assert_eq!(outcome(&sync(&globex, &member.uid, json!(["staff"])).await), "trap");
    assert_eq!(roles(&globex, &member.uid).await, [""; 0]);
}

//! Failures of role mappers change nothing; nor do mappers in watch mode.

use serde_json::{Value, json};

use super::{PLUGINS, enforce, figures, organization, outcome, roles, sync};
use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::sync_url;
use crate::plugins::put;

/// The same in watch mode.
async fn watch(organization: &Organization<'_>, plugin: &str, component: &[u8]) -> u64 {
    put(&organization.owner(), plugin, component.to_vec(), json!({"mode": "shadow"})).await
}

/// The newest line of a plugin's log.
async fn last_line(organization: &Organization<'_>, plugin: &str) -> String {
    let log = organization.owner().get(&format!("{PLUGINS}/{plugin}/log")).await.data();
    log["items"][0]["message"].as_str().unwrap_or_else(|| panic!("no line: {log}")).to_owned()
}

// ── failures ──

/// A site on which a member holds the role `kept` from the source `ldap`.
async fn holding_kept<'s>(site: &'s Site) -> (Organization<'s>, String) {
    let acme = organization(site, "acme", &["kept", "other"]).await;
    let member = acme.member().await;
    acme.map("ldap", "staff", "kept").await;
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
        ("output", wasm_fixtures::naming(&["Not A Key"]), None, "invalid role key"),
        ("output", wasm_fixtures::naming(&["\u{e9}diteur"]), None, "invalid role key"),
        ("output", wasm_fixtures::naming(&[""]), None, "invalid role key"),
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

//! The policy changes while a role mapper is called.

use serde_json::json;

use super::{enforce, figures, organization, outcome, roles, sync};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures;
use crate::permissions::sync_url;

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
        let answered = async || answers.load(std::sync::atomic::Ordering::SeqCst) >= enough;
        eventually("mappers answer", answered).await;
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
    acme.map("ldap", "staff", "before").await;
    // The first plugin has answered when the second starts.
    enforce(&acme, "first", &wasm_fixtures::naming_claim("roster.roles", 9, 0)).await;
    enforce(&acme, "mapper", &wasm_fixtures::naming_claim("roster.roles", 9, 200_000_000)).await;
    sync(&acme, &member.uid, json!([])).await;
    let answers = async || figures(&acme, "first", "enforce").await["calls"]["roles"].as_u64().expect("a number");
    let before = answers().await;

    let change = async {
        let answered = async { while answers().await == before {} };
        tokio::time::timeout(std::time::Duration::from_secs(60), answered).await.expect("an answer of the first");
        acme.map("ldap", "staff", "after").await;
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

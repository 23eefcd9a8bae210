//! The results of an upload: a version, or a refusal with its reason.

use futures_util::future::join_all;
use roster::kernel::sandbox::vectors;
use serde_json::{Value, json};

use super::{activate, upload};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::wasm_fixtures::{allowing, authorizer, component, denying, looping, naming};

#[tokio::test]
async fn an_upload_creates_an_immutable_version() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let one = denying("one");
    let made = upload(&owner, "hours", one.clone()).await.data();
    assert_eq!(made["sha256"].as_str().expect("text").len(), 64);
    assert_eq!(
        (&made["name"], &made["version"], &made["state"], &made["exports"], &made["size_bytes"]),
        (&json!("hours"), &json!(1), &json!("tested"), &json!(["authorizer"]), &json!(one.len()))
    );
    let tried = json!([{"export": "authorizer", "outcome": "deny", "failure": null}]);
    assert_eq!((&made["report"]["dry_run"], &made["report"]["vectors_passed"]), (&tried, &json!(0)));
    assert!(
        made["imports"]
            .as_array()
            .expect("imports")
            .iter()
            .all(|i| i.as_str().expect("text").starts_with("roster:policy/"))
    );
    let more = upload(&owner, "hours", denying("two")).await.data();
    assert_eq!(more["version"], 2);
    // The same bytes are the same version.
    let again = upload(&owner, "hours", one).await.data();
    assert_eq!(again, made);
    let plugin = owner.get("/api/v1/plugins/hours").await.data();
    assert_eq!(plugin["versions"].as_array().expect("versions").len(), 2);
    assert_eq!(plugin["versions"][0]["sha256"], made["sha256"]);
    let uid = owner.get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    assert_eq!(plugin["versions"][0]["uploaded_by"], format!("member {uid}"));
    let list = owner.get("/api/v1/plugins").await.data();
    assert_eq!(
        (&list["total"], &list["items"][0]["version"], &list["items"][0]["mode"]),
        (&json!(1), &json!(2), &Value::Null)
    );
    // A failure of the dry run is reported, and the upload is accepted.
    let failing = upload(&owner, "failing", looping()).await.data();
    assert_eq!((&failing["state"], &failing["report"]["dry_run"][0]["outcome"]), (&json!("tested"), &json!("failed")));
    assert_eq!(upload(&owner, "groups", naming(&["editor"])).await.data()["exports"], json!(["role-mapper"]));
}

#[tokio::test]
async fn an_invalid_component_is_refused_with_the_cause_and_not_stored() {
    let site = Site::with("plugins.compile_bytes = 1073741824").await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let good = denying("one");
    let replaced = |from: &str, to: &str| {
        let (from, to, mut bytes) = (from.as_bytes(), to.as_bytes(), good.clone());
        for at in 0..=bytes.len() - from.len() {
            if &bytes[at..at + from.len()] == from {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
        bytes
    };
    let core = wat::parse_str("(module)").expect("a module");
    let empty = wat::parse_str("(component)").expect("a component");
    let network = wat::parse_str("(component (import \"wasi:sockets/tcp@0.2.0\" (instance)))").expect("a component");
    for (what, bytes, word) in [
        ("nothing", vec![], "not_a_component"),
        ("text", b"hello, world".to_vec(), "not_a_component"),
        ("a core module", core, "not_a_component"),
        ("half of one", good[..good.len() / 2].to_vec(), "plugin_malformed"),
        ("no export of ours", empty, "plugin_exports"),
        ("the network", network, "plugin_imports"),
        ("another major", replaced("@1.0.0", "@2.0.0"), "plugin_major"),
        ("vectors that are none", with_section(&good, b"hello"), "plugin_vectors"),
    ] {
        let refused = upload(&owner, "hours", bytes).await;
        assert_eq!((refused.is(34_101_000).word(), refused.status), (word, 400), "{what}: {refused:?}");
    }
    let refused =
        owner.send_raw(reqwest::Method::POST, "/api/v1/plugins?name=a", "application/json", good.clone()).await;
    assert_eq!((refused.status, refused.word()), (415, "media_type"));
    let unnamed = owner.send_raw(reqwest::Method::POST, "/api/v1/plugins", "application/wasm", good).await;
    assert_eq!(unnamed.is(10_101_000).fields(), ["query.name"]);
    assert_eq!(owner.get("/api/v1/plugins").await.data()["total"], 0);
    let left: i64 =
        site.rows().query_row("select count(*) from plugin_components", [], |row| row.get(0)).expect("a number");
    assert_eq!(left, 0);
}

/// A component whose section of vectors is not a list of vectors.
fn with_section(component: &[u8], text: &[u8]) -> Vec<u8> {
    let name = vectors::SECTION.as_bytes();
    let mut section =
        vec![0, u8::try_from(1 + name.len() + text.len()).expect("short"), u8::try_from(name.len()).expect("short")];
    section.extend_from_slice(name);
    section.extend_from_slice(text);
    [component, &section].concat()
}

#[tokio::test]
async fn the_vectors_in_a_component_decide_whether_it_can_be_activated() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let with = |text: &str| vectors::replace_vectors(&denying("closed"), text.as_bytes()).expect("vectors");
    let red =
        with("[{name: early, authorize: {action: GET}, expect: allow}, {authorize: {action: GET}, expect: deny}]");
    let made = upload(&owner, "hours", red).await.data();
    assert_eq!((&made["state"], &made["report"]["vectors_passed"]), (&json!("compiled"), &json!(1)));
    let failed = json!([{"name": "early", "expected": "allow", "got": {"deny": "closed"}, "failure": null}]);
    assert_eq!(made["report"]["vectors_failed"], failed);
    for mode in ["shadow", "enforce"] {
        let refused = activate(&owner, "hours", json!({"version": 1, "mode": mode})).await;
        assert_eq!(refused.is(34_309_000).word(), "plugin_vectors_failed");
    }
    let green = with("[{authorize: {action: GET}, expect: {deny: closed}}]");
    let made = upload(&owner, "hours", green).await.data();
    assert_eq!(
        (&made["version"], &made["state"], &made["report"]["vectors_passed"]),
        (&json!(2), &json!("tested"), &json!(1))
    );
    activate(&owner, "hours", json!({"version": 2, "mode": "enforce"})).await.done();
}

#[tokio::test]
async fn names_are_letters_digits_and_hyphens_up_to_63() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for name in ["a", "b2-", &"x".repeat(63)] {
        upload(&acme.owner(), name, allowing()).await.done();
        acme.owner().get(&format!("/api/v1/plugins/{name}")).await.done();
    }
    for name in ["", "A", "2a", "-a", "a_b", "a.b", "%C3%A9", "a%2Fb", &"x".repeat(64)] {
        let refused = upload(&acme.owner(), name, allowing()).await;
        assert_eq!(refused.is(34_101_000).word(), "plugin_name", "{name}");
    }
}

#[tokio::test]
async fn the_size_of_a_component_holds_at_its_limit_and_not_one_byte_past_it() {
    let at_limit = denying(&"x".repeat(100));
    let beyond = denying(&"x".repeat(101));
    assert_eq!(beyond.len(), at_limit.len() + 1);
    let settings = format!(
        "[plugins]\nfile_bytes = {}\nlarge_organizations = [\"big\"]\n[plugins.large]\nfile_bytes = {}",
        at_limit.len(),
        beyond.len()
    );
    let site = Site::with(&settings).await;
    let (acme, big) = (site.organization("acme").await, site.organization("big").await);
    upload(&acme.owner(), "hours", at_limit).await.done();
    let refused = upload(&acme.owner(), "hours", beyond.clone()).await;
    assert_eq!((refused.status, refused.is(34_101_000).word()), (400, "plugin_too_large"));
    let message = refused.body["message"].as_str().expect("a sentence");
    assert!(message.contains("plugins.large_organizations"), "{message}");
    assert_eq!(upload(&big.owner(), "hours", beyond).await.data()["version"], 1);
    assert_eq!(big.owner().get("/api/v1/plugins/hours").await.data()["versions"][0]["large"], true);
    // Far beyond the limit, the body is not read.
    let refused = upload(&big.owner(), "hours", vec![0; 6 * 1_024 * 1_024 + 1]).await;
    assert_eq!((refused.status, refused.word()), (400, "plugin_too_large"));
}

#[tokio::test]
async fn the_numbers_of_plugins_and_of_versions_are_limited() {
    let site = Site::with("[plugins]\nper_organization = 2\nversions = 2").await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    upload(&owner, "one", denying("a")).await.done();
    upload(&owner, "two", denying("a")).await.done();
    let refused = upload(&owner, "three", denying("b")).await;
    assert_eq!(refused.is(34_309_000).word(), "plugins_full");
    upload(&owner, "one", denying("b")).await.done();
    assert_eq!(upload(&owner, "one", denying("c")).await.word(), "plugins_full");
    // A refused component is not kept compiled either.
    assert_eq!(std::fs::read_dir(site.path().join("compiled-plugins")).expect("folder").count(), 2);
    assert_eq!(upload(&owner, "one", denying("a")).await.data()["version"], 1);
    owner.delete("/api/v1/plugins/one/versions/1").await.done();
    assert_eq!(upload(&owner, "one", denying("c")).await.data()["version"], 3);
    owner.delete("/api/v1/plugins/two").await.done();
    upload(&owner, "three", denying("b")).await.done();
    let other = site.organization("bolt").await;
    upload(&other.owner(), "one", denying("a")).await.done();
}

#[tokio::test]
async fn uploads_per_minute_are_limited_and_refused_ones_count() {
    let site = Site::with("[plugins]\nuploads_per_min = 3").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    upload(&acme.owner(), "hours", denying("a")).await.done();
    assert_eq!(upload(&acme.owner(), "hours", b"nothing".to_vec()).await.word(), "not_a_component");
    // An invalid name and a caller without the permission do not count.
    assert_eq!(upload(&acme.owner(), "A", denying("a")).await.word(), "plugin_name");
    let viewer = acme.member_with_role("viewer").await.caller();
    assert_eq!(upload(&viewer, "hours", denying("a")).await.status, 403);
    upload(&acme.owner(), "hours", denying("a")).await.done();
    let refused = upload(&acme.owner(), "hours", denying("b")).await;
    assert_eq!((refused.status, refused.is(34_604_000).word()), (429, "uploads_limited"));
    let wait: u64 = refused.header("retry-after").expect("a header").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    upload(&bolt.owner(), "hours", denying("b")).await.done();
}

#[tokio::test]
async fn parallel_uploads_get_different_version_numbers() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let texts = ["a", "b", "c", "d", "e", "f", "a", "a"];
    let replies = join_all(texts.map(|text| upload(&owner, "hours", denying(text)))).await;
    let made: Vec<(u64, String)> = replies
        .iter()
        .map(|reply| {
            let data = reply.data();
            (data["version"].as_u64().expect("a number"), data["sha256"].as_str().expect("text").to_owned())
        })
        .collect();
    let mut unique = made.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!((&made[0], &made[0]), (&made[6], &made[7]));
}

#[tokio::test]
async fn a_component_with_an_export_of_the_wrong_type_is_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let odd = wat::parse_str(
        r#"(component
             (core module $m (func (export "f")))
             (core instance $i (instantiate $m))
             (func $f (canon lift (core func $i "f")))
             (instance $a (export "authorize" (func $f)))
             (export "roster:policy/authorizer@1.0.0" (instance $a)))"#,
    )
    .expect("a component");
    let refused = upload(&acme.owner(), "odd", odd).await;
    assert_eq!((refused.status, refused.word()), (400, "plugin_exports"), "{refused:?}");
    let starting = component("authorizer-plugin", STARTING);
    assert_eq!(upload(&acme.owner(), "odd", starting).await.word(), "plugin_start");
}

/// Traps when it is instantiated.
const STARTING: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
  (func (export "roster:policy/authorizer@1.0.0#authorize")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 0))
  (func $start (unreachable))
  (start $start))"#;

/// Denies, and carries this many bytes, which differ for every number.
fn carrying(bytes: usize, number: usize) -> Vec<u8> {
    let text: String = format!("{number:08}").repeat(bytes / 8);
    authorizer(
        &format!("(data (i32.const 1024) \"no\") (data $ballast {text:?})"),
        "(call $deny (i32.const 1024) (i32.const 2))",
    )
}

#[tokio::test]
async fn compiled_components_are_bounded_by_bytes_in_memory_and_on_disk() {
    const MIB: usize = 1_024 * 1_024;
    let mut site = Site::with(
        "[plugins]\nloaded_bytes_per_organization = 10485760
         cache_bytes_per_organization = 10485760\ncache_bytes = 15728640",
    )
    .await;
    let (owner_token, id, uid) = {
        let acme = site.organization("acme").await;
        site.import(json!([{"name": "doc"}, {"name": "doc.read", "parent": "doc"}])).await;
        let uid = acme.member_with(&["doc.read"]).await.uid;
        (acme.owner_token.clone(), acme.id.clone(), uid)
    };
    let acme = Organization { site: &site, id, owner_token };
    upload(&acme.owner(), "first", carrying(3 * MIB, 0)).await.done();
    activate(&acme.owner(), "first", json!({"version": 1, "mode": "enforce"})).await.done();
    let in_force = site.metric("roster_plugin_loaded_bytes");
    assert!((3..5).contains(&(in_force / MIB as u64)), "{in_force}");
    let before = site.resident_kib();
    for n in 1..=16 {
        upload(&acme.owner(), &format!("more-{n}"), carrying(3 * MIB, n)).await.done();
        assert!(site.metric("roster_plugin_cache_bytes") <= 10 * MIB as u64, "{n}");
    }
    // A component that was only tried is unloaded, and its memory is free again.
    assert_eq!(site.metric("roster_plugin_loaded_bytes"), in_force);
    let grown = site.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1_024, "{grown} KiB");
    // The oldest component stays on disk because it is in force.
    let folder = site.path().join("compiled-plugins");
    let files = || {
        let files =
            std::fs::read_dir(&folder).expect("folder").map(|file| file.expect("file").metadata().expect("its size"));
        files.map(|file| file.len()).collect::<Vec<_>>()
    };
    assert_eq!(files().len(), 3);
    assert_eq!(files().iter().sum::<u64>(), site.metric("roster_plugin_cache_bytes"));
    assert_eq!(site.metric("roster_plugin_uncached"), 14);
    let check = || acme.check(json!({"uid": uid, "permission": "doc.read"}));
    assert_eq!(check().await["reason"], "plugin_denied");
    // Components in force are loaded up to the limit; the others are loaded when they are called.
    for n in 1..=3 {
        let shadow = json!({"version": 1, "mode": "shadow"});
        activate(&acme.owner(), &format!("more-{n}"), shadow).await.done();
        assert_eq!(check().await["reason"], "plugin_denied");
        assert!(site.metric("roster_plugin_loaded_bytes") <= 10 * MIB as u64);
    }
    assert!(site.metric("roster_plugin_unloaded") > 0);
    let acme = (acme.id, acme.owner_token);
    // A smaller limit applies from the next start.
    site.between_runs(|folder| {
        let file = folder.join("roster.toml");
        let settings = std::fs::read_to_string(&file).expect("settings");
        let smaller = "cache_bytes_per_organization = 4194304";
        let settings = settings.replace("cache_bytes_per_organization = 10485760", smaller);
        std::fs::write(file, settings).expect("settings");
    });
    assert_eq!(files().len(), 1);
    let acme = Organization { site: &site, id: acme.0, owner_token: acme.1 };
    let decision = acme.check(json!({"uid": uid, "permission": "doc.read"})).await;
    assert_eq!(decision["reason"], "plugin_denied");
}

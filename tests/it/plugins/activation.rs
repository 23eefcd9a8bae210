//! Activation, rollback, deactivation and dry runs of an organization's plugins.

use serde_json::{Value, json};

use super::{activate, deactivate, dry_run, enforce, get_plugin, in_force, rollback, states, three_versions, upload};
use crate::harness::site::Site;
use crate::harness::wasm_fixtures::{allowing, authorizer, denying, looping, naming, trapping};

#[tokio::test]
async fn a_version_is_watched_enforced_rolled_back_and_deactivated_each_in_one_epoch() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    three_versions(&acme).await;
    assert_eq!(states(&get_plugin(&owner, "hours").await), ["tested"; 3]);

    let before = activate(&owner, "hours", json!({"version": 1, "mode": "shadow"})).await;
    assert_eq!(in_force(&before.data()), (vec![(1, "shadow")], vec![]));
    let first = activate(&owner, "hours", enforce(1)).await;
    // The watch mode of the same version ends.
    assert_eq!(in_force(&first.data()), (vec![(1, "enforce")], vec![]));
    assert_eq!(first.epoch(), before.epoch() + 1);
    let listed = owner.get("/api/v1/plugins").await.data()["items"][0].clone();
    assert_eq!((&listed["mode"], &listed["since"]), (&json!("enforce"), &first.data()["activations"][0]["since"]));

    let filter = json!({"permissions": ["video.*"], "routes": ["PUT /videos/:id"], "modules": ["cameras"]});
    let body = json!({"version": 2, "mode": "enforce", "may_grant": true, "filter": filter, "deadline_ms": 10});
    let second = activate(&owner, "hours", body).await;
    assert_eq!(second.epoch(), first.epoch() + 1);
    let plugin = second.data();
    assert_eq!(in_force(&plugin), (vec![(2, "enforce")], vec![1]));
    let present = &plugin["activations"][0];
    assert_eq!(
        (&present["may_grant"], &present["filter"], &present["deadline_ms"]),
        (&json!(true), &filter, &json!(10))
    );
    let watched = activate(&owner, "hours", json!({"version": 3, "mode": "shadow"})).await.data();
    assert_eq!(in_force(&watched), (vec![(2, "enforce"), (3, "shadow")], vec![1]));
    assert_eq!(states(&watched), ["retired", "active", "shadow"]);
    activate(&owner, "hours", enforce(1)).await.done();

    // Back to the second version with all of its settings, and on to the first.
    let back = rollback(&owner, "hours").await;
    assert_eq!(back.data()["activations"][0], *present);
    assert_eq!(in_force(&rollback(&owner, "hours").await.data()), (vec![(1, "enforce"), (3, "shadow")], vec![]));
    assert_eq!(rollback(&owner, "hours").await.is(34_309_000).word(), "nothing_to_roll_back");

    activate(&owner, "hours", enforce(2)).await.done();
    let out = deactivate(&owner, "hours").await;
    assert_eq!(in_force(&out.data()), (vec![], vec![]));
    let again = deactivate(&owner, "hours").await;
    assert_eq!((again.epoch(), again.data()), (out.epoch(), out.data()));
    assert_eq!(rollback(&owner, "hours").await.word(), "nothing_to_roll_back");
}

#[tokio::test]
async fn the_audit_log_records_every_change_with_digest_and_settings() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let made = upload(&owner, "hours", denying("one")).await.data();
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["target"]), (&json!("plugin.upload"), &json!("plugin hours")));
    assert_eq!((&entry["after"]["sha256"], &entry["after"]["version"]), (&made["sha256"], &json!(1)));
    upload(&owner, "hours", denying("two")).await.done();
    activate(&owner, "hours", enforce(1)).await.done();
    activate(&owner, "hours", json!({"version": 2, "mode": "enforce", "deadline_ms": 5})).await.done();
    let entry = site.last_audit_entry().await;
    assert_eq!(entry["action"], "plugin.activate");
    assert_eq!(
        (&entry["before"]["enforce"]["version"], &entry["before"]["enforce"]["sha256"]),
        (&json!(1), &made["sha256"])
    );
    let after = &entry["after"]["enforce"];
    assert_eq!((&after["version"], &after["deadline_ms"], &after["may_grant"]), (&json!(2), &json!(5), &json!(false)));
    for (made, action) in [
        (rollback(&owner, "hours").await, "plugin.roll_back"),
        (deactivate(&owner, "hours").await, "plugin.deactivate"),
        (owner.delete("/api/v1/plugins/hours/versions/1").await, "plugin.delete_version"),
        (owner.delete("/api/v1/plugins/hours").await, "plugin.delete"),
    ] {
        made.done();
        let seen = site.admin().get(&format!("/admin/audit?limit=1&action={action}")).await.data();
        assert_eq!(seen["items"][0]["action"], action);
    }
}

#[tokio::test]
async fn a_version_in_use_cannot_be_deleted_and_numbers_are_not_reused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    three_versions(&acme).await;
    let compiled = || std::fs::read_dir(site.path().join("compiled-plugins")).expect("folder").count();
    let stored = || -> i64 {
        site.rows().query_row("select count(*) from plugin_components", [], |row| row.get(0)).expect("a number")
    };
    assert_eq!((compiled(), stored()), (3, 3));
    activate(&owner, "hours", enforce(1)).await.done();
    activate(&owner, "hours", enforce(2)).await.done();
    activate(&owner, "hours", json!({"version": 3, "mode": "shadow"})).await.done();
    for version in 1..=3 {
        let refused = owner.delete(&format!("/api/v1/plugins/hours/versions/{version}")).await;
        assert_eq!(refused.is(34_309_000).word(), "plugin_in_force", "{version}");
    }
    assert_eq!(owner.delete("/api/v1/plugins/hours").await.word(), "plugin_in_force");
    assert_eq!(
        owner.delete("/api/v1/plugins/hours/versions/9").await.is(34_301_000).word(),
        "plugin_version_not_found"
    );
    deactivate(&owner, "hours").await.done();
    owner.delete("/api/v1/plugins/hours/versions/3").await.done();
    assert_eq!((compiled(), stored()), (2, 2));
    assert_eq!(upload(&owner, "hours", denying("four")).await.data()["version"], 4);
    let of_version = dry_run(&owner, "hours", json!({"version": 3, "input": {"action": "GET"}})).await;
    assert_eq!(of_version.word(), "plugin_version_not_found");
    // The same bytes under another name stay when the first plugin is deleted.
    upload(&owner, "other", denying("one")).await.done();
    owner.delete("/api/v1/plugins/hours").await.done();
    assert_eq!((compiled(), stored()), (1, 1));
    assert_eq!(owner.get("/api/v1/plugins/hours").await.is(34_301_000).word(), "plugin_not_found");
    let asked = dry_run(&owner, "other", json!({"input": {"action": "GET"}})).await.data();
    assert_eq!((&asked["outcome"], &asked["reason"]), (&json!("deny"), &json!("one")));
}

#[tokio::test]
async fn a_stale_if_match_changes_nothing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    three_versions(&acme).await;
    activate(&acme.owner(), "hours", enforce(3)).await.done();
    let tag = acme.owner().get("/api/v1/plugins/hours").await.header("etag").expect("a tag").to_owned();
    let current = acme.owner().with("if-match", &tag);
    let made = activate(&current, "hours", enforce(1)).await;
    made.done();
    for stale in [
        activate(&current, "hours", enforce(2)).await,
        rollback(&current, "hours").await,
        deactivate(&current, "hours").await,
        current.delete("/api/v1/plugins/hours").await,
        current.delete("/api/v1/plugins/hours/versions/2").await,
    ] {
        assert_eq!((stale.status, stale.word()), (412, "version_stale"));
    }
    let fresh = acme.owner().with("if-match", made.header("etag").expect("a tag"));
    deactivate(&fresh, "hours").await.done();
}

#[tokio::test]
async fn seeing_running_and_activating_are_separate_rights_and_an_owner_can_always_deactivate() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    three_versions(&acme).await;
    activate(&acme.owner(), "hours", enforce(1)).await.done();
    activate(&acme.owner(), "hours", enforce(2)).await.done();
    let may = async |rights: &[&str]| {
        let who = acme.member_with(rights).await.caller();
        [
            who.get("/api/v1/plugins").await.status,
            who.get("/api/v1/plugins/hours").await.status,
            who.get("/api/v1/plugins/hours/log").await.status,
            dry_run(&who, "hours", json!({"input": {"action": "GET"}})).await.status,
            upload(&who, "hours", denying("two")).await.status,
            activate(&who, "hours", enforce(2)).await.status,
        ]
    };
    assert_eq!(may(&["roster.plugin.list"]).await, [200, 403, 403, 403, 403, 403]);
    assert_eq!(may(&["roster.plugin.get"]).await, [403, 200, 403, 403, 403, 403]);
    assert_eq!(may(&["roster.plugin.log"]).await, [403, 403, 200, 403, 403, 403]);
    assert_eq!(may(&["roster.plugin.run"]).await, [403, 403, 403, 200, 403, 403]);
    assert_eq!(may(&["roster.plugin.upload"]).await, [403, 403, 403, 403, 200, 403]);
    assert_eq!(may(&["roster.plugin.activate"]).await, [403, 403, 403, 403, 403, 200]);
    // Whatever plugin is in force, even one that denies everything.
    let owner = acme.owner();
    for path in ["/api/v1/plugins", "/api/v1/plugins/hours", "/api/v1/plugins/hours/log"] {
        owner.get(path).await.done();
    }
    rollback(&owner, "hours").await.done();
    deactivate(&owner, "hours").await.done();
    // Clients, API keys and gateways have no access.
    let client = site.client(&["*"]).await.with("x-tenant-id", "acme");
    assert_eq!(client.get("/api/v1/plugins").await.status, 401);
    let uid = acme.member_with_role("tenant_owner").await.uid;
    let gateway = site.internal().with("x-uid", &uid).with("x-tenant-id", "acme");
    assert_eq!(gateway.get("/api/v1/plugins").await.status, 401);
}

#[tokio::test]
async fn a_plugin_that_can_grant_rights_is_activated_by_an_owner_only() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let rights = ["roster.plugin.activate", "roster.plugin.roll_back", "roster.plugin.deactivate"];
    let helper = acme.member_with(&rights).await.caller();
    let owner = acme.owner();
    upload(&owner, "hours", allowing()).await.done();
    upload(&owner, "groups", naming(&["editor"])).await.done();
    let granting = json!({"version": 1, "mode": "enforce", "may_grant": true});
    assert_eq!(activate(&helper, "hours", granting.clone()).await.is(34_505_000).word(), "owner_needed");
    assert_eq!(activate(&helper, "groups", enforce(1)).await.word(), "owner_needed");
    activate(&helper, "hours", enforce(1)).await.done();
    activate(&helper, "groups", json!({"version": 1, "mode": "shadow"})).await.done();
    activate(&owner, "groups", enforce(1)).await.done();
    activate(&owner, "hours", granting.clone()).await.done();
    activate(&helper, "hours", enforce(1)).await.done();
    // A rollback needs the same right as the activation that it restores.
    assert_eq!(rollback(&helper, "hours").await.word(), "owner_needed");
    rollback(&owner, "hours").await.done();
    deactivate(&helper, "hours").await.done();
    activate(&acme.admin(), "hours", granting).await.done();
}

#[tokio::test]
async fn plugins_of_organizations_are_independent() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let ours = upload(&acme.owner(), "hours", denying("ours")).await.data();
    upload(&acme.owner(), "hours", denying("more")).await.done();
    assert_eq!(bolt.owner().get("/api/v1/plugins").await.data()["total"], 0);
    for reply in [
        bolt.owner().get("/api/v1/plugins/hours").await,
        bolt.owner().get("/api/v1/plugins/hours/log").await,
        dry_run(&bolt.owner(), "hours", json!({"input": {"action": "GET"}})).await,
        activate(&bolt.owner(), "hours", enforce(1)).await,
        rollback(&bolt.owner(), "hours").await,
        deactivate(&bolt.owner(), "hours").await,
        bolt.owner().delete("/api/v1/plugins/hours").await,
        bolt.owner().delete("/api/v1/plugins/hours/versions/1").await,
    ] {
        assert_eq!(reply.is(34_301_000).word(), "plugin_not_found");
    }
    let foreign = bolt.owner().with("x-tenant-id", &acme.id).get("/api/v1/plugins/hours").await;
    assert_eq!(foreign.is(29_301_000).word(), "organization_not_found");
    // The same name and bytes are a first version of the other organization's own.
    let theirs = upload(&bolt.owner(), "hours", denying("ours")).await.data();
    assert_eq!((&theirs["version"], &theirs["sha256"]), (&json!(1), &ours["sha256"]));
    activate(&acme.owner(), "hours", enforce(1)).await.done();
    assert_eq!(in_force(&get_plugin(&bolt.owner(), "hours").await), (vec![], vec![]));
    bolt.owner().delete("/api/v1/plugins/hours").await.done();
    let asked = dry_run(&acme.owner(), "hours", json!({"version": 1, "input": {"action": "GET"}})).await.data();
    assert_eq!(asked["reason"], "ours");
}

#[tokio::test]
async fn after_a_restart_everything_is_as_it_was_and_nothing_is_compiled_again() {
    let mut site = Site::start().await;
    let acme = site.organization("acme").await;
    let (owner_token, id) = (acme.owner_token.clone(), acme.id.clone());
    three_versions(&acme).await;
    activate(&acme.owner(), "hours", enforce(1)).await.done();
    activate(&acme.owner(), "hours", enforce(2)).await.done();
    let told = |plugin: Value| (in_force(&plugin).0.len(), plugin["versions"].clone(), plugin["history"].clone());
    let before = told(get_plugin(&acme.owner(), "hours").await);
    let folder = site.path().join("compiled-plugins");
    let written = || {
        let files = std::fs::read_dir(&folder).expect("folder").map(|file| file.expect("file"));
        let mut all: Vec<_> = files
            .map(|file| (file.file_name(), file.metadata().expect("metadata").modified().expect("time")))
            .collect();
        all.sort();
        all
    };
    let files = written();
    // Files that belong to no stored component are deleted.
    std::fs::write(folder.join(format!("{}-0-1", "ab".repeat(32))), b"stale").expect("a file");
    site.restart().await;
    assert_eq!(written(), files);
    let owner = site.bearer(&owner_token).with("x-tenant-id", &id);
    assert_eq!(told(get_plugin(&owner, "hours").await), before);
    let asked = dry_run(&owner, "hours", json!({"input": {"action": "GET"}})).await.data();
    assert_eq!((&asked["version"], &asked["reason"]), (&json!(2), &json!("two")));
    rollback(&owner, "hours").await.done();
    assert_eq!(written(), files);
    // Without the cache it is compiled again.
    std::fs::remove_dir_all(&folder).expect("removed");
    site.restart().await;
    let owner = site.bearer(&owner_token).with("x-tenant-id", &id);
    let asked = dry_run(&owner, "hours", json!({"input": {"action": "GET"}})).await.data();
    assert_eq!((&asked["version"], &asked["reason"]), (&json!(1), &json!("one")));
}

#[tokio::test]
async fn an_invalid_activation_is_refused_with_its_faults() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    three_versions(&acme).await;
    upload(&owner, "groups", naming(&["editor"])).await.done();
    assert_eq!(activate(&owner, "hours", enforce(4)).await.is(34_301_000).word(), "plugin_version_not_found");
    assert_eq!(activate(&owner, "none", enforce(1)).await.is(34_301_000).word(), "plugin_not_found");
    let with = |extra: Value| {
        let mut body = enforce(1);
        body.as_object_mut().expect("map").extend(extra.as_object().expect("map").clone());
        body
    };
    for (body, fields) in [
        (json!({}), vec!["body.mode", "body.version"]),
        (json!({"version": 0, "mode": "perhaps"}), vec!["body.mode", "body.version"]),
        (with(json!({"deadline_ms": 21})), vec!["body.deadline_ms"]),
        (with(json!({"deadline_ms": 0})), vec!["body.deadline_ms"]),
        (
            with(json!({"filter": {"routes": ["videos", "GET /a", "get /a"]}})),
            vec!["body.filter.routes.0", "body.filter.routes.2"],
        ),
        (
            with(json!({"filter": {"permissions": ["a b"], "modules": ["A"]}})),
            vec!["body.filter.modules.0", "body.filter.permissions.0"],
        ),
        (with(json!({"filter": {"paths": []}})), vec!["body.filter.paths"]),
    ] {
        let refused = activate(&owner, "hours", body.clone()).await;
        assert_eq!(refused.is(10_101_000).fields(), fields, "{body}");
    }
    for (list, text) in [("permissions", "p"), ("routes", "/r"), ("modules", "m")] {
        let filter =
            |n: usize| with(json!({"filter": {list: (0..n).map(|n| format!("{text}{n}")).collect::<Vec<_>>()}}));
        activate(&owner, "hours", filter(100)).await.done();
        let refused = activate(&owner, "hours", filter(101)).await;
        assert_eq!(refused.is(10_101_000).fields(), [format!("body.filter.{list}")]);
    }
    activate(&owner, "hours", with(json!({"deadline_ms": 20}))).await.done();
    let mapper = |deadline_ms: u32| json!({"version": 1, "mode": "enforce", "deadline_ms": deadline_ms});
    assert_eq!(activate(&owner, "groups", mapper(51)).await.fields(), ["body.deadline_ms"]);
    activate(&owner, "groups", mapper(50)).await.done();
}

#[tokio::test]
async fn a_dry_run_reports_answer_cost_and_log_and_has_no_effect() {
    let site = Site::with("plugins.authorize_ms = 5000").await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let talking = authorizer(
        "(data (i32.const 1024) \"hello\")",
        "(call $log (i32.const 2) (i32.const 1024) (i32.const 5)) (call $deny (local.get $subject) (local.get $subject_bytes))",
    );
    for (name, guest) in [
        ("talking", talking),
        ("looping", looping()),
        ("trapping", trapping()),
        ("groups", naming(&["editor", "viewer"])),
    ] {
        upload(&owner, name, guest).await.done();
    }
    let asked = dry_run(&owner, "talking", json!({"input": {"action": "PUT", "subject": "kim"}})).await.data();
    assert_eq!((&asked["outcome"], &asked["reason"]), (&json!("deny"), &json!("kim")));
    assert_eq!(asked["log"], json!([{"level": "warn", "message": "hello"}]));
    assert!(asked["fuel"].as_u64() > Some(0) && asked["memory_bytes"].as_u64() > Some(0), "{asked}");
    // Without a member in the request, the caller is used.
    let me = owner.get("/me").await.data();
    let asked = dry_run(&owner, "talking", json!({"input": {"authorize": {"action": "PUT"}}})).await.data();
    assert_eq!(asked["reason"], me["uid"]);
    for (name, kind) in [("looping", "fuel"), ("trapping", "trap")] {
        let asked = dry_run(&owner, name, json!({"input": {"action": "PUT"}})).await.data();
        assert_eq!((&asked["outcome"], &asked["fault"]["kind"]), (&json!("failed"), &json!(kind)));
    }
    for input in
        [json!({"source": "ldap"}), json!({"map_roles": {"source": "ldap", "claims": {"department": "north"}}})]
    {
        let asked = dry_run(&owner, "groups", json!({"input": input})).await.data();
        assert_eq!((&asked["outcome"], &asked["roles"]), (&json!("roles"), &json!(["editor", "viewer"])));
    }
    for (name, input, fields) in [
        ("talking", json!({}), vec!["body.input.action"]),
        ("talking", json!({"action": "x", "colour": 1}), vec!["body.input.colour"]),
        ("talking", json!(7), vec!["body.input"]),
        ("talking", json!({"source": "ldap"}), vec!["body.input"]),
        ("groups", json!({"action": "x"}), vec!["body.input"]),
    ] {
        let refused = dry_run(&owner, name, json!({"input": input})).await;
        assert_eq!(
            (refused.is(34_101_000).word(), refused.fields()),
            ("plugin_input", fields.into_iter().map(str::to_owned).collect())
        );
    }
    assert_eq!(dry_run(&owner, "talking", json!({})).await.fields(), ["body.input"]);
    assert_eq!(
        dry_run(&owner, "talking", json!({"input": {"action": "x"}, "versoin": 1})).await.fields(),
        ["body.versoin"]
    );
    let long = dry_run(&owner, "talking", json!({"input": {"action": "x".repeat(70_000)}})).await.data();
    assert_eq!(long["fault"]["kind"], "input");
    assert_eq!(owner.get("/api/v1/plugins/talking/log").await.data()["total"], 0);
    assert_eq!(states(&get_plugin(&owner, "looping").await), ["tested"]);
}

#[tokio::test]
async fn plugins_by_command_with_the_server_running_or_stopped() {
    let mut site = Site::start().await;
    let acme = site.organization("acme").await;
    let (token, id) = (acme.owner_token.clone(), acme.id.clone());
    let file = |name: &str, bytes: Vec<u8>| {
        let path = site.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    let (one, two) = (file("one.wasm", denying("one")), file("two.wasm", denying("two")));
    let question = file("question.json", json!({"action": "PUT", "path": "/videos/7"}).to_string().into_bytes());
    let made = site.command(&["plugin", "upload", &one, "--name", "hours", "--org", "acme"]);
    assert_eq!(
        (&made["version"], &made["state"], &made["exports"]),
        (&json!(1), &json!("tested"), &json!(["authorizer"]))
    );
    let made = site.command_while_stopped(&["plugin", "upload", &two, "--name", "hours", "--org", "acme"]);
    assert_eq!(made["version"], 2);
    let flags = [
        "--mode",
        "enforce",
        "--may-grant",
        "--permissions",
        "video.*",
        "--routes",
        "/a,POST /b",
        "--deadline-ms",
        "7",
        "--org",
        "acme",
    ];
    let first = [&["plugin", "activate", "hours", "1"][..], &flags].concat();
    let active = site.command_while_stopped(&first);
    assert_eq!(active["activations"][0]["filter"]["routes"], json!(["/a", "POST /b"]));
    let second = site.command(&["plugin", "activate", "hours", "2", "--mode", "enforce", "--org", &id]);
    assert_eq!(in_force(&second), (vec![(2, "enforce")], vec![1]));
    let back = site.command(&["plugin", "rollback", "hours", "--org", "acme"]);
    assert_eq!((in_force(&back), &back["activations"][0]["deadline_ms"]), ((vec![(1, "enforce")], vec![]), &json!(7)));
    let asked = site.command(&["plugin", "dry-run", "hours", &question, "--version", "2", "--org", "acme"]);
    assert_eq!((&asked["outcome"], &asked["reason"]), (&json!("deny"), &json!("two")));
    assert_eq!(site.command(&["plugin", "list", "--org", "acme"])["items"][0]["enforced_version"], 1);
    assert_eq!(site.command(&["plugin", "log", "hours", "--org", "acme"])["total"], 0);
    let shown = site.command_while_stopped(&["plugin", "show", "hours", "--org", "acme"]);
    assert_eq!(states(&shown), ["active", "tested"]);
    let owner = site.bearer(&token).with("x-tenant-id", &id);
    assert_eq!(states(&get_plugin(&owner, "hours").await), ["active", "tested"]);
    site.command(&["plugin", "delete", "hours", "--version", "2", "--org", "acme"]);
    site.command(&["plugin", "deactivate", "hours", "--org", "acme"]);
    site.command_while_stopped(&["plugin", "delete", "hours", "--org", "acme"]);
    assert_eq!(site.command(&["plugin", "list", "--org", "acme"])["total"], 0);
}

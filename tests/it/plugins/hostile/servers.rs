//! A server with hostile guests: other tenants and its own process withstand them.

use std::path::{Path, PathBuf};
use std::process::Command;

use roster::kernel::sandbox::compile;
use serde_json::{Value, json};

use super::compiler_bombs::{adversarial, bombs, with_an_export};
use super::{End, Hostile, PluginFolder, corpus};
use crate::harness::organizations::Organization;
use crate::harness::site::{self, Site};
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures;
use crate::plugins::{activate, upload};

// ── limited resources ──

#[test]
fn plugins_run_with_little_address_space() {
    let bench = PluginFolder::of(&wasm_fixtures::denying("closed"));
    std::fs::write(
        bench.folder.path().join("vectors.yaml"),
        "- {authorize: {action: GET}, expect: {deny: closed}}\n".repeat(20),
    )
    .expect("written");
    let output = Command::new("sh")
        .current_dir(bench.folder.path())
        .args(["-c", "ulimit -v 6000000; exec \"$0\" plugin test plugin.wasm vectors.yaml --json"])
        .arg(site::binary())
        .output()
        .expect("roster plugin test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// ── the server ──

/// A process of the system whose command line contains these words.
fn process(of: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let command = |path: &PathBuf| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    processes.into_iter().find(|path| of(&command(path).replace('\0', " ")))
}

fn parent(process: &Path) -> Option<String> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned())
}

#[tokio::test]
async fn the_compiler_process_inherits_nothing_and_ends_with_the_server() {
    let mut site = Site::start().await;
    let token = site.organization("acme").await.owner_token;
    let path = site.path().display().to_string();
    let server = process(|command| command.contains("serve") && command.contains(&path)).expect("the server");
    let pid = server.file_name().expect("a number").to_string_lossy().into_owned();
    let (url, http) = (site.url.clone(), site.http.clone());
    let uploading = tokio::spawn(async move {
        let request = http.post(format!("{url}/api/v1/plugins?name=bomb")).bearer_auth(token);
        request.header("content-type", "application/wasm").body(adversarial()).send().await
    });
    let child = eventually("the compiler runs", async || {
        let child = process(|command| command.contains(compile::COMMAND))
            .filter(|child| parent(child).as_ref() == Some(&pid))?;
        // A confined process has completed its set-up.
        let limits = std::fs::read_to_string(child.join("limits")).ok()?;
        let cpu = limits.lines().find(|line| line.starts_with("Max cpu time"))?.to_owned();
        (!cpu.contains("unlimited")).then_some(child)
    })
    .await;
    let environment = std::fs::read_to_string(child.join("environ")).expect("its environment");
    let expected: String = compile::ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
    assert_eq!(environment, expected);
    let mut open: Vec<_> = std::fs::read_dir(child.join("fd"))
        .expect("its descriptors")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    site.kill();
    eventually("the compiler is gone", async || {
        let state = std::fs::read_to_string(child.join("status")).unwrap_or_default();
        (state.is_empty() || state.contains("State:\tZ")).then_some(())
    })
    .await;
    assert!(uploading.await.expect("a task").is_err());
    site.start_again();
}

/// Syncs a member with the roles of one external key.
async fn sync(organization: &Organization<'_>, uid: &str, key: &str) -> Value {
    let body = json!({"source": "ldap", "external_keys": [key]});
    organization.owner().post(&format!("/api/v1/permissions/users/{uid}/roles/sync"), body).await.data()
}

#[tokio::test]
async fn a_server_and_another_tenant_withstand_all_hostile_guests() {
    let site = Site::with("[plugins]\nper_organization = 200\nuploads_per_min = 10000\ncompile_cpu_s = 2").await;
    site.import(json!([{"name": "doc"}, {"name": "doc.read", "parent": "doc"}])).await;
    let (acme, north) = (site.organization("acme").await, site.organization("north").await);
    let question = |uid: &str| json!({"uid": uid, "permission": "doc.read"});
    acme.role("film", &[]).await;
    let staff = json!({"external_source": "ldap", "external_key": "staff", "internal_role_key": "film"});
    acme.admin().put("/api/v1/permissions/role-mappings", staff).await.done();
    let member = acme.member_with(&["doc.read"]).await.uid;
    let north_member = north.member_with(&["doc.read"]).await.uid;
    upload(&north.owner(), "closed", wasm_fixtures::denying("closed")).await.done();
    activate(&north.owner(), "closed", json!({"version": 1, "mode": "enforce"})).await.done();

    let owner = acme.owner();
    let mut guests = corpus();
    guests.push(Hostile { name: "adversarial".into(), bytes: adversarial(), end: End::Refused(String::new()) });
    guests.extend(bombs().map(|(name, component)| Hostile {
        name: format!("bomb-{}", name.replace(' ', "-")),
        bytes: with_an_export(&component),
        end: End::Refused("plugin_too_complex".into()),
    }));
    for guest in guests {
        let name = &guest.name;
        let uploaded = upload(&owner, name, guest.bytes).await;
        match &guest.end {
            // Which of its limits it reaches depends on the machine.
            End::Refused(word) if word.is_empty() => drop(uploaded.is(34_101_000).word()),
            End::Refused(word) => assert_eq!(uploaded.is(34_101_000).word(), word, "{name}"),
            End::Call(words) => {
                let is_authorizer = uploaded.data()["exports"] == json!(["authorizer"]);
                // A mapper that removes roles has no visible effect on a member without roles.
                assert_eq!(sync(&acme, &member, "staff").await["failed"], Value::Null, "before {name}");
                activate(&owner, name, json!({"version": 1, "mode": "enforce"})).await.done();
                if is_authorizer {
                    let decision = acme.check(question(&member)).await;
                    let expected = words.contains(&"allow".to_owned());
                    assert_eq!(decision["allow"], expected, "{name}: {decision}");
                    assert_eq!(decision["reason"] == "plugin_failed", !expected, "{name}: {decision}");
                } else {
                    let synced = sync(&acme, &member, "nobody").await;
                    let is_failed = !words.contains(&"roles".to_owned());
                    assert_eq!(synced["failed"] == true, is_failed, "{name}: {synced}");
                    let (kept, removed) =
                        if is_failed { (json!(["film"]), json!([])) } else { (json!([]), json!(["film"])) };
                    assert_eq!((&synced["kept"], &synced["removed"]), (&kept, &removed), "{name}: {synced}");
                }
                let seen = owner.get(&format!("/api/v1/plugins/{name}")).await.data();
                let figures = &seen["activations"][0]["figures"];
                // The time limit of the call, plus the delay with which a busy machine notices it.
                let bound_ms = if is_authorizer { 5 * 20 } else { 5 * 50 } + 5_000;
                assert!(
                    figures["duration_us_max"].as_u64().is_some_and(|us| us <= bound_ms * 1_000),
                    "{name}: {figures}"
                );
                owner.post(&format!("/api/v1/plugins/{name}/deactivate"), json!({})).await.done();
            }
        }
        // The other organization's plugin still decides, and so does this organization's base policy.
        assert_eq!(north.check(question(&north_member)).await["reason"], "plugin_denied", "beside {name}");
        assert_eq!(acme.check(question(&member)).await["allow"], true, "after {name}");
    }
}

/// The guest of the corpus with this name.
fn guest(name: &str) -> Vec<u8> {
    corpus().into_iter().find(|guest| guest.name == name).expect("a guest").bytes
}

/// The metrics of the plugin that is enforced under this name.
async fn figures(organization: &Organization<'_>, name: &str) -> (Value, bool) {
    let activation =
        organization.owner().get(&format!("/api/v1/plugins/{name}")).await.data()["activations"][0].clone();
    (activation["figures"].clone(), activation["quarantined"] == true)
}

#[tokio::test]
async fn slow_plugins_run_in_the_background_and_end_in_quarantine() {
    const CALLS: u64 = 12;
    let site = Site::start().await;
    site.import(json!([{"name": "doc"}, {"name": "doc.read", "parent": "doc"}])).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["doc.read"]).await.uid;
    let question = json!({"uid": member, "permission": "doc.read"});
    let slow = ["memory-filled-within-its-fuel", "memory-touched-page-by-page", "loop-just-short-enough"];
    let costly = ["memory-grown-and-filled", "memory-copied-again-and-again", "table-filled-again-and-again"];
    for name in slow.into_iter().chain(costly) {
        upload(&acme.owner(), name, guest(name)).await.done();
        activate(&acme.owner(), name, json!({"version": 1, "mode": "enforce"})).await.done();
        for _ in 0..CALLS {
            let decision = acme.check(question.clone()).await;
            assert_eq!(decision["allow"], slow.contains(&name), "{name}: {decision}");
        }
        let (figures, is_quarantined) = figures(&acme, name).await;
        let (calls, behind) = (&figures["calls"], (&figures["slow"], &figures["aside"]));
        if slow.contains(&name) {
            assert_eq!((calls, is_quarantined), (&json!({"allow": CALLS}), false), "{name}");
            assert_eq!(behind, (&json!(CALLS), &json!(CALLS)), "{name}");
        } else {
            assert_eq!((calls, is_quarantined), (&json!({"fuel": 10, "quarantined": CALLS - 10}), true), "{name}");
            assert_eq!(figures["aside"], 10, "{name}");
        }
        acme.owner().post(&format!("/api/v1/plugins/{name}/deactivate"), json!({})).await.done();
    }
    assert!(site.metric("roster_plugin_slow_calls_total") >= 3 * CALLS);
}

#[tokio::test]
async fn an_upload_waits_for_at_most_one_compiler_bomb_of_another_organization() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let site =
        Site::with("[plugins]\ncompile_cpu_s = 4\ncompile_queue_per_organization = 3\nuploads_per_min = 100000").await;
    let (acme, north) = (site.organization("acme").await, site.organization("north").await);
    let ended = Arc::new(AtomicUsize::new(0));
    let bombing: Vec<_> = (0..3)
        .map(|n| {
            let request = site.http.post(format!("{}/api/v1/plugins?name=bomb{n}", site.url));
            let request = request.bearer_auth(&acme.owner_token).header("content-type", "application/wasm");
            let (request, ended) = (request.body(adversarial()), ended.clone());
            tokio::spawn(async move {
                loop {
                    let again = request.try_clone().expect("a request");
                    let answer = again.send().await.expect("an answer");
                    // The fourth upload may have found a free slot for a moment.
                    if answer.status() != 503 {
                        ended.fetch_add(1, Ordering::SeqCst);
                        return answer.status();
                    }
                }
            })
        })
        .collect();
    // It is refused before inspection when all slots of the organization are taken.
    let nonsense = [&wasm_fixtures::allowing()[..8], b"nonsense"].concat();
    while upload(&acme.owner(), "fourth", nonsense.clone()).await.word() != "compiler_busy" {
        assert_eq!(ended.load(Ordering::SeqCst), 0, "the bombs are too small");
    }
    upload(&north.owner(), "closed", wasm_fixtures::denying("closed")).await.done();
    assert!(ended.load(Ordering::SeqCst) <= 1, "it waited behind {ended:?}");
    for bomb in bombing {
        assert_eq!(bomb.await.expect("a task").as_u16(), 400);
    }
}

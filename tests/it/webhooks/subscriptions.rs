//! Webhooks: creation, signatures, rotation of secrets, and the addresses to which they may not lead.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::outbox::QUICK;
use crate::harness::callers::As;
use crate::harness::receiver::{Answer, Received, Receiver, webhook};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;

fn is_signed(received: &Received, secret: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(format!("{}.{}", received.header("x-roster-timestamp"), received.text).as_bytes());
    let expected = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    received.header("x-roster-signature").split(',').any(|offered| offered == expected)
}

async fn ping(caller: &As<'_>, id: &str) -> Value {
    caller.post(&format!("/admin/webhooks/{id}/test"), json!({})).await.data()
}

#[tokio::test]
async fn a_webhook_is_created_read_updated_and_deleted_and_its_secret_is_shown_once() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    let url = format!("{}/hook?token=abc", receiver.url);
    let body = json!({"name": "n8n", "url": url, "kinds": ["member.deleted", "member.created", "member.created"]});

    let made = site.admin().with("idempotency-key", "one").post("/admin/webhooks", body.clone()).await;

    assert_eq!(made.header("etag"), Some("\"1\""));
    let made = made.data();
    let (id, secret) = (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned());
    assert!(secret.starts_with("whsec_") && secret.len() == 49, "{secret}");
    assert_eq!(made["key_id"], json!(format!("{id}.1")));
    let again = site.admin().with("idempotency-key", "one").post("/admin/webhooks", body).await;
    assert_eq!(again.is(32_309_000).word(), "secret_not_kept");
    let list = site.admin().get("/admin/webhooks").await.data();
    let one = &list["items"][0];
    assert_eq!(
        (&list["total"], &one["status"], &one["former_signed_until"]),
        (&json!(1), &json!("active"), &Value::Null)
    );
    assert_eq!(one["kinds"], json!(["member.created", "member.deleted"]));

    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    let received = receiver.wait_for(1).await.remove(0);
    assert!(is_signed(&received, &secret) && !is_signed(&received, "whsec_"));
    assert_eq!(received.header("x-roster-key-id"), format!("{id}.1"));
    assert_eq!(received.header("content-type"), "application/json");
    let path = format!("/admin/webhooks/{id}");
    let found = site.admin().get(&path).await;
    assert_eq!((found.header("etag"), &found.data()), (Some("\"1\""), one));
    let stale = site.admin().with("if-match", "\"7\"").patch(&path, json!({"name": "x"})).await;
    assert_eq!(stale.is(10_310_000).word(), "version_stale");
    let changed = site.admin().with("if-match", "\"1\"").patch(&path, json!({"kinds": ["*"], "name": "all"})).await;
    assert_eq!((changed.header("etag"), &changed.data()["kinds"]), (Some("\"2\""), &json!(["*"])));
    site.admin().patch(&path, json!({"status": "inactive"})).await.done();
    site.admin().post("/admin/members", json!({"username": "lee"})).await.done();
    site.admin().patch(&path, json!({"status": "active"})).await.done();
    site.admin().post("/admin/members", json!({"username": "max"})).await.done();
    assert_eq!(receiver.wait_for(2).await[1].body["data"]["username"], "max");

    site.admin().delete(&path).await.done();

    assert_eq!(site.admin().delete(&path).await.is(35_301_000).word(), "webhook_not_found");
    assert_eq!(site.admin().get("/admin/deliveries").await.data()["total"], 0);
    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    for told in [&audit, &site.log()] {
        assert!(!told.contains(&secret) && !told.contains("token=abc"), "{told}");
    }
    assert!(audit.contains("webhook.create") && audit.contains("webhook.delete"));
    let rows = std::fs::read(site.path().join("roster.db")).unwrap();
    assert!(!rows.windows(secret.len()).any(|window| window == secret.as_bytes()));
}

#[tokio::test]
async fn during_a_rotation_both_secrets_sign_and_after_it_the_new_one() {
    let receiver = Receiver::willing();
    let site = Site::with(&format!("{QUICK}webhooks.rotation_overlap_s = 600\n")).await;
    let (id, first) = webhook(&site.admin(), &receiver.url, &["*"]).await;

    let rotated = site.admin().post(&format!("/admin/webhooks/{id}/rotate"), json!({})).await.data();

    let second = rotated["secret"].as_str().unwrap();
    assert_ne!(second, first);
    let until = rotated["former_signed_until"].as_i64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((590_000..=600_000).contains(&(until - now)));
    assert_eq!(ping(&site.admin(), &id).await["ok"], true);
    let received = receiver.all().remove(0);
    assert!(is_signed(&received, &first) && is_signed(&received, second));
    assert_eq!(received.header("x-roster-key-id"), format!("{id}.2,{id}.1"));
    assert!(!site.admin().get("/admin/webhooks").await.body.to_string().contains(second));
    // Without an overlap the former secret ends at once.
    let strict = Site::with(&format!("{QUICK}webhooks.rotation_overlap_s = 0\n")).await;
    let (id, first) = webhook(&strict.admin(), &receiver.url, &["*"]).await;
    strict.admin().post(&format!("/admin/webhooks/{id}/rotate"), json!({})).await.done();
    ping(&strict.admin(), &id).await;
    let received = receiver.all().remove(1);
    assert!(!is_signed(&received, &first));
    assert_eq!(received.header("x-roster-key-id"), format!("{id}.2"));
}

#[tokio::test]
async fn a_test_delivery_reports_the_response() {
    let willing = Receiver::willing();
    let refusing = Receiver::start(|_, _| Answer::Status(404));
    let hanging = Receiver::start(|_, _| Answer::Hang);
    let site = Site::with(QUICK).await;
    let mut trials = Vec::new();
    for receiver in [&willing, &refusing, &hanging] {
        let (id, _) = webhook(&site.admin(), &receiver.url, &["member.created"]).await;
        let trial = ping(&site.admin(), &id).await;
        assert!(trial["duration_ms"].is_u64());
        trials.push(json!([trial["ok"], trial["status"], trial["error"]]));
    }

    assert_eq!(trials[0], json!([true, 200, null]));
    assert_eq!(trials[1], json!([false, 404, null]));
    assert_eq!(trials[2], json!([false, null, "it took longer than 400 ms"]));
    let received = willing.all().remove(0);
    assert_eq!((received.header("x-roster-event"), &received.body["kind"]), ("ping", &json!("ping")));
    assert_eq!(site.last_audit_entry().await["action"], "webhook.test");
    assert_eq!(site.admin().get("/admin/deliveries").await.data()["total"], 0);
}

#[tokio::test]
async fn no_webhook_leads_into_this_machine_or_a_private_network() {
    let receiver = Receiver::willing();
    let port = receiver.url.rsplit(':').next().unwrap().to_owned();
    let site = Site::with("webhooks.private_hosts = [\"n8n.lan\"]\noutbox.backoff_s = 0\noutbox.attempts = 2\n").await;
    let make = async |url: &str| {
        site.admin().post("/admin/webhooks", json!({"name": "x", "url": url, "kinds": ["member.created"]})).await
    };
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "2852039166",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
        "localhost",
        "a.localhost",
        "LOCALHOST.",
    ] {
        let reply = make(&format!("http://{host}:{port}/")).await;
        assert_eq!(reply.is(35_101_000).word(), "webhook_url", "{host}");
        assert_eq!(reply.fields(), ["body.url"]);
    }
    for url in
        ["ftp://example.org/", "example.org", "http://kim:secret@example.org/", "https://", "javascript:alert(1)"]
    {
        assert_eq!(make(url).await.is(10_101_000).fields(), ["body.url"], "{url}");
    }
    // A host name is not resolved at creation but at every use. Every machine can resolve its own name.
    let name = String::from_utf8(Command::new("hostname").output().expect("hostname").stdout).unwrap();
    let made = make(&format!("http://{}:{port}/", name.trim())).await.data();
    let id = made["id"].as_str().unwrap();
    let trial = ping(&site.admin(), id).await;
    let errors = [
        "its host has an address that webhooks do not reach: see webhooks.private_hosts",
        // A host name that does not exist.
        "it cannot be reached: name, port and certificate may be wrong, or it is down",
    ];
    assert!(errors.contains(&trial["error"].as_str().unwrap()) && trial["status"].is_null(), "{trial}");
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    eventually("the delivery is given up", async || {
        site.admin().get("/admin/deliveries?state=dead").await.data()["total"] == 1
    })
    .await;
    // An update is checked in the same way.
    let moved = site.admin().patch(&format!("/admin/webhooks/{id}"), json!({"url": "http://[::1]/"})).await;
    assert_eq!(moved.is(35_101_000).word(), "webhook_url");
    make("http://n8n.lan:5678/webhook/1").await.done();
    assert_eq!(receiver.all().len(), 0);
}

#[tokio::test]
async fn an_organization_has_its_own_webhooks_up_to_a_limit() {
    let receiver = Receiver::willing();
    let site = Site::with(&format!("{QUICK}limits.webhooks = 2\n")).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (own, _) = webhook(&acme.owner(), &receiver.url, &["*"]).await;
    webhook(&acme.owner(), &receiver.url, &["job.dead"]).await;

    let third = json!({"name": "x", "url": receiver.url, "kinds": ["*"]});
    assert_eq!(acme.owner().post("/admin/webhooks", third).await.is(35_309_000).word(), "webhooks_full");

    let foreign = webhook(&bolt.owner(), &receiver.url, &["job.dead"]).await.0;
    let everybodys = webhook(&site.admin(), &receiver.url, &["job.dead"]).await.0;
    assert_eq!(acme.owner().get("/admin/webhooks").await.data()["total"], 2);
    assert_eq!(site.admin().get("/admin/webhooks").await.data()["total"], 4);
    for id in [&foreign, &everybodys, &"x".to_owned()] {
        let path = format!("/admin/webhooks/{id}");
        for reply in [
            acme.owner().get(&path).await,
            acme.owner().patch(&path, json!({"name": "mine"})).await,
            acme.owner().delete(&path).await,
            acme.owner().post(&format!("{path}/rotate"), json!({})).await,
            acme.owner().post(&format!("{path}/test"), json!({})).await,
        ] {
            assert_eq!(reply.is(35_301_000).word(), "webhook_not_found");
        }
    }
    // An organization gets events about its own members only.
    bolt.owner().post("/admin/members", json!({"username": "theirs"})).await.done();
    site.admin().post("/admin/members", json!({"username": "nobodys"})).await.done();
    acme.owner().post("/admin/members", json!({"username": "ours"})).await.done();
    let told = receiver.wait_for(1).await;
    assert_eq!(told.iter().map(|event| event.body["data"]["username"].clone()).collect::<Vec<_>>(), ["ours"]);
    assert_eq!(site.admin().get(&format!("/admin/deliveries?target={own}")).await.data()["total"], 1);
}

#[tokio::test]
async fn all_faults_of_a_webhook_are_reported_together() {
    let site = Site::start().await;
    let body = |name: &str, kinds: Value| json!({"name": name, "url": "https://example.org/", "kinds": kinds});
    let all: Vec<String> = (0..51).map(|_| "*".to_owned()).collect();
    for (body, fields) in [
        (body("", json!([])), vec!["body.kinds", "body.name"]),
        (body(&"x".repeat(129), json!(["*"])), vec!["body.name"]),
        (body("x\n", json!(["member.born"])), vec!["body.kinds.0", "body.name"]),
        (body("x", json!(all)), vec!["body.kinds"]),
    ] {
        assert_eq!(site.admin().post("/admin/webhooks", body.clone()).await.is(10_101_000).fields(), fields, "{body}");
    }
    site.admin().post("/admin/webhooks", body(&"x".repeat(128), json!(&all[..50]))).await.done();
}

#[tokio::test]
async fn the_example_receiver_accepts_genuine_requests_only() {
    let site = Site::with(QUICK).await;
    // The secret is known only after the webhook is created, and the webhook needs the port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (id, secret) = webhook(&site.admin(), &url, &["member.created"]).await;
    let mut example = Command::new("node")
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/webhooks/receive.mjs"))
        .arg(port.to_string())
        .env("ROSTER_WEBHOOK_SECRET", &secret)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node");
    let mut line = String::new();
    BufReader::new(example.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), format!("listening on {url}"));
    let mut heard = BufReader::new(example.stdout.take().unwrap());

    assert_eq!(ping(&site.admin(), &id).await["status"], 204);
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();

    for kind in ["ping", "member.created"] {
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["kind"], kind);
    }
    // Forged, altered, too old, and unsigned.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let sign = |key: &str, timestamp: u64, body: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(format!("{timestamp}.{body}").as_bytes());
        format!("v1={}", hex::encode(mac.finalize().into_bytes()))
    };
    for (signature, timestamp, status) in [
        (sign(&secret, now, "{}"), now, 204),
        (sign("whsec_other", now, "{}"), now, 401),
        (sign(&secret, now, "{ }"), now, 401),
        (sign(&secret, now - 301, "{}"), now - 301, 401),
        (sign(&secret, now - 301, "{}"), now, 401),
        (String::new(), now, 401),
    ] {
        let request =
            site.http.post(&url).header("x-roster-timestamp", timestamp).header("x-roster-signature", &signature);
        assert_eq!(request.body("{}").send().await.unwrap().status(), status, "{signature}");
    }
    // It accepts both secrets during a rotation, because we sign with both.
    site.admin().post(&format!("/admin/webhooks/{id}/rotate"), json!({})).await.done();
    assert_eq!(ping(&site.admin(), &id).await["status"], 204);
    example.kill().unwrap();
    example.wait().unwrap();
}

/// Adds finished deliveries to a webhook.
fn add_deliveries(rows: &rusqlite::Connection, target: &str, many: u32) -> rusqlite::Result<()> {
    rows.execute_batch(&format!(
        "create temp table n as with n (n) as (values (1) union all select n + 1 from n where n < {many}) select n from n;
         insert into events (id, at, kind, data, request_id) select 100000 + n, 1, 'member.updated', '{{}}', '' from n;
         insert into deliveries (target, event_id, state, next_at, updated_at)
         select '{target}', 100000 + n, 'dead', 1, unixepoch() * 1000 from n;
         drop table n;"
    ))
}

#[tokio::test]
async fn deliveries_of_a_deleted_webhook_are_deleted_in_batches_and_the_rest_is_hidden() {
    let receiver = Receiver::willing();
    let mut site = Site::with(QUICK).await;
    let (id, _) = webhook(&site.admin(), &receiver.url, &["member.deleted"]).await;
    let target = format!("webhook {}", id.replace('-', ""));
    site.write_rows(|rows| add_deliveries(rows, &target, 9_000));
    let list = format!("/admin/deliveries?target={id}");
    assert_eq!(site.admin().get(&list).await.data()["total"], 9_000);

    site.admin().delete(&format!("/admin/webhooks/{id}")).await.done();

    let left = |site: &Site| -> i64 {
        site.rows().query_row("select count(*) from deliveries", [], |row| row.get(0)).expect("a number")
    };
    assert_eq!(left(&site), 0);
    site.require_small_changes();
    assert_eq!(site.last_audit_entry().await["after"], json!({"deliveries": 9_000}));

    // The state after a crash in between: the webhook is deleted, and some of its deliveries are left.
    let (id, _) = webhook(&site.admin(), &receiver.url, &["member.deleted"]).await;
    let (target, list) = (format!("webhook {}", id.replace('-', "")), format!("/admin/deliveries?target={id}"));
    site.write_rows(|rows| {
        rows.execute("delete from events where at = 1", [])?;
        add_deliveries(rows, &target, 300)?;
        rows.execute("delete from webhooks where id = unhex(?1)", [id.replace('-', "")])
    });
    for path in ["/admin/deliveries", "/admin/deliveries?state=dead", &list] {
        let page = site.admin().get(path).await.data();
        assert_eq!(page["items"], json!([]), "{path}");
    }
    assert_eq!(site.admin().get(&list).await.data()["total"], 0);
    let retry = format!("/admin/deliveries/100001.{}/retry", target.replace(' ', "."));
    assert_eq!(site.admin().post(&retry, json!({})).await.word(), "delivery_not_found");
    assert_eq!(left(&site), 300);
    site.restart().await;
    assert_eq!(left(&site), 0);
}

#[tokio::test]
async fn an_inactive_organization_gets_no_events() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    let uid = acme.member().await.uid;
    let (id, _) = webhook(&acme.owner(), &receiver.url, &["member.updated"]).await;
    let rename = async |name: &str| {
        site.admin().patch(&format!("/admin/members/{uid}"), json!({"display_name": name})).await.done();
    };
    let set = async |verb: &str| {
        site.admin().post(&format!("/admin/organizations/{}/{verb}", acme.id), json!({})).await.done();
    };

    set("deactivate").await;
    rename("Kim").await;
    eventually("the delivery is dead", async || {
        let page = site.admin().get(&format!("/admin/deliveries?target={id}&state=dead")).await.data();
        page["items"].as_array().is_some_and(|items| items.len() == 1)
    })
    .await;
    assert!(receiver.all().is_empty());
    set("activate").await;
    rename("Lee").await;

    assert_eq!(receiver.wait_for(1).await[0].body["data"]["display_name"], "Lee");
}

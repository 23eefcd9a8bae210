//! The outbox: delivery at least once and in order, independently for each target, whatever the external systems do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::organizations::Organization;
use crate::harness::receiver::{Answer, Received, Receiver, webhook};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;

/// Webhooks may use this machine, and attempts follow each other without a pause.
pub const QUICK: &str = "webhooks.private_hosts = [\"127.0.0.1\"]\noutbox.backoff_s = 0\noutbox.attempts = 3\nneighbours.timeout_ms = 400\n";

async fn create(site: &Site, username: &str) -> String {
    let made = site.admin().post("/admin/members", json!({"username": username})).await.data();
    made["uid"].as_str().expect("uid").to_owned()
}

async fn deliveries(site: &Site, query: &str) -> Vec<Value> {
    let page = site.admin().get(&format!("/admin/deliveries?limit=200&{query}")).await.data();
    page["items"].as_array().expect("items").clone()
}

async fn until_states(site: &Site, query: &str, expected: &[&str]) -> Vec<Value> {
    let states = async || -> Vec<String> {
        let rows = deliveries(site, query).await;
        rows.iter().map(|row| row["state"].as_str().unwrap_or("").to_owned()).collect()
    };
    eventually(query, async || states().await == expected).await;
    deliveries(site, query).await
}

/// The events in the order of their first arrival, each once: repeats are allowed, but a later event must not arrive
/// first.
fn order_of(received: &[Received]) -> Vec<i64> {
    let mut order: Vec<i64> = Vec::new();
    for event in received.iter().map(Received::event) {
        if order.last() != Some(&event) {
            order.push(event);
        }
    }
    order
}

fn is_rising(events: &[i64]) -> bool {
    events.windows(2).all(|pair| pair[0] < pair[1])
}

#[tokio::test]
async fn an_event_is_delivered_after_its_commit_with_its_action_and_member() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    webhook(&site.admin(), &format!("{}/hook?token=abc", receiver.url), &["*"]).await;

    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim"});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().unwrap().to_owned();
    let one = format!("/admin/members/{uid}");
    // An update without a change is not an event.
    site.admin().patch(&one, json!({"display_name": "Kim"})).await.done();
    site.admin().patch(&one, json!({"display_name": "Kim A."})).await.done();
    site.admin().post(&format!("{one}/deactivate"), json!({})).await.done();
    site.admin().post(&format!("{one}/activate"), json!({})).await.done();
    site.admin().patch(&one, json!({"username": "kima", "is_active": false})).await.done();
    receiver.wait_for(6).await;
    site.admin().delete(&one).await.done();

    let all = receiver.wait_for(7).await;
    let kinds: Vec<&str> = all.iter().map(|event| event.body["kind"].as_str().unwrap()).collect();
    let expected = ["created", "updated", "suspended", "activated", "updated", "suspended", "deleted"];
    assert_eq!(kinds, expected.map(|word| format!("member.{word}")));
    assert!(is_rising(&all.iter().map(Received::event).collect::<Vec<_>>()));
    let first = &all[0];
    assert_eq!(first.path, "/hook?token=abc");
    assert_eq!(first.body["data"]["username"], "kim");
    assert_eq!(first.body["data"]["email"], "kim@example.org");
    assert_eq!((&first.body["member_id"], &first.body["organization_id"]), (&json!(uid), &Value::Null));
    assert!(first.body["at"].is_i64());
    assert_eq!(first.header("x-roster-event"), "member.created");
    // The outbox contains nothing of an erased member.
    assert_eq!(
        all[6].body["data"],
        json!({"username": null, "email": null, "display_name": null, "status": "deleted"})
    );
    let kept: String =
        site.rows().query_row("select group_concat(data) from events", [], |row| row.get(0)).expect("data");
    assert!(!kept.contains("kim"), "{kept}");
    let rows = until_states(&site, "", &["delivered"; 7]).await;
    assert_eq!(rows[6]["id"].as_str(), Some(first.header("x-roster-delivery")));
}

#[tokio::test]
async fn every_way_to_become_a_member_is_an_event() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    webhook(&site.admin(), &receiver.url, &["member.created", "member.updated", "member.suspended"]).await;

    let invitation = acme.admin().post("/admin/invitations", json!({})).await.data();
    let newcomer = json!({"token": invitation["token"], "username": "inv", "password": crate::harness::site::PASSWORD});
    site.nobody().post("/auth/invitations/accept", newcomer).await.done();
    site.internal().post("/internal/users/upsert-by-sub", json!({"sub": "s-1", "username": "ups"})).await.done();
    site.internal().post("/internal/users/upsert-by-sub", json!({"sub": "s-1", "is_active": false})).await.done();
    let right =
        json!({"authentik_sub": "s-2", "scope_type": "site", "scope_id": "north", "module": "a", "action": "b"});
    site.admin().post("/admin/permissions/grant", right.clone()).await.done();
    site.admin().post("/admin/permissions/grant", right).await.done();
    acme.owner().post("/admin/members", json!({"username": "own"})).await.done();
    let member = site.member().await;
    member.caller().patch("/me", json!({"display_name": "Me"})).await.done();

    let all = receiver.wait_for(7).await;
    let told: Vec<(&str, bool)> = all
        .iter()
        .map(|event| (event.body["kind"].as_str().unwrap(), event.body["organization_id"] == json!(acme.id)))
        .collect();
    let expected = [
        ("member.created", true),
        ("member.created", false),
        ("member.suspended", false),
        ("member.created", false),
        ("member.created", true),
        ("member.created", false),
        ("member.updated", false),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_registration_is_an_event_after_the_e_mail_is_verified() {
    let (receiver, smtp) = (Receiver::willing(), crate::sessions::passwords::plain_smtp());
    let settings = format!("auth.registration = true\n{QUICK}{}", crate::sessions::passwords::mailing(&smtp));
    let site = Site::with(&settings.replace("timeout_ms = 400", "timeout_ms = 5000")).await;
    webhook(&site.admin(), &receiver.url, &["*"]).await;
    let body = json!({"email": "kim@example.org", "password": crate::harness::site::PASSWORD});
    site.nobody().post("/auth/register", body).await.done();
    let mail = smtp.next_mail_to("kim@example.org").await;
    let (_, rest) = mail.text.split_once("The code is ").expect("a code");
    assert_eq!(receiver.all().len(), 0);

    let body = json!({"email": "kim@example.org", "code": &rest[..6]});
    site.nobody().post("/auth/register/verify", body).await.done();

    let event = receiver.wait_for(1).await.remove(0);
    assert_eq!((&event.body["kind"], &event.body["data"]["status"]), (&json!("member.created"), &json!("active")));
}

#[tokio::test]
async fn a_mail_server_that_hangs_delays_no_webhook() {
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Receiver::willing();
    let settings = format!(
        "mail.host = \"127.0.0.1\"\nmail.port = {}\nmail.security = \"none\"\nmail.from = \"roster@example.org\"\n{}",
        silent.local_addr().unwrap().port(),
        QUICK.replace("timeout_ms = 400", "timeout_ms = 20000")
    );
    let site = Site::with(&settings).await;
    for n in 0..9 {
        let email = format!("m{n}@example.org");
        site.admin().post("/admin/members", json!({"email": email})).await.done();
        site.nobody().post("/auth/password/forgot", json!({"login": email})).await.done();
    }
    eventually("nine mails are queued", async || deliveries(&site, "target=mail").await.len() == 9).await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;

    let begun = Instant::now();
    create(&site, "kim").await;
    receiver.wait_for(1).await;

    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(until_states(&site, "state=pending", &["pending"; 9]).await.len(), 9);
}

#[tokio::test]
async fn a_failing_event_holds_back_later_ones_until_it_is_delivered() {
    // Every event fails twice before it is accepted.
    let receiver = Receiver::start(|_, nth| Answer::Status(if nth % 3 == 0 { 200 } else { 500 }));
    let site = Site::with(QUICK).await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;

    for n in 0..5 {
        create(&site, &format!("m{n}")).await;
    }

    let all = receiver.wait_for(15).await;
    let order = order_of(&all);
    assert!(order.len() == 5 && is_rising(&order), "{order:?}");
    // The id of a delivery is the same for all of its attempts and different for each event.
    let mut attempts: BTreeMap<String, usize> = BTreeMap::new();
    all.iter().for_each(|event| *attempts.entry(event.header("x-roster-delivery").to_owned()).or_default() += 1);
    assert_eq!(attempts.into_values().collect::<Vec<_>>(), [3; 5]);
    let rows = until_states(&site, "", &["delivered"; 5]).await;
    assert!(rows.iter().all(|row| row["attempts"] == 3 && row["last_error"].is_null() && row["next_at"].is_null()));
}

#[tokio::test]
async fn after_the_last_attempt_an_event_is_dead_the_next_is_delivered_and_a_retry_works() {
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_bad = first.clone();
    let receiver = Receiver::start(move |event, _| {
        let refuse = is_bad.load(std::sync::atomic::Ordering::SeqCst) && event.body["data"]["username"] == "bad";
        Answer::Status(if refuse { 500 } else { 204 })
    });
    let site = Site::with(QUICK).await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;
    create(&site, "bad").await;
    create(&site, "good").await;

    let rows = until_states(&site, "", &["delivered", "dead"]).await;

    assert_eq!((&rows[1]["attempts"], &rows[1]["last_error"]), (&json!(3), &json!("it answered 500")));
    assert_eq!(order_of(&receiver.all()).len(), 2);
    site.logged("a delivery is dead after its last attempt");
    let metrics = site.metrics();
    for line in [
        "roster_outbox{state=\"dead\",target=\"webhook\"} 1",
        "roster_deliveries_total{outcome=\"dead\",target=\"webhook\"} 1",
        "roster_deliveries_total{outcome=\"failed\",target=\"webhook\"} 2",
        "roster_deliveries_total{outcome=\"delivered\",target=\"webhook\"} 1",
        "roster_outbox_oldest_seconds 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    // A filter finds what failed.
    let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&deliveries(&site, "state=dead&tried=true").await), [rows[1]["id"].clone()]);
    assert_eq!(deliveries(&site, "state=pending&tried=true").await, [Value::Null; 0]);
    // A manual retry repeats it and keeps the number of earlier attempts.
    first.store(false, std::sync::atomic::Ordering::SeqCst);
    let dead = site.command(&["outbox", "list", "--state", "dead"]);
    assert_eq!((&dead["total"], &dead["items"][0]), (&json!(1), &rows[1]));
    let retried = site.command(&["outbox", "retry", rows[1]["id"].as_str().unwrap()]);
    assert_eq!((&retried["state"], &retried["attempts"]), (&json!("pending"), &json!(0)));
    until_states(&site, "", &["delivered", "delivered"]).await;
    let path = format!("/admin/deliveries/{}/retry", rows[1]["id"].as_str().unwrap());
    assert_eq!(site.admin().post(&path, json!({})).await.is(35_309_000).word(), "delivery_done");
    for nothing in ["x", "1.mail", "99.webhook.00000000000000000000000000000000", "1.webhook.%25"] {
        let reply = site.admin().post(&format!("/admin/deliveries/{nothing}/retry"), json!({})).await;
        assert_eq!(reply.is(35_301_000).word(), "delivery_not_found");
    }
}

#[tokio::test]
async fn the_wait_between_attempts_grows_and_a_retry_ends_it() {
    let receiver = Receiver::start(|_, nth| Answer::Status(if nth < 3 { 500 } else { 200 }));
    let site = Site::with(&QUICK.replace("backoff_s = 0", "backoff_s = 1")).await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;
    create(&site, "kim").await;

    let first = receiver.wait_for(1).await[0].at;
    let second = receiver.wait_for(2).await[1].at;

    assert!((Duration::from_millis(700)..Duration::from_secs(3)).contains(&(second - first)), "{:?}", second - first);
    let rows = until_states(&site, "state=pending", &["pending"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut waits = rows[0]["next_at"].as_i64().unwrap() - now;
    if rows[0]["attempts"] == 1 {
        // The list was read before the second failure was stored.
        eventually("the second failure", async || deliveries(&site, "").await[0]["attempts"] == 2).await;
        waits = deliveries(&site, "").await[0]["next_at"].as_i64().unwrap() - now;
    }
    assert!((900..=2_600).contains(&waits), "{waits}");
    site.admin().post(&format!("/admin/deliveries/{}/retry", rows[0]["id"].as_str().unwrap()), json!({})).await.done();
    let third = receiver.wait_for(3).await[2].at;
    assert!(third - second < Duration::from_millis(1_500), "{:?}", third - second);
    assert_eq!(until_states(&site, "", &["delivered"]).await[0]["attempts"], 3);
}

#[tokio::test]
async fn a_retry_after_header_is_honoured() {
    let asked = |after: &'static str| {
        Receiver::start(move |_, nth| match nth {
            1 => Answer::With(if after == "1" { 429 } else { 503 }, vec![("retry-after", after.into())], String::new()),
            _ => Answer::Status(200),
        })
    };
    let (seconds, late) = (asked("1"), asked("86400"));
    let site = Site::with(&format!("{QUICK}outbox.backoff_max_s = 2\n")).await;
    for receiver in [&seconds, &late] {
        webhook(&site.admin(), &receiver.url, &["member.created"]).await;
    }
    create(&site, "kim").await;

    let waited = |all: Vec<Received>| all[1].at - all[0].at;
    let wait = waited(seconds.wait_for(2).await);
    assert!((Duration::from_millis(950)..Duration::from_millis(1_900)).contains(&wait), "{wait:?}");
    // No target can delay a delivery for longer than the settings allow.
    let wait = waited(late.wait_for(2).await);
    assert!((Duration::from_millis(1_950)..Duration::from_secs(4)).contains(&wait), "{wait:?}");
}

#[tokio::test]
async fn a_slow_or_hanging_target_delays_no_other() {
    let hanging = Receiver::start(|_, _| Answer::Hang);
    let receiver = Receiver::willing();
    let site = Site::with(&QUICK.replace("timeout_ms = 400", "timeout_ms = 2000")).await;
    let (id, _) = webhook(&site.admin(), &hanging.url, &["member.created"]).await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;

    let begun = Instant::now();
    for n in 0..5 {
        create(&site, &format!("m{n}")).await;
    }
    receiver.wait_for(5).await;

    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("the first attempt is over", async || {
        deliveries(&site, &format!("target={id}"))
            .await
            .iter()
            .any(|row| row["last_error"] == "it took longer than 2000 ms")
    })
    .await;
}

#[tokio::test]
async fn unusual_responses_are_failures_described_without_their_content() {
    let html =
        Receiver::start(|_, _| Answer::With(404, vec![("content-type", "text/html".into())], "<h1>secret</h1>".into()));
    let elsewhere = Receiver::willing();
    let target = elsewhere.url.clone();
    let redirect = Receiver::start(move |_, _| Answer::With(302, vec![("location", target.clone())], String::new()));
    let long = Receiver::start(|_, _| Answer::With(200, Vec::new(), "x".repeat(3_000_000)));
    let gone = Receiver::start(|_, _| Answer::Status(410));
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/?token=abc", listener.local_addr().unwrap())
    };
    let site = Site::with(QUICK).await;
    let mut ids = Vec::new();
    for url in [&html.url, &redirect.url, &long.url, &gone.url, &nobody] {
        ids.push(webhook(&site.admin(), url, &["member.created"]).await.0);
    }
    create(&site, "kim").await;

    let mut found = Vec::new();
    for (id, state) in ids.iter().zip(["dead", "dead", "delivered", "dead", "dead"]) {
        let rows = until_states(&site, &format!("target={id}"), &[state]).await;
        found.push(rows[0]["last_error"].as_str().unwrap_or_default().to_owned());
    }

    assert_eq!(
        found,
        [
            "it answered 404",
            "it answered 302: redirects are not followed",
            "",
            "it answered 410, which switched the webhook off",
            "it cannot be reached: name, port and certificate may be wrong, or it is down",
        ]
    );
    assert_eq!(elsewhere.all().len(), 0);
    let list = site.admin().get("/admin/webhooks").await.data();
    let status = |id: &String| {
        list["items"].as_array().unwrap().iter().find(|webhook| webhook["id"] == json!(id)).unwrap()["status"].clone()
    };
    assert_eq!((status(&ids[3]), status(&ids[0])), (json!("inactive"), json!("active")));
    assert_eq!(site.last_audit_entry().await["action"], "webhook.switch_off");
    assert!(!site.log().contains("token=abc") && !site.log().contains("<h1>"), "{}", site.log());
    // An inactive webhook gets no events.
    create(&site, "lee").await;
    until_states(&site, &format!("target={}", ids[0]), &["dead", "dead"]).await;
    assert_eq!(deliveries(&site, &format!("target={}", ids[3])).await.len(), 1);
}

#[tokio::test]
async fn a_target_that_comes_back_gets_everything_in_order() {
    let site = Site::with(
        &QUICK
            .replace("attempts = 3", "attempts = 1000")
            .replace("backoff_s = 0", "backoff_s = 1")
            .replace("neighbours", "outbox.backoff_max_s = 1\nneighbours"),
    )
    .await;
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    webhook(&site.admin(), &format!("http://{place}"), &["member.created"]).await;
    for n in 0..20 {
        create(&site, &format!("m{n}")).await;
    }
    eventually("a failure", async || deliveries(&site, "").await[19]["attempts"] != 0).await;

    let receiver = Receiver::at(&place, |_, _| Answer::Status(200));

    let all = receiver.wait_for(20).await;
    let order: Vec<i64> = all.iter().map(Received::event).collect();
    assert!(order.len() == 20 && is_rising(&order), "{order:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_during_deliveries_loses_no_event_and_keeps_their_order() {
    let kills = crate::harness::site::rounds(4, 100);
    let slow = Receiver::start(|_, nth| match nth % 5 {
        0 => Answer::Status(500),
        _ => Answer::Slow(Duration::from_millis(7)),
    });
    let quick = Receiver::start(|_, nth| Answer::Status(if nth % 7 == 0 { 503 } else { 200 }));
    let mut site = Site::with(&QUICK.replace("attempts = 3", "attempts = 1000")).await;
    for receiver in [&slow, &quick] {
        webhook(&site.admin(), &receiver.url, &["member.created"]).await;
    }
    let mut acknowledged = 0;
    for round in 0..kills {
        for n in 0..12 {
            create(&site, &format!("r{round}-{n}")).await;
            acknowledged += 1;
        }
        // During a delivery, each time at another point.
        tokio::time::sleep(Duration::from_millis(u64::from(3 * (round % 7)))).await;
        site.kill();
        site.start_again();
    }

    eventually("everything is delivered", async || {
        site.admin().get("/admin/deliveries?state=pending").await.data()["total"] == 0
    })
    .await;

    let told: Vec<i64> = {
        let rows = site.rows();
        let mut statement = rows.prepare("select distinct event_id from deliveries order by event_id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(told.len(), acknowledged);
    for receiver in [&slow, &quick] {
        // At least once, and in order.
        assert_eq!(order_of(&receiver.all()), told);
    }
    let dead = site.admin().get("/admin/deliveries?state=dead").await.data();
    assert_eq!(dead["total"], 0);
}

#[tokio::test]
async fn an_organization_sees_and_retries_its_own_events_only() {
    let receiver = Receiver::start(|_, _| Answer::Status(500));
    let site = Site::with(QUICK).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    // Members created before the webhook cause no event.
    let own = webhook(&acme.owner(), &receiver.url, &["member.created"]).await.0;
    let foreign = webhook(&bolt.owner(), &receiver.url, &["member.created"]).await.0;
    let everybodys = webhook(&site.admin(), &receiver.url, &["member.created"]).await.0;
    let join = async |organization: &Organization<'_>, name: &str| {
        organization.owner().post("/admin/members", json!({"username": name})).await.done();
    };
    join(&acme, "a1").await;
    join(&bolt, "b1").await;
    create(&site, "nobodys").await;
    let of = |id: &str| format!("target={id}");
    for (id, count) in [(&own, 1), (&foreign, 1), (&everybodys, 3)] {
        until_states(&site, &of(id), &vec!["dead"; count]).await;
    }

    let seen = acme.owner().get("/admin/deliveries").await.data();

    assert_eq!((&seen["total"], &seen["items"][0]["webhook_id"]), (&json!(1), &json!(own)));
    assert_eq!(seen["items"][0]["organization_id"], json!(acme.id));
    for id in [&foreign, &everybodys] {
        assert_eq!(acme.owner().get(&format!("/admin/deliveries?{}", of(id))).await.data()["total"], 0);
        let theirs = deliveries(&site, &of(id)).await;
        for row in theirs {
            let path = format!("/admin/deliveries/{}/retry", row["id"].as_str().unwrap());
            assert_eq!(acme.owner().post(&path, json!({})).await.is(35_301_000).word(), "delivery_not_found");
        }
    }
    let path = format!("/admin/deliveries/{}/retry", seen["items"][0]["id"].as_str().unwrap());
    acme.owner().post(&path, json!({})).await.done();
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["organization_id"]), (&json!("delivery.retry"), &json!(acme.id)));
    // The platform sees an organization's deliveries as the organization does.
    assert_eq!(acme.admin().get("/admin/deliveries").await.data()["total"], 1);
}

#[tokio::test]
async fn a_list_is_narrowed_by_state_target_kind_and_time() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    let (id, _) = webhook(&site.admin(), &receiver.url, &["*"]).await;
    let uid = create(&site, "kim").await;
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    let rows = until_states(&site, "", &["delivered", "delivered"]).await;
    let (at, count) = (rows[0]["at"].as_i64().unwrap(), async |query: &str| deliveries(&site, query).await.len());

    for (query, expected) in [
        ("state=delivered".to_owned(), 2),
        ("state=pending".into(), 0),
        ("target=webhook".into(), 2),
        (format!("target={id}"), 2),
        ("target=mail".into(), 0),
        ("target=%25".into(), 0),
        ("kind=member.suspended".into(), 1),
        (format!("from={at}&to={}", at + 1), if rows[1]["at"] == rows[0]["at"] { 2 } else { 1 }),
        (format!("to={}", rows[1]["at"]), 0),
        ("offset=1".into(), 1),
    ] {
        assert_eq!(count(&query).await, expected, "{query}");
    }
    assert_eq!(site.admin().get("/admin/deliveries?state=lost").await.is(10_101_000).fields(), ["query.state"]);
}

#[tokio::test]
async fn old_finished_deliveries_are_deleted_and_waiting_ones_are_not() {
    let receiver =
        Receiver::start(|event, _| Answer::Status(if event.body["data"]["username"] == "wait" { 500 } else { 200 }));
    let mut site =
        Site::with(&QUICK.replace("attempts = 3", "attempts = 1000").replace("backoff_s = 0", "backoff_s = 3600"))
            .await;
    webhook(&site.admin(), &receiver.url, &["member.created"]).await;
    create(&site, "done").await;
    create(&site, "wait").await;
    eventually("a failure", async || deliveries(&site, "").await[0]["attempts"] == 1).await;

    // Thirty days later.
    let month = 2_592_000_000_i64;
    site.while_stopped("update events set at = at - ?", [month]);
    site.while_stopped("update deliveries set updated_at = updated_at - ?", [month]);
    eventually("old deliveries are deleted", async || deliveries(&site, "").await.len() == 1).await;

    assert_eq!(deliveries(&site, "").await[0]["state"], "pending");
    let events: i64 = site.rows().query_row("select count(*) from events", [], |row| row.get(0)).unwrap();
    assert_eq!(events, 1);
}

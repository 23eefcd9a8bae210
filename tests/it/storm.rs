//! A storm: clients that want nothing but to be in the way, while a member who is signed in is served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::site::{Site, http_client};
use crate::storm_clients;

/// Longest wait of a member for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_served_while_others_are_in_the_way() {
    let site = Site::with_limits("limits.head_wait_ms = 4000", "-n 1024").await;
    let address = site.url.strip_prefix("http://").expect("http").parse().expect("an address");
    let served = AtomicUsize::new(0);
    let me = async |client: &reqwest::Client| {
        let request = client.get(format!("{}/me", site.url)).bearer_auth(&site.admin_token);
        let answer = request.send().await.unwrap_or_else(|e| panic!("{e:?} after {}", served.load(Ordering::SeqCst)));
        assert_eq!(answer.status().as_u16(), 200);
        served.fetch_add(1, Ordering::SeqCst);
    };
    // With no connection kept, each request has to get in anew.
    // From an address of its own: on that of the storm it would be one of the crowd.
    let own = std::net::IpAddr::from([127, 0, 0, 2]);
    let anew = http_client().timeout(PATIENCE).pool_max_idle_per_host(0).local_address(own).build().expect("a client");
    me(&anew).await;

    storm_clients::raise_open_files();
    let mut storm = storm_clients::start(address);
    while !storm.is_empty() {
        me(&anew).await;
        if served.load(Ordering::SeqCst) == 20 {
            let command = tokio::task::block_in_place(|| site.command(&["audit", "verify"]));
            assert_eq!(command["ok"], true, "the command line has a way of its own");
        }
        while storm.try_join_next().is_some() {}
    }

    for _ in 0..10 {
        me(&anew).await;
    }
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    let log = site.log();
    assert!(log.contains("connections were closed"), "{log}");
    let reports = log.matches("connections were closed").count();
    assert!(reports <= 20, "a report is no line for each: {reports}");
}

#[tokio::test]
async fn readers_who_do_not_read_cost_no_more_than_their_sockets() {
    const READERS: usize = 300;
    const GROWTH_KIB_MAX: u64 = 40 * 1024;
    let site = Site::start().await;
    let address = site.url.strip_prefix("http://").expect("http").parse().expect("an address");
    storm_clients::raise_open_files();
    for path in ["/api/v1/docs", "/api/v1/openapi.json"] {
        let page = site.http.get(format!("{}{path}", site.url)).send().await.expect("an answer");
        assert!(page.bytes().await.expect("a page").len() > 400_000, "{path}");
        for encoding in ["identity", "gzip"] {
            let before = site.resident_kib();
            let mut readers = Vec::new();
            for _ in 0..READERS {
                readers.push(storm_clients::reader_who_stops(address, path, encoding).await);
            }
            let grown = site.resident_kib().saturating_sub(before);
            assert!(grown < GROWTH_KIB_MAX, "{path} {encoding}: {grown} KiB");
        }
    }
}

//! Invalid requests of a sign-in: addresses, states, and bindings to a browser.

use serde_json::{Value, json};

use super::{BINDING, REDIRECT, authorize_url, block, come_back, lab, people, returned};
use crate::harness::callers::As;
use crate::harness::counterparts::{Oidc, query};
use crate::harness::site::Site;

#[tokio::test]
async fn a_redirect_uri_is_compared_exactly() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let good = come_back(&oidc, &site, "alice").await;

    for wrong in [
        "http://127.0.0.1:9/callback/",
        "http://127.0.0.1:9/Callback",
        "HTTP://127.0.0.1:9/callback",
        "http://127.0.0.1:9/callback?x=1",
        "http://127.0.0.1:9/callback%23",
        "http://127.0.0.1:9/callback.evil.example",
        "http://127.0.0.1:9@evil.example/callback",
        "http://evil.example@127.0.0.1:9/callback",
        "http://127.0.0.1:90/callback",
        "http://127.0.0.1:9/x/../callback",
        "http://localhost:9/callback",
        "//127.0.0.1:9/callback",
        "http://127.0.0.1:9/callbac",
        "",
    ] {
        let asked = site.nobody().get(&format!("/auth/oidc/url?provider=lab&redirect_uri={wrong}")).await;
        assert_eq!(asked.is(10_101_000).fields(), ["query.redirect_uri"], "{wrong}");
        let mut body = good.clone();
        body["redirect_uri"] = json!(wrong);
        let reply = site.nobody().post("/auth/oidc/exchange", body).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body.redirect_uri"], "{wrong}");
    }
    site.nobody().post("/auth/oidc/exchange", good).await.done();
}

#[tokio::test]
async fn an_unknown_provider_is_refused() {
    let site = Site::start().await;
    let none = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}")).await;
    assert_eq!(none.is(28_605_000).word(), "not_configured");
    let exchanged = site.nobody().post("/auth/oidc/exchange", returned("lab", "c", "s")).await;
    assert_eq!(exchanged.is(28_605_000).word(), "not_configured");

    let blocks = ["lab", "other"].map(|name| block(name, &format!("http://127.0.0.1:9/{name}"), ""));
    let site = Site::with(&blocks.concat()).await;
    let unknown = site.nobody().get(&format!("/auth/oidc/url?provider=x&redirect_uri={REDIRECT}")).await;
    assert_eq!(unknown.is(28_301_000).word(), "unknown_provider");
    let which = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}")).await;
    assert_eq!(which.is(10_101_000).fields(), ["query.provider"]);
    let which =
        site.nobody().post("/auth/oidc/exchange", json!({"code": "c", "state": "s", "redirect_uri": REDIRECT})).await;
    assert_eq!(which.is(10_101_000).fields(), ["body.provider"]);
}

#[tokio::test]
async fn a_state_is_valid_once_and_for_its_provider() {
    let oidc =
        Oidc::start(json!({"clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}], "users": {"alice": {}}}));
    let other = format!("http://localhost:{}", oidc.issuer.rsplit(':').next().expect("a port"));
    let settings = format!("{}{}", block("lab", &oidc.issuer, ""), block("other", &other, ""));
    let site = Site::with(&settings).await;
    let exchange = async |body: Value| site.nobody().post("/auth/oidc/exchange", body).await;
    let before = people(&site);
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");

    let mut changed = state.clone().into_bytes();
    changed[0] = if changed[0] == b'A' { b'B' } else { b'A' };
    for wrong in
        ["x", "", &state[1..], &format!("{state}A"), std::str::from_utf8(&changed).expect("text"), &"A".repeat(512)]
    {
        let reply = exchange(returned("lab", "code", wrong)).await;
        assert_eq!(reply.status, if wrong.is_empty() { 400 } else { 401 }, "{wrong}");
        assert_eq!(reply.word(), if wrong.is_empty() { "bad_input" } else { "invalid_state" });
    }
    assert_eq!(exchange(returned("lab", "code", &"A".repeat(513))).await.is(10_101_000).fields(), ["body.state"]);
    assert_eq!(exchange(returned("other", "code", &state)).await.is(28_501_000).word(), "invalid_state");

    // A code that the provider refuses consumes the state.
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");
    assert_eq!(exchange(returned("lab", "no-code", &state)).await.is(28_501_000).word(), "oidc_refused");
    assert_eq!(exchange(returned("lab", "no-code", &state)).await.is(28_501_000).word(), "invalid_state");

    assert_eq!(people(&site), before);
}

#[tokio::test]
async fn at_most_one_of_many_exchanges_of_one_state_succeeds() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let back = come_back(&oidc, &site, "alice").await;

    let nobody = site.nobody();
    let replies =
        futures_util::future::join_all((0..6).map(|_| nobody.post("/auth/oidc/exchange", back.clone()))).await;

    let (well, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((well.len(), refused.len()), (1, 5));
    assert!(refused.iter().all(|reply| reply.word() == "invalid_state"));
}

/// Begins a sign-in. Returns the cookie that was set, and the parameters of the provider's callback, without a binding.
async fn begin(oidc: &Oidc, caller: As<'_>, binding: Option<&str>) -> (Option<String>, Value) {
    let binding = binding.map_or_else(String::new, |value| format!("&binding={value}"));
    let reply = caller.get(&format!("/auth/oidc/url?provider=lab&redirect_uri={REDIRECT}{binding}")).await;
    let cookie = reply.header("set-cookie").map(|line| line.split(';').next().expect("a pair").to_owned());
    let url = reply.data()["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = oidc.sign_in(&url, "alice", REDIRECT).await;
    let mut back =
        returned("lab", &query(&callback, "code").expect("code"), &query(&callback, "state").expect("state"));
    back.as_object_mut().expect("a body").remove("binding");
    (cookie, back)
}

async fn is_refused(caller: As<'_>, back: &Value, binding: Option<&str>) {
    let mut back = back.clone();
    if let Some(value) = binding {
        back["binding"] = json!(value);
    }
    let reply = caller.post("/auth/oidc/exchange", back).await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_state");
}

#[tokio::test]
async fn a_sign_in_is_bound_to_the_browser_that_began_it() {
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let browser = || site.nobody().with("sec-fetch-site", "same-origin");

    let (cookie, back) = begin(&oidc, browser(), None).await;
    let cookie = cookie.expect("a cookie");
    assert!(cookie.starts_with("oidc_state="), "{cookie}");
    let value = cookie.strip_prefix("oidc_state=").expect("a value");
    let (others, _) = begin(&oidc, browser(), None).await;
    let others = others.expect("a cookie");
    for binding in [None, Some(value), Some(BINDING)] {
        is_refused(browser(), &back, binding).await;
        is_refused(site.nobody(), &back, binding).await;
        is_refused(browser().with("cookie", &others), &back, binding).await;
        is_refused(browser().with("cookie", "oidc_state=x"), &back, binding).await;
    }
    // A second tab does not invalidate the sign-in of the first.
    let (again, second) = begin(&oidc, browser().with("cookie", &cookie), None).await;
    assert_eq!(again.as_ref(), Some(&cookie));
    browser().with("cookie", &cookie).post("/auth/oidc/exchange", back).await.done();
    browser().with("cookie", &cookie).post("/auth/oidc/exchange", second).await.done();
}

#[tokio::test]
async fn without_a_cookie_a_sign_in_is_bound_by_a_value_of_its_caller() {
    let settings = "cors.origins = [\"https://portal.example.net\"]";
    let (oidc, site) = lab(json!({"users": {"alice": {}}}), settings, "").await;
    let page = |fetch_site: &str, origin: &str| site.nobody().with("sec-fetch-site", fetch_site).with("origin", origin);
    let (portal, other) = ("https://portal.example.net", "https://evil.example");
    let unbound = format!("/auth/oidc/url?provider=lab&redirect_uri={REDIRECT}");

    // A page of another site, listed or not, and a client that is not a browser or an old one.
    for caller in [page("cross-site", portal), page("cross-site", other), page("", other), site.nobody()] {
        let refused = caller.get(&unbound).await;
        assert_eq!(refused.is(10_101_000).fields(), ["query.binding"]);
        assert_eq!(refused.header("set-cookie"), None);

        let (none, back) = begin(&oidc, caller.clone(), Some(BINDING)).await;
        assert_eq!(none, None);
        // In another browser or program the callback is of no use.
        let another = format!("{BINDING}-of-somebody-else");
        for binding in [None, Some(another.as_str()), Some(&BINDING[1..])] {
            is_refused(caller.clone(), &back, binding).await;
            is_refused(site.nobody(), &back, binding).await;
            let victim = || site.nobody().with("sec-fetch-site", "same-origin");
            is_refused(victim(), &back, binding).await;
            is_refused(victim().with("cookie", &format!("oidc_state={BINDING}")), &back, binding).await;
        }
        let mut bound = back;
        bound["binding"] = json!(BINDING);
        caller.post("/auth/oidc/exchange", bound).await.done();
    }

    // A caller that keeps cookies may still bind by a value, and then gets no cookie.
    let own = site.nobody().with("sec-fetch-site", "same-origin");
    let (none, mut back) = begin(&oidc, own.clone(), Some(BINDING)).await;
    assert_eq!(none, None);
    is_refused(own.clone(), &back, None).await;
    back["binding"] = json!(BINDING);
    own.post("/auth/oidc/exchange", back).await.done();
}

#[tokio::test]
async fn a_binding_holds_at_its_limits_and_not_one_past_them() {
    let (_oidc, site) = lab(json!({"users": {"alice": {}}}), "", "").await;
    let begun = async |length: usize| {
        let value = "x".repeat(length);
        site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={value}")).await
    };
    let ended = async |length: usize| {
        let mut back = returned("lab", "code", "state");
        back["binding"] = json!("x".repeat(length));
        site.nobody().post("/auth/oidc/exchange", back).await
    };
    for length in [32, 128] {
        begun(length).await.done();
        assert_eq!(ended(length).await.word(), "invalid_state");
    }
    for length in [0, 31, 129] {
        assert_eq!(begun(length).await.is(10_101_000).fields(), ["query.binding"], "{length}");
        assert_eq!(ended(length).await.is(10_101_000).fields(), ["body.binding"], "{length}");
    }
}

//! How the effects of plugins combine with the decision of the roles.

use proptest::prelude::*;
use roster::kernel::authz::decide::{PluginEffect, Reason, combine_deny_overrides};
use serde_json::{Value, json};

use super::{
    Fixture, Plug, admin, bind, check, documents, enforced, explained, filtered, permission, plugin_outcomes, watched,
};
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::CHECK;
use crate::permissions::checks::route;

pub fn granting(name: &'static str, component: Vec<u8>) -> Plug {
    Plug { may_grant: true, ..enforced(name, component) }
}

fn right(uid: &str, module: &str) -> Value {
    json!({"uid": uid, "scope_type": "site", "scope_id": "north", "module": module, "action": "view"})
}

/// A grant in the organization itself: an organization's own plugin may allow only such a right.
fn own_right(uid: &str, organization: &str) -> Value {
    json!({"uid": uid, "scope_type": "organization", "scope_id": organization, "module": "cameras", "action": "view"})
}

async fn reason(site: &Site, organization: &str, question: Value) -> String {
    let decision = check(site, organization, question).await;
    let word = decision["reason"].as_str().expect("a reason").to_owned();
    assert_eq!(decision["allow"], json!(word.starts_with("ok_")), "{decision}");
    word
}

fn stage(decision: &Value) -> &str {
    decision["because"]["stages"][2]["verdict"].as_str().expect("a stage")
}

fn said() -> impl Strategy<Value = PluginEffect> {
    prop_oneof![
        any::<bool>().prop_map(|may_grant| PluginEffect::Allow { may_grant }),
        Just(PluginEffect::Deny),
        Just(PluginEffect::Abstain),
        Just(PluginEffect::Failed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::harness::site::rounds(10_000, 1_000_000)))]

    /// The combination rule of POLICY, written a second time: a denial or a failure wins, base allows, and a plugin
    /// that may grant allows.
    #[test]
    fn plugin_effects_are_combined_by_deny_overrides(
        base in (0..Reason::ALL.len()).prop_map(|n| Reason::ALL[n]),
        said in prop::collection::vec(said(), 0..6),
    ) {
        let settled = combine_deny_overrides(base, said.iter().copied());
        let refuses = |one: &&PluginEffect| matches!(one, PluginEffect::Deny | PluginEffect::Failed);
        let expected = match said.iter().find(refuses) {
            Some(PluginEffect::Deny) => Reason::PluginDenied,
            Some(_) => Reason::PluginFailed,
            None if base == Reason::NoPermission && said.contains(&PluginEffect::Allow { may_grant: true }) => Reason::OkPlugin,
            None => base,
        };
        prop_assert_eq!(settled, expected);
        // The result does not depend on the order.
        let backwards = combine_deny_overrides(base, said.iter().rev().copied());
        prop_assert_eq!(settled.allows(), backwards.allows());
        // Without plugins, or if every plugin abstains, the base decision stands.
        prop_assert_eq!(combine_deny_overrides(base, said.iter().map(|_| PluginEffect::Abstain)), base);
    }
}

/// The expected decision for one plugin, written from the text of the policy.
fn expected(base: &'static str, may_be_asked: bool, can_be_opened: bool, plug: &(&str, bool, bool)) -> &'static str {
    let (outcome, is_enforced, may_grant) = *plug;
    let is_allowed = base.starts_with("ok_");
    let is_asked = may_be_asked && (is_allowed || (base == "no_permission" && can_be_opened && may_grant));
    match outcome {
        _ if !is_enforced || !is_asked => base,
        "deny" => "plugin_denied",
        "trap" => "plugin_failed",
        "allow" if !is_allowed => "ok_plugin",
        _ => base,
    }
}

/// What a plugin says, whether it is enforced, and whether it may grant.
type Plugged = (&'static str, bool, bool);

/// An organization for every kind of plugin.
async fn places(site: &Site) -> Vec<(Fixture, Plugged)> {
    let mut places = Vec::new();
    for outcome in ["allow", "deny", "abstain", "trap"] {
        for (is_enforced, may_grant) in [(true, false), (true, true), (false, false), (false, true)] {
            let place = Fixture::new(site, &format!("o-{outcome}-{is_enforced}-{may_grant}")).await;
            site.admin().post("/admin/permissions/grant", right(&place.holder, "cameras")).await.done();
            places.push((place, (outcome, is_enforced, may_grant)));
        }
    }
    let bound = places.iter().map(|(place, (outcome, is_enforced, may_grant))| {
        let component = match *outcome {
            "allow" => wasm_fixtures::allowing(),
            "deny" => wasm_fixtures::denying("not today"),
            "abstain" => wasm_fixtures::abstaining(),
            _ => wasm_fixtures::trapping(),
        };
        let plug =
            Plug { name: "rule", component, is_enforced: *is_enforced, may_grant: *may_grant, filter: json!({}) };
        (place.id.as_str(), plug)
    });
    let bound: Vec<_> = bound.collect();
    bind(site, bound).await;
    places
}

/// Questions, each with the base decision, whether plugins are called at all, and whether one could allow it.
fn cases(place: &Fixture, stranger: &str, suspended: &str) -> [(Value, &'static str, bool, bool); 20] {
    let Fixture { id, holder, other } = place;
    let other_scope = json!({
        "uid": other, "scope_type": "organization", "scope_id": "platform", "module": "m", "action": "view",
    });
    [
        (permission(holder, "doc.read"), "ok_role", true, true),
        (permission(other, "doc.read"), "no_permission", true, true),
        (route(holder, "GET", "/docs/7"), "ok_role", true, true),
        (route(holder, "HEAD", "/docs/7/"), "ok_role", true, true),
        (route(holder, "PUT", "/docs/7"), "no_permission", true, true),
        (right(holder, "cameras"), "ok_grant", true, true),
        (right(other, "cameras"), "no_permission", true, false),
        (own_right(other, id), "no_permission", true, true),
        (other_scope, "no_permission", true, false),
        (permission(holder, "doc.old"), "no_permission", true, false),
        (route(holder, "GET", "/old"), "no_permission", true, false),
        (permission(holder, "nowhere"), "no_permission", false, false),
        (route(holder, "GET", "/nowhere"), "unmapped_route", false, false),
        (route(holder, "DELETE", "/docs/7"), "method_not_mapped", false, false),
        (route(holder, "GET", "/docs/../7"), "path_not_canonical", false, false),
        (permission(stranger, "doc.read"), "not_a_member", false, false),
        (permission(suspended, "doc.read"), "member_inactive", false, false),
        (permission(holder, "roster.role.list"), "no_permission", false, false),
        (permission(holder, "roster"), "no_permission", false, false),
        (
            json!({"uid": holder, "app": "roster", "method": "GET", "path": "/api/v1/permissions/roles"}),
            "no_permission",
            false,
            false,
        ),
    ]
}

#[tokio::test]
async fn gates_base_and_plugins_decide_in_order() {
    let site = Site::with("[plugins]\nfailures = 10000").await;
    site.import(documents()).await;
    let places = places(&site).await;
    let (stranger, suspended) = (site.member().await.uid, site.member().await.uid);
    for (place, _) in &places {
        place.organization(&site).link(&suspended).await;
    }
    site.admin().post(&format!("/admin/members/{suspended}/deactivate"), json!({})).await.done();

    for (place, plug) in &places {
        let (id, cases) = (&place.id, cases(place, &stranger, &suspended));
        let questions: Vec<&Value> = cases.iter().map(|(question, ..)| question).collect();
        let plain = check(&site, id, json!({"questions": questions})).await;
        for (n, (question, base, may_be_asked, can_be_opened)) in cases.iter().enumerate() {
            let expected = expected(base, *may_be_asked, *can_be_opened, plug);
            let answer = &plain["decisions"][n];
            assert_eq!(answer["reason"], expected, "{plug:?} {question}");
            assert_eq!(answer["allow"], json!(expected.starts_with("ok_")), "{plug:?} {question}");
            assert_eq!(answer.get("message").is_some(), expected == "plugin_denied", "{plug:?} {answer}");
            let explained = explained(&site, id, question.clone()).await;
            assert_eq!(explained["reason"], expected, "{plug:?} {question}");
            let is_asked =
                *may_be_asked && (base.starts_with("ok_") || (*base == "no_permission" && *can_be_opened && plug.2));
            assert_eq!(plugin_outcomes(&explained).len(), usize::from(is_asked), "{plug:?} {question} {explained}");
            let word = match plug {
                (_, false, _) => "none_bound",
                _ if !is_asked => "not_asked",
                _ if expected != *base => expected,
                ("allow", ..) => "allow",
                _ => "abstain",
            };
            assert_eq!(stage(&explained), word, "{plug:?} {question}");
        }
    }
}

#[tokio::test]
async fn plugins_are_not_called_for_roster_s_own_permissions() {
    let site = Site::start().await;
    site.import(documents()).await;
    let place = Fixture::new(&site, "acme").await;
    let owner = place.organization(&site).member_with_role("tenant_owner").await.uid;
    bind(&site, vec![(&place.id, enforced("shut", wasm_fixtures::denying("nobody gets in")))]).await;
    for question in [
        permission(&owner, "roster.role.list"),
        json!({"uid": owner, "app": "roster", "method": "GET", "path": "/api/v1/permissions/roles"}),
    ] {
        assert_eq!(reason(&site, &place.id, question).await, "ok_role");
    }
    // So the organization can still administer itself.
    admin(&site, &place.id).get("/api/v1/permissions/roles").await.done();
}

#[tokio::test]
async fn several_plugins_run_in_order_and_the_first_denial_or_failure_decides() {
    let site = Site::start().await;
    site.import(documents()).await;
    let (first, second, third, fourth) = (
        Fixture::new(&site, "first").await,
        Fixture::new(&site, "second").await,
        Fixture::new(&site, "third").await,
        Fixture::new(&site, "fourth").await,
    );
    bind(
        &site,
        vec![
            (&first.id, granting("opens", wasm_fixtures::allowing())),
            (&first.id, granting("shuts", wasm_fixtures::denying("shut"))),
            (&second.id, granting("shuts", wasm_fixtures::denying("shut"))),
            (&second.id, granting("opens", wasm_fixtures::allowing())),
            (&third.id, granting("breaks", wasm_fixtures::trapping())),
            (&third.id, granting("shuts", wasm_fixtures::denying("shut"))),
            (&fourth.id, enforced("agrees", wasm_fixtures::allowing())),
            (&fourth.id, granting("opens", wasm_fixtures::allowing())),
            (&fourth.id, granting("silent", wasm_fixtures::abstaining())),
        ],
    )
    .await;
    for (place, of_holder, of_other, who) in [
        (&first, "plugin_denied", "plugin_denied", vec!["opens 1 enforce allow", "shuts 1 enforce deny"]),
        (&second, "plugin_denied", "plugin_denied", vec!["shuts 1 enforce deny"]),
        (&third, "plugin_failed", "plugin_failed", vec!["breaks 1 enforce trap"]),
        (
            &fourth,
            "ok_role",
            "ok_plugin",
            vec!["agrees 1 enforce allow", "opens 1 enforce allow", "silent 1 enforce abstain"],
        ),
    ] {
        let by_holder = explained(&site, &place.id, permission(&place.holder, "doc.read")).await;
        assert_eq!(
            (by_holder["reason"].as_str(), plugin_outcomes(&by_holder)),
            (Some(of_holder), who.iter().map(|text| (*text).to_owned()).collect())
        );
        assert_eq!(reason(&site, &place.id, permission(&place.other, "doc.read")).await, of_other);
    }
    let denied = check(&site, &first.id, permission(&first.holder, "doc.read")).await;
    assert_eq!(denied["message"], "shut");
}

#[tokio::test]
async fn a_filter_determines_which_questions_a_plugin_covers() {
    let site = Site::start().await;
    site.import(documents()).await;
    let (mut places, mut bound) = (Vec::new(), Vec::new());
    // Which of these questions: reading by permission, reading by route, editing by route, a grant.
    let cases = [
        (json!({}), [true, true, true, true]),
        (json!({"permissions": ["doc.read"]}), [true, true, false, false]),
        (json!({"permissions": ["doc.*"]}), [true, true, true, false]),
        (json!({"permissions": ["video.*"]}), [false, false, false, false]),
        (json!({"routes": ["/docs/:id"]}), [false, true, true, false]),
        (json!({"routes": ["PUT /docs/{any}"]}), [false, false, true, false]),
        (json!({"routes": ["/*rest"]}), [false, true, true, false]),
        (json!({"modules": ["cameras"]}), [false, false, false, true]),
        (json!({"permissions": ["doc.edit"], "modules": ["cameras"]}), [false, false, true, true]),
    ];
    for (n, (filter, _)) in cases.iter().enumerate() {
        let organization = site.organization(&format!("f{n}")).await;
        let uid = organization.member_with(&["doc.read", "doc.edit"]).await.uid;
        site.admin().post("/admin/permissions/grant", right(&uid, "cameras")).await.done();
        bound.push(filtered(filter.clone(), enforced("shut", wasm_fixtures::denying("shut"))));
        places.push((organization.id.clone(), uid));
    }
    bind(&site, places.iter().zip(bound).map(|((id, _), plug)| (id.as_str(), plug)).collect()).await;
    for ((id, uid), (filter, covered)) in places.iter().zip(cases) {
        let questions = [
            permission(uid, "doc.read"),
            route(uid, "GET", "/docs/7?x=1"),
            route(uid, "PUT", "/docs/7/"),
            right(uid, "cameras"),
        ];
        for (question, is_covered) in questions.into_iter().zip(covered) {
            let decision = explained(&site, id, question.clone()).await;
            let base = if question["module"].is_null() { "ok_role" } else { "ok_grant" };
            let (reason, word) = if is_covered { ("plugin_denied", "plugin_denied") } else { (base, "not_covered") };
            assert_eq!((decision["reason"].as_str(), stage(&decision)), (Some(reason), word), "{filter} {question}");
        }
    }
}

#[tokio::test]
async fn a_watched_plugin_has_no_effect_and_reports_its_would_be_decision() {
    let site = Site::with("[decisions]\nallow_every = 0").await;
    site.import(documents()).await;
    let (alone, next) = (Fixture::new(&site, "alone").await, Fixture::new(&site, "next").await);
    bind(
        &site,
        vec![
            (&alone.id, watched("shut", wasm_fixtures::denying("shut"))),
            // The enforced version denies; the watched next version would allow.
            (&next.id, enforced("rule", wasm_fixtures::denying("shut"))),
            (&next.id, watched("rule", wasm_fixtures::abstaining())),
        ],
    )
    .await;
    let decision = explained(&site, &alone.id, permission(&alone.holder, "doc.read")).await;
    assert_eq!((decision["reason"].as_str(), stage(&decision)), (Some("ok_role"), "none_bound"));
    assert_eq!(plugin_outcomes(&decision), ["shut 1 shadow deny"]);
    assert_eq!(decision["because"]["plugins"][0]["differed"], true);
    assert_eq!(decision["because"]["plugins"][0]["reason"], "shut");
    assert_eq!(decision.get("message"), None, "nobody was denied: {decision}");
    // Where base denies, the watched version would change nothing, and without the right to grant it is not called.
    let decision = explained(&site, &alone.id, permission(&alone.other, "doc.read")).await;
    assert_eq!((decision["reason"].as_str(), plugin_outcomes(&decision)), (Some("no_permission"), vec![]));

    let decision = explained(&site, &next.id, permission(&next.holder, "doc.read")).await;
    assert_eq!(decision["reason"], "plugin_denied");
    assert_eq!(plugin_outcomes(&decision), ["rule 1 enforce deny", "rule 2 shadow abstain"]);
    assert_eq!(decision["because"]["plugins"][1]["differed"], true);

    let logged =
        async |place: &Fixture| admin(&site, &place.id).get("/api/v1/permissions/decisions?differed=true").await.data();
    let list = logged(&alone).await;
    assert_eq!(list["total"], 1, "an allowed decision that is in no sample, but in which the two differ: {list}");
    assert_eq!(list["items"][0]["plugins"][0]["outcome"], "deny");
    assert_eq!(list["items"][0]["reason"], "ok_role");
    assert_eq!(logged(&next).await["total"], 1);
}

#[tokio::test]
async fn every_plugin_failure_denies_and_its_cause_is_shown_only_with_the_right_to_see_plugins() {
    let site = Site::with("[plugins]\nfailures = 10000\nauthorize_fuel = 100000").await;
    site.import(documents()).await;
    let hungry = "(drop (memory.grow (i32.const 4096))) (call $allow)";
    let lying = "(call $deny (i32.const 1024) (i32.const 1000000000))";
    let deep = "(call $down) (call $allow)";
    let cases = [
        ("trap", wasm_fixtures::trapping()),
        ("fuel", wasm_fixtures::looping()),
        ("rule_error", wasm_fixtures::failing()),
        ("memory", wasm_fixtures::authorizer("", hungry)),
        (
            "output",
            wasm_fixtures::authorizer(
                "(data (i32.const 1024) \"\\ff\\fe\")",
                "(call $deny (i32.const 1024) (i32.const 2))",
            ),
        ),
        ("trap", wasm_fixtures::authorizer("", lying)),
        ("fuel", wasm_fixtures::authorizer("(func $down (call $down))", deep)),
    ];
    let (mut places, mut bound, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for (n, (word, component)) in cases.into_iter().enumerate() {
        places.push(Fixture::new(&site, &format!("f{n}")).await);
        bound.push(enforced("rule", component));
        words.push(word);
    }
    let asker = places[0].organization(&site).member_with(&["roster.policy.check"]).await.token.clone();
    bind(&site, places.iter().zip(bound).map(|(place, plug)| (place.id.as_str(), plug)).collect()).await;
    for (place, word) in places.iter().zip(words) {
        let decision = explained(&site, &place.id, permission(&place.holder, "doc.read")).await;
        assert_eq!((decision["reason"].as_str(), stage(&decision)), (Some("plugin_failed"), "plugin_failed"), "{word}");
        let asked = &decision["because"]["plugins"][0];
        let outcome = asked["outcome"].as_str().expect("a word");
        // How deep a guest recurses before its fuel ends depends on the machine.
        assert!(
            outcome == word || (word == "fuel" && outcome == "stack") || (word == "trap" && outcome == "output"),
            "{word}: {decision}"
        );
        assert!(asked["fault"].as_str().is_some_and(|text| !text.is_empty()), "{decision}");
        assert_eq!(decision.get("message"), None, "{decision}");
    }
    let mut question = permission(&places[0].holder, "doc.read");
    question["explain"] = json!(true);
    let seen = site.bearer(&asker).post(CHECK, question).await.data();
    let asked = &seen["because"]["plugins"][0];
    assert_eq!((asked["outcome"].as_str(), asked.get("fault")), (Some("trap"), None), "{seen}");
}

#[tokio::test]
async fn a_quarantined_plugin_denies_without_a_call() {
    let site = Site::with("[plugins]\nfailures = 3").await;
    site.import(documents()).await;
    let (acme, bolt) = (Fixture::new(&site, "acme").await, Fixture::new(&site, "bolt").await);
    bind(
        &site,
        vec![
            (&acme.id, filtered(json!({"permissions": ["doc.read"]}), enforced("rule", wasm_fixtures::trapping()))),
            (&bolt.id, watched("rule", wasm_fixtures::trapping())),
        ],
    )
    .await;
    for place in [&acme, &bolt] {
        let mut outcomes = Vec::new();
        for _ in 0..4 {
            let decision = explained(&site, &place.id, permission(&place.holder, "doc.read")).await;
            outcomes.extend(plugin_outcomes(&decision));
            let expected = if place.id == acme.id { "plugin_failed" } else { "ok_role" };
            assert_eq!(decision["reason"], expected);
        }
        // In watch mode it is skipped from then on.
        let expected: &[&str] = if place.id == acme.id {
            &["rule 1 enforce trap", "rule 1 enforce trap", "rule 1 enforce trap", "rule 1 enforce quarantined"]
        } else {
            &["rule 1 shadow trap", "rule 1 shadow trap", "rule 1 shadow trap"]
        };
        assert_eq!(outcomes, expected);
    }
    // Questions that it does not cover are decided as before.
    let holder = site.bearer(&site.admin_token);
    assert_eq!(holder.with("x-tenant-id", &acme.id).get("/api/v1/permissions/roles").await.status, 200);
    assert_eq!(reason(&site, &acme.id, permission(&acme.holder, "doc.edit")).await, "no_permission");
}

#[tokio::test]
async fn a_plugin_decides_in_its_own_organization_and_for_every_member_in_it() {
    let site = Site::start().await;
    site.import(documents()).await;
    let (acme, bolt) = (Fixture::new(&site, "acme").await, Fixture::new(&site, "bolt").await);
    bolt.organization(&site).link(&acme.holder).await;
    let reader = bolt.organization(&site).role("reader", &["doc.read"]).await;
    bolt.organization(&site).assign(&acme.holder, &reader).await;
    let administrator = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    site.admin().post("/admin/permissions/grant", right(&acme.holder, "cameras")).await.done();
    bind(&site, vec![(&acme.id, enforced("shut", wasm_fixtures::denying("closed on Sundays")))]).await;

    let question = || permission(&acme.holder, "doc.read");
    assert_eq!(reason(&site, &acme.id, question()).await, "plugin_denied");
    let elsewhere = explained(&site, &bolt.id, question()).await;
    assert_eq!((elsewhere["reason"].as_str(), stage(&elsewhere)), (Some("ok_role"), "none_bound"));
    assert_eq!(plugin_outcomes(&elsewhere), [""; 0]);
    // In the organization's own catalog a plugin can deny even a platform administrator.
    assert_eq!(reason(&site, &acme.id, permission(&administrator, "doc.read")).await, "plugin_denied");
    assert_eq!(reason(&site, &bolt.id, permission(&administrator, "doc.read")).await, "ok_role");
    // A question about the site calls no organization's plugin.
    let about_the_site = site.client(&["permissions:check"]).await.post(CHECK, right(&acme.holder, "cameras")).await;
    assert_eq!(about_the_site.data()["reason"], "ok_grant");
    assert_eq!(reason(&site, &acme.id, right(&acme.holder, "cameras")).await, "plugin_denied");
}

#[tokio::test]
async fn a_batch_is_one_epoch_and_its_questions_are_answered_in_order() {
    let site = Site::start().await;
    site.import(documents()).await;
    let acme = Fixture::new(&site, "acme").await;
    bind(&site, vec![(&acme.id, enforced("short", wasm_fixtures::denying_actions_of("doc.read".len())))]).await;
    let raised = admin(&site, &acme.id).post("/api/v1/permissions/roles", json!({"key": "later"})).await.epoch();
    let mut last = permission(&acme.holder, "doc.edit");
    last["min_epoch"] = json!(raised);
    last["explain"] = json!(true);
    let questions = json!({"questions": [
        permission(&acme.holder, "doc.read"), route(&acme.holder, "GET", "/docs/1"), last,
    ]});
    let answers = check(&site, &acme.id, questions).await;
    let answers = answers["decisions"].as_array().expect("decisions");
    let reasons: Vec<&str> = answers.iter().map(|answer| answer["reason"].as_str().expect("a reason")).collect();
    assert_eq!(reasons, ["plugin_denied", "ok_role", "no_permission"]);
    assert_eq!(answers[0]["message"], "not this");
    assert!(answers.iter().all(|answer| answer["epoch"] == answers[0]["epoch"]));
    assert!(answers[0]["epoch"].as_u64().expect("an epoch") >= raised);
    assert_eq!(answers.iter().map(|answer| answer.get("because").is_some()).collect::<Vec<_>>(), [false, false, true]);
    let mut ahead = permission(&acme.holder, "doc.read");
    ahead["min_epoch"] = json!(raised + 1_000);
    assert_eq!(admin(&site, &acme.id).post(CHECK, ahead).await.word(), "epoch_not_reached");
}

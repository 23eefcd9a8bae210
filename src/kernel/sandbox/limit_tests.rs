//! Tests of the limits of a call with real guests: at each limit, and one above it.
//!
//! Guests are compiled in this process and not in a child, with the settings of a site: no server is needed.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::poll;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::engine::Runtime;
use super::{
    AccessInput, AuthorizeResult, CallContext, CallResult, FaultKind, Host, Key, Loaded, OrganizationId, PROOF_CALLS,
    RoleInput, Spent, Tier, inspect, measure, roles_fault,
};
use crate::kernel::config::Config;
use crate::kernel::error::ErrorCode;

#[path = "../../../tests/it/harness/wasm_fixtures.rs"]
#[allow(dead_code)]
mod wasm_fixtures;

fn host(set: impl FnOnce(&mut Config)) -> Host {
    let mut config = Config::of(Path::new(""));
    set(&mut config);
    Host::without_cache(&config)
}

static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| Arc::new(Runtime::new().expect("an engine")));

fn loaded(component: &[u8]) -> Arc<Loaded> {
    let compiled = Component::new(&RUNTIME.engine, component).expect("compiled");
    Arc::new(Loaded::link(&RUNTIME, &compiled, Sha256::digest(component).into(), None).expect("linked"))
}

fn context(loaded: &Arc<Loaded>, tier: Tier) -> CallContext {
    CallContext {
        organization: OrganizationId::new(),
        loaded: loaded.clone(),
        tier,
        deadline_ms: None,
        is_trial: false,
    }
}

/// Calls an authorizer, or a role mapper. Returns the name of the answer or fault, and the result.
async fn ask(host: &Host, guest: &Arc<Loaded>, tier: Tier) -> (&'static str, CallResult<()>) {
    let context = context(guest, tier);
    if guest.exports().authorizer {
        let called = host.authorize(context, AccessInput::default()).await;
        (called.outcome.as_ref().map_or_else(|fault| fault.kind.as_str(), AuthorizeResult::as_str), called.map(|_| ()))
    } else {
        let called = host.map_roles(context, RoleInput::default()).await;
        (called.outcome.as_ref().map_or_else(|fault| fault.kind.as_str(), |_| "roles"), called.map(|_| ()))
    }
}

async fn outcome_name(host: &Host, guest: &Arc<Loaded>, tier: Tier) -> &'static str {
    ask(host, guest, tier).await.0
}

const TIERS: [Tier; 2] = [Tier::Standard, Tier::Large];

/// The setting of a limit for one tier.
type Setting = fn(&mut Config) -> &mut u64;

#[tokio::test]
async fn fuel_is_counted_to_the_last_instruction() {
    let settings: [(_, _, [Setting; 2]); 2] = [
        (
            wasm_fixtures::authorizer("", "(drop (call $allow)) (loop) (i32.const 16)"),
            "allow",
            [|c| &mut c.plugin_authorize_fuel, |c| &mut c.plugin_large_authorize_fuel],
        ),
        (
            wasm_fixtures::role_mapper("", "(drop (call $list (i32.const 0) (i32.const 0))) (loop) (i32.const 16)"),
            "roles",
            [|c| &mut c.plugin_map_roles_fuel, |c| &mut c.plugin_large_map_roles_fuel],
        ),
    ];
    for (component, answer, settings) in settings {
        let guest = loaded(&component);
        let fuel = ask(&host(|_| ()), &guest, Tier::Standard).await.1.fuel;
        assert!(fuel > 10, "{fuel}");
        for (tier, setting) in TIERS.into_iter().zip(settings) {
            // The last instruction is counted in the empty loop before it, because fuel is checked there.
            let (outcome, called) = ask(&host(|c| *setting(c) = fuel), &guest, tier).await;
            assert_eq!((outcome, called.fuel), (answer, fuel), "{tier:?}");
            assert_eq!(outcome_name(&host(|c| *setting(c) = fuel - 1), &guest, tier).await, "fuel", "{tier:?}");
        }
    }
}

#[tokio::test]
async fn running_time_is_limited_independently_of_fuel() {
    let settings: [(_, [(Setting, Setting); 2]); 2] = [
        (
            wasm_fixtures::looping(),
            [
                (|c| &mut c.plugin_authorize_ms, |c| &mut c.plugin_authorize_fuel),
                (|c| &mut c.plugin_large_authorize_ms, |c| &mut c.plugin_large_authorize_fuel),
            ],
        ),
        (
            wasm_fixtures::looping_mapper(),
            [
                (|c| &mut c.plugin_map_roles_ms, |c| &mut c.plugin_map_roles_fuel),
                (|c| &mut c.plugin_large_map_roles_ms, |c| &mut c.plugin_large_map_roles_fuel),
            ],
        ),
    ];
    for (component, settings) in settings {
        let guest = loaded(&component);
        for (tier, (ms, fuel)) in TIERS.into_iter().zip(settings) {
            let host = host(|c| {
                *ms(c) = 2;
                *fuel(c) = 1_000_000_000_000;
            });
            assert_eq!(outcome_name(&host, &guest, tier).await, "deadline", "{tier:?}");
        }
    }
    // An activation can set a lower limit.
    let host = host(|c| (c.plugin_authorize_ms, c.plugin_authorize_fuel) = (10_000, 1_000_000_000_000));
    let context = CallContext { deadline_ms: Some(2), ..context(&loaded(&wasm_fixtures::looping()), Tier::Standard) };
    let called = host.authorize(context, AccessInput::default()).await;
    assert_eq!(called.outcome.map_err(|fault| fault.kind), Err(FaultKind::Deadline));
}

#[tokio::test]
async fn the_growth_of_all_memories_is_summed() {
    const PAGE: u64 = 65_536;
    // Two pages and one page initially, and three more.
    let guest = loaded(&wasm_fixtures::authorizer(
        "(memory $other 1)",
        "(drop (memory.grow $other (i32.const 3))) (call $allow)",
    ));
    let settings: [Setting; 2] = [|c| &mut c.plugin_memory_bytes, |c| &mut c.plugin_large_memory_bytes];
    for (tier, setting) in TIERS.into_iter().zip(settings) {
        let (outcome, called) = ask(&host(|c| *setting(c) = 6 * PAGE), &guest, tier).await;
        assert_eq!((outcome, called.memory_bytes), ("allow", 6 * PAGE), "{tier:?}");
        assert_eq!(outcome_name(&host(|c| *setting(c) = 6 * PAGE - 1), &guest, tier).await, "memory", "{tier:?}");
    }
}

#[tokio::test]
async fn the_growth_of_all_tables_is_summed() {
    for tier in TIERS {
        for (past, expected) in [(0, "allow"), (1, "memory")] {
            // One initial element, and one in the table through which the import is called.
            let grow = measure::table_elements_max(tier) - 2 + past;
            let guest = loaded(&wasm_fixtures::authorizer(
                "(table $grows 1 funcref)",
                &format!("(drop (table.grow $grows (ref.null func) (i32.const {grow}))) (call $allow)"),
            ));
            assert_eq!(outcome_name(&host(|_| ()), &guest, tier).await, expected, "{tier:?} {grow}");
        }
    }
}

/// A guest that logs `lines` lines of `bytes` bytes each.
fn logging(lines: u32, bytes: u32) -> Arc<Loaded> {
    loaded(&wasm_fixtures::authorizer(
        "",
        &format!(
            "(local $n i32) (local.set $n (i32.const {lines}))
             (loop $next
               (call $log (i32.const 1) (i32.const 65536) (i32.const {bytes}))
               (local.set $n (i32.sub (local.get $n) (i32.const 1)))
               (br_if $next (local.get $n)))
             (call $allow)"
        ),
    ))
}

#[tokio::test]
async fn the_log_of_a_call_is_limited_in_calls_lines_and_bytes() {
    type Set = fn(&mut Config);
    let cases: [(u32, u32, Set, &str, usize, u32); 14] = [
        (3, 10, |c| c.plugin_log_lines = 3, "allow", 3, 0),
        (4, 10, |c| c.plugin_log_lines = 3, "allow", 3, 1),
        (1, 10, |c| c.plugin_log_lines = 0, "allow", 0, 1),
        (3, 10, |c| c.plugin_log_bytes = 30, "allow", 3, 0),
        (3, 10, |c| c.plugin_log_bytes = 29, "allow", 2, 1),
        (1, 1, |c| c.plugin_log_bytes = 0, "allow", 0, 1),
        // A line counts with its stored length.
        (4, 60_000, |c| c.plugin_log_bytes = 4_096, "allow", 4, 0),
        (256, 1, |_| (), "allow", 32, 224),
        (257, 1, |_| (), "output", 32, 224),
        (1, 2_048, |c| c.plugin_output_bytes = 2_048, "allow", 1, 0),
        (1, 2_049, |c| c.plugin_output_bytes = 2_048, "output", 0, 0),
        (2, 1_024, |c| c.plugin_output_bytes = 2_048, "allow", 2, 0),
        (2, 1_025, |c| c.plugin_output_bytes = 2_048, "output", 1, 0),
        (1, 60_000, |_| (), "allow", 1, 0),
    ];
    for (lines, bytes, set, expected, kept, dropped) in cases {
        let (outcome, called) = ask(&host(set), &logging(lines, bytes), Tier::Standard).await;
        assert_eq!((outcome, called.log.len(), called.log_dropped), (expected, kept, dropped), "{lines} of {bytes}");
    }
}

#[tokio::test]
async fn the_size_of_an_answer_is_limited_and_its_reason_is_cut() {
    let settings = |c: &mut Config| c.plugin_output_bytes = 1_024;
    for (bytes, expected) in [(511, Some(511)), (512, Some(512)), (513, Some(512)), (1_024, Some(512)), (1_025, None)] {
        let guest = loaded(&wasm_fixtures::denying(&"x".repeat(bytes)));
        let called = host(settings).authorize(context(&guest, Tier::Standard), AccessInput::default()).await;
        let outcome = called.outcome.map_err(|fault| fault.kind);
        let expected = expected.map_or(Err(FaultKind::Output), |bytes| Ok(AuthorizeResult::Deny("x".repeat(bytes))));
        assert_eq!(outcome, expected, "{bytes}");
    }
}

#[test]
fn the_result_of_a_role_mapper_is_validated() {
    let key = |n: usize| format!("r{n}");
    let many = |n: usize| (0..n).map(key).collect::<Vec<_>>();
    let one = |key: &str| vec![key.to_owned()];
    for (roles, is_right) in [
        (vec![], true),
        (many(256), true),
        (many(257), false),
        (one(&"r".repeat(64)), true),
        (one(&"r".repeat(65)), false),
        (one(""), false),
        (one("a-b_c.9"), true),
        (one("Editor"), false),
        (one("a b"), false),
        (one("é"), false),
        (vec![key(1), key(2), key(1)], false),
    ] {
        assert_eq!(roles_fault(&roles).is_none(), is_right, "{roles:?}");
    }
}

#[tokio::test]
async fn concurrent_calls_are_limited_in_total_and_per_organization() {
    let hurried = host(|c| {
        (c.plugin_calls_max, c.plugin_calls_per_organization, c.plugin_wait_ms) = (2, 1, 5);
    });
    let guest = loaded(&wasm_fixtures::allowing());
    let [acme, bolt, core] = [0; 3].map(|_| OrganizationId::new());
    let ask = async |host: &Host, organization| {
        let context = CallContext { organization, ..context(&guest, Tier::Standard) };
        host.authorize(context, AccessInput::default()).await.outcome.map_err(|fault| fault.kind)
    };
    let (allow, busy) = (Ok(AuthorizeResult::Allow), Err(FaultKind::Busy));
    let of = |organization| CallContext { organization, ..context(&guest, Tier::Standard) };
    let first = hurried.acquire(&of(acme)).await.expect("permits");
    assert_eq!(ask(&hurried, acme).await, busy, "one of its own");
    assert_eq!(ask(&hurried, bolt).await, allow, "two of all");
    let second = hurried.acquire(&of(bolt)).await.expect("permits");
    assert_eq!(ask(&hurried, core).await, busy, "and not three");
    drop(first);
    assert_eq!((ask(&hurried, core).await, ask(&hurried, bolt).await), (allow.clone(), busy));
    drop(second);
    assert!(!FaultKind::Busy.is_guest_fault());

    let patient = host(|c| (c.plugin_calls_max, c.plugin_wait_ms) = (1, 10_000));
    let held = patient.acquire(&of(acme)).await.expect("permits");
    let mut waiting = std::pin::pin!(ask(&patient, bolt));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(waiting.await, allow, "the permits are released in time");
}

#[tokio::test]
async fn trial_calls_can_use_only_half_of_the_permits() {
    let host = host(|c| (c.plugin_calls_per_organization, c.plugin_wait_ms) = (4, 5));
    let guest = loaded(&wasm_fixtures::allowing());
    let effective = context(&guest, Tier::Standard);
    let trial = CallContext { is_trial: true, ..effective.clone() };
    let (_first, _second) =
        (host.acquire(&trial).await.expect("one"), host.acquire(&trial).await.expect("half of four"));
    assert!(host.acquire(&trial).await.is_none());
    assert!(host.acquire(&effective).await.is_some());
}

#[tokio::test]
async fn waiting_uploads_are_limited_in_total_and_per_organization() {
    let host = host(|c| (c.plugin_compile_queue_max, c.plugin_compile_queue_per_organization) = (3, 2));
    let component = wasm_fixtures::allowing();
    let [acme, bolt, core] = [0; 3].map(|_| OrganizationId::new());
    let compile = |organization| Box::pin(host.admit(organization, &component, Tier::Standard));
    let mut waiting = [compile(acme), compile(acme)];
    for one in &mut waiting {
        assert!(poll!(one).is_pending());
    }
    assert_eq!(compile(acme).await.expect_err("two of one").code, ErrorCode::CompilerBusy);
    let mut third = compile(bolt);
    assert!(poll!(&mut third).is_pending());
    assert_eq!(compile(core).await.expect_err("three of all").code, ErrorCode::CompilerBusy);
    let [one, _] = waiting;
    drop(one);
    assert!(poll!(&mut compile(acme)).is_pending(), "a dropped upload frees its slot");
}

#[test]
fn the_size_of_a_file_is_limited_by_tier() {
    let component = wasm_fixtures::allowing();
    let bytes = component.len() as u64;
    let settings: [Setting; 2] = [|c| &mut c.plugin_file_bytes, |c| &mut c.plugin_large_file_bytes];
    for (tier, setting) in TIERS.into_iter().zip(settings) {
        let inspected = |bytes| inspect::inspect(&component, host(|c| *setting(c) = bytes).limits(tier), &());
        assert!(inspected(bytes).is_ok(), "{tier:?}");
        assert_eq!(inspected(bytes - 1).expect_err("too large").code, ErrorCode::PluginTooLarge, "{tier:?}");
    }
}

const KIB: u64 = 1_024;

/// Loads a component with a reservation of this size.
async fn keep(host: &Host, organization: OrganizationId, n: u8, bytes: u64) -> Key {
    static COMPONENT: LazyLock<Component> =
        LazyLock::new(|| Component::new(&RUNTIME.engine, wasm_fixtures::allowing()).expect("compiled"));
    let reserved = host.reserve(organization, bytes).await.expect("memory");
    let loaded = Loaded::link(&RUNTIME, &COMPONENT, [n; 32], Some(reserved)).expect("linked");
    host.keep_loaded((organization, [n; 32]), Arc::new(loaded));
    (organization, [n; 32])
}

fn are_loaded<const N: usize>(host: &Host, keys: [Key; N]) -> [bool; N] {
    keys.map(|key| host.memory.kept.load().contains_key(&key))
}

#[tokio::test]
async fn components_in_memory_are_limited_in_total_and_per_organization() {
    let [acme, bolt, core] = [0; 3].map(|_| OrganizationId::new());
    // Three fit at the limit; with one byte less only two fit.
    for (own, left) in [(3 * KIB, [true, false, true, true]), (3 * KIB - 1, [false, false, true, true])] {
        let host = host(|c| c.plugin_loaded_bytes_per_organization = own);
        let [a, b] = [keep(&host, acme, 1, KIB).await, keep(&host, acme, 2, KIB).await];
        let c = keep(&host, acme, 3, KIB).await;
        if own == 3 * KIB {
            assert_eq!((are_loaded(&host, [a, b, c]), host.component_stats().unloaded), ([true; 3], 0));
            assert!(host.find_loaded(&a).is_some(), "used again");
        }
        let d = keep(&host, acme, 4, KIB).await;
        assert_eq!(are_loaded(&host, [a, b, c, d]), left);
        assert_eq!(host.component_stats().loaded_bytes, own / KIB * KIB);
    }
    // At the limit of the site, the organization with the most is evicted from.
    let host = host(|c| c.plugin_loaded_bytes = 4 * KIB);
    let [a, b] = [keep(&host, acme, 1, KIB).await, keep(&host, acme, 2, KIB).await];
    let [c, d] = [keep(&host, bolt, 1, KIB).await, keep(&host, acme, 3, KIB).await];
    assert_eq!(are_loaded(&host, [a, b, c, d]), [true; 4]);
    let e = keep(&host, core, 1, KIB).await;
    assert_eq!(are_loaded(&host, [a, b, c, d, e]), [false, true, true, true, true]);
    // A component that is larger than the limit gets the whole limit.
    let f = keep(&host, core, 2, 99 * KIB).await;
    assert_eq!(are_loaded(&host, [a, b, c, d, e, f]), [false, false, false, false, false, true]);
    assert_eq!((host.component_stats().loaded_bytes, host.component_stats().unloaded), (4 * KIB, 5));
}

#[tokio::test]
async fn a_component_held_by_a_call_counts_and_an_inactive_one_is_unloaded_after_it() {
    let host = host(|c| c.plugin_loaded_bytes = 2 * KIB);
    let acme = OrganizationId::new();
    let [a, b] = [keep(&host, acme, 1, KIB).await, keep(&host, acme, 2, KIB).await];
    let held = host.find_loaded(&b).expect("kept");
    host.set_active([a].into());
    assert_eq!(are_loaded(&host, [a, b]), [true, false]);
    assert_eq!(host.component_stats().loaded_bytes, 2 * KIB, "it is loaded as long as it is held");
    let mut waiting = Box::pin(host.reserve(acme, 2 * KIB));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert!(waiting.await.is_ok());
    assert_eq!((host.component_stats().loaded_bytes, host.memory.kept.load().contains_key(&a)), (0, false));
}

/// The fuel of a call with this body.
async fn fuel(before: &str, body: &str) -> u64 {
    let host = host(|c| c.plugin_memory_bytes = 64 * KIB * KIB);
    let (outcome, called) = ask(&host, &loaded(&wasm_fixtures::authorizer(before, body)), Tier::Standard).await;
    assert_eq!(outcome, "allow", "{body}: {:?}", called.outcome);
    called.fuel
}

#[tokio::test]
async fn bulk_instructions_are_charged_by_the_byte() {
    const TABLES: &str = "(table $a 900 funcref) (table $b 900 funcref) (func $f) (elem $e funcref
        (ref.func $f) (ref.func $f) (ref.func $f) (ref.func $f) (ref.func $f) (ref.func $f) (ref.func $f) (ref.func $f))";
    let cases = [
        ("(data $d \"0123456789\")", "(memory.init $d (i32.const 2048) (i32.const 0) N)", [3, 10], 1),
        ("", "(memory.fill (i32.const 2048) (i32.const 7) N)", [1_000, 9_000], 1),
        ("", "(memory.copy (i32.const 2048) (i32.const 20480) N)", [1_000, 9_000], 1),
        ("", "(drop (memory.grow N))", [1, 9], 65_536),
        // The first growth of an empty memory is charged.
        ("(memory $other 0)", "(drop (memory.grow $other N))", [1, 9], 65_536),
        (TABLES, "(table.fill $a (i32.const 0) (ref.null func) N)", [10, 900], 8),
        (TABLES, "(table.copy $a $b (i32.const 0) (i32.const 0) N)", [10, 900], 8),
        (TABLES, "(table.init $a $e (i32.const 0) (i32.const 0) N)", [1, 8], 8),
        (TABLES, "(drop (table.grow $a (ref.null func) N))", [10, 900], 8),
    ];
    for (before, body, [less, more], each) in cases {
        // A constant length, and one that is known only at run time.
        for how in ["(i32.const {})", "(global.get $n)"] {
            let mut fuels = [0; 2];
            for (fuels, n) in fuels.iter_mut().zip([less, more]) {
                let n_is = how.replace("{}", &n.to_string());
                let before = format!("(global $n (mut i32) (i32.const {n})) {before}");
                *fuels = fuel(&before, &format!("{} (call $allow)", body.replace('N', &n_is))).await;
            }
            // Instructions per table element are charged in addition.
            let difference = fuels[1] - fuels[0];
            let expected = (more - less) * each;
            assert!((expected..=expected * 2).contains(&difference), "{body} {how}: {difference} for {expected}");
        }
    }
    // Initial memory is not charged.
    let [small, large] =
        [fuel("(memory $other 1)", "(call $allow)").await, fuel("(memory $other 99)", "(call $allow)").await];
    assert_eq!(small, large);
}

#[tokio::test]
async fn growth_and_instructions_use_the_same_fuel() {
    let guest = loaded(&wasm_fixtures::authorizer(
        "",
        "(drop (memory.grow (i32.const 2))) (drop (call $allow)) (loop) (i32.const 16)",
    ));
    let all = ask(&host(|_| ()), &guest, Tier::Standard).await.1.fuel;
    assert!(all > 131_072);
    for (fuel, outcome) in [(all, "allow"), (all - 1, "fuel"), (131_073, "fuel"), (131_071, "fuel")] {
        let (got, called) = ask(&host(|c| c.plugin_authorize_fuel = fuel), &guest, Tier::Standard).await;
        assert_eq!((got, called.fuel <= fuel), (outcome, true), "{fuel}");
    }
}

/// A guest that loops forever if the action has more than three characters.
fn endless_for_long_actions() -> Vec<u8> {
    wasm_fixtures::authorizer(
        "",
        "(if (i32.gt_u (local.get $action_bytes) (i32.const 3)) (then (loop $again (br $again)))) (call $allow)",
    )
}

#[tokio::test]
async fn a_version_runs_in_the_background_until_it_is_proven_fast_and_after_it_was_slow() {
    // Only the endless guest exceeds this time.
    let host = host(|c| (c.plugin_fast_us, c.plugin_authorize_fuel) = (5_000, 1_000_000_000_000));
    let guest = loaded(&endless_for_long_actions());
    let first = context(&guest, Tier::Standard);
    let other = context(&guest, Tier::Standard);
    let ask = async |context: &CallContext, action: &str| {
        let input = AccessInput { action: action.into(), ..AccessInput::default() };
        let called = host.authorize(context.clone(), input).await;
        (called.is_aside, called.is_slow)
    };
    for _ in 0..PROOF_CALLS {
        assert_eq!(ask(&first, "GET").await, (true, false));
    }
    assert_eq!(ask(&first, "GET").await, (false, false));
    assert_eq!(ask(&other, "GET").await, (true, false), "not proven in another organization");
    let trial = CallContext { is_trial: true, ..first.clone() };
    assert_eq!(ask(&trial, "GET").await, (true, false), "a trial call always runs in the background");
    assert_eq!(ask(&first, "DELETE").await, (true, true), "it is moved to the background");
    for _ in 0..2 * PROOF_CALLS {
        assert_eq!(ask(&first, "GET").await, (true, false));
    }
    assert_eq!(ask(&first, "GET").await, (false, false));
    // `forget` removes the record of the component's speed.
    host.forget(&(first.organization, guest.sha256()));
    assert_eq!(ask(&first, "GET").await, (true, false));
}

/// Each call is fast, but all of them together are not.
#[tokio::test]
async fn many_fast_calls_of_one_request_or_organization_run_in_the_background() {
    let host = host(|c| (c.plugin_fast_us, c.plugin_request_us) = (1_000_000, 1));
    let guest = loaded(&wasm_fixtures::allowing());
    let (acme, bolt) = (context(&guest, Tier::Standard), context(&guest, Tier::Standard));
    let ask = async |context: &CallContext, spent: &Arc<Spent>| {
        host.authorize_within(context.clone(), AccessInput::default(), spent).await.is_aside
    };
    for context in [&acme, &bolt] {
        for _ in 0..PROOF_CALLS {
            assert!(ask(context, &Arc::default()).await);
        }
    }
    let request = Arc::default();
    assert!(!ask(&acme, &request).await);
    for _ in 0..3 {
        assert!(ask(&acme, &request).await, "the request has used its time");
    }
    assert!(!ask(&acme, &Arc::default()).await, "this is no strike: the next request runs on its thread");
    // More than the share of any window.
    let all_threads = Duration::from_secs(1_000);
    host.call_limits(acme.organization).share.add(all_threads, Instant::now() + all_threads);
    assert!(ask(&acme, &Arc::default()).await, "the organization has used its time");
    assert!(!ask(&bolt, &Arc::default()).await, "another organization has not");
}

#[tokio::test]
async fn a_call_is_slow_above_its_cpu_time() {
    let guest = loaded(&wasm_fixtures::allowing());
    for (fast_us, is_slow) in [(1, true), (1_000_000, false)] {
        let host = host(|c| c.plugin_fast_us = fast_us);
        for n in 0..PROOF_CALLS + 2 {
            let called = host.authorize(context_in_nil_organization(&guest), AccessInput::default()).await;
            assert_eq!(called.is_slow, is_slow, "{n}");
        }
    }
}

fn context_in_nil_organization(loaded: &Arc<Loaded>) -> CallContext {
    CallContext { organization: OrganizationId(uuid::Uuid::nil()), ..context(loaded, Tier::Standard) }
}

#[tokio::test]
async fn an_organization_cannot_use_all_background_threads() {
    let host = host(|_| ());
    let guest = loaded(&wasm_fixtures::allowing());
    let [acme, bolt] = [0; 2].map(|_| CallContext { is_trial: true, ..context(&guest, Tier::Standard) });
    let background = host.call_limits(acme.organization).background;
    let all = u32::try_from(background.available_permits()).expect("few");
    let held = background.acquire_many_owned(all).await.expect("all of its own");
    let mut waiting = Box::pin(host.authorize(acme, AccessInput::default()));
    assert!(poll!(&mut waiting).is_pending());
    assert_eq!(host.authorize(bolt, AccessInput::default()).await.outcome, Ok(AuthorizeResult::Allow));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(waiting.await.outcome, Ok(AuthorizeResult::Allow));
}

/// A guest that denies if it finds data of an earlier call: in its data segment, its initial memory, its grown memory,
/// a global or a table. Then it writes to all of these.
fn looking_for_leftovers(data: &str) -> Vec<u8> {
    const PLACES: [u32; 5] = [2_048, 60_000, 200_000, 800_000, 1_700_000];
    let number = u32::from_le_bytes(data.as_bytes().try_into().expect("four letters"));
    let is_left: String = PLACES.map(|at| format!("(br_if $left (i32.load (i32.const {at})))")).into_iter().collect();
    let leave: String = PLACES.map(|at| format!("(i32.store (i32.const {at}) (i32.const -1))")).into_iter().collect();
    wasm_fixtures::authorizer(
        &format!(
            "(global $calls (mut i32) (i32.const 0)) (table $t 40 funcref) (func $f) (elem declare func $f)
             (data (i32.const 1024) {data:?})"
        ),
        &format!(
            "(block $left
               (drop (memory.grow (i32.const 30)))
               (br_if $left (i32.ne (i32.load (i32.const 1024)) (i32.const {number})))
               {is_left}
               (br_if $left (global.get $calls))
               (br_if $left (i32.eqz (ref.is_null (table.get $t (i32.const 39)))))
               (i32.store (i32.const 1024) (i32.const -1))
               {leave}
               (global.set $calls (i32.const 1))
               (table.set $t (i32.const 39) (ref.func $f))
               (return (call $allow)))
             (call $deny (i32.const 1024) (i32.const 4))"
        ),
    )
}

#[tokio::test]
async fn a_call_cannot_read_data_of_earlier_calls() {
    let host = host(|_| ());
    let wasm_fixtures = ["mine", "your"].map(|data| loaded(&looking_for_leftovers(data)));
    // First one guest repeatedly, then both alternately: pages are kept for the next call of the same guest.
    for n in 0..400 {
        let guest = &wasm_fixtures[if n < 100 { 0 } else { n % 2 }];
        assert_eq!(outcome_name(&host, guest, Tier::Standard).await, "allow", "call {n}");
    }
}

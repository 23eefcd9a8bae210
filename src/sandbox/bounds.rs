//! What a call may have, asked of real guests: at each limit, and one past it.
//!
//! Guests are compiled here and not in a child, and settings are those of a site: no server is needed.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use futures_util::poll;
use wasmtime::component::Component;

use super::engine::Runtime;
use super::{
    AccessInput, Called, FaultKind, Hash, Host, Loaded, OrganizationId, RoleInput, Ruling, Tier, Turn, inspect,
    measure, roles_fault,
};
use crate::config::Config;
use crate::error::Cause;

#[path = "../../tests/it/guests.rs"]
#[allow(dead_code)]
mod guests;

fn host(set: impl FnOnce(&mut Config)) -> Host {
    let mut config = Config::of(Path::new(""));
    set(&mut config);
    Host::without_cache(&config)
}

fn loaded(component: &[u8]) -> Arc<Loaded> {
    static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| Arc::new(Runtime::new().expect("an engine")));
    let component = Component::new(&RUNTIME.engine, component).expect("compiled");
    Arc::new(Loaded::link(&RUNTIME, &component).expect("linked"))
}

fn turn(loaded: &Arc<Loaded>, tier: Tier) -> Turn {
    Turn { organization: OrganizationId::new(), loaded: loaded.clone(), tier, deadline_ms: None, is_trial: false }
}

/// Asks an authorizer, or a role mapper, and answers the word of what came of it.
async fn ask(host: &Host, guest: &Arc<Loaded>, tier: Tier) -> (&'static str, Called<()>) {
    let turn = turn(guest, tier);
    if guest.exports().authorizer {
        let called = host.authorize(turn, AccessInput::default()).await;
        (called.outcome.as_ref().map_or_else(|fault| fault.kind.word(), Ruling::word), called.map(|_| ()))
    } else {
        let called = host.map_roles(turn, RoleInput::default()).await;
        (called.outcome.as_ref().map_or_else(|fault| fault.kind.word(), |_| "roles"), called.map(|_| ()))
    }
}

async fn word(host: &Host, guest: &Arc<Loaded>, tier: Tier) -> &'static str {
    ask(host, guest, tier).await.0
}

const TIERS: [Tier; 2] = [Tier::Standard, Tier::Large];

/// A setting of a tier.
type Setting = fn(&mut Config) -> &mut u64;

#[tokio::test]
async fn fuel_is_counted_to_the_last_instruction() {
    let settings: [(_, _, [Setting; 2]); 2] = [
        (
            guests::authorizer("", "(drop (call $allow)) (loop) (i32.const 16)"),
            "allow",
            [|c| &mut c.plugin_authorize_fuel, |c| &mut c.plugin_large_authorize_fuel],
        ),
        (
            guests::role_mapper("", "(drop (call $list (i32.const 0) (i32.const 0))) (loop) (i32.const 16)"),
            "roles",
            [|c| &mut c.plugin_map_roles_fuel, |c| &mut c.plugin_large_map_roles_fuel],
        ),
    ];
    for (component, answer, settings) in settings {
        let guest = loaded(&component);
        let fuel = ask(&host(|_| ()), &guest, Tier::Standard).await.1.fuel;
        assert!(fuel > 10, "{fuel}");
        for (tier, setting) in TIERS.into_iter().zip(settings) {
            // The last thing that it does is counted in the empty loop just before, where fuel is looked at.
            let (said, called) = ask(&host(|c| *setting(c) = fuel), &guest, tier).await;
            assert_eq!((said, called.fuel), (answer, fuel), "{tier:?}");
            assert_eq!(word(&host(|c| *setting(c) = fuel - 1), &guest, tier).await, "fuel", "{tier:?}");
        }
    }
}

#[tokio::test]
async fn time_ends_what_has_plenty_of_fuel() {
    let settings: [(_, [(Setting, Setting); 2]); 2] = [
        (
            guests::looping(),
            [
                (|c| &mut c.plugin_authorize_ms, |c| &mut c.plugin_authorize_fuel),
                (|c| &mut c.plugin_large_authorize_ms, |c| &mut c.plugin_large_authorize_fuel),
            ],
        ),
        (
            guests::looping_mapper(),
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
            assert_eq!(word(&host, &guest, tier).await, "deadline", "{tier:?}");
        }
    }
    // An activation may give less.
    let host = host(|c| (c.plugin_authorize_ms, c.plugin_authorize_fuel) = (10_000, 1_000_000_000_000));
    let turn = Turn { deadline_ms: Some(2), ..turn(&loaded(&guests::looping()), Tier::Standard) };
    let called = host.authorize(turn, AccessInput::default()).await;
    assert_eq!(called.outcome.map_err(|fault| fault.kind), Err(FaultKind::Deadline));
}

#[tokio::test]
async fn memory_is_summed_over_all_memories_while_it_runs() {
    const PAGE: u64 = 65_536;
    // Two and one at its start, and three more.
    let guest =
        loaded(&guests::authorizer("(memory $other 1)", "(drop (memory.grow $other (i32.const 3))) (call $allow)"));
    let settings: [Setting; 2] = [|c| &mut c.plugin_memory_bytes, |c| &mut c.plugin_large_memory_bytes];
    for (tier, setting) in TIERS.into_iter().zip(settings) {
        let (said, called) = ask(&host(|c| *setting(c) = 6 * PAGE), &guest, tier).await;
        assert_eq!((said, called.memory_bytes), ("allow", 6 * PAGE), "{tier:?}");
        assert_eq!(word(&host(|c| *setting(c) = 6 * PAGE - 1), &guest, tier).await, "memory", "{tier:?}");
    }
}

#[tokio::test]
async fn table_elements_are_summed_over_all_tables_while_it_runs() {
    for tier in TIERS {
        for (past, expected) in [(0, "allow"), (1, "memory")] {
            // One is there at its start, and one is in a table by which its import is called.
            let grow = measure::table_elements_max(tier) - 2 + past;
            let guest = loaded(&guests::authorizer(
                "(table $grows 1 funcref)",
                &format!("(drop (table.grow $grows (ref.null func) (i32.const {grow}))) (call $allow)"),
            ));
            assert_eq!(word(&host(|_| ()), &guest, tier).await, expected, "{tier:?} {grow}");
        }
    }
}

/// Logs so many lines of so many bytes each.
fn logging(lines: u32, bytes: u32) -> Arc<Loaded> {
    loaded(&guests::authorizer(
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
async fn what_a_call_logs_is_bounded_in_calls_lines_and_bytes() {
    type Set = fn(&mut Config);
    let cases: [(u32, u32, Set, &str, usize, u32); 14] = [
        (3, 10, |c| c.plugin_log_lines = 3, "allow", 3, 0),
        (4, 10, |c| c.plugin_log_lines = 3, "allow", 3, 1),
        (1, 10, |c| c.plugin_log_lines = 0, "allow", 0, 1),
        (3, 10, |c| c.plugin_log_bytes = 30, "allow", 3, 0),
        (3, 10, |c| c.plugin_log_bytes = 29, "allow", 2, 1),
        (1, 1, |c| c.plugin_log_bytes = 0, "allow", 0, 1),
        // A line counts as it is kept.
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
        let (said, called) = ask(&host(set), &logging(lines, bytes), Tier::Standard).await;
        assert_eq!((said, called.log.len(), called.log_dropped), (expected, kept, dropped), "{lines} of {bytes}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes_and_its_sentence_is_cut() {
    let settings = |c: &mut Config| c.plugin_output_bytes = 1_024;
    for (bytes, expected) in [(511, Some(511)), (512, Some(512)), (513, Some(512)), (1_024, Some(512)), (1_025, None)] {
        let guest = loaded(&guests::denying(&"x".repeat(bytes)));
        let called = host(settings).authorize(turn(&guest, Tier::Standard), AccessInput::default()).await;
        let told = called.outcome.map_err(|fault| fault.kind);
        let expected = expected.map_or(Err(FaultKind::Output), |bytes| Ok(Ruling::Deny("x".repeat(bytes))));
        assert_eq!(told, expected, "{bytes}");
    }
}

#[test]
fn role_keys_are_so_many_so_long_and_each_once() {
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
async fn a_call_has_a_turn_of_all_and_one_of_its_organization() {
    let hurried = host(|c| {
        (c.plugin_calls_max, c.plugin_calls_per_organization, c.plugin_wait_ms) = (2, 1, 5);
    });
    let guest = loaded(&guests::allowing());
    let [acme, bolt, core] = [0; 3].map(|_| OrganizationId::new());
    let ask = async |host: &Host, organization| {
        let turn = Turn { organization, ..turn(&guest, Tier::Standard) };
        host.authorize(turn, AccessInput::default()).await.outcome.map_err(|fault| fault.kind)
    };
    let (allow, busy) = (Ok(Ruling::Allow), Err(FaultKind::Busy));
    let of = |organization| Turn { organization, ..turn(&guest, Tier::Standard) };
    let first = hurried.turn(&of(acme)).await.expect("a turn");
    assert_eq!(ask(&hurried, acme).await, busy, "one of its own");
    assert_eq!(ask(&hurried, bolt).await, allow, "two of all");
    let second = hurried.turn(&of(bolt)).await.expect("a turn");
    assert_eq!(ask(&hurried, core).await, busy, "and not three");
    drop(first);
    assert_eq!((ask(&hurried, core).await, ask(&hurried, bolt).await), (allow.clone(), busy));
    drop(second);
    assert!(!FaultKind::Busy.is_of_guest());

    let patient = host(|c| (c.plugin_calls_max, c.plugin_wait_ms) = (1, 10_000));
    let held = patient.turn(&of(acme)).await.expect("a turn");
    let mut waiting = std::pin::pin!(ask(&patient, bolt));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(waiting.await, allow, "it gets a turn that is given back in time");
}

#[tokio::test]
async fn what_has_no_effect_leaves_turns_to_what_has_one() {
    let host = host(|c| (c.plugin_calls_per_organization, c.plugin_wait_ms) = (4, 5));
    let guest = loaded(&guests::allowing());
    let effective = turn(&guest, Tier::Standard);
    let trial = Turn { is_trial: true, ..effective.clone() };
    let (_first, _second) = (host.turn(&trial).await.expect("one"), host.turn(&trial).await.expect("half of four"));
    assert!(host.turn(&trial).await.is_none());
    assert!(host.turn(&effective).await.is_some());
}

#[tokio::test]
async fn as_many_components_wait_for_the_compiler_as_may() {
    let host = host(|c| c.plugin_compile_queue_max = 2);
    let component = guests::allowing();
    let compile = || Box::pin(host.admit(&component, Tier::Standard));
    let mut waiting = [compile(), compile()];
    for one in &mut waiting {
        assert!(poll!(one).is_pending());
    }
    let refused = compile().await.expect_err("no place");
    assert_eq!(refused.cause, Cause::CompilerBusy);
    let [one, _] = waiting;
    drop(one);
    assert!(poll!(&mut compile()).is_pending(), "who went away left a place");
}

#[test]
fn a_file_has_the_bytes_of_its_tier() {
    let component = guests::allowing();
    let bytes = component.len() as u64;
    let settings: [Setting; 2] = [|c| &mut c.plugin_file_bytes, |c| &mut c.plugin_large_file_bytes];
    for (tier, setting) in TIERS.into_iter().zip(settings) {
        let inspected = |bytes| inspect::inspect(&component, host(|c| *setting(c) = bytes).limits(tier));
        assert!(inspected(bytes).is_ok(), "{tier:?}");
        assert_eq!(inspected(bytes - 1).expect_err("too large").cause, Cause::PluginTooLarge, "{tier:?}");
    }
}

#[test]
fn what_is_in_force_stays_loaded_and_of_the_rest_as_many_as_may() {
    let guest = loaded(&guests::allowing());
    let in_force = [[0; 32], [1; 32]].into();
    for (others, left) in [(1, 1), (2, 2), (3, 2), (9, 2)] {
        let host = host(|c| c.plugin_loaded_max = 2);
        for n in 0..2 + others {
            host.remember([n; 32] as Hash, guest.clone());
        }
        host.keep_loaded(&in_force);
        assert!(in_force.iter().all(|digest| host.find_loaded(digest).is_some()));
        let spare = (2..2 + others).filter(|n| host.find_loaded(&[*n; 32]).is_some()).count();
        assert_eq!(spare, left, "{others}");
    }
}

/// Denies when anything is left of a call before: in its data, the memory it began with, what it grew by near and far, a
/// global or a table. Then it leaves something everywhere.
fn looking_for_leftovers(data: &str) -> Vec<u8> {
    const PLACES: [u32; 5] = [2_048, 60_000, 200_000, 800_000, 1_700_000];
    let number = u32::from_le_bytes(data.as_bytes().try_into().expect("four letters"));
    let is_left: String = PLACES.map(|at| format!("(br_if $left (i32.load (i32.const {at})))")).into_iter().collect();
    let leave: String = PLACES.map(|at| format!("(i32.store (i32.const {at}) (i32.const -1))")).into_iter().collect();
    guests::authorizer(
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
async fn a_call_finds_nothing_of_the_calls_before_it() {
    let host = host(|_| ());
    let guests = ["mine", "your"].map(|data| loaded(&looking_for_leftovers(data)));
    // One of them again and again, and both by turns: memory is kept for the next call of the same one.
    for n in 0..400 {
        let guest = &guests[if n < 100 { 0 } else { n % 2 }];
        assert_eq!(word(&host, guest, Tier::Standard).await, "allow", "call {n}");
    }
}

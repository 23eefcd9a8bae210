//! Plugins written as text and assembled into components when a test needs them: without a toolchain, and with control
//! over every byte.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Memory that both kinds share: texts begin at 1024, answers at 16, and what the host writes grows up from 64 KiB.
const COMMON: &str = r#"
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (block $done
      (loop $grow
        (br_if $done (i32.le_u (global.get $free) (i32.mul (memory.size) (i32.const 65536))))
        (br_if $grow (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      )
    (local.get $at))
"#;

const AUTHORIZE: &str = r#"
  (func $allow (result i32)
    (i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 0)) (i32.const 16))
  (func $deny (param $text i32) (param $bytes i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 1))
    (i32.store (i32.const 24) (local.get $text)) (i32.store (i32.const 28) (local.get $bytes)) (i32.const 16))
  (func $abstain (result i32)
    (i32.store8 (i32.const 16) (i32.const 0)) (i32.store8 (i32.const 20) (i32.const 2)) (i32.const 16))
  (func (export "roster:policy/authorizer@1.0.0#authorize")
    (param $tenant i32) (param $tenant_bytes i32) (param $subject i32) (param $subject_bytes i32)
    (param $roles i32) (param $roles_count i32) (param $action i32) (param $action_bytes i32)
    (param $path i32) (param $path_bytes i32) (param $context i32) (param $context_count i32) (result i32)
    BODY)
"#;

const MAP_ROLES: &str = r#"
  (func $list (param $first i32) (param $count i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get $first)) (i32.store (i32.const 24) (local.get $count)) (i32.const 16))
  (func (export "roster:policy/role-mapper@1.0.0#map-roles")
    (param $tenant i32) (param $tenant_bytes i32) (param $source i32) (param $source_bytes i32)
    (param $subject i32) (param $subject_bytes i32) (param $groups i32) (param $groups_count i32)
    (param $claims i32) (param $claims_count i32)
    (param $has_raw i32) (param $raw i32) (param $raw_bytes i32) (result i32)
    BODY)
"#;

const LOG: &str = r#"(import "roster:policy/host@1.0.0" "log" (func $log (param i32 i32 i32)))"#;

/// An authorizer with this body: `(call $allow)`, `(call $deny (i32.const TEXT) (i32.const BYTES))`, `(call $abstain)`,
/// over the locals `$action`, `$action_bytes`, `$path`, `$roles_count` and the like. `before` precedes the functions
/// and may contain `(data (i32.const 1024) "…")`; `$log` takes a level, a text and its length.
pub fn authorizer(before: &str, body: &str) -> Vec<u8> {
    component("authorizer-plugin", &format!("(module {LOG} {COMMON} {before} {})", AUTHORIZE.replace("BODY", body)))
}

/// A role mapper with this body: `(call $list (i32.const FIRST) (i32.const COUNT))`, where each text is a pointer and a
/// length.
pub fn role_mapper(before: &str, body: &str) -> Vec<u8> {
    component("role-mapper-plugin", &format!("(module {LOG} {COMMON} {before} {})", MAP_ROLES.replace("BODY", body)))
}

/// The core module of such an authorizer, without its world.
pub fn authorizer_module(before: &str, body: &str) -> Vec<u8> {
    let text = format!("(module {LOG} {COMMON} {before} {})", AUTHORIZE.replace("BODY", body));
    wat::parse_str(text).expect("the text of a module")
}

/// The core module of such a role mapper.
pub fn role_mapper_module(before: &str, body: &str) -> Vec<u8> {
    let text = format!("(module {LOG} {COMMON} {before} {})", MAP_ROLES.replace("BODY", body));
    wat::parse_str(text).expect("the text of a module")
}

/// A component that is both.
pub fn authorizer_and_mapper(before: &str, authorize: &str, map_roles: &str) -> Vec<u8> {
    let both = [AUTHORIZE.replace("BODY", authorize), MAP_ROLES.replace("BODY", map_roles)].concat();
    component("policy-plugin", &format!("(module {LOG} {COMMON} {before} {both})"))
}

/// Makes a component of a core module's text, for a world of `plugins/wit`.
pub fn component(world: &str, text: &str) -> Vec<u8> {
    let module = module_of(world, &wat::parse_str(text).expect("the text of a module"));
    let encoder = ComponentEncoder::default().validate(true).module(&module).expect("a module");
    encoder.realloc_via_memory_grow(true).encode().expect("a component")
}

/// A core module that declares its world, as generated bindings do.
pub fn module_of(world: &str, module: &[u8]) -> Vec<u8> {
    let mut module = module.to_vec();
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/wit");
    let (package, _) = resolve.push_dir(&wit).expect("plugins/wit");
    let world = resolve.select_world(&[package], Some(world)).expect("a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    module
}

// ── guests of several tests ──

pub fn allowing() -> Vec<u8> {
    authorizer("", "(call $allow)")
}

pub fn abstaining() -> Vec<u8> {
    authorizer("", "(call $abstain)")
}

/// Denies everything with this reason.
pub fn denying(reason: &str) -> Vec<u8> {
    let data = format!("(data (i32.const 1024) {reason:?})");
    authorizer(&data, &format!("(call $deny (i32.const 1024) (i32.const {}))", reason.len()))
}

/// Denies with the requested path as the reason.
pub fn denying_with_path() -> Vec<u8> {
    authorizer("", "(call $deny (local.get $path) (local.get $path_bytes))")
}

/// Denies actions with a name of this length, and abstains for all others.
pub fn denying_actions_of(letters: usize) -> Vec<u8> {
    authorizer(
        "(data (i32.const 1024) \"not this\")",
        &format!(
            "(if (i32.eq (local.get $action_bytes) (i32.const {letters}))
               (then (return (call $deny (i32.const 1024) (i32.const 8)))))
             (call $abstain)"
        ),
    )
}

pub fn looping() -> Vec<u8> {
    authorizer("", "(loop $again (br $again)) (unreachable)")
}

pub fn trapping() -> Vec<u8> {
    authorizer("", "(unreachable)")
}

/// Answers with an error.
pub fn failing() -> Vec<u8> {
    authorizer(
        "(data (i32.const 1024) \"no_table\")",
        "(i32.store8 (i32.const 16) (i32.const 1))
         (i32.store (i32.const 20) (i32.const 1024)) (i32.store (i32.const 24) (i32.const 8))
         (i32.store (i32.const 28) (i32.const 1024)) (i32.store (i32.const 32) (i32.const 8)) (i32.const 16)",
    )
}

/// Denies with the first value of the last fact as the reason; a fact without a value is a trap.
pub fn denying_with_last_fact() -> Vec<u8> {
    let last =
        "(i32.add (local.get $context) (i32.mul (i32.const 16) (i32.sub (local.get $context_count) (i32.const 1))))";
    let first = format!("(i32.load offset=8 {last})");
    authorizer("", &format!("(call $deny (i32.load {first}) (i32.load offset=4 {first}))"))
}

/// Names these roles, whatever its input.
pub fn naming(roles: &[&str]) -> Vec<u8> {
    let mut data = String::new();
    let mut at = 8_192;
    for (n, role) in roles.iter().enumerate() {
        let place = |n: usize| format!("\\{:02x}\\{:02x}\\00\\00", n & 255, n >> 8);
        data.push_str(&format!("(data (i32.const {}) \"{}{}\")", 1_024 + 8 * n, place(at), place(role.len())));
        data.push_str(&format!("(data (i32.const {at}) {role:?})"));
        at += role.len();
    }
    role_mapper(&data, &format!("(call $list (i32.const 1024) (i32.const {}))", roles.len()))
}

/// Names its groups as roles.
pub fn naming_groups() -> Vec<u8> {
    role_mapper("", "(call $list (local.get $groups) (local.get $groups_count))")
}

pub fn trapping_mapper() -> Vec<u8> {
    role_mapper("", "(unreachable)")
}

/// Names the values of a claim as roles, at most `roles_max`, and none without the claim. Counts to `spins` first.
pub fn naming_claim(name: &str, roles_max: usize, spins: u64) -> Vec<u8> {
    let before = format!(
        "(data (i32.const 1024) {name:?})
         (func $is (param $text i32) (param $bytes i32) (result i32)
           (if (i32.ne (local.get $bytes) (i32.const {})) (then (return (i32.const 0))))
           (loop $next
             (if (i32.eqz (local.get $bytes)) (then (return (i32.const 1))))
             (local.set $bytes (i32.sub (local.get $bytes) (i32.const 1)))
             (if (i32.ne (i32.load8_u (i32.add (local.get $text) (local.get $bytes)))
                         (i32.load8_u offset=1024 (local.get $bytes)))
               (then (return (i32.const 0))))
             (br $next))
           (unreachable))",
        name.len()
    );
    let body = format!(
        "(local $spins i64)
         (local.set $spins (i64.const {spins}))
         (block $enough
           (loop $spin
             (br_if $enough (i64.eqz (local.get $spins)))
             (local.set $spins (i64.sub (local.get $spins) (i64.const 1)))
             (br $spin)))
         (block $none
           (loop $next
             (br_if $none (i32.eqz (local.get $claims_count)))
             (if (call $is (i32.load (local.get $claims)) (i32.load offset=4 (local.get $claims)))
               (then (return (call $list (i32.load offset=8 (local.get $claims))
                 (select (i32.load offset=12 (local.get $claims)) (i32.const {roles_max})
                   (i32.lt_u (i32.load offset=12 (local.get $claims)) (i32.const {roles_max})))))))
             (local.set $claims (i32.add (local.get $claims) (i32.const 16)))
             (local.set $claims_count (i32.sub (local.get $claims_count) (i32.const 1)))
             (br $next)))
         (call $list (i32.const 0) (i32.const 0))"
    );
    role_mapper(&before, &body)
}

/// Answers with an error with this message.
pub fn refusing_mapper(message: &str) -> Vec<u8> {
    let body = format!(
        "(i32.store8 (i32.const 16) (i32.const 1))
         (i32.store (i32.const 20) (i32.const 1024)) (i32.store (i32.const 24) (i32.const 4))
         (i32.store (i32.const 28) (i32.const 1028)) (i32.store (i32.const 32) (i32.const {}))
         (i32.const 16)",
        message.len()
    );
    role_mapper(&format!("(data (i32.const 1024) \"code\") (data (i32.const 1028) {message:?})"), &body)
}

pub fn looping_mapper() -> Vec<u8> {
    role_mapper("", "(loop $again (br $again)) (unreachable)")
}

#[test]
fn the_fixtures_are_valid_components() {
    for guest in
        [allowing(), denying("no"), looping(), naming(&["editor", "viewer"]), naming_groups(), naming_claim("a", 1, 1)]
    {
        assert_eq!(guest[..8], [0, b'a', b's', b'm', 0x0d, 0, 1, 0]);
    }
}

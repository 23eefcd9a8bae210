//! Maps groups with provider-specific names to roles: `roster:editor`, as project roles of Zitadel or client roles of
//! Keycloak can be named, and `/acme/editors`, as Keycloak writes the path of a group. Roles of the organization's
//! mapping table stay.

wit_bindgen::generate!({ path: "../wit", world: "role-mapper-plugin" });

use exports::roster::policy::role_mapper::{Guest, RoleInput, RuleError};
use roster::policy::host::{log, Level};

/// After one of these prefixes comes the key of a role.
const PREFIXES: [&str; 2] = ["roster:", "roster/"];
/// Groups below the organization's own path, such as `/acme/editors`, and their roles.
const GROUPS: [(&str, &str); 4] =
    [("managers", "member_manager"), ("editors", "editor"), ("staff/editors", "editor"), ("viewers", "viewer")];

/// Memory is reserved at the start: growing it takes longer than everything else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: no other code can name the arena.
    unsafe { talc::wasm::new_wasm_arena_allocator(&raw mut ARENA) }
};

struct Plugin;

impl Guest for Plugin {
    fn map_roles(input: RoleInput) -> Result<Vec<String>, RuleError> {
        log_panics();
        let mut roles = claim(&input, "roster.roles").to_vec();
        roles.extend(input.groups.iter().filter_map(|group| role_of(&input, group)));
        roles.sort();
        roles.dedup();
        Ok(roles)
    }
}

export!(Plugin);

fn role_of(input: &RoleInput, group: &str) -> Option<String> {
    let role = match PREFIXES.iter().find_map(|prefix| group.strip_prefix(prefix)) {
        Some(key) => key,
        None => {
            let below = claim(input, "org_code")
                .iter()
                .find_map(|org_code| group.strip_prefix('/')?.strip_prefix(org_code.as_str())?.strip_prefix('/'))?;
            GROUPS.iter().find(|(name, _)| *name == below)?.1
        }
    };
    // The host refuses the whole result if one key is invalid.
    if !is_role_key(role) {
        log(Level::Warn, &format!("{group:?} names no role"));
        return None;
    }
    Some(role.to_owned())
}

fn is_role_key(key: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    (1..=64).contains(&key.len()) && key.chars().all(is_plain)
}

/// The values of a claim; empty if the claim is missing.
fn claim<'i>(input: &'i RoleInput, name: &str) -> &'i [String] {
    input.claims.iter().find(|claim| claim.name == name).map_or(&[], |claim| claim.values.as_slice())
}

/// Logs the message of a panic. Without this, a panic is a trap without a message.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

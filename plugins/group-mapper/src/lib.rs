//! Makes roles of groups that an identity provider names its own way: `roster:editor` as Zitadel's project roles or
//! Keycloak's client roles may be called, and `/acme/editors` as Keycloak writes the path of a group. What the
//! organization's table of groups gave stays.

wit_bindgen::generate!({ path: "../wit", world: "role-mapper-plugin" });

use exports::roster::policy::role_mapper::{Guest, RoleInput, RuleError};
use roster::policy::host::{log, Level};

/// What follows one of these is the key of a role.
const PREFIXES: [&str; 2] = ["roster:", "roster/"];
/// Groups below the organization's own path, such as `/acme/editors`, and their roles.
const GROUPS: [(&str, &str); 4] =
    [("managers", "member_manager"), ("editors", "editor"), ("staff/editors", "editor"), ("viewers", "viewer")];

/// All its memory is there from the start: asking the host for more takes longer than all else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: nobody else can name it.
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
    // One name that cannot be would make the host refuse the whole answer.
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

/// The values of a claim; none if there is none.
fn claim<'i>(input: &'i RoleInput, name: &str) -> &'i [String] {
    input.claims.iter().find(|claim| claim.name == name).map_or(&[], |claim| claim.values.as_slice())
}

/// A panic only stops the guest; with this, its message is in the plugin's log first.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

//! A Roster plugin. wit/policy.wit defines the interface and its terms.

wit_bindgen::generate!({ path: "wit", world: "WORLD" });

%% authorizer
use exports::roster::policy::authorizer;
%% role-mapper
use exports::roster::policy::role_mapper;
%% end
use roster::policy::host::{log, Level};

/// Memory is reserved at the start: growing it takes longer than everything else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: no other code can name the arena.
    unsafe { talc::wasm::new_wasm_arena_allocator(&raw mut ARENA) }
};

struct Plugin;

export!(Plugin);
%% authorizer

impl authorizer::Guest for Plugin {
    fn authorize(input: authorizer::AccessInput) -> Result<authorizer::Decision, authorizer::RuleError> {
        log_panics();
        let is_on_probation = input.roles.iter().any(|role| role == "probation");
        if input.action == "video.publish" && is_on_probation {
            return Ok(authorizer::Decision::Deny("on probation: ask an editor to publish this".into()));
        }
        Ok(authorizer::Decision::Abstain)
    }
}
%% role-mapper

impl role_mapper::Guest for Plugin {
    fn map_roles(input: role_mapper::RoleInput) -> Result<Vec<String>, role_mapper::RuleError> {
        log_panics();
        // The roles so far. A role that is missing in the result is revoked.
        let so_far = input.claims.iter().find(|claim| claim.name == "roster.roles");
        let mut roles = so_far.map(|claim| claim.values.clone()).unwrap_or_default();
        let is_editor = input.groups.iter().any(|group| group == "staff-editors");
        if is_editor && !roles.iter().any(|role| role == "editor") {
            roles.push("editor".into());
        }
        Ok(roles)
    }
}
%% end

/// Logs the message of a panic. Without this, a panic is a trap without a message.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

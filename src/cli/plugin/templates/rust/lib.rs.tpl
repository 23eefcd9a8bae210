//! A plugin of Roster. The interface and its words are in wit/policy.wit.

wit_bindgen::generate!({ path: "wit", world: "WORLD" });

%% authorizer
use exports::roster::policy::authorizer;
%% role-mapper
use exports::roster::policy::role_mapper;
%% end
use roster::policy::host::{log, Level};

/// All its memory is there from the start: asking the host for more takes longer than all else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: nobody else can name it.
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
        // The answer so far; what is left out of ours is taken away.
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

/// A panic only stops the guest; with this, its message is in the plugin's log first.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

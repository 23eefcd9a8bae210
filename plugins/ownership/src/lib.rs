//! Denies changes to videos of other members. The caller names the owner of the video in the fact `owner`.

wit_bindgen::generate!({ path: "../wit", world: "authorizer-plugin" });

use exports::roster::policy::authorizer::{AccessInput, Decision, Guest, RuleError};
use roster::policy::host::{log, Level};

/// Holders of one of these roles can change all videos.
const EXEMPT_ROLES: [&str; 1] = ["video_editor_in_chief"];
/// Requests that change a video: these methods below this path, or a permission with this prefix and one of these verbs.
/// Reading is not restricted, and a new video has no owner yet.
const PATH: &str = "/videos/";
const METHODS: [&str; 3] = ["PUT", "PATCH", "DELETE"];
const PERMISSION: &str = "video.";
const VERBS: [&str; 4] = ["update", "edit", "publish", "delete"];

/// Memory is reserved at the start: growing it takes longer than everything else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: no other code can name the arena.
    unsafe { talc::wasm::new_wasm_arena_allocator(&raw mut ARENA) }
};

struct Plugin;

impl Guest for Plugin {
    fn authorize(input: AccessInput) -> Result<Decision, RuleError> {
        log_panics();
        Ok(decide(&input))
    }
}

export!(Plugin);

fn decide(input: &AccessInput) -> Decision {
    let is_exempt = input.roles.iter().any(|role| EXEMPT_ROLES.contains(&role.as_str()));
    if !changes_a_video(input) || is_exempt {
        return Decision::Abstain;
    }
    match fact(input, "owner") {
        [] => Decision::Deny("nobody said whose video this is: ask with the fact `owner`".into()),
        // `allow` permits what no role permits only if the activation has `may_grant`.
        [owner] if *owner == input.subject => Decision::Allow,
        _ => Decision::Deny("this video belongs to somebody else".into()),
    }
}

fn changes_a_video(input: &AccessInput) -> bool {
    if !input.path.is_empty() {
        return input.path.starts_with(PATH) && METHODS.contains(&input.action.as_str());
    }
    let verb = input.action.strip_prefix(PERMISSION).and_then(|rest| rest.rsplit('.').next());
    verb.is_some_and(|verb| VERBS.contains(&verb))
}

/// The values of a fact; empty if the fact is missing.
fn fact<'i>(input: &'i AccessInput, name: &str) -> &'i [String] {
    input.context.iter().find(|fact| fact.name == name).map_or(&[], |fact| fact.values.as_slice())
}

/// Logs the message of a panic. Without this, a panic is a trap without a message.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}

//! The rules of the house that a compiler does not know: who may use what, how long a file may be, what every file
//! opens with. Read off the source as text.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with its text.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(folder)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path: PathBuf = entry.expect("entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("inside").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    found
}

/// The part of a file that is shipped.
fn shipped(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

/// `src/a/b.rs` as `a/b.rs`.
fn below_src(name: &str) -> &str {
    name.strip_prefix("src/").unwrap_or(name)
}

#[test]
fn a_crate_has_its_rooms_and_no_others() {
    type May<'m> = &'m dyn Fn(&str) -> bool;
    let walls: [(&str, May<'_>); 25] = [
        ("rusqlite", &|f| {
            f.starts_with("db/") || f == "ids.rs" || f == "journal.rs" || f == "outbox.rs" || f.ends_with("store.rs")
        }),
        ("r2d2", &|f| f.starts_with("db/")),
        ("argon2", &|f| f == "members/password.rs"),
        ("bcrypt", &|f| f == "members/password.rs"),
        ("jsonwebtoken", &|f| f == "access/token.rs"),
        ("ed25519_dalek", &|f| f == "access/token.rs"),
        ("chacha20poly1305", &|f| f == "access/encryption.rs"),
        ("reqwest", &|f| {
            f == "outbound.rs"
                || f.starts_with("config/")
                || f.starts_with("connect/")
                || f.starts_with("sessions/oidc")
        }),
        ("pulldown_cmark", &|f| f.starts_with("console/manual/")),
        ("csv", &|f| f == "members/spreadsheet.rs"),
        ("encoding_rs", &|f| f == "members/spreadsheet.rs" || f == "members/api/import.rs"),
        ("unicode_normalization", &|f| ["permissions/external_key.rs", "access/redact.rs"].contains(&f)),
        ("lettre", &|f| f == "connect/mail.rs"),
        ("totp_rs", &|f| f == "sessions/second_factor.rs"),
        ("wasmtime", &|f| f.starts_with("sandbox/")),
        ("wasmparser", &|f| f.starts_with("sandbox/")),
        ("rustix", &|f| {
            let files = ["cli/process.rs", "cli/directory.rs", "db/mod.rs", "videos/measure.rs", "videos/walk.rs"];
            f.starts_with("sandbox/") || files.contains(&f)
        }),
        ("libmimalloc_sys", &|f| f == "cli/memory.rs"),
        ("libc", &|f| f == "cli/memory.rs"),
        ("wit_component", &|f| f == "sandbox/pack.rs"),
        ("wit_parser", &|f| f == "sandbox/pack.rs"),
        ("saphyr_parser", &|f| f == "wire/documents.rs"),
        ("std::env", &|f| f == "config.rs"),
        ("SystemTime", &|f| f == "ids.rs"),
        ("poem", &|f| {
            let rooms = ["app/", "routes/", "wire/", "console/", "cli/"];
            rooms.iter().any(|room| f.starts_with(room))
                || ["ids.rs", "access/caller.rs", "access/caller/identify.rs"].contains(&f)
                || f.ends_with("/api.rs")
                || f.contains("/api/")
        }),
    ];
    for (name, text) in files("src") {
        for (what, may) in &walls {
            let uses = shipped(&text).lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
                let path = format!("{what}::");
                line.contains(&path) || line.contains(&format!("use {what}"))
            });
            assert!(!uses || may(below_src(&name)), "{name} uses {what}");
        }
        let may_be_unsafe = ["src/sandbox/compile.rs", "src/cli/memory.rs"].contains(&name.as_str());
        assert!(!text.contains("unsafe_code") || may_be_unsafe, "{name} is unsafe");
    }
}

#[test]
fn imports_run_downward() {
    const FLOORS: [&[&str]; 7] = [
        &["cli"],
        &["routes"],
        &[
            "members",
            "organizations",
            "permissions",
            "sessions",
            "clients",
            "plugins",
            "videos",
            "connect",
            "audit",
            "console",
        ],
        &["app"],
        &["journal", "outbox", "sandbox"],
        &["access", "wire", "outbound"],
        &["db", "config", "error", "health", "ids", "log", "nearest", "units"],
    ];
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    for (name, text) in files("src") {
        let own = below_src(&name).split(['/', '.']).next().expect("a name").to_owned();
        let Some(own_floor) = floor(&own) else { continue };
        for used in text.match_indices("crate::").map(|(at, _)| &text[at + 7..]) {
            let module: String = used.chars().take_while(|c| c.is_ascii_lowercase()).collect();
            let Some(used_floor) = floor(&module) else { continue };
            assert!(used_floor >= own_floor, "{name} looks up to {module}");
        }
    }
}

#[test]
fn a_wing_uses_only_the_front_room_of_another() {
    const WINGS: [&str; 10] = [
        "members",
        "organizations",
        "permissions",
        "sessions",
        "clients",
        "plugins",
        "videos",
        "connect",
        "audit",
        "console",
    ];
    for (name, text) in files("src") {
        let own = below_src(&name).split('/').next().expect("a name").to_owned();
        if !WINGS.contains(&own.as_str()) {
            continue;
        }
        for wing in WINGS.iter().filter(|wing| **wing != own) {
            for room in ["store", "api"] {
                assert!(!text.contains(&format!("{wing}::{room}")), "{name} enters {wing}::{room}");
            }
        }
    }
}

#[test]
fn files_and_functions_stay_short_and_say_what_they_are() {
    const FILE_LINES_MAX: usize = 600;
    const FUNCTION_LINES_MAX: usize = 70;
    for (name, text) in files("src") {
        assert!(text.starts_with("//!"), "{name} does not say what it owns");
        let lines = shipped(&text).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines");
        let mut begun: Option<(usize, usize, String)> = None;
        for (n, line) in shipped(&text).lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match &begun {
                Some((start, depth, what)) if line.trim_end() == format!("{}}}", " ".repeat(*depth)) => {
                    assert!(n - start <= FUNCTION_LINES_MAX, "{name}: {what} has {} lines", n - start);
                    begun = None;
                }
                Some(_) => {}
                None => {
                    let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn "]
                        .iter()
                        .any(|s| line.trim_start().starts_with(s));
                    if is_function && !line.trim_end().ends_with(';') && !line.contains('}') {
                        begun = Some((n, indent, line.trim().to_owned()));
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_that_was_proved_to_fail_is_used() {
    const BANNED: [(&str, &str); 8] = [
        ("hazmat", "arithmetic on a private key with numbers that strangers choose"),
        ("print!(", "panics when nobody reads: `say!` and `complain!` do not"),
        ("validator(pattern", "compiles the expression anew for every value"),
        ("bad_request_handler", "turns a bad token into 400"),
        ("SizeLimit", "refuses every request without a length"),
        ("cfg(debug_assertions)", "the program tested is the program shipped"),
        ("dbg!(", "left over"),
        ("unimplemented!(", "a stub that pretends"),
    ];
    for (name, text) in files("src") {
        // The macros end in `print!` or `println!`.
        let text = text.replace("println!(", "print!(");
        for (what, why) in BANNED {
            assert!(!text.contains(what), "{name} has {what}: {why}");
        }
        let in_api = name.ends_with("api.rs") || name.contains("/api/");
        assert!(!in_api || !text.contains(": Json<"), "{name} takes Json: Body checks the whole schema");
    }
}

//! Rules of this code base that the compiler does not check: which file may use which crate, how long files and
//! functions may be, and how every file starts. They are checked on the text of the source.

use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
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

/// The part of a file that is compiled into the binary.
pub fn shipped(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

/// A declaration without `pub`, `pub(super)` and the like.
fn without_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else { return line };
    let rest = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')).map_or(rest, |(_, rest)| rest);
    rest.strip_prefix(' ').unwrap_or(line)
}

/// `src/a/b.rs` as `a/b.rs`.
fn below_src(name: &str) -> &str {
    name.strip_prefix("src/").unwrap_or(name)
}

#[test]
fn each_crate_is_used_only_in_its_files() {
    type Allowed<'m> = &'m dyn Fn(&str) -> bool;
    let rules: [(&str, Allowed<'_>); 30] = [
        ("rusqlite", &|f| {
            let files = ["kernel/ids.rs", "kernel/audit_log.rs"];
            let folders = ["kernel/db/", "kernel/decision_log/", "kernel/outbox/"];
            files.contains(&f) || folders.iter().any(|folder| f.starts_with(folder)) || f.ends_with("store.rs")
        }),
        ("r2d2", &|f| f.starts_with("kernel/db/")),
        ("argon2", &|f| f == "features/members/password.rs"),
        ("bcrypt", &|f| f == "features/members/password.rs"),
        ("jsonwebtoken", &|f| f == "kernel/authn/token.rs"),
        ("ed25519_dalek", &|f| f == "kernel/authn/token.rs"),
        ("chacha20poly1305", &|f| f == "kernel/encryption.rs"),
        ("reqwest", &|f| {
            let folders = ["kernel/outbound/", "integrations/", "features/webhooks/", "features/sessions/oidc"];
            f.starts_with("kernel/config/") || folders.iter().any(|folder| f.starts_with(folder))
        }),
        ("pulldown_cmark", &|f| f.starts_with("console/manual/")),
        ("maud", &|f| f.starts_with("console/")),
        ("qrcode", &|f| f == "console/sign_in/qr.rs"),
        // Only a page can say that its visitor was authenticated.
        ("PreAuthenticated(", &|f| f == "console/client.rs" || f == "kernel/authn/caller.rs"),
        ("csv", &|f| f == "features/provisioning/spreadsheet.rs"),
        ("encoding_rs", &|f| f == "features/provisioning/spreadsheet.rs" || f == "features/provisioning/api/import.rs"),
        ("unicode_normalization", &|f| f == "features/permissions/role_claims.rs" || f == "kernel/app/redact.rs"),
        ("lettre", &|f| f == "kernel/outbound/mail.rs"),
        ("tokio_rustls", &|f| f == "server/listener/tls.rs"),
        ("rcgen", &|f| f == "server/listener/authority.rs"),
        ("totp_rs", &|f| f == "features/sessions/second_factor.rs"),
        ("wasmtime", &|f| f.starts_with("kernel/sandbox/")),
        ("wasmparser", &|f| f.starts_with("kernel/sandbox/")),
        ("rustix", &|f| {
            let files = ["kernel/db/mod.rs", "features/videos/measure.rs", "features/videos/walk.rs"];
            let own = ["cli/process.rs", "cli/data_dir.rs"];
            f.starts_with("kernel/sandbox/") || files.contains(&f) || own.contains(&f)
        }),
        ("libmimalloc_sys", &|f| f == "cli/memory.rs"),
        ("libc", &|f| f == "cli/memory.rs"),
        ("wit_component", &|f| f == "kernel/sandbox/pack.rs"),
        ("wit_parser", &|f| f == "kernel/sandbox/pack.rs"),
        ("saphyr_parser", &|f| f == "kernel/http/documents.rs"),
        ("std::env", &|f| f == "kernel/config/mod.rs"),
        ("SystemTime", &|f| f == "kernel/ids.rs"),
        ("poem", &|f| {
            let folders = ["kernel/app/", "kernel/authn/", "kernel/http/", "server/", "console/", "cli/"];
            folders.iter().any(|folder| f.starts_with(folder))
                || ["kernel/ids.rs", "features/sessions/token_answer.rs"].contains(&f)
                || f.ends_with("/api.rs")
                || f.contains("/api/")
        }),
    ];
    for (name, text) in files("src") {
        for (what, may) in &rules {
            let uses = shipped(&text).lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
                let path = format!("{what}::");
                line.contains(&path) || line.contains(&format!("use {what}"))
            });
            assert!(!uses || may(below_src(&name)), "{name} uses {what}");
        }
        let may_be_unsafe = ["src/kernel/sandbox/compile.rs", "src/cli/memory.rs"].contains(&name.as_str());
        assert!(!text.contains("unsafe_code") || may_be_unsafe, "{name} uses unsafe code");
    }
}

#[test]
fn files_and_functions_are_short_and_files_begin_with_a_description() {
    const FILE_LINES_MAX: usize = 600;
    const FUNCTION_LINES_MAX: usize = 70;
    for (name, text) in files("src").into_iter().chain(files("tests/it")) {
        assert!(text.starts_with("//!"), "{name} has no module description");
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
                // A declaration without a body, in a trait.
                Some((_, depth, _)) if indent == *depth && line.trim_end().ends_with(';') => begun = None,
                Some(_) => {}
                None => {
                    let declared = without_visibility(line.trim_start());
                    let is_function = ["fn ", "async fn ", "const fn "].iter().any(|s| declared.starts_with(s));
                    if is_function && !line.trim_end().ends_with(';') && !line.contains('}') {
                        begun = Some((n, indent, line.trim().to_owned()));
                    }
                }
            }
        }
    }
}

#[test]
fn constructs_that_have_failed_before_are_not_used() {
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
        // Both macros end in `print!` or `println!`.
        let text = text.replace("println!(", "print!(");
        for (what, why) in BANNED {
            assert!(!text.contains(what), "{name} has {what}: {why}");
        }
        let in_api = name.ends_with("api.rs") || name.contains("/api/");
        assert!(!in_api || !text.contains(": Json<"), "{name} takes Json: Body checks the whole schema");
    }
}

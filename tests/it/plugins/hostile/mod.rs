//! Hostile guests: each ends with its named error. Limits of the sandbox end them, never a timer of the test.
//!
//! The comments of `guests/*.wat` say what kind of text follows (`authorizer` or `role-mapper`: what precedes the
//! functions of `wasm_fixtures`, and the body; `module WORLD`: a whole core module; `component`: as it is) and how it
//! ends: `ends` with a fault of a call or an answer, or `refused` with an error code.

mod compiler_bombs;
mod guests;
mod servers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{site, wasm_fixtures};

pub struct Hostile {
    pub name: String,
    pub bytes: Vec<u8>,
    pub end: End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// One of these faults or answers.
    Call(Vec<String>),
    Refused(String),
}

/// Reads the guests of the folder.
pub fn corpus() -> Vec<Hostile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plugins/hostile/guests");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).expect("folder").map(|f| f.expect("file").path()).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

pub fn read(file: &Path) -> Hostile {
    let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).expect("text");
    let kinds = [";; authorizer, ", ";; role-mapper, ", ";; module ", ";; component, "];
    let line = text.lines().find(|line| kinds.iter().any(|kind| line.starts_with(kind))).expect("what it is");
    let (kind, end) = line.trim_start_matches(";; ").split_once(", ").expect("how it ends");
    let (before, body) = text.split_once("\n;; body\n").unwrap_or((&text, ""));
    let bytes = match kind.split_once(' ') {
        Some(("module", world)) => wasm_fixtures::component(world, &text),
        _ if kind == "authorizer" => wasm_fixtures::authorizer(before, body),
        _ if kind == "role-mapper" => wasm_fixtures::role_mapper(before, body),
        _ => wat::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
    };
    let end = match end.split_once(": ").expect("how it ends") {
        ("ends", words) => End::Call(words.split(' ').map(str::to_owned).collect()),
        ("refused", word) => End::Refused(word.to_owned()),
        other => panic!("{name}: {other:?}"),
    };
    Hostile { name, bytes, end }
}

/// A folder with a component, in which commands are run.
pub struct PluginFolder {
    pub folder: tempfile::TempDir,
}

impl PluginFolder {
    pub fn of(component: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("plugin.wasm"), component).expect("written");
        Self { folder }
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(site::binary());
        command.current_dir(self.folder.path()).arg("plugin").args(arguments).arg("--json");
        command.stdin(Stdio::null()).output().expect("roster plugin")
    }

    pub fn check(&self) -> Value {
        let output = self.run(&["check", "plugin.wasm"]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(answer["ok"] != true)), "{answer}");
        answer
    }

    /// The reports of test vectors.
    pub fn ask(&self, vectors: &Value) -> Vec<Value> {
        std::fs::write(self.folder.path().join("vectors.json"), vectors.to_string()).expect("written");
        let output = self.run(&["test", "plugin.wasm", "vectors.json"]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(answer["ok"] != true)), "{answer}");
        answer["items"].as_array().expect("reports").clone()
    }

    /// Files in the folder that the test did not put there.
    pub fn left_over(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("folder");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !["plugin.wasm", "vectors.json", "vectors.yaml"].contains(&name.as_str())).collect()
    }
}

/// The error code of each problem.
pub fn causes(checked: &Value) -> Vec<String> {
    let problems = checked["problems"].as_array().expect("problems").iter();
    problems.map(|text| text.as_str().expect("text").split(':').next().expect("a word").to_owned()).collect()
}

//! The OpenAPI document in third-party tools: validators, client generators, and a request generator.
//!
//! The tools are those of `tests/counterparts`, in the versions that are pinned there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::site::{ADMIN, INTERNAL_SECRET, PASSWORD, Site, binary, rounds};

/// A program installed by `tests/counterparts/install`, from PyPI or npm.
fn tool(name: &str) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts");
    let python = folder.join("venv/bin").join(name);
    Command::new(if python.exists() { python } else { folder.join("node_modules/.bin").join(name) })
}

/// Runs it and returns its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e} (tests/counterparts/install)"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Writes the document to a file of its own.
fn written(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("document.json");
    let printed = Command::new(binary()).arg("openapi").output().expect("roster openapi").stdout;
    std::fs::write(&path, printed).expect("written");
    path
}

fn counterparts(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts").join(file)
}

#[test]
fn validators_accept_the_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let document = written(&folder);
    run(tool("openapi-spec-validator").arg(&document));
    let config = counterparts("redocly.yaml");
    // Warnings are errors too: the summary counts them.
    let found =
        run(tool("redocly").arg("lint").arg(&document).arg("--config").arg(config).args(["--format", "summary"]));
    assert!(!found.contains("warning ") && !found.contains("error "), "{found}");
}

/// The operation ids in the source.
fn operations_of_the_code(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            operations_of_the_code(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).expect("source");
            let ids = text.split("operation_id = \"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(ids.map(str::to_owned));
        }
    }
}

fn operations_of_the_document(document: &Value) -> BTreeSet<String> {
    roster::kernel::http::openapi::operations(document).into_iter().map(|operation| operation.id.to_owned()).collect()
}

#[test]
fn every_operation_of_the_code_is_in_the_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let document: Value =
        serde_json::from_slice(&std::fs::read(written(&folder)).expect("the document")).expect("JSON");
    let mut of_code = BTreeSet::new();
    operations_of_the_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut of_code);
    assert_eq!(of_code, operations_of_the_document(&document));
}

#[tokio::test]
async fn a_generated_python_client_has_all_operations_and_calls_them() {
    let site = Site::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let document = written(&folder);
    let package = folder.path().join("roster_client");
    run(tool("openapi-python-client")
        .args(["generate", "--meta", "none", "--path"])
        .arg(&document)
        .arg("--output-path")
        .arg(&package));
    let document: Value = serde_json::from_slice(&std::fs::read(&document).expect("the document")).expect("JSON");
    let mut generated = BTreeSet::new();
    for tag in std::fs::read_dir(package.join("api")).expect("api") {
        let tag = tag.expect("a folder").path();
        for module in std::fs::read_dir(&tag).into_iter().flatten() {
            let name = module.expect("a module").file_name().to_string_lossy().into_owned();
            generated.extend(name.strip_suffix(".py").filter(|name| !name.starts_with('_')).map(str::to_owned));
        }
    }
    assert_eq!(generated, operations_of_the_document(&document));

    let called = run(tool("python").arg(counterparts("clients/call_by_python.py")).arg(&package).args([
        format!("{}/api/v1", site.url),
        ADMIN.to_owned(),
        PASSWORD.to_owned(),
    ]));
    assert!(called.lines().count() >= 10, "{called}");
}

#[tokio::test]
async fn generated_types_compile_with_a_client_and_match_the_responses() {
    let site = Site::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let document = written(&folder);
    run(tool("openapi-typescript").arg(&document).arg("-o").arg(folder.path().join("document.ts")));
    for file in ["call_by_fetch.ts", "tsconfig.json"] {
        std::fs::copy(counterparts("clients").join(file), folder.path().join(file)).expect("copied");
    }
    std::fs::write(folder.path().join("package.json"), r#"{"type":"module"}"#).expect("written");
    std::os::unix::fs::symlink(counterparts("node_modules"), folder.path().join("node_modules")).expect("linked");
    run(tool("tsc").current_dir(&folder).args(["-p", ".", "--outDir", "out"]));
    let said = run(Command::new("node").current_dir(&folder).arg("out/call_by_fetch.js").args([
        format!("{}/api/v1", site.url),
        ADMIN.to_owned(),
        PASSWORD.to_owned(),
    ]));
    assert_eq!(said.trim(), "as it should");
}

/// Operations that would end the generator's own access, answer in the form of an external system, or block for long.
const NOT_ASKED: &str =
    "^/(hooks|auth|setup)/|^/me/(sessions|password|second-factor)|/rotate$|/policy/reload$|^/jobs/claim$";

#[tokio::test]
async fn responses_to_generated_requests_match_the_document() {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), INTERNAL_SECRET).expect("written");
    let site = Site::with(&format!("internal_secret_file = {:?}", secret.path())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let document = written(&folder);
    let examples = rounds(2, 200).to_string();
    run(tool("schemathesis")
        .current_dir(&folder)
        .arg("--config-file")
        .arg(counterparts("schemathesis.toml"))
        .arg("run")
        .arg(&document)
        .args(["--url", &format!("{}/api/v1", site.url)])
        .args(["-H", &format!("Authorization: Bearer {}", site.admin_token)])
        .args(["--exclude-path-regex", NOT_ASKED])
        .args(["--phases", "examples,fuzzing", "--max-examples", &examples, "--seed", "1", "--no-shrink"])
        // Python 3.11 fails when two threads read source at the same time.
        .args(["--suppress-health-check", "all", "--workers", "1"])
        .args(["--checks", CHECKS]));
}

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance";

//! The command line for plugin authors: new projects, the packer, and the examples in `plugins/`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use roster::kernel::sandbox::vectors;
use serde_json::{Value, json};

use crate::harness::site::binary;
use crate::harness::wasm_fixtures;

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

fn plugin(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).arg("plugin").args(arguments).current_dir(folder).output().expect("roster")
}

/// The JSON output of a command that succeeds.
fn answer(folder: &Path, arguments: &[&str]) -> Value {
    let output = plugin(folder, &[&["--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The message of a command that fails.
fn complaint(folder: &Path, arguments: &[&str]) -> String {
    let output = plugin(folder, &[&["--json"], arguments].concat());
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    let said: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    said["error"].as_str().expect("a sentence").to_owned()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn new_creates_a_project_in_every_language_and_of_every_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let sources = [("rust", "src/lib.rs"), ("js", "plugin.mjs"), ("c", "plugin.c"), ("python", "app.py")];
    let kinds = [
        ("authorizer", "authorizer-plugin", 3),
        ("role-mapper", "role-mapper-plugin", 3),
        ("both", "policy-plugin", 6),
    ];
    for (lang, source) in sources {
        for (kind, world, vectors) in kinds {
            let name = format!("{lang}-{kind}");
            let made = answer(at, &["new", "--lang", lang, "--kind", kind, &name]);
            assert_eq!((&made["name"], &made["world"]), (&json!(name), &json!(world)));
            let project = at.join(&name);
            let files: Vec<&str> = made["files"].as_array().expect("files").iter().filter_map(Value::as_str).collect();
            assert!(files.contains(&source), "{files:?}");
            for file in files.iter().filter(|file| !file.starts_with("gen/")) {
                let text = String::from_utf8(read(&project.join(file))).expect("UTF-8");
                let left =
                    text.lines().find(|line| line.starts_with("%%") || line.contains("NAME") || line.contains("WORLD"));
                assert_eq!(left, None, "{name}/{file}");
            }
            assert_eq!(vectors::parse(&read(&project.join("vectors.yaml"))).expect("vectors").len(), vectors, "{name}");
            assert_eq!(read(&project.join("wit/policy.wit")), read(&plugins().join("wit/policy.wit")));
            let build = std::fs::metadata(project.join("build")).expect("build").permissions().mode();
            assert_eq!(build & 0o100, 0o100, "{name}/build is run");
            if lang == "c" {
                let world = world.replace('-', "_");
                let generated = [".c", ".h", "_component_type.o"].map(|end| format!("{world}{end}"));
                assert_eq!(names(&project.join("gen")), generated);
            }
        }
    }
}

#[test]
fn new_creates_an_authorizer_by_default() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(answer(folder.path(), &["new", "--lang", "js", "plain"])["world"], "authorizer-plugin");
}

#[test]
fn new_overwrites_nothing_and_accepts_the_names_that_a_site_accepts() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = |name: &str| complaint(folder.path(), &["new", "--lang", "c", "--", name]);
    std::fs::create_dir(folder.path().join("there")).expect("a folder");
    assert_eq!(new("there"), "there already exists: choose another name, or run this in another folder");
    let long = "x".repeat(64);
    for name in ["", "Upper", "9lives", "-x", "a_b", "a.b", "../up", "/tmp/up", "ünder", &long] {
        assert_eq!(
            new(name),
            "a plugin's name has 1 to 63 characters of a-z 0-9 -, and begins with a letter",
            "{name}"
        );
    }
    assert_eq!(names(folder.path()), ["there"]);
    answer(folder.path(), &["new", "--lang", "c", &long[..63]]);
    let unknown = plugin(folder.path(), &["new", "--lang", "cobol", "x"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn wit_prints_the_interface() {
    let output = plugin(Path::new("."), &["wit"]);
    assert_eq!((output.status.success(), output.stdout), (true, read(&plugins().join("wit/policy.wit"))));
}

/// The folders of `plugins/` that hold an example.
fn examples() -> Vec<String> {
    names(&plugins()).into_iter().filter(|name| plugins().join(name).join("vectors.yaml").exists()).collect()
}

#[test]
fn every_example_is_accepted_and_passes_its_vectors() {
    assert_eq!(examples(), ["business-hours", "department-roles", "embargo", "group-mapper", "ownership"]);
    for name in examples() {
        let folder = plugins().join(&name);
        let file = format!("{name}.wasm");

        let checked = answer(&folder, &["check", &file]);

        assert_eq!((&checked["ok"], &checked["problems"]), (&json!(true), &json!([])), "{name}");
        let kind = if name.ends_with("mapper") || name.ends_with("roles") { "role-mapper" } else { "authorizer" };
        assert_eq!(checked["exports"], json!([kind]), "{name}");
        let passed = checked["vectors"].as_array().expect("vectors").iter().filter(|vector| vector["passed"] == true);
        let carried = vectors::of_component(&read(&folder.join(&file))).expect("vectors");
        assert_eq!(carried, vectors::parse(&read(&folder.join("vectors.yaml"))).expect("vectors"), "{name}");
        assert_eq!(passed.count(), carried.len(), "{name}");
    }
}

#[test]
fn the_sizes_in_the_plugin_readme_are_those_of_the_examples() {
    let path = plugins().join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md");
    let sized = |line: &str| {
        let name = line.strip_prefix("| [").and_then(|rest| rest.split(']').next())?;
        let bytes = std::fs::metadata(plugins().join(name).join(format!("{name}.wasm"))).ok()?.len();
        let mut cells: Vec<String> = line.split(" | ").map(str::to_owned).collect();
        cells[3] = roster::kernel::units::shown_bytes(i64::try_from(bytes).expect("a size"));
        Some(cells.join(" | "))
    };
    let lines: Vec<Option<String>> = readme.lines().map(sized).collect();
    assert_eq!(lines.iter().flatten().count(), examples().len());
    let right: String =
        readme.lines().zip(lines).map(|(line, sized)| sized.unwrap_or_else(|| line.to_owned()) + "\n").collect();
    if readme == right {
        return;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, right).expect("written");
    }
    panic!("the sizes in plugins/README.md are outdated: run the tests with UPDATE_EXPECT=1");
}

#[test]
fn a_build_without_its_toolchain_names_the_command_that_installs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    // A PATH with only the tools that the script itself needs.
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).expect("a folder");
    for tool in ["dirname", "sh"] {
        let found =
            ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool)).into_iter().find(|path| path.exists());
        std::os::unix::fs::symlink(found.expect("a tool"), tools.join(tool)).expect("a link");
    }
    let run = |lang: &str, roster: &Path| {
        let script = folder.path().join(lang).join("build");
        let output = Command::new(script).env("PATH", &tools).env("ROSTER", roster).output().expect("a script");
        assert!(!output.status.success(), "{lang}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (lang, wanted) in [
        ("rust", "there is no cargo. Get it with: the installer of https://rustup.rs"),
        ("c", "pip install ziglang==0.17.1"),
        ("js", "there is no node. Get it with: apt-get install nodejs npm"),
        ("python", "there is no python3. Get it with: apt-get install python3 python3-venv"),
    ] {
        answer(folder.path(), &["new", "--lang", lang, lang]);
        let said = run(lang, binary());
        assert!(said.contains(wanted), "{lang}: {said}");
        let said = run(lang, Path::new("roster-that-is-nowhere"));
        assert!(said.contains("cargo build --release"), "{lang}: {said}");
    }
}

/// The npm modules that `tests/counterparts/install` installed.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts/node_modules")
}

/// Runs a build script.
fn build(script: &Path, arguments: &[&str], out: &Path) {
    // Kept between runs, so that the standard library is built once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("plugins");
    let output = Command::new(script)
        .args(arguments)
        .env("ROSTER", binary())
        .env("OUT", out)
        .env("CARGO_TARGET_DIR", target)
        .env("COMPONENTIZE_QJS", modules().join(".bin/componentize-qjs"))
        // Cargo set this variable for the compiler of this test, which is another one.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .output()
        .expect("a script");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "run tests/counterparts/install: {said}");
}

/// Builds an example from its source, in a folder of its own.
fn built(name: &str) -> tempfile::TempDir {
    let out = tempfile::tempdir().expect("a folder");
    build(&plugins().join("build"), &[name], out.path());
    out
}

/// The outcomes of a component, with the names of the test vectors.
fn outcomes(component: &Path, vectors: &Path) -> Vec<Value> {
    let [component, vectors] = [component, vectors].map(|path| path.display().to_string());
    let tested = answer(&plugins(), &["test", &component, &vectors]);
    let items = tested["items"].as_array().expect("items").iter();
    items.map(|item| json!({"name": item["name"], "passed": item["passed"], "got": item["got"]})).collect()
}

#[test]
fn the_rust_example_built_from_source_behaves_as_the_one_that_is_shipped() {
    let out = built("ownership");
    let folder = plugins().join("ownership");
    let questions = folder.join("vectors.yaml");

    let fresh = outcomes(&out.path().join("ownership.wasm"), &questions);

    assert_eq!(fresh, outcomes(&folder.join("ownership.wasm"), &questions));
    assert_eq!(fresh.len(), vectors::parse(&read(&questions)).expect("vectors").len());
    assert!(fresh.iter().all(|item| item["passed"] == true));
}

#[test]
fn the_javascript_example_built_from_source_passes_its_vectors() {
    let out = built("department-roles");
    assert_eq!(answer(out.path(), &["check", "department-roles.wasm"])["ok"], true);
}

#[test]
fn projects_created_by_new_build_and_pass_their_vectors() {
    let folder = tempfile::tempdir().expect("a folder");
    for lang in ["rust", "js"] {
        answer(folder.path(), &["new", "--lang", lang, "--kind", "both", lang]);
        let project = folder.path().join(lang);
        if lang == "js" {
            std::os::unix::fs::symlink(modules(), project.join("node_modules")).expect("modules");
        }
        build(&project.join("build"), &[], folder.path());
        let checked = answer(&project, &["check", &format!("{lang}.wasm")]);
        assert_eq!(
            (&checked["ok"], &checked["exports"]),
            (&json!(true), &json!(["authorizer", "role-mapper"])),
            "{lang}"
        );
        assert_eq!(checked["vectors"].as_array().map(Vec::len), Some(6), "{lang}");
    }
}

/// A folder with these files.
fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    folder
}

#[test]
fn pack_makes_a_component_of_a_core_module_and_embeds_vectors() {
    let module = wasm_fixtures::authorizer_module("", "(call $allow)");
    let vectors = b"- {authorize: {action: GET, path: /videos}, expect: allow}";
    let folder = folder_with(&[("x.wasm", &module), ("v.yaml", vectors)]);
    let at = folder.path();

    let packed = answer(at, &["pack", "x.wasm"]);

    assert_eq!((&packed["file"], &packed["vectors"]), (&json!("x.component.wasm"), &json!(0)));
    let checked = answer(at, &["check", "x.component.wasm"]);
    assert_eq!(
        (&checked["ok"], &checked["exports"], &checked["bytes"]),
        (&json!(true), &json!(["authorizer"]), &packed["bytes"])
    );
    // Without an output path a component is overwritten.
    assert_eq!(answer(at, &["pack", "x.component.wasm", "--vectors", "v.yaml"])["file"], "x.component.wasm");
    assert_eq!(answer(at, &["test", "x.component.wasm"])["passed"], 1);
    let again = answer(at, &["pack", "x.wasm", "--vectors", "v.yaml", "-o", "y.wasm"]);
    assert_eq!((&again["file"], &again["vectors"]), (&json!("y.wasm"), &json!(1)));
    assert_eq!(read(&at.join("x.component.wasm")), read(&at.join("y.wasm")));
}

#[test]
fn pack_detects_the_world_by_the_exports_or_takes_it_as_an_argument() {
    let mapper = wasm_fixtures::role_mapper_module("", "(call $list (local.get $groups) (local.get $groups_count))");
    let folder = folder_with(&[("x.wasm", &mapper)]);
    for world in [&[][..], &["--world", "role-mapper-plugin"]] {
        answer(folder.path(), &[&["pack", "x.wasm"], world].concat());
        assert_eq!(answer(folder.path(), &["check", "x.component.wasm"])["exports"], json!(["role-mapper"]));
    }
    let said = complaint(folder.path(), &["pack", "x.wasm", "--world", "policy-plugin"]);
    assert!(
        said.starts_with("the module cannot be converted to a component: ") && said.contains("authorize"),
        "{said}"
    );
}

#[test]
fn pack_reports_errors_and_writes_nothing() {
    let text = |text: &str| wat::parse_str(text).expect("a module");
    let component = wasm_fixtures::allowing();
    let files: [(&str, &[u8]); 8] = [
        ("component.wasm", &component),
        ("text.wat", b"(module)"),
        ("empty.wasm", b""),
        ("cut.wasm", &wasm_fixtures::authorizer_module("", "(call $allow)")[..100]),
        ("bare.wasm", &text("(module)")),
        (
            "wasi.wasm",
            &text(
                r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#,
            ),
        ),
        ("odd.wasm", &text(r#"(module (func (export "roster:policy/authorizer@1.0.0#authorize")))"#)),
        ("v.yaml", b"- {authorize: {action: GET}, expect: perhaps}"),
    ];
    let folder = folder_with(&files);
    let pack = |arguments: &[&str]| complaint(folder.path(), &[&["pack"], arguments].concat());
    let neither = "this is neither a core module nor a component: pack takes the output of a compiler, in WebAssembly's binary form";

    assert_eq!((pack(&["text.wat"]), pack(&["empty.wasm"])), (neither.into(), neither.into()));
    assert!(pack(&["missing.wasm"]).starts_with("missing.wasm cannot be read: "));
    assert!(pack(&["cut.wasm"]).starts_with("the module is not valid WebAssembly: "));
    assert!(
        pack(&["bare.wasm"]).starts_with("the module exports neither `roster:policy/authorizer@1.0.0#authorize` nor ")
    );
    assert!(
        pack(&["wasi.wasm"])
            .starts_with("the module imports wasi_snapshot_preview1 fd_write, which no plugin can have")
    );
    assert!(pack(&["odd.wasm"]).starts_with("the module cannot be converted to a component: "));
    assert!(pack(&["component.wasm"]).ends_with("name test vectors to add with --vectors"));
    let worldly = pack(&["component.wasm", "--world", "policy-plugin", "--vectors", "v.yaml"]);
    assert_eq!(worldly, "this is already a component, which has its world: omit --world");
    assert!(pack(&["component.wasm", "--vectors", "v.yaml"]).starts_with("test vector 1: expect is allow, abstain"));
    assert!(pack(&["component.wasm", "--vectors", "w.yaml"]).starts_with("w.yaml cannot be read: "));
    let mut sorted = files.map(|(name, _)| name);
    sorted.sort_unstable();
    assert_eq!(names(folder.path()), sorted);
}

#[test]
fn a_module_that_declares_its_world_cannot_be_packed_for_another() {
    let module =
        wasm_fixtures::module_of("authorizer-plugin", &wasm_fixtures::authorizer_module("", "(call $abstain)"));
    let folder = folder_with(&[("x.wasm", &module)]);
    let said = complaint(folder.path(), &["pack", "x.wasm", "--world", "role-mapper-plugin"]);
    assert_eq!(said, "the module already declares the world that it was built for: leave the world out");
    answer(folder.path(), &["pack", "x.wasm"]);
    assert_eq!(answer(folder.path(), &["check", "x.component.wasm"])["ok"], true);
}

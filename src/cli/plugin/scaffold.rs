//! The authors' kit: a project to begin with, the interface, and the packer. Nothing of it needs a site or a server.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Common, Failed};
use crate::cli::output;
use crate::features::plugins::require_name;
use crate::kernel::sandbox::pack::{self, WIT, World};
use crate::kernel::sandbox::vectors;

#[derive(Args)]
pub(in crate::cli) struct New {
    /// What it is written in
    #[arg(long, value_enum)]
    lang: Language,
    /// What it is for
    #[arg(long, value_enum, default_value = "authorizer")]
    kind: Kind,
    /// Its name, which is that of its folder too
    name: String,
}

#[derive(Args)]
pub(in crate::cli) struct Pack {
    /// A core module, or a component to add test vectors to
    input: PathBuf,
    /// The component; beside the input, with `.component.wasm` at its end, when absent
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// The world that a core module is for; its exports tell when absent, unless its compiler wrote it down
    #[arg(long, value_enum)]
    world: Option<WorldName>,
    /// Test vectors in YAML or JSON, which every upload asks
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    Js,
    C,
    Python,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    Authorizer,
    RoleMapper,
    Both,
}

impl Kind {
    fn world(self) -> World {
        match self {
            Self::Authorizer => World::Authorizer,
            Self::RoleMapper => World::RoleMapper,
            Self::Both => World::Both,
        }
    }

    /// Has it the part that a template begins with this word?
    fn has(self, part: &str) -> bool {
        match part {
            "authorizer" => self != Self::RoleMapper,
            "role-mapper" => self != Self::Authorizer,
            _ => true,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum WorldName {
    #[value(name = "authorizer-plugin")]
    Authorizer,
    #[value(name = "role-mapper-plugin")]
    RoleMapper,
    #[value(name = "policy-plugin")]
    Policy,
}

impl WorldName {
    fn world(self) -> World {
        match self {
            Self::Authorizer => World::Authorizer,
            Self::RoleMapper => World::RoleMapper,
            Self::Policy => World::Both,
        }
    }
}

/// A file of a project: where it lies, and what it is made of.
type Template = (&'static str, &'static str);

/// What a project has in every language.
const COMMON: [Template; 2] = [
    ("README.md", include_str!("templates/README.md.tpl")),
    ("vectors.yaml", include_str!("templates/vectors.yaml.tpl")),
];
const RUST: [Template; 4] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.tpl")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.tpl")),
    (BUILD, include_str!("templates/rust/build.tpl")),
    (".gitignore", "/target\n"),
];
const JS: [Template; 4] = [
    ("package.json", include_str!("templates/js/package.json.tpl")),
    ("plugin.mjs", include_str!("templates/js/plugin.mjs.tpl")),
    (BUILD, include_str!("templates/js/build.tpl")),
    (".gitignore", "/node_modules\n"),
];
const C: [Template; 3] = [
    ("plugin.c", include_str!("templates/c/plugin.c.tpl")),
    (BUILD, include_str!("templates/c/build.tpl")),
    (".gitignore", "/core.wasm\n"),
];
const PYTHON: [Template; 3] = [
    ("app.py", include_str!("templates/python/app.py.tpl")),
    (BUILD, include_str!("templates/python/build.tpl")),
    (".gitignore", "/.venv\n__pycache__\n"),
];

/// The one file that is run.
const BUILD: &str = "build";

/// What `wit-bindgen c` made of a world, so that nobody needs it: header, source and the section that names the world.
type Bindings = [(&'static str, &'static [u8]); 3];

macro_rules! bindings {
    ($world:literal) => {
        [
            (concat!("gen/", $world, ".h"), include_bytes!(concat!("../../../plugins/bindings/c/", $world, ".h"))),
            (concat!("gen/", $world, ".c"), include_bytes!(concat!("../../../plugins/bindings/c/", $world, ".c"))),
            (
                concat!("gen/", $world, "_component_type.o"),
                include_bytes!(concat!("../../../plugins/bindings/c/", $world, "_component_type.o")),
            ),
        ]
    };
}

fn bindings(world: World) -> Bindings {
    match world {
        World::Authorizer => bindings!("authorizer_plugin"),
        World::RoleMapper => bindings!("role_mapper_plugin"),
        World::Both => bindings!("policy_plugin"),
    }
}

/// `roster plugin new`.
pub(super) fn new(common: &Common, new: &New) -> Result<ExitCode, Failed> {
    require_name(&new.name)?;
    let folder = Path::new(&new.name);
    DirBuilder::new().create(folder).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failed(format!("{} is there already: choose another name, or another folder to be in", new.name))
        }
        _ => Failed(format!("{} cannot be made: {e}", new.name)),
    })?;
    let own: &[Template] = match new.lang {
        Language::Rust => &RUST,
        Language::Js => &JS,
        Language::C => &C,
        Language::Python => &PYTHON,
    };
    let world = new.kind.world();
    let mut files = vec!["wit/policy.wit"];
    write(folder, "wit/policy.wit", WIT.as_bytes())?;
    for (path, template) in COMMON.iter().chain(own) {
        write(folder, path, filled(template, &new.name, new.kind).as_bytes())?;
        files.push(path);
    }
    if matches!(new.lang, Language::C) {
        for (path, bytes) in bindings(world) {
            write(folder, path, bytes)?;
            files.push(path);
        }
    }
    if common.json {
        output::line(true, &json!({"name": new.name, "world": world.name(), "files": files}));
    } else {
        say!("{0} is begun: change what it decides, and run {0}/build", new.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// A template with its words filled in, and without the parts that this kind has not: a line `%% PART` begins a part,
/// `%% end` ends the last one.
fn filled(template: &str, name: &str, kind: Kind) -> String {
    let world = kind.world().name();
    let mut text = String::new();
    let mut is_wanted = true;
    for line in template.lines() {
        match line.strip_prefix("%% ") {
            Some(part) => is_wanted = kind.has(part),
            None if is_wanted => {
                let line = line.replace("NAME", name).replace("WORLD_", &world.replace('-', "_"));
                text.push_str(&line.replace("WORLD", world));
                text.push('\n');
            }
            None => {}
        }
    }
    text
}

fn write(folder: &Path, path: &str, content: &[u8]) -> Result<(), Failed> {
    let file = folder.join(path);
    let failed = |e: std::io::Error| Failed(format!("{} cannot be written: {e}", file.display()));
    if let Some(parent) = file.parent() {
        DirBuilder::new().recursive(true).create(parent).map_err(failed)?;
    }
    let mode = if path == BUILD { 0o777 } else { 0o666 };
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&file).map_err(failed)?;
    opened.write_all(content).map_err(failed)
}

/// `roster plugin wit`.
pub(super) fn wit() -> Result<ExitCode, Failed> {
    output::raw(WIT.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// `roster plugin pack`.
pub(super) fn pack(common: &Common, pack: &Pack) -> Result<ExitCode, Failed> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| Failed(format!("{} cannot be read: {e}", path.display())));
    let input = read(&pack.input)?;
    let mut component = if !pack::is_component(&input) {
        pack::pack(&input, pack.world.map(WorldName::world))?
    } else if pack.world.is_some() {
        return Err(Failed("this is a component already, and has its world: leave --world out".into()));
    } else if pack.vectors.is_none() {
        return Err(Failed("this is a component already: name test vectors to put into it, with --vectors".into()));
    } else {
        input
    };
    if let Some(path) = &pack.vectors {
        component = vectors::put_into(&component, &read(path)?)?;
    }
    let output = pack.output.clone().unwrap_or_else(|| beside(&pack.input));
    std::fs::write(&output, &component).map_err(|e| Failed(format!("{} cannot be written: {e}", output.display())))?;
    let vectors = vectors::of_component(&component)?.len();
    let file = output.display().to_string();
    output::line(common.json, &json!({"file": file, "bytes": component.len(), "vectors": vectors}));
    Ok(ExitCode::SUCCESS)
}

/// `x.wasm` as `x.component.wasm`; a component that is called so already is written over.
fn beside(input: &Path) -> PathBuf {
    let stem = input.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = stem.strip_suffix(".component").unwrap_or(&stem);
    input.with_file_name(format!("{stem}.component.wasm"))
}

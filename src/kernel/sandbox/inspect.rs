//! Inspects a component before it is compiled: its kind, its imports and exports, and whether it exceeds the counts
//! that honest plugins have.
//!
//! **Invariant.** Nothing here recurses over the content of an upload. Validation runs in the child process that
//! compiles, because types can nest so deep that validating them overflows the stack.

use wasmparser::WasmFeatures;

use super::limits::Limits;
use super::measure::{self, Malformed};
use super::progress::{UploadProgress, UploadStep};
use crate::kernel::authz::plugin::Exports;
use crate::kernel::error::{Error, ErrorCode, Result};

/// Increases when the rules of this file or of `measure` change: components that were compiled under older rules are
/// compiled again.
pub const STRUCTURE_VERSION: u32 = 2;

/// The WIT package of the interfaces.
pub const PACKAGE: &str = "roster:policy/";
const MAJOR: u64 = 1;
pub const VERSION: &str = "1.0.0";
/// Most refused imports that a message names.
const NAMED_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 120;

/// The imports and exports of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    pub exports: Exports,
    /// The names as in the component.
    pub imports: Vec<String>,
}

/// The imports and exports of a component, and all problems that were found.
#[derive(Debug, Default)]
pub struct Inspection {
    pub inspected: Inspected,
    pub problems: Vec<Error>,
}

impl Inspection {
    fn refused(error: impl Into<Error>) -> Self {
        Self { inspected: Inspected::default(), problems: vec![error.into()] }
    }
}

/// Returns the imports and exports of a component. If there are problems, fails with the cause of the first one and a
/// message that lists all. Reports its steps; the last one is that of the first problem.
pub fn inspect(component: &[u8], limits: &Limits, progress: &dyn UploadProgress) -> Result<Inspected> {
    let mut inspection = inspect_watched(component, limits, progress);
    if inspection.problems.is_empty() {
        return Ok(inspection.inspected);
    }
    let messages: Vec<_> = inspection.problems.iter().map(|problem| problem.message().to_owned()).collect();
    Err(inspection.problems.swap_remove(0).with_message(messages.join("; ")))
}

/// The error of a file that is too large; names the limit and the setting that allows big runtimes.
pub fn too_large(bytes_max: u64) -> Error {
    let message = format!(
        "the component has more than the {bytes_max} bytes that are allowed (plugins.file_bytes): big runtimes, such as \
        Python, are allowed only for organizations that the operator lists in plugins.large_organizations, with the \
        limit plugins.large.file_bytes"
    );
    Error::new(ErrorCode::PluginTooLarge).with_message(message)
}

/// Inspects a component and collects all problems.
pub fn inspect_all(component: &[u8], limits: &Limits) -> Inspection {
    inspect_watched(component, limits, &())
}

fn inspect_watched(component: &[u8], limits: &Limits, progress: &dyn UploadProgress) -> Inspection {
    progress.step(UploadStep::Component);
    if component.len() as u64 > limits.file_bytes {
        return Inspection::refused(too_large(limits.file_bytes));
    }
    match component {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            return Inspection::refused(
                Error::new(ErrorCode::NotAComponent)
                    .with_message("this is a core module, not a component: convert it with `roster plugin pack`"),
            );
        }
        [0, b'a', b's', b'm', ..] => {}
        _ => {
            return Inspection::refused(
                Error::new(ErrorCode::NotAComponent).with_message("this is not WebAssembly: a plugin is a component"),
            );
        }
    }
    let found = match measure::measure(component) {
        Ok(found) => found,
        Err(e) => return Inspection::refused(malformed(&e)),
    };
    progress.step(UploadStep::Interfaces);
    let mut inspection = Inspection::default();
    let mut majors: Vec<String> = Vec::new();
    let mut foreign: Vec<&str> = Vec::new();
    for import in &found.imports {
        match interface(import) {
            InterfaceName::Supported("host" | "types") => {}
            InterfaceName::OtherMajor => majors.push(import.clone()),
            InterfaceName::Supported(_) | InterfaceName::Foreign => foreign.push(import),
        }
    }
    for export in &found.exports {
        match interface(export) {
            InterfaceName::Supported("authorizer") => inspection.inspected.exports.authorizer = true,
            InterfaceName::Supported("role-mapper") => inspection.inspected.exports.role_mapper = true,
            InterfaceName::OtherMajor => majors.push(export.clone()),
            InterfaceName::Supported(_) | InterfaceName::Foreign => {}
        }
    }
    let is_of_other_major = !majors.is_empty();
    inspection.problems.extend(is_of_other_major.then(|| other_major(&majors)));
    inspection.problems.extend((!foreign.is_empty()).then(|| imports_too_much(&foreign)));
    if inspection.inspected.exports == Exports::default() && !is_of_other_major {
        inspection.problems.push(ErrorCode::PluginExports.into());
    }
    if inspection.problems.is_empty() {
        progress.step(UploadStep::Structure);
    }
    inspection.problems.extend(found.measures.problems(limits));
    inspection.inspected.imports = found.imports;
    inspection
}

pub fn malformed(error: &Malformed) -> Error {
    Error::new(ErrorCode::PluginMalformed).with_message(format!("the component is not valid WebAssembly: {error}"))
}

/// Validates a component. Must run in the child process only: see the invariant above.
pub fn validate(component: &[u8]) -> Result<(), Malformed> {
    wasmparser::Validator::new_with_features(features()).validate_all(component).map(drop)
}

/// The WebAssembly features that the engine accepts: those of toolchains for the web, without threads and garbage
/// collection. Multiple memories are needed for glue code that wasmtime generates.
pub fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        .union(WasmFeatures::TAIL_CALL)
        .union(WasmFeatures::EXTENDED_CONST)
        .union(WasmFeatures::MULTI_MEMORY)
        .union(WasmFeatures::COMPONENT_MODEL)
        .difference(WasmFeatures::GC_TYPES)
}

enum InterfaceName<'n> {
    /// An interface of `roster:policy` with this major version.
    Supported(&'n str),
    OtherMajor,
    Foreign,
}

/// Classifies the name of an import or export.
fn interface(name: &str) -> InterfaceName<'_> {
    let Some(rest) = name.strip_prefix(PACKAGE) else { return InterfaceName::Foreign };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if major == Some(MAJOR) { InterfaceName::Supported(interface) } else { InterfaceName::OtherMajor }
}

/// Formats names of an upload for a message.
fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let names_shown: Vec<_> = names.take(NAMED_MAX).map(|name| super::guest::plain(name, NAME_BYTES_MAX)).collect();
    let names_shown = names_shown.join(", ");
    if more == 0 { names_shown } else { format!("{names_shown} and {more} more") }
}

fn imports_too_much(names: &[&str]) -> Error {
    let advice = if names.iter().any(|name| name.starts_with("wasi:")) {
        "build it without WASI, or with WASI stubbed"
    } else {
        "build it for a world in `roster plugin wit`"
    };
    Error::new(ErrorCode::PluginImports).with_message(format!(
        "the component imports {}, which no plugin can have: it may import `{PACKAGE}host` and `{PACKAGE}types`; {advice}",
        listed(names.iter().copied())
    ))
}

fn other_major(names: &[String]) -> Error {
    Error::new(ErrorCode::PluginMajor).with_message(format!(
        "the component was built for {}, and this host has version {VERSION}: build it with the interface that `roster plugin wit` prints",
        listed(names.iter().map(String::as_str))
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::config::Config;
    use crate::kernel::sandbox::Tier;

    fn limits() -> Limits {
        Limits::for_tier(&Config::of(std::path::Path::new("")), Tier::Standard)
    }

    fn small() -> Vec<u8> {
        let text = r#"(component
            (import "roster:policy/host@1.0.0" (instance (export "log" (func (param "level" u8)))))
            (core module $m (memory 1) (table 2 funcref)
                (func (export "f") (param i32) (result i32) (local i64)
                    (block (loop (br_table 0 1 (local.get 0)))) (i32.const 1))
                (data (i32.const 0) "abc") (elem (i32.const 0) 0))
            (core instance $i (instantiate $m))
            (func $f (param "a" u32) (result u32) (canon lift (core func $i "f")))
            (instance $a (export "authorize" (func $f)))
            (export "roster:policy/authorizer@1.0.0" (instance $a)))"#;
        wat::parse_str(text).expect("text")
    }

    #[test]
    fn imports_and_exports_of_a_component_are_found() {
        let inspected = inspect(&small(), &limits(), &()).expect("taken");
        assert_eq!(inspected.imports, ["roster:policy/host@1.0.0"]);
        assert_eq!(inspected.exports, Exports { authorizer: true, role_mapper: false });
        assert!(validate(&small()).is_ok());
    }

    #[test]
    fn the_size_of_a_file_is_limited() {
        let component = small();
        let at =
            |file_bytes: usize| inspect_all(&component, &Limits { file_bytes: file_bytes as u64, ..limits() }).problems;
        assert!(at(component.len()).is_empty());
        assert_eq!(at(component.len() - 1)[0].code, ErrorCode::PluginTooLarge);
    }

    #[test]
    fn all_problems_are_named_and_the_first_gives_the_cause() {
        let text = r#"(component
            (import "wasi:io/streams@0.2.0" (instance)) (import "wasi:cli/run@0.2.0" (instance))
            (core module (memory 1) (memory 1) (memory 1) (memory 1) (memory 1)))"#;
        let component = wat::parse_str(text).expect("text");
        let causes: Vec<_> = inspect_all(&component, &limits()).problems.iter().map(|problem| problem.code).collect();
        assert_eq!(causes, [ErrorCode::PluginImports, ErrorCode::PluginExports, ErrorCode::PluginTooComplex]);
        let refused = inspect(&component, &limits(), &()).expect_err("refused");
        assert_eq!(refused.code, ErrorCode::PluginImports);
        let all = refused.message();
        for part in ["wasi:io/streams@0.2.0, wasi:cli/run@0.2.0", "exports neither", "5 memories, and 4 are allowed"] {
            assert!(all.contains(part), "{part} is not in: {all}");
        }
    }

    #[test]
    fn other_wasm_features_are_not_valid() {
        let valid = |module: &str| {
            validate(&wat::parse_str(format!("(component (core module {module}))")).expect("text")).is_ok()
        };
        for module in [
            "(memory 1) (memory 1)",
            "(func (result v128) (v128.const i32x4 0 0 0 0))",
            "(func $f (return_call $f))",
            "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
            "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
        ] {
            assert!(valid(module), "{module}");
        }
        for module in [
            "(memory i64 1)",
            "(memory 1 1 shared)",
            "(tag)",
            "(type (struct))",
            "(table 1 externref)",
            "(func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))",
            "(memory 1 (pagesize 1))",
        ] {
            assert!(!valid(module), "{module}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = inspect_all(&bytes, &limits());
            let header = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
            let _ = inspect_all(&[&header[..], &bytes].concat(), &limits());
        }

        #[test]
        fn no_damage_makes_it_panic(cut in any::<prop::sample::Index>(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
            let mut component = small();
            component.truncate(cut.index(component.len()) + 1);
            for (at, with) in flips {
                let at = at.index(component.len());
                component[at] ^= with;
            }
            let _ = inspect_all(&component, &limits());
            let _ = validate(&component);
        }
    }
}

//! Takes a component apart before the compiler sees it: what it is, what it imports and exports, and whether it has more
//! of anything than an honest plugin has.
//!
//! **Invariant.** Here nothing recurses over what an upload says. Whether it is valid is asked in the child process that
//! compiles: types within types can nest so deep that checking them takes the stack of anyone who does.

use wasmparser::WasmFeatures;

use super::limits::Limits;
use super::measure::{self, Malformed};
use crate::kernel::authz::plugin::Exports;
use crate::kernel::error::{Error, ErrorCode, Result};

/// Grows with the rules of this file and of `measure`: what was compiled under older ones is compiled again.
pub const STRUCTURE_VERSION: u32 = 2;

/// The package of the interfaces, and the version of it that this host has.
pub const PACKAGE: &str = "roster:policy/";
const MAJOR: u64 = 1;
pub const VERSION: &str = "1.0.0";
/// Refused imports are named up to here.
const NAMED_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 120;

/// What a component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    pub exports: Exports,
    /// Names as they stand in the component.
    pub imports: Vec<String>,
}

/// What was seen of a component, and all that is wrong with it.
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

/// What a component is and offers, unless it must be refused: with the cause of the first problem, naming all.
pub fn inspect(component: &[u8], limits: &Limits) -> Result<Inspected> {
    let mut looked = look(component, limits);
    if looked.problems.is_empty() {
        return Ok(looked.inspected);
    }
    let messages: Vec<_> = looked.problems.iter().map(|problem| problem.message().to_owned()).collect();
    Err(looked.problems.swap_remove(0).with_message(messages.join("; ")))
}

/// Says which limit it is, and which setting lets a big runtime in.
pub fn too_large(bytes_max: u64) -> Error {
    let message = format!(
        "the component has more than the {bytes_max} bytes that are allowed (plugins.file_bytes): big runtimes, such as \
         Python, are for organizations that the operator names in plugins.large_organizations, which have \
         plugins.large.file_bytes"
    );
    Error::new(ErrorCode::PluginTooLarge).with_message(message)
}

/// Looks at all of a component.
pub fn look(component: &[u8], limits: &Limits) -> Inspection {
    if component.len() as u64 > limits.file_bytes {
        return Inspection::refused(too_large(limits.file_bytes));
    }
    match component {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            return Inspection::refused(
                Error::new(ErrorCode::NotAComponent)
                    .with_message("this is a core module, not a component: make one of it with `roster plugin pack`"),
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
    let mut looked = Inspection::default();
    let mut majors: Vec<String> = Vec::new();
    let mut foreign: Vec<&str> = Vec::new();
    for import in &found.imports {
        match interface(import) {
            Named::Ours("host" | "types") => {}
            Named::OtherMajor => majors.push(import.clone()),
            Named::Ours(_) | Named::Foreign => foreign.push(import),
        }
    }
    for export in &found.exports {
        match interface(export) {
            Named::Ours("authorizer") => looked.inspected.exports.authorizer = true,
            Named::Ours("role-mapper") => looked.inspected.exports.role_mapper = true,
            Named::OtherMajor => majors.push(export.clone()),
            Named::Ours(_) | Named::Foreign => {}
        }
    }
    let is_of_other_major = !majors.is_empty();
    looked.problems.extend(is_of_other_major.then(|| other_major(&majors)));
    looked.problems.extend((!foreign.is_empty()).then(|| imports_too_much(&foreign)));
    if looked.inspected.exports == Exports::default() && !is_of_other_major {
        looked.problems.push(ErrorCode::PluginExports.into());
    }
    looked.problems.extend(found.measures.problems(limits));
    looked.inspected.imports = found.imports;
    looked
}

pub fn malformed(error: &Malformed) -> Error {
    Error::new(ErrorCode::PluginMalformed).with_message(format!("the component is not valid WebAssembly: {error}"))
}

/// The whole check of validity. In the child process only: see above.
pub fn validate(component: &[u8]) -> Result<(), Malformed> {
    wasmparser::Validator::new_with_features(features()).validate_all(component).map(drop)
}

/// What the engine is told to take, and no more: what toolchains for the web use, without threads and collected memory.
/// Several memories are needed for the compiler's own glue.
pub fn features() -> WasmFeatures {
    WasmFeatures::WASM2
        .union(WasmFeatures::TAIL_CALL)
        .union(WasmFeatures::EXTENDED_CONST)
        .union(WasmFeatures::MULTI_MEMORY)
        .union(WasmFeatures::COMPONENT_MODEL)
        .difference(WasmFeatures::GC_TYPES)
}

enum Named<'n> {
    /// An interface of our package, of this major version.
    Ours(&'n str),
    OtherMajor,
    Foreign,
}

/// What a name of an import or export means.
fn interface(name: &str) -> Named<'_> {
    let Some(rest) = name.strip_prefix(PACKAGE) else { return Named::Foreign };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if major == Some(MAJOR) { Named::Ours(interface) } else { Named::OtherMajor }
}

/// Names of an upload, in a sentence.
fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let shown: Vec<_> = names.take(NAMED_MAX).map(|name| super::guest::plain(name, NAME_BYTES_MAX)).collect();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn imports_too_much(names: &[&str]) -> Error {
    let cure = if names.iter().any(|name| name.starts_with("wasi:")) {
        "build it without WASI, or with WASI stubbed"
    } else {
        "build it for a world of `roster plugin wit`"
    };
    Error::new(ErrorCode::PluginImports).with_message(format!(
        "the component imports {}, which no plugin can have: it may import `{PACKAGE}host` and `{PACKAGE}types`; {cure}",
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
    fn a_component_says_what_it_imports_and_exports() {
        let inspected = inspect(&small(), &limits()).expect("taken");
        assert_eq!(inspected.imports, ["roster:policy/host@1.0.0"]);
        assert_eq!(inspected.exports, Exports { authorizer: true, role_mapper: false });
        assert!(validate(&small()).is_ok());
    }

    #[test]
    fn a_file_may_be_so_long_and_no_longer() {
        let component = small();
        let at = |file_bytes: usize| look(&component, &Limits { file_bytes: file_bytes as u64, ..limits() }).problems;
        assert!(at(component.len()).is_empty());
        assert_eq!(at(component.len() - 1)[0].cause, ErrorCode::PluginTooLarge);
    }

    #[test]
    fn all_problems_are_named_and_the_first_gives_the_cause() {
        let text = r#"(component
            (import "wasi:io/streams@0.2.0" (instance)) (import "wasi:cli/run@0.2.0" (instance))
            (core module (memory 1) (memory 1) (memory 1) (memory 1) (memory 1)))"#;
        let component = wat::parse_str(text).expect("text");
        let causes: Vec<_> = look(&component, &limits()).problems.iter().map(|problem| problem.cause).collect();
        assert_eq!(causes, [ErrorCode::PluginImports, ErrorCode::PluginExports, ErrorCode::PluginTooComplex]);
        let refused = inspect(&component, &limits()).expect_err("refused");
        assert_eq!(refused.cause, ErrorCode::PluginImports);
        let all = refused.message();
        for part in ["wasi:io/streams@0.2.0, wasi:cli/run@0.2.0", "exports neither", "5 memories, and 4 are allowed"] {
            assert!(all.contains(part), "{part} is not in: {all}");
        }
    }

    #[test]
    fn features_beyond_those_that_are_needed_are_not_valid() {
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
            let _ = look(&bytes, &limits());
            let header = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
            let _ = look(&[&header[..], &bytes].concat(), &limits());
        }

        #[test]
        fn no_damage_makes_it_panic(cut in any::<prop::sample::Index>(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
            let mut component = small();
            component.truncate(cut.index(component.len()) + 1);
            for (at, with) in flips {
                let at = at.index(component.len());
                component[at] ^= with;
            }
            let _ = look(&component, &limits());
            let _ = validate(&component);
        }
    }
}

//! Takes a component apart before the compiler sees it: what it is, what it imports and exports, and whether it has more
//! of anything than an honest plugin has.

use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use super::limits::Limits;
use crate::access::plugin::Exports;
use crate::error::{Cause, Error, Result};

/// Grows with the rules of this file: what was compiled under older ones is compiled again.
pub(super) const STRUCTURE_VERSION: u32 = 1;

/// The package of the interfaces, and the major version of it that this host has.
pub(super) const PACKAGE: &str = "roster:policy/";
const MAJOR: u64 = 1;

/// What a component says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspected {
    pub exports: Exports,
    /// Names as they stand in the component.
    pub imports: Vec<String>,
}

/// What was seen of a component, and all that is wrong with it.
#[derive(Debug, Default)]
pub struct Looked {
    pub inspected: Inspected,
    pub problems: Vec<Error>,
}

/// Looks at all of a component.
pub fn look(component: &[u8], limits: &Limits) -> Looked {
    match inspect(component, limits) {
        Ok(inspected) => Looked { inspected, problems: Vec::new() },
        Err(e) => Looked { inspected: Inspected::default(), problems: vec![e] },
    }
}

/// What a component is and offers, unless it must be refused.
pub fn inspect(component: &[u8], limits: &Limits) -> Result<Inspected> {
    if component.len() as u64 > limits.file_bytes {
        let (bytes, most) = (component.len(), limits.file_bytes);
        return Err(Error::new(Cause::PluginTooLarge)
            .saying(format!("the component has {bytes} bytes, and plugins.file_bytes allows {most}")));
    }
    match component {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            return Err(Error::new(Cause::NotAComponent)
                .saying("this is a core module, not a component: make one of it with `roster plugin pack`"));
        }
        [0, b'a', b's', b'm', ..] => {}
        _ => return Err(Cause::NotAComponent.into()),
    }
    let malformed = |e: wasmparser::BinaryReaderError| {
        Error::new(Cause::PluginMalformed).saying(format!("the component is not valid WebAssembly: {e}"))
    };
    Validator::new_with_features(features()).validate_all(component).map_err(malformed)?;
    let mut inspected = Inspected::default();
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding: Encoding::Component | Encoding::Module, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    inspected.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let name = export.map_err(malformed)?.name.name;
                    match interface(name)? {
                        Some("authorizer") => inspected.exports.authorizer = true,
                        Some("role-mapper") => inspected.exports.role_mapper = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    for import in &inspected.imports {
        if !matches!(interface(import)?, Some("host" | "types")) {
            return Err(Error::new(Cause::PluginImports).saying(format!(
                "the component imports {import}, which no plugin can have: it may import `{PACKAGE}host` and types; build it without WASI, or with WASI stubbed"
            )));
        }
    }
    if inspected.exports == Exports::default() {
        return Err(Cause::PluginExports.into());
    }
    Ok(inspected)
}

/// What the engine is told to take, and no more.
fn features() -> WasmFeatures {
    let mut features = WasmFeatures::default();
    features.remove(WasmFeatures::MEMORY64 | WasmFeatures::RELAXED_SIMD | WasmFeatures::THREADS);
    features
}

/// The interface of our package that a name means; fails for another major version of it.
fn interface(name: &str) -> Result<Option<&str>> {
    let Some(rest) = name.strip_prefix(PACKAGE) else { return Ok(None) };
    let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if major == Some(MAJOR) {
        return Ok(Some(interface));
    }
    Err(Error::new(Cause::PluginMajor).saying(format!(
        "the component was built for {PACKAGE}{interface} {version}, and this host has {MAJOR}.0.0: build it with the interface that `roster plugin wit` prints"
    )))
}

//! Converts a core module to a component, for authors whose compiler produces only core modules.

use wasmparser::{ExternalKind, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::inspect::PACKAGE;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The WIT package of the plugin interfaces.
pub const WIT: &str = include_str!("../../../plugins/wit/policy.wit");

/// Prefix of the custom sections that declare the world that a module was built for.
const METADATA: &str = "component-type";

/// The world that a plugin is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    Authorizer,
    RoleMapper,
    Both,
}

impl World {
    /// Its name in the WIT package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorizer => "authorizer-plugin",
            Self::RoleMapper => "role-mapper-plugin",
            Self::Both => "policy-plugin",
        }
    }
}

/// The properties of a core module that packing depends on.
#[derive(Default)]
struct ModuleProperties {
    has_metadata: bool,
    authorizes: bool,
    maps_roles: bool,
}

/// Whether the bytes are already a component.
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, b'a', b's', b'm', 0x0d, 0, 1, 0])
}

/// Converts a core module to a component. The world is the one that its compiler wrote into it, otherwise `world`,
/// otherwise the one that follows from its exports.
pub fn pack(module: &[u8], world: Option<World>) -> Result<Vec<u8>> {
    if !module.starts_with(&[0, b'a', b's', b'm', 1, 0, 0, 0]) {
        return Err(Error::new(ErrorCode::NotAComponent).with_message(
            "this is neither a core module nor a component: pack takes the output of a compiler, in WebAssembly's binary form",
        ));
    }
    let properties = read_properties(module)?;
    let mut module = module.to_vec();
    match (properties.has_metadata, world) {
        (true, None) => {}
        (true, Some(_)) => {
            return Err(Error::new(ErrorCode::PluginExports)
                .with_message("the module already declares the world that it was built for: leave the world out"));
        }
        (false, Some(world)) => embed(&mut module, world)?,
        (false, None) => embed(&mut module, properties.world()?)?,
    }
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| malformed("the module cannot be converted to a component", &e))
}

fn malformed(what: &str, cause: &impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::PluginMalformed).with_message(format!("{what}: {cause:#}"))
}

fn read_properties(module: &[u8]) -> Result<ModuleProperties> {
    let invalid = |e: wasmparser::BinaryReaderError| malformed("the module is not valid WebAssembly", &e);
    let mut properties = ModuleProperties::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    require_host_import(import.module, import.name)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    let of_package = export.name.strip_prefix(PACKAGE).filter(|_| export.kind == ExternalKind::Func);
                    let function = of_package.unwrap_or_default();
                    properties.authorizes |= function.starts_with("authorizer@") && function.ends_with("#authorize");
                    properties.maps_roles |= function.starts_with("role-mapper@") && function.ends_with("#map-roles");
                }
            }
            Payload::CustomSection(section) => properties.has_metadata |= section.name().starts_with(METADATA),
            _ => {}
        }
    }
    Ok(properties)
}

/// Fails with `plugin_imports` on an import that the host does not have. The error of the encoder would be about
/// adapters.
fn require_host_import(module: &str, name: &str) -> Result<()> {
    if module.starts_with(PACKAGE) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::PluginImports).with_message(format!(
        "the module imports {module} {name}, which no plugin can have: it may import `{PACKAGE}host`; build it without WASI, standard output, clocks and random numbers"
    )))
}

impl ModuleProperties {
    fn world(&self) -> Result<World> {
        match (self.authorizes, self.maps_roles) {
            (true, true) => Ok(World::Both),
            (true, false) => Ok(World::Authorizer),
            (false, true) => Ok(World::RoleMapper),
            (false, false) => Err(Error::new(ErrorCode::PluginExports).with_message(format!(
                "the module exports neither `{PACKAGE}authorizer@1.0.0#authorize` nor `{PACKAGE}role-mapper@1.0.0#map-roles`"
            ))),
        }
    }
}

/// Writes the custom section that declares the world of a module, as generated bindings do.
fn embed(module: &mut Vec<u8>, world: World) -> Result<()> {
    let internal = |e: &dyn std::fmt::Display| Error::internal(format!("plugins/wit is not valid: {e:#}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", WIT).map_err(|e| internal(&e))?;
    let world = resolve.select_world(&[package], Some(world.name())).map_err(|e| internal(&e))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .map_err(|e| malformed("the world of the module cannot be written into it", &e))
}

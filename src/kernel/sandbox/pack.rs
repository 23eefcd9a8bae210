//! Makes a component of a core module, for authors whose compiler makes only those.

use wasmparser::{ExternalKind, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::inspect::PACKAGE;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The package of the interfaces, as text.
pub const WIT: &str = include_str!("../../../plugins/wit/policy.wit");

/// Custom sections that begin so say for which world a module was built.
const METADATA: &str = "component-type";

/// What a plugin is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    Authorizer,
    RoleMapper,
    Both,
}

impl World {
    /// Its name in the package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorizer => "authorizer-plugin",
            Self::RoleMapper => "role-mapper-plugin",
            Self::Both => "policy-plugin",
        }
    }
}

/// What packing needs to know of a core module.
#[derive(Default)]
struct Seen {
    has_metadata: bool,
    authorizes: bool,
    maps_roles: bool,
}

/// Is this a component already?
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, b'a', b's', b'm', 0x0d, 0, 1, 0])
}

/// The component of a core module. The world is the one that its compiler wrote into it, or else this one, or else the
/// one that its exports tell.
pub fn pack(module: &[u8], world: Option<World>) -> Result<Vec<u8>> {
    if !module.starts_with(&[0, b'a', b's', b'm', 1, 0, 0, 0]) {
        return Err(Error::new(ErrorCode::NotAComponent).with_message(
            "this is neither a core module nor a component: pack takes what a compiler made, in WebAssembly's binary form",
        ));
    }
    let seen = look(module)?;
    let mut module = module.to_vec();
    match (seen.has_metadata, world) {
        (true, None) => {}
        (true, Some(_)) => {
            return Err(Error::new(ErrorCode::PluginExports)
                .with_message("the module says itself for which world it was built: leave the world out"));
        }
        (false, Some(world)) => embed(&mut module, world)?,
        (false, None) => embed(&mut module, seen.world()?)?,
    }
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .map_err(|e| malformed("no component can be made of the module", &e))
}

fn malformed(what: &str, why: &impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::PluginMalformed).with_message(format!("{what}: {why:#}"))
}

fn look(module: &[u8]) -> Result<Seen> {
    let invalid = |e: wasmparser::BinaryReaderError| malformed("the module is not valid WebAssembly", &e);
    let mut seen = Seen::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    require_ours(import.module, import.name)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    let of_package = export.name.strip_prefix(PACKAGE).filter(|_| export.kind == ExternalKind::Func);
                    let function = of_package.unwrap_or_default();
                    seen.authorizes |= function.starts_with("authorizer@") && function.ends_with("#authorize");
                    seen.maps_roles |= function.starts_with("role-mapper@") && function.ends_with("#map-roles");
                }
            }
            Payload::CustomSection(section) => seen.has_metadata |= section.name().starts_with(METADATA),
            _ => {}
        }
    }
    Ok(seen)
}

/// Nothing else exists where plugins run; the packer would say it in words about adapters.
fn require_ours(module: &str, name: &str) -> Result<()> {
    if module.starts_with(PACKAGE) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::PluginImports).with_message(format!(
        "the module imports {module} {name}, which no plugin can have: it may import `{PACKAGE}host`; build it without WASI, standard output, clocks and random numbers"
    )))
}

impl Seen {
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

/// Writes into a module what bindings would have written: the world it is for.
fn embed(module: &mut Vec<u8>, world: World) -> Result<()> {
    let ours = |e: &dyn std::fmt::Display| Error::internal(format!("plugins/wit is not right: {e:#}"));
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", WIT).map_err(|e| ours(&e))?;
    let world = resolve.select_world(&[package], Some(world.name())).map_err(|e| ours(&e))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
        .map_err(|e| malformed("the module cannot be marked with its world", &e))
}

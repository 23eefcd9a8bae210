//! Counts the parts of a component, and limits what the compiler gets.
//!
//! The size in bytes is no measure: a valid module of 12 KB kept the compiler busy for 51 s. Time and memory depend on
//! depth, locals and counts. The limits are above the output of honest toolchains (CPython: bodies of 427 KB, blocks
//! 782 deep, loops 6, 13 482 functions, 38 modules; QuickJS: 54 KB, 282, 21, 1 706) and below what is expensive.

use wasmparser::{CompositeInnerType, Encoding, FunctionBody, Operator, Parser, Payload, TypeRef};

use super::limits::{Limits, Tier};
use crate::kernel::error::{Error, ErrorCode};

pub(super) type Malformed = wasmparser::BinaryReaderError;

/// The counts of a component, summed over all core modules unless stated otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Measures {
    functions: u64,
    /// The longest body, in bytes.
    body_bytes: u64,
    /// The largest number of locals of one function.
    locals: u64,
    block_depth: u64,
    loop_depth: u64,
    br_table_targets: u64,
    /// The largest number of one function type.
    params_and_results: u64,
    types: u64,
    imports: u64,
    exports: u64,
    globals: u64,
    memories: u64,
    memory_bytes: u64,
    tables: u64,
    table_elements: u64,
    element_segments: u64,
    data_segments: u64,
    tags: u64,
    modules: u64,
    components: u64,
    component_depth: u64,
    core_instances: u64,
    component_instances: u64,
    component_types: u64,
    component_imports: u64,
    component_exports: u64,
    aliases: u64,
    canonicals: u64,
}

/// The limit of one count, by tier.
struct Rule {
    counted: &'static str,
    measured: fn(&Measures) -> u64,
    standard: u64,
    large: u64,
}

const fn same(counted: &'static str, measured: fn(&Measures) -> u64, most: u64) -> Rule {
    Rule { counted, measured, standard: most, large: most }
}

const fn tiered(counted: &'static str, measured: fn(&Measures) -> u64, standard: u64, large: u64) -> Rule {
    Rule { counted, measured, standard, large }
}

const RULES: [Rule; 26] = [
    same("functions", |m| m.functions, 20_000),
    tiered("bytes in one function's body", |m| m.body_bytes, 131_072, 524_288),
    same("locals in one function", |m| m.locals, 512),
    tiered("levels of nested blocks", |m| m.block_depth, 512, 1_024),
    same("levels of nested loops", |m| m.loop_depth, 32),
    same("targets of one br_table", |m| m.br_table_targets, 4_096),
    same("parameters and results of one function", |m| m.params_and_results, 32),
    same("types", |m| m.types, 10_000),
    same("imports of core modules", |m| m.imports, 10_000),
    same("exports of core modules", |m| m.exports, 20_000),
    same("globals", |m| m.globals, 10_000),
    same("memories", |m| m.memories, 4),
    tiered("tables", |m| m.tables, 8, 64),
    tiered("table elements", |m| m.table_elements, TABLE_ELEMENTS[0], TABLE_ELEMENTS[1]),
    same("element segments", |m| m.element_segments, 5_000),
    same("data segments", |m| m.data_segments, 20_000),
    same("exception tags", |m| m.tags, 0),
    tiered("core modules", |m| m.modules, 16, 64),
    same("inner components", |m| m.components, 64),
    same("levels of nested components", |m| m.component_depth, 8),
    tiered("core instances", |m| m.core_instances, 128, 512),
    same("component instances", |m| m.component_instances, 128),
    same("component types", |m| m.component_types, 5_000),
    same("component imports and exports", |m| m.component_imports.saturating_add(m.component_exports), 1_000),
    tiered("aliases", |m| m.aliases, 5_000, 50_000),
    same("canonical functions", |m| m.canonicals, 1_000),
];

/// Most elements of all tables together, by tier; also limits the growth at run time.
const TABLE_ELEMENTS: [u64; 2] = [20_000, 60_000];

pub(super) fn table_elements_max(tier: Tier) -> u64 {
    TABLE_ELEMENTS[usize::from(tier == Tier::Large)]
}

/// The counts of a component, and its top-level imports and exports. The component may still be invalid.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) measures: Measures,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

/// Most top-level names that are stored; an honest plugin has a handful.
const NAMES_MAX: usize = 1_000;

/// Parses a whole component once, in linear time.
pub(super) fn measure(component: &[u8]) -> Result<Found, Malformed> {
    let mut found = Found::default();
    // The stack of open components and core modules.
    let mut open: Vec<Encoding> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match &payload {
            Payload::Version { encoding, .. } => {
                open.push(*encoding);
                let components = open.iter().filter(|encoding| **encoding == Encoding::Component).count() as u64;
                found.measures.component_depth = found.measures.component_depth.max(components);
            }
            Payload::End(_) => drop(open.pop()),
            Payload::ComponentImportSection(section) if open.len() == 1 => {
                for import in section.clone().into_iter().take(NAMES_MAX) {
                    found.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if open.len() == 1 => {
                for export in section.clone().into_iter().take(NAMES_MAX) {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
        found.measures.add(payload)?;
    }
    Ok(found)
}

impl Measures {
    fn add(&mut self, payload: Payload<'_>) -> Result<(), Malformed> {
        let sum = |total: &mut u64, count: u32| *total = total.saturating_add(count.into());
        match payload {
            Payload::TypeSection(section) => {
                sum(&mut self.types, section.count());
                for group in section {
                    for sub in group?.into_types() {
                        if let CompositeInnerType::Func(function) = sub.composite_type.inner {
                            let both = function.params().len() + function.results().len();
                            self.params_and_results = self.params_and_results.max(both as u64);
                        }
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports = self.imports.saturating_add(1);
                    // An imported tag counts as a tag.
                    self.tags += u64::from(matches!(import?.ty, TypeRef::Tag(_)));
                }
            }
            Payload::FunctionSection(section) => sum(&mut self.functions, section.count()),
            Payload::TableSection(section) => {
                sum(&mut self.tables, section.count());
                for table in section {
                    self.table_elements = self.table_elements.saturating_add(table?.ty.initial);
                }
            }
            Payload::MemorySection(section) => {
                sum(&mut self.memories, section.count());
                for memory in section {
                    let memory = memory?;
                    let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                    self.memory_bytes = self.memory_bytes.saturating_add(memory.initial.saturating_mul(page));
                }
            }
            Payload::TagSection(section) => sum(&mut self.tags, section.count()),
            Payload::GlobalSection(section) => sum(&mut self.globals, section.count()),
            Payload::ExportSection(section) => sum(&mut self.exports, section.count()),
            Payload::ElementSection(section) => sum(&mut self.element_segments, section.count()),
            Payload::DataSection(section) => sum(&mut self.data_segments, section.count()),
            Payload::CodeSectionEntry(body) => self.add_body(&body)?,
            Payload::ModuleSection { .. } => self.modules += 1,
            Payload::ComponentSection { .. } => self.components += 1,
            Payload::InstanceSection(section) => sum(&mut self.core_instances, section.count()),
            Payload::ComponentInstanceSection(section) => sum(&mut self.component_instances, section.count()),
            Payload::CoreTypeSection(section) => sum(&mut self.component_types, section.count()),
            Payload::ComponentTypeSection(section) => sum(&mut self.component_types, section.count()),
            Payload::ComponentImportSection(section) => sum(&mut self.component_imports, section.count()),
            Payload::ComponentExportSection(section) => sum(&mut self.component_exports, section.count()),
            Payload::ComponentAliasSection(section) => sum(&mut self.aliases, section.count()),
            Payload::ComponentCanonicalSection(section) => sum(&mut self.canonicals, section.count()),
            _ => {}
        }
        Ok(())
    }

    fn add_body(&mut self, body: &FunctionBody<'_>) -> Result<(), Malformed> {
        self.body_bytes = self.body_bytes.max(body.range().len() as u64);
        let mut locals = 0u64;
        for declared in body.get_locals_reader()? {
            locals = locals.saturating_add(declared?.0.into());
        }
        self.locals = self.locals.max(locals);
        // For each open block, whether it is a loop.
        let mut open: Vec<bool> = Vec::new();
        let mut loops = 0u64;
        for operator in body.get_operators_reader()? {
            let is_loop = match operator? {
                Operator::Loop { .. } => true,
                Operator::Block { .. } | Operator::If { .. } | Operator::TryTable { .. } | Operator::Try { .. } => {
                    false
                }
                Operator::End => {
                    loops -= u64::from(open.pop() == Some(true));
                    continue;
                }
                Operator::BrTable { targets } => {
                    self.br_table_targets = self.br_table_targets.max(targets.len().into());
                    continue;
                }
                _ => continue,
            };
            open.push(is_loop);
            loops += u64::from(is_loop);
            self.block_depth = self.block_depth.max(open.len() as u64);
            self.loop_depth = self.loop_depth.max(loops);
        }
        Ok(())
    }

    /// Returns an error for each count above its limit.
    pub(super) fn problems(&self, limits: &Limits) -> Vec<Error> {
        let too_much = |counted: &str, has: u64, most: u64| {
            Error::new(ErrorCode::PluginTooComplex)
                .with_message(format!("the component has {has} {counted}, and {most} are allowed"))
        };
        let is_large = limits.tier == Tier::Large;
        let ruled = RULES.iter().filter_map(|rule| {
            let (has, most) = ((rule.measured)(self), if is_large { rule.large } else { rule.standard });
            (has > most).then(|| too_much(rule.counted, has, most))
        });
        let memory = (self.memory_bytes > limits.memory_bytes)
            .then(|| too_much("bytes of initial memory", self.memory_bytes, limits.memory_bytes));
        ruled.chain(memory).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::config::Config;

    fn limits(tier: Tier) -> Limits {
        Limits::for_tier(&Config::of(std::path::Path::new("")), tier)
    }

    fn module(text: &str) -> String {
        format!("(component (core module {text}))")
    }

    fn times(n: u64, text: &str) -> String {
        text.repeat(usize::try_from(n).expect("few"))
    }

    /// A function with nested blocks.
    fn deep(n: u64, instruction: &str) -> String {
        module(&format!("(func {}{})", times(n, &format!("({instruction} ")), times(n, ")")))
    }

    /// A function with a body of this size: no locals, instructions of one byte, and the end.
    fn long(bytes: u64) -> String {
        module(&format!("(func {})", times(bytes - 2, "nop ")))
    }

    /// Creates the text of a component with this count of something.
    type WithCount = fn(u64) -> String;

    /// In the order of the rules.
    const WITH_COUNT: [WithCount; 26] = [
        |n| module(&times(n, "(func)")),
        long,
        |n| module(&format!("(func (local {}))", times(n, "i32 "))),
        |n| deep(n, "block"),
        |n| deep(n, "loop"),
        |n| module(&format!("(func (block (br_table {} 0 (i32.const 0))))", times(n, "0 "))),
        |n| module(&format!("(func (param {}) (result i32) (i32.const 0))", times(n - 1, "i64 "))),
        |n| module(&times(n, "(type (func))")),
        |n| module(&(0..n).map(|n| format!("(import \"a\" \"{n}\" (func))")).collect::<String>()),
        |n| module(&format!("(func) {}", (0..n).map(|n| format!("(export \"{n}\" (func 0))")).collect::<String>())),
        |n| module(&times(n, "(global i32 (i32.const 0))")),
        |n| module(&times(n, "(memory 0)")),
        |n| module(&times(n, "(table 0 funcref)")),
        |n| module(&format!("(table {} funcref) (table 1 funcref)", n - 1)),
        |n| module(&format!("(func) {}", times(n, "(elem func 0)"))),
        |n| module(&times(n, "(data \"a\")")),
        |n| module(&times(n, "(tag)")),
        |n| format!("(component {})", times(n, "(core module)")),
        |n| format!("(component {})", times(n, "(component)")),
        |n| format!("{}{}", times(n, "(component "), times(n, ")")),
        |n| format!("(component (core module) {})", times(n, "(core instance (instantiate 0))")),
        |n| format!("(component (component) {})", times(n, "(instance (instantiate 0))")),
        |n| format!("(component {})", times(n, "(type (list u8))")),
        |n| {
            let import = |n| format!("(import \"a{n}\" (instance))");
            let export = |n| format!("(export \"b{n}\" (instance 0))");
            let half = n / 2;
            format!(
                "(component {}{})",
                (0..half).map(import).collect::<String>(),
                (half..n).map(export).collect::<String>()
            )
        },
        |n| {
            let instance = "(instance (import \"a\") (export \"f\" (func)))".replace("(import \"a\") ", "");
            format!("(component (import \"a\" {instance}) {})", times(n, "(alias export 0 \"f\" (func))"))
        },
        |n| {
            format!(
                "(component (core module (func (export \"f\"))) (core instance (instantiate 0)) (alias core export 0 \"f\" (core func)) {})",
                times(n, "(func (canon lift (core func 0)))")
            )
        },
    ];

    fn problems(text: &str, tier: Tier) -> Vec<String> {
        let component = wat::parse_str(text).expect("text");
        let found = measure(&component).expect("whole");
        let problems = found.measures.problems(&limits(tier));
        assert!(problems.iter().all(|problem| problem.code == ErrorCode::PluginTooComplex));
        problems.iter().map(|problem| problem.message().to_owned()).collect()
    }

    #[test]
    fn every_count_is_allowed_up_to_its_limit() {
        for (rule, with_count) in RULES.iter().zip(WITH_COUNT) {
            for (tier, most) in [(Tier::Standard, rule.standard), (Tier::Large, rule.large)] {
                assert_eq!(problems(&with_count(most), tier), Vec::<String>::new(), "{} {}", most, rule.counted);
                let past = most + 1;
                let expected = format!("the component has {past} {}, and {most} are allowed", rule.counted);
                assert_eq!(problems(&with_count(past), tier), [expected]);
            }
        }
    }

    #[test]
    fn initial_memory_is_summed_and_limited_by_its_setting() {
        let with_count = |pages: u64| module(&format!("(memory {}) (memory 1)", pages - 1));
        for tier in [Tier::Standard, Tier::Large] {
            let most = limits(tier).memory_bytes;
            assert_eq!(problems(&with_count(most / 65_536), tier), Vec::<String>::new());
            assert_eq!(problems(&with_count(most / 65_536 + 1), tier).len(), 1);
        }
    }

    #[test]
    fn depth_includes_all_kinds_of_blocks() {
        let mixed = "(func (block (loop (if (i32.const 1) (then (loop (nop))) (else (block))))) (loop))";
        let found = measure(&wat::parse_str(module(mixed)).expect("text")).expect("whole");
        assert_eq!((found.measures.block_depth, found.measures.loop_depth), (4, 2));
    }
}

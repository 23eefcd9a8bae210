//! Reports how far the checks of an uploaded component are.

/// A check of an upload, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadStep {
    /// It arrived, and is not known yet.
    Received,
    /// It is a WebAssembly component.
    Component,
    /// It imports and exports only what plugins can have.
    Interfaces,
    /// Its counts are within the limits.
    Structure,
    Compiled,
    Started,
    /// Its own test vectors ran.
    Vectors,
}

impl UploadStep {
    /// The names of all steps, in order.
    pub const NAMES: &'static [&'static str] = &[
        Self::Received.as_str(),
        Self::Component.as_str(),
        Self::Interfaces.as_str(),
        Self::Structure.as_str(),
        Self::Compiled.as_str(),
        Self::Started.as_str(),
        Self::Vectors.as_str(),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Component => "component",
            Self::Interfaces => "interfaces",
            Self::Structure => "structure",
            Self::Compiled => "compiled",
            Self::Started => "started",
            Self::Vectors => "vectors",
        }
    }
}

/// Is told of each step as it begins, so that a failure belongs to the step that began last.
pub trait UploadProgress: Send + Sync {
    fn step(&self, step: UploadStep);
    /// How much there is to do in this step.
    fn of(&self, total: u64);
    /// This much more is done.
    fn advance(&self, count: u64);
}

/// Nobody watches.
impl UploadProgress for () {
    fn step(&self, _: UploadStep) {}
    fn of(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

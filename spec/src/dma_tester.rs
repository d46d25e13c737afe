//! `dma-tester`: a PCI Express function of our own that makes DMA of every kind, for tests of remapping. It is no real product; this module
//! and `docs/dma-tester.md` are its manual.
//!
//! BAR 0 has the registers, of 4 bytes (those called 64-bit also of 8); BAR 2 the MSI-X table, with a vector for each engine.

/// Vendor ID, as QEMU's test devices have it.
pub const VENDOR: u16 = 0x1234;
/// Device ID.
pub const DEVICE: u16 = 0x11ea;
/// How many engines there are.
pub const ENGINES: usize = 16;
/// Size of BAR 0.
pub const BAR_SIZE: u64 = 0x1_0000;
/// The longest transfer in bytes.
pub const MAXIMUM_LENGTH: u32 = 1 << 20;
/// How often an engine asks for one page before it gives up.
pub const MAXIMUM_ATTEMPTS: u8 = 8;
/// What [`register::IDENTIFICATION`] reads as.
pub const IDENTIFICATION: u32 = 0x0001_7d3a;

/// Registers of the whole function: offsets in BAR 0.
pub mod register {
    /// Read-only: [`super::IDENTIFICATION`].
    pub const IDENTIFICATION: u64 = 0x00;
    /// Read-only: the number of engines.
    pub const ENGINES: u64 = 0x04;
    /// [`super::Control`].
    pub const CONTROL: u64 = 0x08;
    /// Read-only: translations in the device TLB.
    pub const TRANSLATIONS: u64 = 0x0c;
    /// Read-only: invalidation requests received since reset.
    pub const INVALIDATIONS: u64 = 0x10;
    /// Read-only: page requests sent since reset.
    pub const PAGE_REQUESTS: u64 = 0x14;
    /// Read-only: page group responses received since reset.
    pub const RESPONSES: u64 = 0x18;
    /// Write-only: any value completes the invalidations that [`super::Control::HOLD`] keeps.
    pub const COMPLETE: u64 = 0x1c;
    /// Write-only: sends an invalidate completion with the tag written, whether or not anybody waits for it.
    pub const STRAY_COMPLETION: u64 = 0x20;
    /// Where the first engine's registers begin.
    pub const FIRST_ENGINE: u64 = 0x1000;
    /// Distance between engines.
    pub const STRIDE: u64 = 0x100;
}

named_bits! {
    /// Switches of the whole function.
    Control(u32) {
        0 NARROW "addresses have 32 bits: what is above them is lost";
        1 HOLD "invalidations are carried out, but not completed until software says so";
    }
}

/// Registers of an engine: offsets from its start.
pub mod engine {
    /// 64-bit: where to read, or with [`super::Flags::FILL`] what to write.
    pub const SOURCE: u64 = 0x00;
    /// 64-bit: where to write.
    pub const DESTINATION: u64 = 0x08;
    /// Bytes, at most [`super::MAXIMUM_LENGTH`].
    pub const LENGTH: u64 = 0x10;
    /// The PASID, with [`super::Flags::PASID`].
    pub const PASID: u64 = 0x14;
    /// [`super::Flags`].
    pub const FLAGS: u64 = 0x18;
    /// Write-only: [`super::START`], [`super::STOP`].
    pub const COMMAND: u64 = 0x1c;
    /// Read-only: bits 3:0 a [`super::State`], bits 15:8 a [`super::Failure`] when it has failed.
    pub const STATUS: u64 = 0x20;
    /// Read-only: bytes moved.
    pub const MOVED: u64 = 0x24;
    /// 64-bit, read-only: the address of the request that failed.
    pub const FAILED_AT: u64 = 0x28;
    /// 64-bit, read-only: the sum of the bytes moved.
    pub const SUM: u64 = 0x30;
    /// Nanoseconds from start (and from one run to the next) until bytes move.
    pub const DELAY: u64 = 0x38;
    /// How often the transfer is made; 0 is once.
    pub const RUNS: u64 = 0x3c;
}

/// Command: start the engine, unless it is running.
pub const START: u32 = 1;
/// Command: stop the engine; it becomes idle.
pub const STOP: u32 = 2;

named_bits! {
    /// How an engine makes its requests.
    Flags(u32) {
        0 PASID "requests have a PASID";
        1 PRIVILEGED "with PASID: supervisor privilege";
        2 EXECUTE "with PASID: reads are execute requests";
        3 TRANSLATE "addresses are translated by the device TLB";
        4 ASK "with TRANSLATE: pages that may not be accessed are asked for by page requests";
        5 TRUSTED "requests say that their addresses are translated, which nobody has done";
        6 FILL "nothing is read: the source register's bytes are written over and over";
        7 DISCARD "nothing is written";
        8 INTERRUPT "interrupts by the MSI-X vector of the engine's number after each run and when it fails";
    }
}

/// What an engine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing, since reset or STOP.
    Idle = 0,
    /// Waits for its time.
    Running = 1,
    /// Waits for the response to a page request.
    Waiting = 2,
    /// All runs are made.
    Done = 3,
    /// A request failed.
    Failed = 4,
}

/// Why an engine failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// None.
    None = 0,
    /// The function is not allowed to make such requests: bus mastering, PASID, ATS or page requests are not enabled in configuration space.
    NotEnabled = 1,
    /// A length beyond the longest.
    Length = 2,
    /// A read was refused.
    Read = 3,
    /// A write was refused.
    Write = 4,
    /// A translation request was answered by Unsupported Request.
    TranslationUnsupported = 5,
    /// A translation request was answered by Completer Abort.
    TranslationAborted = 6,
    /// The translation does not allow the access, and pages are not asked for.
    NoPermission = 7,
    /// A page request was answered by Invalid Request.
    PageInvalid = 8,
    /// A page request was answered by Response Failure.
    PageFailure = 9,
    /// The page was granted so often, and never there.
    TooManyAttempts = 10,
}

/// Offset of an engine's register in BAR 0.
#[must_use]
pub const fn engine_register(number: u64, offset: u64) -> u64 {
    register::FIRST_ENGINE + register::STRIDE * number + offset
}

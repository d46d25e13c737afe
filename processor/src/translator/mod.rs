//! The translating engine: on x86-64 hosts the guest's own instructions are emitted again, with registers and addresses mapped.
//!
//! It holds encodings, not a second copy of the semantics: what it does not know, it does by calling the interpreter's handler for that one
//! instruction. A translation is one block of the interpreter's ([`crate::decode::cache::Block`]), so both engines count and look at events at the
//! same places, and a run is the same with either.
//!
//! * **Registers.** RAX, RDX, RBX, RBP, RSI, RDI and R8 to R11 are the host's; RSP is in R12, RCX in R13; R12 to R15 are in the state block. R14,
//!   R15 and RCX are temporaries, and the host's RSP points to the state block ([`state::State`]). Vector registers and MXCSR are the host's, from
//!   the first instruction on that needs them until translated code is left.
//! * **Flags** are the host's. Nothing that is emitted between the guest's instructions touches them: LEA, MOV, PEXT, JRCXZ only. (Where PEXT is not
//!   there or slow, AND and SHR, around which the flags are kept and given back: [`emit::Quiet`].) So the guest's
//!   state is exact at every host instruction, and an instruction that has to be done by the interpreter is simply begun again by it.
//! * **Memory.** Each translation context and access class has a state block of its own, with a table from pages to host addresses that holds part of
//!   what the software TLB holds: changing the context changes a pointer. A probe that misses calls [`run::fill`]; what that cannot map (a fault, a
//!   device, a page with code, two pages) leaves the translation, and the interpreter does the instruction.
//! * **Jumps** within a page are linked: the host's jump is patched. So are others whose distance is known, and hold where the context has fetched from
//!   the same page of RAM; returns and indirect ones go through a table of targets ([`jumps`]). So translations hold for a physical page, wherever and in
//!   whichever context it is mapped.
//! * **Counting.** A block begins by comparing the budget with its length, and each exit subtracts what was executed: events come at exactly the same
//!   instruction as with the interpreter.
//! * **Loops** that branch to their block's beginning have a form in which several rounds are counted in advance ([`loops`]): as many as stay within
//!   the budget and the pages of those addresses that go on by a constant. Nothing is called in it, so there the state need not be exact in between.
//! * **Code that is written to** loses its translations: their first bytes become a jump to their exit. Nothing has to look for who may jump to them.
//!
//! Needs AVX and LAHF on the host ([`supported`]), and an operating system that maps the code twice, for writing and for execution.

mod bit_string;
mod block;
#[cfg(test)]
mod both;
pub(crate) mod brake;
pub(crate) mod buffer;
mod emit;
mod enter;
#[cfg(test)]
mod flat_tests;
mod generic;
mod hints;
mod host;
mod integer;
#[cfg(test)]
mod jump_tests;
mod jumps;
#[cfg(test)]
mod loop_tests;
mod loops;
mod memory;
mod pins;
mod probe;
#[cfg(test)]
mod quiet_tests;
mod raw;
mod rewrite;
mod run;
mod source;
pub(crate) mod state;
mod system;
mod undefined;
mod unpinned;
mod vector;
#[cfg(test)]
mod vector_tests;
mod width;
mod x87;
#[cfg(test)]
mod x87_tests;

pub use host::supported;
pub(crate) use run::Left;
pub(crate) use width::Width;

use buffer::CodeBuffer;
use state::BLOCKS;

/// Bytes of host code held; when they are used up, all translations are dropped.
const BUFFER: usize = 128 << 20;
/// No translation is longer.
const LONGEST: usize = 64 << 10;

/// How translations are made. Tests want blocks translated at once, and the forms for hosts other than theirs.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How many times a block is run before it is translated, at least once.
    pub threshold: u32,
    /// Takes the host to leave nothing that is undefined as the interpreter does.
    pub unlike: bool,
    /// Takes the host to have no BMI2.
    pub without_bmi2: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        // In tests of this crate everything is translated.
        Self { threshold: if cfg!(test) { 1 } else { 12 }, unlike: false, without_bmi2: false }
    }
}

/// Operations whose addresses are in the code, so each must stay where it is.
type Ops = Vec<crate::decode::Ops>;

/// The translations of one machine, shared by its processors.
pub struct Translator {
    buffer: CodeBuffer,
    /// Operations that translations hand to the interpreter; their addresses are in the code.
    ops: Ops,
    /// Forms without pins that may have to be made.
    unmade: Vec<unpinned::OfBlock>,
    /// Memory for translating.
    scratch: block::Scratch,
    stubs: block::Stubs,
    hints: hints::Hints,
    jumps: jumps::Jumps,
    /// Counts how often all translations were dropped.
    pub(crate) flushes: u64,
    host: host::Features,
    threshold: u32,
}

impl std::fmt::Debug for Translator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Translator").field("bytes", &self.buffer.used()).finish_non_exhaustive()
    }
}

impl Translator {
    /// An empty one; `None` where the host cannot.
    pub fn new(tuning: Tuning) -> Option<Self> {
        if !supported() {
            return None;
        }
        let mut buffer = CodeBuffer::new(BUFFER).ok()?;
        let host = host::Features::of_host();
        let host = if tuning.unlike { host.unlike() } else { host };
        let host = if tuning.without_bmi2 { host.without_bmi2() } else { host };
        let stubs = block::Stubs::emit(&mut buffer, host.quiet());
        Some(Self {
            buffer,
            ops: Vec::new(),
            unmade: Vec::new(),
            scratch: block::Scratch::new(),
            stubs,
            hints: hints::Hints::new(),
            jumps: jumps::Jumps::new().ok()?,
            flushes: 0,
            host,
            threshold: tuning.threshold,
        })
    }

    /// The translation at `entry` is void: whoever gets there leaves.
    pub(crate) fn kill(&mut self, entry: u64, exit: u64) {
        let mut code = emit::Emitter::new(entry, self.host.quiet());
        code.jump_to(exit);
        self.buffer.patch(entry, code.bytes());
        let unlinked = self.jumps.remove(entry);
        self.change(&unlinked);
    }

    /// How many operations translations hand to the interpreter.
    #[cfg(test)]
    fn interpreted(&self) -> usize {
        self.ops.len()
    }

    /// Changes doublewords in the code.
    fn change(&mut self, patches: &[jumps::Patch]) {
        for (end, value) in patches {
            self.buffer.patch(end - 4, &value.to_le_bytes());
        }
    }

    /// Whether there may be no room for another translation.
    pub(crate) fn full(&self) -> bool {
        !self.buffer.has_left(LONGEST) || self.jumps.full()
    }

    /// Drops all translations. The caller forgets every address of one.
    pub(crate) fn flush(&mut self) {
        self.buffer.reset(self.stubs.end);
        self.ops.clear();
        self.unmade.clear();
        self.hints.forget();
        self.jumps.forget();
        self.flushes += 1;
    }

    /// Links a jump to another page, which has been numbered for [`run::look_up`], to the translation at `entry` of the target at `place`.
    fn link_far(&mut self, which: u32, place: u64, entry: u64) {
        if let Some(patches) = self.jumps.link(which - 1, place, entry) {
            self.change(&patches);
        }
    }

    /// Makes the jump whose displacement ends at `site` go to `target`.
    pub(crate) fn link(&mut self, site: u64, target: u64) {
        self.buffer.patch(site - 4, &(target.wrapping_sub(site) as u32).to_le_bytes());
    }
}

/// Index of the state block of a context, access class and kind of code.
pub(crate) const fn block_index(context: usize, class: usize, width: Width) -> usize {
    ((context * crate::memory::tlb::CLASSES + class) * width::WIDTHS + width as usize) & (BLOCKS - 1)
}

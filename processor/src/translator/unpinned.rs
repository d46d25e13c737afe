//! The form of a block without pins ([`super::pins`]), into which the form with pins goes where a pin's probe misses, and a loop where it ends or
//! has to be left: it is made when it is needed for the first time, because most never are (seven of eight in a boot).
//!
//! Until then each jump to it leads to a call of [`form`], which makes it and has the jumps go there. Where it cannot be made now, the interpreter does
//! the instruction.
#![allow(unsafe_code)]

use super::Translator;
use super::block::{Builder, Site};
use super::enter::{Go, reason};
use super::source::Source;
use super::state::State;
use crate::cpu::Cpu;
use crate::decode::cache::{BlockKind, CodeCache};
use crate::memory::ram::GuestRam;

/// What a form that is not made will be.
#[derive(Debug)]
pub(super) struct Unmade {
    /// Where control that goes to the block's beginning goes.
    pub beginning: u64,
    /// The first instruction of which the form is needed.
    pub first: usize,
    /// AF is clear before that, whatever the host's is.
    pub clear_af: bool,
    /// The jumps to it, by the addresses of their ends, and to which instruction.
    pub jumps: Vec<(u64, usize)>,
}

/// The same, and of which block.
#[derive(Debug)]
pub(super) struct OfBlock {
    /// Where the block is in RAM.
    pub offset: u64,
    /// What it is found by.
    pub kind: BlockKind,
    /// Where its translation begins.
    pub entry: u64,
    /// The form.
    pub form: Unmade,
}

impl CodeCache {
    /// The address of instruction `index` in the form that was given this number, if it can be made.
    fn unpinned_form(&mut self, number: usize, index: usize, ram: &GuestRam) -> Option<u64> {
        let mut translator = self.translator.take()?;
        let made = translator.make_unpinned(self, number, index, ram);
        self.translator = Some(translator);
        made
    }
}

impl Translator {
    fn make_unpinned(&mut self, cache: &CodeCache, number: usize, index: usize, ram: &GuestRam) -> Option<u64> {
        // Translated code waits, so nothing may be dropped; and its block must be what it was.
        if self.full() || ram.code_was_written() {
            return None;
        }
        let OfBlock { offset, kind, entry, form } = self.unmade.get(number)?;
        let block = cache.block(cache.find(*offset, *kind)?)?;
        if block.native.entry != *entry {
            return None;
        }
        let source = Source::of(block, cache, ram)?;
        let given = self.hints.given();
        let origins = [self.buffer.next_cold(), 0];
        let builder = Builder::new(origins, &source, &self.stubs, &self.host, &mut self.ops, &mut self.hints, number);
        let (code, places) = builder.build_unpinned(form);
        if code.len() > super::LONGEST {
            self.hints.take_back(given);
            return None;
        }
        self.buffer.append_cold(&code);
        for (jump, index) in std::mem::take(&mut self.unmade.get_mut(number)?.form.jumps) {
            self.link(jump, places[index]);
        }
        Some(places[index])
    }
}

/// Called from translated code: makes the form without pins. Gives where to go on.
pub(super) extern "C" fn form(state: *mut State) -> Go {
    // SAFETY: as in `fill`; the code cache is put there with the processor.
    let block = unsafe { &mut *state };
    // SAFETY: as in `fill`.
    let (cpu, code) = unsafe { (&*(block.cpu as *const Cpu), &mut *(block.code as *mut CodeCache)) };
    let (site, number) = (Site::from(block.argument), (block.argument >> 32) as usize);
    if let Some(address) = code.unpinned_form(number, site.index() as usize, &cpu.ram) {
        return Go::to(address, state);
    }
    block.reason = reason::INTERPRET;
    Go::leave(state)
}

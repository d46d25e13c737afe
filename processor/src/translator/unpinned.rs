//! The form of a block without pins ([`super::pins`]), into which the form with pins goes where a pin's probe misses, and a loop where it ends or
//! has to be left: it is made when it is needed for the first time, because most never are (seven of eight in a boot).
//!
//! Until then each jump to it leads to a call of [`form`], which makes it and has the jumps go there. Where it cannot be made now, the interpreter does
//! the instruction.
#![allow(unsafe_code)]

use super::Translator;
use super::block::{Builder, Numbers, Site};
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
        let (ops, scratch) = (&mut self.ops, &mut self.scratch);
        let builder = Builder::new(origins, &source, &self.stubs, &self.host, ops, &mut self.hints, scratch);
        let numbers = Numbers { site: self.jumps.next_site(), ..Numbers::default() };
        let places = builder.build_unpinned(form, numbers);
        let [code, _] = &self.scratch.parts;
        if code.len() > super::LONGEST {
            self.hints.take_back(given);
            return None;
        }
        self.buffer.append_cold(code);
        self.jumps.add_sites(&self.scratch.sites);
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

#[cfg(test)]
mod tests {
    use super::super::both::{CODE, DATA, Mode, machine};
    use crate::run::Activity;
    use crate::testing::Machine;

    /// Runs to HLT with RBX = `base`. Gives RAX, what R14 = RAX + 1 was stored to, and the jumps of forms that are not made.
    fn run(machine: &mut Machine, base: u64) -> (u64, u64, usize) {
        machine.cpu.activity_resumes();
        (machine.cpu.rip, machine.cpu.regs[3]) = (CODE, base);
        assert_eq!(machine.run_to_halt(100), Activity::Halted);
        let waiting = machine.code.translator.as_ref().unwrap().unmade.iter().map(|one| one.form.jumps.len()).sum();
        (machine.cpu.regs[0], machine.load(base + 8, 8), waiting)
    }

    #[test]
    fn it_is_made_when_a_pin_misses_and_not_before() {
        if !super::super::supported() {
            return;
        }
        let mut machine = machine(Mode::Long64, true);
        // mov rax, [rbx]; lea r14, [rax + 1]; mov [rbx + 8], r14; hlt.
        machine.write(CODE, &[0x48, 0x8b, 0x03, 0x4c, 0x8d, 0x70, 0x01, 0x4c, 0x89, 0x73, 0x08, 0xf4]);
        for page in [DATA, DATA + 0x1000] {
            machine.store(page, 8, 7);
            machine.store(page + 0x800, 8, 7);
        }
        // The page is not in the table at first: so the first run needs the form.
        assert_eq!(run(&mut machine, DATA), (7, 8, 0));
        machine.write(CODE + 11, &[0xf4]);
        assert_eq!(run(&mut machine, DATA + 0x800), (7, 8, 1), "translated anew, with a page that is known");
        machine.store(DATA + 0xff8, 8, 20);
        assert_eq!(run(&mut machine, DATA + 0xff8), (20, 21, 0), "two pages");
        assert_eq!(run(&mut machine, DATA), (7, 8, 0));
    }
}

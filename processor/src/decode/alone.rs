//! Instructions that asked to be run on their own, with exact time: they get blocks of their own, whose beginning is such a time.
//!
//! What is remembered here is a hint that saves running an instruction twice: the guest cannot see whether it is there.

use super::op::{Op, REP, REPNE, Stop};
use super::ops::At;
use crate::cpu::Cpu;
use crate::memory::ram::PAGE_SIZE;
use iced_x86::Mnemonic;
use std::collections::HashMap;

/// When places in so many pages are remembered, all are forgotten.
const PAGES_LIMIT: usize = 1 << 14;

/// Where in guest RAM such instructions begin.
#[derive(Debug, Default)]
pub(super) struct AlonePlaces {
    by_page: HashMap<u64, Vec<u16>>,
}

impl AlonePlaces {
    /// The instruction at RAM `offset` is one.
    pub(super) fn insert(&mut self, offset: u64) {
        if self.by_page.len() >= PAGES_LIMIT {
            self.by_page.clear();
        }
        let (page, at) = (offset & !(PAGE_SIZE - 1), (offset % PAGE_SIZE) as u16);
        let places = self.by_page.entry(page).or_default();
        if !places.contains(&at) {
            places.push(at);
        }
    }

    /// The places in the page at RAM offset `page`, from its start.
    pub(super) fn in_page(&self, page: u64) -> &[u16] {
        self.by_page.get(&page).map_or(&[], Vec::as_slice)
    }

    /// The page at RAM offset `page` has other contents.
    pub(super) fn forget(&mut self, page: u64) {
        self.by_page.remove(&page);
    }
}

/// Whether `op` gains by a block of its own. A repeated string instruction makes many iterations at once unless it is on its own.
pub(crate) fn gains(op: &Op) -> bool {
    use Mnemonic::*;
    let repeated = op.has(REP) || op.has(REPNE);
    !repeated || matches!(op.code().mnemonic(), Insb | Insw | Insd | Outsb | Outsw | Outsd)
}

/// What stands before `op` in a block of its own.
pub(crate) fn on_its_own(op: &Op) -> Op {
    Op { run: alone, ..*op }
}

/// Stands before the operation of an instruction that runs on its own: makes it so.
pub(super) fn alone(cpu: &mut Cpu, at: At) -> Stop {
    cpu.exact = true;
    let stop = at.next(cpu);
    cpu.exact = false;
    stop
}

#[cfg(test)]
mod tests {
    use crate::cet::CetCode;
    use crate::decode::cache::BlockKind;
    use crate::run::Activity;
    use crate::testing::Machine;

    /// Where the code is.
    const CODE: u64 = 0x8000;
    const IN_BLOCKS: BlockKind = BlockKind { code_size: 2, single: false, cet: CetCode::Off, locks: false };
    /// 10 times: nop; nop; rdtsc; stosd; loop. Then hlt.
    const CLOCK_READER: [u8; 8] = [0x90, 0x90, 0x0f, 0x31, 0xab, 0xe2, 0xf9, 0xf4];

    fn machine(code: &[u8]) -> Machine {
        let mut machine = Machine::long();
        machine.cpu.rip = CODE;
        machine.cpu.regs[1] = 10;
        machine.cpu.regs[7] = 0x9000;
        machine.idt(13, 8, 0xa000, 0x8e);
        machine.write(CODE, code);
        machine
    }

    fn state(machine: &Machine) -> (u64, u64, Vec<u64>, Vec<u64>) {
        let stored = (0..10).map(|i| machine.load(0x9000 + 4 * i, 4)).collect();
        (machine.cpu.rip, machine.cpu.instructions, machine.cpu.regs[..16].to_vec(), stored)
    }

    #[test]
    fn time_is_that_of_single_instructions() {
        let (mut blocks, mut steps) = (machine(&CLOCK_READER), machine(&CLOCK_READER));
        blocks.run_to_halt(1000);
        steps.steps(51);
        assert_eq!(state(&blocks), state(&steps));
        assert_eq!(blocks.load(0x9004, 4) - blocks.load(0x9000, 4), 2 * 5, "five instructions of two ticks each");
    }

    #[test]
    fn a_block_of_its_own_from_the_second_time_on() {
        let mut machine = machine(&CLOCK_READER);
        machine.run_to_halt(1000);
        let block = |at: u64| machine.code.find(at, IN_BLOCKS).and_then(|index| machine.code.block(index));
        assert!(block(CODE).is_some_and(|block| block.count == 2 && !block.alone));
        assert!(block(CODE + 2).is_some_and(|block| block.count == 1 && block.alone));
    }

    #[test]
    fn a_fault_is_the_instructions() {
        // rdmsr; mov ecx, esi; mov esi, edi; jmp: the third time the MSR is none.
        let code = [0x0f, 0x32, 0x89, 0xf1, 0x89, 0xfe, 0xeb, 0xf8];
        let fault = |run: fn(&mut Machine)| {
            let mut machine = machine(&code);
            (machine.cpu.regs[1], machine.cpu.regs[6], machine.cpu.regs[7]) = (0x10, 0x10, 0xdead);
            machine.write(0xa000, &[0xf4]);
            run(&mut machine);
            (machine.load(machine.cpu.regs[4] + 8, 8), state(&machine))
        };
        let in_blocks = fault(|machine| assert_eq!(machine.run_to_halt(1000), Activity::Halted));
        assert_eq!(in_blocks.0, CODE);
        assert_eq!(in_blocks, fault(|machine| machine.steps(10)));
    }

    #[test]
    fn other_contents_are_forgotten() {
        let mut machine = machine(&CLOCK_READER);
        machine.run_to_halt(1000);
        machine.write(CODE + 2, &[0x90, 0x90]);
        machine.cpu.activity_resumes();
        (machine.cpu.rip, machine.cpu.regs[1]) = (CODE, 10);
        machine.run_to_halt(1000);
        let block = machine.code.find(CODE, IN_BLOCKS).and_then(|index| machine.code.block(index));
        assert!(block.is_some_and(|block| block.count > 2));
    }

    #[test]
    fn repeated_string_instructions_stay_in_their_blocks() {
        // mov edi, 0x4000_0000 (no memory); rep stosb, again and again.
        let code = [0xbf, 0, 0, 0, 0x40, 0xb9, 4, 0, 0, 0, 0xf3, 0xaa, 0xf4];
        let mut machine = machine(&code);
        machine.store(crate::testing::PAGE_TABLES + 0x1008, 8, 0x4000_0087);
        machine.run_to_halt(1000);
        let block = machine.code.find(CODE + 10, IN_BLOCKS).and_then(|index| machine.code.block(index));
        assert!(block.is_none_or(|block| !block.alone));
        assert_eq!(machine.cpu.regs[1], 0);
    }

    #[test]
    fn what_stores_to_code_once_stays_in_its_block() {
        // mov [rdi], al; inc dword [r8]; nop; hlt. The first stores to code, the second across pages.
        let mut machine = machine(&[0x88, 0x07, 0x41, 0xff, 0x00, 0x90, 0xf4]);
        machine.write(0x9000, &[0xf4]);
        for start in [0x9000, CODE] {
            machine.cpu.activity_resumes();
            (machine.cpu.rip, machine.cpu.regs[0], machine.cpu.regs[7]) = (start, 0x90, 0x9000);
            machine.cpu.regs[8] = 0xaffe;
            machine.run_to_halt(100);
        }
        assert_eq!((machine.load(0x9000, 1), machine.load(0xaffe, 4)), (0x90, 1));
        let block = machine.code.find(CODE, IN_BLOCKS).and_then(|index| machine.code.block(index));
        assert!(block.is_some_and(|block| block.count == 4 && !block.alone));
    }
}

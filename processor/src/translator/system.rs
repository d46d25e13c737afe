//! What kernels use on each way in and out: interrupt flag, RFLAGS on the stack, GS base, control registers, fences.
//!
//! Each is emitted for the case that it can do without anybody's help, of which the state block tells by a field that is zero: privilege level 0,
//! and for some VMX root operation or that no interrupt waits. Else the interpreter does the instruction.

use super::block::{Builder, Cold, Done, Site};
use super::emit::{Opcode, R14, R15, RCX, Reg, Rm};
use super::memory::{home, host_register};
use super::state::State;
use super::width::Width;
use crate::cpu::Cpu;
use crate::flags;
use crate::segment::{GS, Segment};
use core::mem::offset_of;
use iced_x86::{Code, Instruction, Mnemonic, Register};

/// RFLAGS' bit number of IF.
const IF: u8 = flags::IF.trailing_zeros() as u8;
const GS_BASE: usize = offset_of!(Cpu, segs) + GS * size_of::<Segment>() + offset_of!(Segment, base);
/// BTR and BTS with a bit's number, in the reg field.
const RESET: u8 = 6;
const SET: u8 = 5;

/// A field of the processor, whose address `base` holds.
fn of_cpu(base: Reg, offset: usize) -> Rm {
    Rm::Base(base, offset as i32)
}

impl Builder<'_> {
    /// Emits it, if it is one of these. `last`: nothing follows in the block.
    pub(super) fn system(&mut self, i: &Instruction, site: Site, last: bool) -> Done {
        match i.code() {
            Code::Cli => self.interrupt_flag(RESET, offset_of!(State, level_refused), site),
            // At the end of a block somebody has to remember that interrupts are held back.
            Code::Sti if !last => self.interrupt_flag(SET, offset_of!(State, sti_refused), site),
            Code::Pushfq if self.width() == Width::Long64 => self.push_flags(site),
            Code::Swapgs if self.width() == Width::Long64 => self.swap_gs(site),
            Code::Mov_r64_cr if self.width() == Width::Long64 => self.control_register(i, site),
            Code::Lfence | Code::Mfence | Code::Sfence => {
                let modrm = match i.code() {
                    Code::Lfence => 0xe8,
                    Code::Mfence => 0xf0,
                    _ => 0xf8,
                };
                self.code.raw(&[0x0f, 0xae, modrm]);
                Done::Yes
            }
            _ => Done::No,
        }
    }

    /// The interpreter does the instruction unless the field of the state block at `offset` is zero. RCX is used.
    fn unless(&mut self, offset: usize, site: Site) {
        self.code.load(RCX, Rm::state(offset));
        let jump = self.code.jump_unless_rcx_zero();
        self.cold.push(Cold::Interpret { jump, site, flags: false });
    }

    /// Loads the processor's address into R14.
    fn processor(&mut self) {
        self.code.load(R14, Rm::state(offset_of!(State, cpu)));
    }

    fn interrupt_flag(&mut self, operation: u8, refused: usize, site: Site) -> Done {
        use Mnemonic::{Bt, Btr, Bts};
        // They have to leave all flags but CF alone.
        if ![Bt, Btr, Bts].into_iter().all(|mnemonic| self.host.alike(mnemonic)) {
            return Done::No;
        }
        self.unless(refused, site);
        self.processor();
        let bits = |wide| Opcode { wide, bytes: &[0x0f, 0xba], ..Opcode::default() };
        self.code.raw(&[0x0f, 0x92, 0xc1]); // setc cl
        self.code.op(bits(true), operation, of_cpu(R14, offset_of!(Cpu, rflags)));
        self.code.byte(IF);
        self.code.op(bits(false), 4, Rm::Reg(RCX)); // bt ecx, 0
        self.code.byte(0);
        Done::Yes
    }

    fn push_flags(&mut self, site: Site) -> Done {
        const HIDDEN: u64 = flags::VM | flags::RF;
        let image = Rm::state(offset_of!(State, spill));
        self.save_flags();
        // SF to CF are in bits 8 to 15 of R15, with bit 9 set; OF is in bit 0.
        let code = &mut self.code;
        code.op(Opcode { bytes: &[0x0f, 0xb6], ..Opcode::default() }, RCX, Rm::Reg(R15)); // movzx ecx, r15b
        code.op32(0xc1, 4, Rm::Reg(RCX)); // shl ecx, 11
        code.byte(11);
        code.op32(0x8b, R14, Rm::Reg(R15));
        code.op32(0xc1, 5, Rm::Reg(R14)); // shr r14d, 8
        code.byte(8);
        code.op(Opcode { bytes: &[0x0f, 0xb6], ..Opcode::default() }, R14, Rm::Reg(R14)); // movzx r14d, r14b
        code.op64(0x0b, RCX, Rm::Reg(R14)); // or rcx, r14
        self.processor();
        let code = &mut self.code;
        code.op64(0x0b, RCX, of_cpu(R14, offset_of!(Cpu, rflags))); // or rcx, rflags
        code.op64(0x81, 4, Rm::Reg(RCX)); // and rcx, !HIDDEN
        code.dword(!HIDDEN as u32);
        code.store(image, RCX);
        self.restore_flags();
        let pushed = self.pushed(site);
        self.code.load(RCX, image);
        self.code.store(pushed, RCX);
        self.move_stack(-8);
        Done::Yes
    }

    fn swap_gs(&mut self, site: Site) -> Done {
        self.unless(offset_of!(State, level_refused), site);
        self.processor();
        let (base, other) = (of_cpu(R14, GS_BASE), of_cpu(R14, offset_of!(Cpu, msrs.kernel_gs_base)));
        self.code.load(RCX, other);
        self.code.load(R15, base);
        self.code.store(other, R15);
        self.code.store(base, RCX);
        self.code.store(Rm::state(offset_of!(State, gs)), RCX);
        Done::Yes
    }

    /// MOV from CR2 and CR3.
    fn control_register(&mut self, i: &Instruction, site: Site) -> Done {
        let field = match i.op1_register() {
            Register::CR2 => offset_of!(Cpu, cr2),
            Register::CR3 => offset_of!(Cpu, cr3),
            _ => return Done::No,
        };
        self.unless(offset_of!(State, control_refused), site);
        self.processor();
        let guest = i.op0_register().number() as u8;
        match host_register(guest) {
            Some(host) => self.code.load(host, of_cpu(R14, field)),
            None => {
                self.code.load(RCX, of_cpu(R14, field));
                self.code.store(home(guest), RCX);
            }
        }
        Done::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::super::both::{CODE, Case, DATA, Mode, Random, machine, outcome_after};
    use crate::apic::InterruptMessage;
    use crate::flags;
    use crate::testing::Machine;

    const CLI: &[u8] = &[0xfa];
    /// sti; nop
    const STI: &[u8] = &[0xfb, 0x90];
    const PUSHFQ: &[u8] = &[0x9c];
    const SWAPGS: &[u8] = &[0x0f, 0x01, 0xf8];
    /// mov rdx, cr3; mov r13, cr2
    const CONTROL: &[u8] = &[0x0f, 0x20, 0xda, 0x41, 0x0f, 0x20, 0xd5];
    const FENCES: &[u8] = &[0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0x0f, 0xae, 0xf8];

    /// How many operations of `bytes` are the interpreter's in the translation.
    fn interpreted(translated: &Machine) -> usize {
        translated.code.translator.as_ref().map_or(0, |translator| translator.interpreted())
    }

    /// Runs `bytes` by both engines at a privilege level, with these flags; both must agree. Gives RFLAGS and RSP at the end.
    fn both(bytes: &[u8], level: u8, rflags: u64, change: impl Fn(&mut Machine)) -> (u64, u64) {
        both_in(Mode::Long64, bytes, level, rflags, change)
    }

    fn both_in(mode: Mode, bytes: &[u8], level: u8, rflags: u64, change: impl Fn(&mut Machine)) -> (u64, u64) {
        let outcomes = [false, true].map(|translator| {
            let mut machine = machine(mode, translator);
            machine.idt(0x41, 8, 0xb000, 0x8e);
            let mut random = Random(0x1234_5678_9abc_def1 ^ rflags);
            machine.cpu.regs[..16]
                .fill_with(|| if mode == Mode::Long64 { random.next() } else { random.below(1 << 31) });
            (machine.cpu.regs[4], machine.cpu.rip) = (DATA + 0x800, CODE);
            machine.cpu.segs[crate::segment::GS].base = 0x1234_5000;
            machine.cpu.msrs.kernel_gs_base = 0xffff_8000_0000_1000;
            machine.cpu.cr2 = 0xdead_b000;
            machine.flat(level);
            machine.cpu.set_rflags(rflags | 2);
            change(&mut machine);
            let case = Case { bytes: bytes.to_vec(), state: machine.cpu.save(), data: vec![0x5a; 0x1000] };
            let length = bytes.iter().filter(|byte| **byte == 0x90).count() as u64;
            let outcome = outcome_after(&mut machine, &case, 3 + length + if bytes == FENCES { 2 } else { 0 });
            if translator && level == 0 {
                assert_eq!(interpreted(&machine), 0, "emitted: {bytes:x?}");
            }
            (outcome, machine.cpu.rflags(), machine.cpu.regs[4])
        });
        assert_eq!(outcomes[0], outcomes[1], "{bytes:x?} at level {level} with {rflags:#x}");
        (outcomes[0].1, outcomes[0].2)
    }

    #[test]
    fn each_is_as_the_interpreter_has_it_at_every_level_and_iopl() {
        for bytes in [CLI, STI, PUSHFQ, SWAPGS, CONTROL, FENCES] {
            for level in [0, 3] {
                for status in [0, 0x8d5, 0x801, 0x54] {
                    for more in [0, flags::IF, flags::IOPL, flags::IF | flags::IOPL, flags::AC | flags::DF] {
                        both(bytes, level, status | more, |_| {});
                        if [CLI, STI, FENCES].contains(&bytes) {
                            both_in(Mode::Protected, bytes, level, status | more, |_| {});
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_interrupt_flag_is_set_and_cleared_and_nothing_else() {
        for rflags in [0x8d5, 0x8d4, 0x246, 0x46] {
            assert_eq!(both(CLI, 0, rflags, |_| {}).0, rflags & !flags::IF | 2);
            assert_eq!(both(STI, 0, rflags, |_| {}).0, rflags | flags::IF | 2);
            assert_eq!(both(PUSHFQ, 0, rflags, |_| {}), (rflags | 2, DATA + 0x7f8));
        }
    }

    #[test]
    fn an_interrupt_that_waits_is_taken_after_the_instruction_that_follows_sti() {
        let waits = |machine: &mut Machine| {
            let moment = machine.cpu.moment();
            machine.cpu.apic.write(0xf0, 4, 0x1ff, moment);
            machine.cpu.apic.accept(&InterruptMessage::from_msi(0xfee0_0000, 0x41).unwrap());
            assert!(machine.cpu.apic.pending().is_some());
        };
        let (rflags, stack) = both(STI, 0, 0x46, waits);
        assert_eq!((rflags & flags::IF, stack & 0xfff), (0, 0x7d8), "a frame of five quadwords");
    }

    #[test]
    fn a_page_fault_of_pushfq_leaves_the_stack_pointer() {
        let (_, stack) = both(PUSHFQ, 0, 0x8d7, |machine| machine.cpu.regs[4] = 0x4000_0000);
        assert_eq!(stack & 0xfff, 0, "{stack:#x}");
    }

    #[test]
    fn single_steps_trap_after_each() {
        for bytes in [CLI, STI, PUSHFQ, SWAPGS, CONTROL] {
            both(bytes, 0, 0x146, |machine| machine.idt(1, 8, 0xb000, 0x8e));
        }
    }
}

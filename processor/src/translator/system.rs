//! What kernels use on each way in and out: interrupt flag, RFLAGS on the stack, GS base, control registers, fences.
//!
//! Each is emitted for the case that it can do without anybody's help, of which the state block tells by a field that is zero: privilege level 0,
//! and for some VMX root operation or that no interrupt waits. Else the interpreter does the instruction.

use super::block::{Builder, Cold, Done, Site};
use super::emit::{Opcode, R14, R15, RAX, RCX, RDX, Reg, Rm};
use super::memory::{home, host_register};
use super::state::State;
use super::width::Width;
use crate::cpu::Cpu;
use crate::flags::{self, DF, IF};
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment};
use core::mem::offset_of;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

const GS_BASE: usize = offset_of!(Cpu, segs) + GS * size_of::<Segment>() + offset_of!(Segment, base);
/// BTR and BTS with a bit's number, in the reg field.
const RESET: u8 = 6;
const SET: u8 = 5;

/// Where the processor has the selector of a segment register.
const fn selector_of(register: usize) -> usize {
    offset_of!(Cpu, segs) + register * size_of::<Segment>() + offset_of!(Segment, selector)
}

/// A field of the processor, whose address `base` holds.
fn of_cpu(base: Reg, offset: usize) -> Rm {
    Rm::Base(base, offset as i32)
}

/// Whether it is one of these that are not the host's own instruction, whatever the host has.
pub(super) fn is_of_state(i: &Instruction) -> bool {
    use Code::{Clac, Rdfsbase_r32, Rdfsbase_r64, Rdgsbase_r32, Rdgsbase_r64, Rdtsc, Stac};
    matches!(i.code(), Clac | Stac | Rdtsc | Rdfsbase_r32 | Rdfsbase_r64 | Rdgsbase_r32 | Rdgsbase_r64)
}

/// Whether it ends its block by SYSCALL or SYSRET: control does not come back to the block.
pub(super) fn changes_level(i: &Instruction) -> bool {
    matches!(i.code(), Code::Syscall | Code::Sysretd | Code::Sysretq)
}

/// Whether it is emitted where it runs on its own, with exact time.
pub(super) fn has_time(i: &Instruction) -> bool {
    i.code() == Code::Rdtsc
}

impl Builder<'_> {
    /// Emits it, if it is one of these. `last`: nothing follows in the block.
    pub(super) fn system(&mut self, i: &Instruction, site: Site, last: bool) -> Done {
        match i.code() {
            Code::Cli => self.change_flag(IF, RESET, Some(offset_of!(State, level_refused)), site),
            // At the end of a block somebody has to remember that interrupts are held back.
            Code::Sti if !last => self.change_flag(IF, SET, Some(offset_of!(State, sti_refused)), site),
            Code::Cld => self.change_flag(DF, RESET, None, site),
            Code::Std => self.change_flag(DF, SET, None, site),
            Code::Clac if self.width() == Width::Long64 => self.unchanged(offset_of!(State, clac_refused), site),
            Code::Stac if self.width() == Width::Long64 => self.unchanged(offset_of!(State, stac_refused), site),
            Code::Pushfq if self.width() == Width::Long64 => self.push_flags(site),
            Code::Rdtsc => self.time_stamp_counter(site),
            Code::Swapgs if self.width() == Width::Long64 => self.swap_gs(site),
            Code::Mov_r64_cr if self.width() == Width::Long64 => self.control_register(i, site),
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => match i.op1_register() {
                Register::ES => self.selector(i, selector_of(ES), None, site),
                Register::CS => self.selector(i, selector_of(CS), None, site),
                Register::SS => self.selector(i, selector_of(SS), None, site),
                Register::DS => self.selector(i, selector_of(DS), None, site),
                Register::FS => self.selector(i, selector_of(FS), None, site),
                Register::GS => self.selector(i, selector_of(GS), None, site),
                _ => Done::No,
            },
            Code::Sldt_rm16 | Code::Sldt_r32m16 | Code::Sldt_r64m16 => {
                let field = offset_of!(Cpu, ldtr) + offset_of!(Segment, selector);
                self.selector(i, field, Some(offset_of!(State, control_refused)), site)
            }
            Code::Rdfsbase_r32 | Code::Rdfsbase_r64 => self.base(i, offset_of!(State, fs), site),
            Code::Rdgsbase_r32 | Code::Rdgsbase_r64 => self.base(i, offset_of!(State, gs), site),
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

    /// RDTSC, at whose beginning the count of instructions is exact.
    fn time_stamp_counter(&mut self, site: Site) -> Done {
        const { assert!(TSC_TICKS_PER_NS.is_power_of_two() && TSC_TICKS_PER_NS <= 8) };
        if !self.source.alone {
            return Done::No;
        }
        let spill = offset_of!(State, spill);
        self.call_unless(offset_of!(State, tsc_refused), site, |builder| {
            let code = &mut builder.code;
            code.load(RCX, Rm::state(offset_of!(State, budget)));
            code.load(R14, Rm::state(offset_of!(State, tsc_base)));
            code.lea(RCX, Rm::Indexed(R14, RCX, TSC_TICKS_PER_NS.trailing_zeros() as u8, 0));
            code.store(Rm::state(spill), RCX);
            code.load32(RAX, Rm::Reg(RCX));
            code.load32(RDX, Rm::state(spill + 4));
        });
        Done::Yes
    }

    /// The interpreter does the instruction unless the field of the state block at `offset` is zero. RCX is used.
    fn unless(&mut self, offset: usize, site: Site) {
        self.code.load(RCX, Rm::state(offset));
        let jump = self.code.jump_unless_rcx_zero();
        self.cold.push_back(Cold::Interpret { jump, site, flags: false });
    }

    /// Loads the processor's address into R14.
    fn processor(&mut self) {
        self.code.load(R14, Rm::state(offset_of!(State, cpu)));
    }

    /// BTR or BTS of a flag that is in [`Cpu::rflags`].
    fn change_flag(&mut self, flag: u64, operation: u8, refused: Option<usize>, site: Site) -> Done {
        use Mnemonic::{Bt, Btr, Bts};
        // They have to leave all flags but CF alone.
        if ![Bt, Btr, Bts].into_iter().all(|mnemonic| self.host.alike(mnemonic)) {
            return Done::No;
        }
        if let Some(refused) = refused {
            self.unless(refused, site);
        }
        self.processor();
        let bits = |wide| Opcode { wide, bytes: &[0x0f, 0xba], ..Opcode::default() };
        self.code.raw(&[0x0f, 0x92, 0xc1]); // setc cl
        self.code.op(bits(true), operation, of_cpu(R14, offset_of!(Cpu, rflags)));
        self.code.byte(flag.trailing_zeros() as u8);
        self.code.op(bits(false), 4, Rm::Reg(RCX)); // bt ecx, 0
        self.code.byte(0);
        Done::Yes
    }

    /// CLAC or STAC, which has nothing to change where the field of the state block at `refused` is zero.
    fn unchanged(&mut self, refused: usize, site: Site) -> Done {
        self.call_unless(refused, site, |_| {});
        Done::Yes
    }

    /// A selector, which is at `field` in the processor, into a general register.
    fn selector(&mut self, i: &Instruction, field: usize, refused: Option<usize>, site: Site) -> Done {
        if i.op0_kind() != OpKind::Register {
            return Done::No;
        }
        if let Some(refused) = refused {
            self.unless(refused, site);
        }
        self.processor();
        let narrow = i.op0_register().size() == 2;
        let guest = i.op0_register().number() as u8;
        match (host_register(guest), narrow) {
            (Some(host), true) => self.code.load_low16(host, of_cpu(R14, field)),
            (Some(host), false) => self.code.load16(host, of_cpu(R14, field)),
            (None, narrow) => {
                self.code.load16(RCX, of_cpu(R14, field));
                if narrow { self.code.store16(home(guest), RCX) } else { self.code.store(home(guest), RCX) }
            }
        }
        Done::Yes
    }

    /// RDFSBASE and RDGSBASE: the base is at `field` in the state block.
    fn base(&mut self, i: &Instruction, field: usize, site: Site) -> Done {
        self.unless(offset_of!(State, bases_refused), site);
        let guest = i.op0_register().number() as u8;
        let to = host_register(guest).unwrap_or(RCX);
        if i.op0_register().size() == 4 {
            self.code.load32(to, Rm::state(field));
        } else {
            self.code.load(to, Rm::state(field));
        }
        if to == RCX {
            self.code.store(home(guest), RCX);
        }
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
    use super::super::run;
    use crate::apic::InterruptMessage;
    use crate::flags;
    use crate::testing::{Machine, PAGE_TABLES};
    use spec::vmx::{PrimaryControls, SecondaryControls, VmcsField};
    use spec::x86::control_registers::Cr4;

    const CLI: &[u8] = &[0xfa];
    /// sti; nop
    const STI: &[u8] = &[0xfb, 0x90];
    const PUSHFQ: &[u8] = &[0x9c];
    const SWAPGS: &[u8] = &[0x0f, 0x01, 0xf8];
    /// mov rdx, cr3; mov r13, cr2
    const CONTROL: &[u8] = &[0x0f, 0x20, 0xda, 0x41, 0x0f, 0x20, 0xd5];
    const FENCES: &[u8] = &[0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0x0f, 0xae, 0xf8];

    const CLD: &[u8] = &[0xfc];
    const STD: &[u8] = &[0xfd];
    const CLAC: &[u8] = &[0x0f, 0x01, 0xca];
    const STAC: &[u8] = &[0x0f, 0x01, 0xcb];
    /// mov dx, ds; mov r13, fs; mov r14w, es
    const SELECTORS: &[u8] = &[0x66, 0x8c, 0xda, 0x4d, 0x8c, 0xe5, 0x66, 0x41, 0x8c, 0xc6];
    /// sldt ax; sldt r15
    const LDTR: &[u8] = &[0x66, 0x0f, 0x00, 0xc0, 0x49, 0x0f, 0x00, 0xc7];
    /// rdfsbase rdx; rdgsbase r12d
    const BASES: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xc2, 0xf3, 0x41, 0x0f, 0xae, 0xcc];
    /// rdtsc; mov rbx, rax; mov rsi, rdx; rdtsc; jmp to the first, whose block it has by then
    const TIME: &[u8] = &[0x0f, 0x31, 0x48, 0x89, 0xc3, 0x48, 0x89, 0xd6, 0x0f, 0x31, 0xeb, 0xf4];

    const SYSRETQ: &[u8] = &[0x48, 0x0f, 0x07];

    /// The number of instructions of what is executed once.
    fn length(bytes: &[u8]) -> u64 {
        match bytes {
            _ if bytes == FENCES || bytes == SELECTORS => 3,
            _ if bytes == CONTROL || bytes == LDTR || bytes == BASES || bytes == STI => 2,
            _ if bytes == TIME => 33,
            _ => 1,
        }
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
            machine.cpu.segs[crate::segment::FS].base = 0x8765_4321_0000;
            machine.cpu.ldtr.selector = 0x68;
            let smap = if bytes == CLAC || bytes == STAC { Cr4::SMAP } else { 0 };
            machine.cpu.cr4 |= if mode == Mode::Long64 { Cr4::FSGSBASE | smap } else { 0 };
            machine.cpu.cr2 = 0xdead_b000;
            machine.flat(level);
            machine.cpu.set_rflags(rflags | 2);
            change(&mut machine);
            let case = Case { bytes: bytes.to_vec(), state: machine.cpu.save(), data: vec![0x5a; 0x1000] };
            let before = run::calls();
            let outcome = outcome_after(&mut machine, &case, 2 + length(bytes));
            if translator && level == 0 && ![TIME, CLAC, STAC, SYSRETQ].contains(&bytes) {
                assert_eq!(run::calls(), before, "emitted: {bytes:x?}");
            }
            (outcome, machine.cpu.rflags(), machine.cpu.regs[4])
        });
        assert_eq!(outcomes[0], outcomes[1], "{bytes:x?} at level {level} with {rflags:#x}");
        (outcomes[0].1, outcomes[0].2)
    }

    #[test]
    fn each_is_as_the_interpreter_has_it_at_every_level_and_iopl() {
        let all = [CLI, STI, CLD, STD, CLAC, STAC, PUSHFQ, SWAPGS, CONTROL, FENCES, SELECTORS, LDTR, BASES, TIME];
        for bytes in all {
            for level in [0, 3] {
                for status in [0, 0x8d5, 0x801, 0x54] {
                    for more in [0, flags::IF, flags::IOPL, flags::IF | flags::IOPL, flags::AC | flags::DF] {
                        both(bytes, level, status | more, |_| {});
                        if [CLI, STI, CLD, STD, FENCES].contains(&bytes) {
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
    fn what_control_registers_forbid_is_refused() {
        for level in [0, 3] {
            for (bytes, clear, set) in [
                (CLAC, Cr4::SMAP, 0),
                (STAC, Cr4::SMAP, 0),
                (BASES, Cr4::FSGSBASE, 0),
                (TIME, 0, Cr4::TSD),
                (LDTR, 0, Cr4::UMIP),
            ] {
                for rflags in [0x46, 0x46 | flags::AC] {
                    both(bytes, level, rflags, |machine| {
                        machine.cpu.cr4 = machine.cpu.cr4 & !clear | set;
                        machine.cpu.mode_changed();
                    });
                }
            }
        }
    }

    #[test]
    fn a_guest_reads_time_with_the_offset_and_the_scale_of_its_vmcs() {
        let controls = [(0, 0), (PrimaryControls::USE_TSC_OFFSETTING, 0)];
        let scaled = (PrimaryControls::USE_TSC_OFFSETTING, SecondaryControls::USE_TSC_SCALING);
        for (primary, secondary) in controls.into_iter().chain([scaled]) {
            both(TIME, 0, 0x46, |machine| {
                machine.cpu.vmx.on = true;
                machine.cpu.vmx.non_root = true;
                machine.cpu.vmx.controls.primary.0 |= primary;
                machine.cpu.vmx.controls.secondary.0 |= secondary;
                machine.cpu.vmx.vmcs.pointer = 0xe000;
                machine.cpu.vmx.vmcs.set(VmcsField::TSC_OFFSET, 0x1234_5678_9abc);
                machine.cpu.vmx.vmcs.set(VmcsField::TSC_MULTIPLIER, 3 << 47);
                machine.cpu.mode_changed();
            });
        }
    }

    #[test]
    fn time_is_read_without_a_call() {
        let before = run::calls();
        both(TIME, 0, 0x46, |_| {});
        // Two by each place before it is known to want exact time.
        assert!(run::calls() - before <= 4, "{}", run::calls() - before);
    }

    #[test]
    fn clac_and_stac_change_the_rights_that_follow() {
        // stac; mov [DATA], al; clac; mov [DATA], al: DATA is the user's, who lets only the first of them through.
        let code = [CLAC, &[0xa2], &DATA.to_le_bytes()].concat();
        let code = [STAC, &code[3..], &code].concat();
        let faults = [false, true].map(|translator| {
            let mut machine = machine(Mode::Long64, translator);
            machine.cpu.cr4 |= Cr4::SMAP;
            // What the code and the stack lie in is the supervisor's, through another address.
            machine.store(PAGE_TABLES + 0x2008, 8, 0x83);
            machine.idt(14, 8, 0x20_b000, 0x8e);
            machine.write(0xb000, &[0xeb, 0xfe]);
            machine.write(CODE, &code);
            machine.flat(0);
            machine.cpu.idtr.base += 0x20_0000;
            machine.cpu.gdtr.base += 0x20_0000;
            (machine.cpu.rip, machine.cpu.regs[4], machine.cpu.regs[0]) = (0x20_0000 + CODE, 0x20_a000, 0x77);
            let until = machine.cpu.now() + 6;
            machine.cpu.run(&mut machine.code, until);
            (
                machine.cpu.cr2,
                machine.cpu.rip,
                machine.load(DATA, 1),
                machine.load(machine.cpu.regs[4] - 0x20_0000 + 8, 8),
            )
        });
        assert_eq!(faults[0], faults[1]);
        assert_eq!(faults[0], (DATA, 0x20_b000, 0x77, 0x20_0000 + CODE + 15));
    }

    #[test]
    fn system_calls_go_to_and_fro_as_the_interpreter_has_them() {
        // syscall; jmp back
        const CALLS: &[u8] = &[0x0f, 0x05, 0xeb, 0xfc];
        const ENTRY: u64 = 0xb100;
        // sysretq; sysretd
        for (returns, mask) in [(SYSRETQ, flags::IF), (&SYSRETQ[1..], flags::AC | flags::DF)] {
            for (level, enabled) in [(3, true), (0, true), (3, false)] {
                for rflags in [0x46, 0x8d7, 0x202, 0x246 | flags::AC, 0xa02 | flags::IOPL] {
                    let outcomes = [false, true].map(|translator| {
                        let mut machine = machine(Mode::Long64, translator);
                        machine.write(ENTRY, returns);
                        machine.cpu.msrs.lstar = ENTRY;
                        machine.cpu.msrs.star = 0x13 << 48 | 8 << 32;
                        machine.cpu.msrs.fmask = mask;
                        machine.cpu.efer &= if enabled { u64::MAX } else { !1 };
                        machine.cpu.regs[4] = DATA + 0x800;
                        machine.cpu.rip = CODE;
                        machine.cpu.tr.base = 0x4000;
                        machine.store(0x4004, 8, DATA + 0x400);
                        machine.flat(level);
                        machine.cpu.set_rflags(rflags);
                        let case = Case { bytes: CALLS.to_vec(), state: machine.cpu.save(), data: vec![0; 0x1000] };
                        // Each makes a call and a return.
                        (20..26).map(|count| outcome_after(&mut machine, &case, count)).collect::<Vec<_>>()
                    });
                    assert_eq!(outcomes[0], outcomes[1], "{returns:x?} from level {level} with {rflags:#x}");
                }
            }
        }
    }

    #[test]
    fn a_system_return_to_an_address_that_is_not_canonical_faults_before_it() {
        for address in [0x7fff_ffff_f000, 0x8000_0000_0000] {
            both(SYSRETQ, 0, 0x46, |machine| machine.cpu.regs[1] = address);
        }
    }

    #[test]
    fn single_steps_trap_after_each() {
        for bytes in [CLI, STI, CLD, CLAC, STAC, PUSHFQ, SWAPGS, CONTROL, SELECTORS, TIME] {
            both(bytes, 0, 0x146, |machine| machine.idt(1, 8, 0xb000, 0x8e));
        }
    }
}

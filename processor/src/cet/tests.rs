use super::CetCode;
use crate::cpu::TableRegister;
use crate::memory::paging::Kind;
use crate::memory::tlb;
use crate::models::Model;
use crate::run::Activity;
use crate::segment::Segment;
use crate::testing::{Machine, PAGE_TABLES};
use crate::trap::Trap;
use spec::x86::cet::ControlProtectionCode as Code;
use spec::x86::{CetControl, Cr0, Cr4, Efer, msr};

/// Where code runs, where the handlers of exceptions are (16 bytes apart), and the data stacks.
const CODE: u64 = 0x8000;
const HANDLERS: u64 = 0xa000;
const STACK: u64 = 0x7000;
const KERNEL_STACK: u64 = 0x6000;
const TSS: u64 = 0x4000;
/// A user's shadow-stack page, two of the supervisor's.
const USER_SHADOW: u64 = 0x2_0000;
const SHADOW: u64 = 0x2_2000;
const SHADOW_2: u64 = 0x2_3000;

const STACKS: u64 = CetControl::SH_STK_EN;
const TRACKING: u64 = CetControl::ENDBR_EN;

/// 64-bit mode with 4 KiB pages, of which some are shadow stacks; CET on in CR4, and nowhere else.
fn machine() -> Machine {
    let mut machine = Machine::long_with(Model::named("full").unwrap());
    let table = PAGE_TABLES + 0x3000;
    machine.store(PAGE_TABLES + 0x2000, 8, table | 7);
    for page in 0..512 {
        let address = page << 12;
        let flags = match address {
            USER_SHADOW => 0x65,
            SHADOW | SHADOW_2 => 0x61,
            _ => 0x67,
        };
        machine.store(table + 8 * page, 8, address | flags);
    }
    let cpu = &mut machine.cpu;
    cpu.cr0 |= Cr0::WP;
    cpu.cr4 |= Cr4::CET | Cr4::OSXSAVE;
    cpu.tr = Segment { selector: 0x40, base: TSS, limit: 0x67, access: 0x8b };
    (cpu.rip, cpu.regs[4]) = (CODE, STACK);
    cpu.mode_changed();
    machine.store(TSS + 4, 8, KERNEL_STACK);
    for vector in 0..32 {
        machine.idt(vector, 8, HANDLERS + 16 * u64::from(vector), 0xee);
    }
    machine
}

/// A user program with a shadow stack.
fn user() -> Machine {
    let mut machine = machine();
    assert!(machine.cpu.write_msr(msr::U_CET, STACKS));
    machine.cpu.ssp = USER_SHADOW + 0x800;
    machine.flat(3);
    machine
}

/// A system with a shadow stack in use: its token is at the end of the page.
fn kernel() -> Machine {
    let mut machine = machine();
    machine.store(SHADOW + 0xff8, 8, (SHADOW + 0xff8) | 1);
    machine.cpu.ssp = SHADOW + 0xff8;
    assert!(machine.cpu.write_msr(msr::S_CET, STACKS));
    machine
}

/// Code with tracked branches at privilege level `cpl`.
fn tracked(cpl: u8, control: u64) -> Machine {
    let mut machine = machine();
    assert!(machine.cpu.write_msr(if cpl == 3 { msr::U_CET } else { msr::S_CET }, TRACKING | control));
    machine.flat(cpl);
    machine.cpu.regs[0] = CODE + 0x100;
    machine
}

/// Vector and error code of the exception whose handler is about to run.
fn caught(machine: &Machine) -> (u64, u64) {
    let rip = machine.cpu.rip;
    assert!((HANDLERS..HANDLERS + 0x200).contains(&rip), "at {rip:#x}: no exception");
    ((rip - HANDLERS) / 16, machine.load(machine.cpu.regs[4], 8))
}

const CALL: [u8; 5] = [0xe8, 0xfb, 0x00, 0x00, 0x00]; // call CODE + 0x100
const JMP_RAX: [u8; 2] = [0xff, 0xe0];
const CALL_RAX: [u8; 2] = [0xff, 0xd0];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const ENDBR32: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfb];
const IRETQ: [u8; 2] = [0x48, 0xcf];

#[test]
fn near_calls_and_returns_go_by_the_shadow_stack() {
    for mut machine in [user(), kernel()] {
        let ssp = machine.cpu.ssp;
        machine.execute(&CALL, 1);
        assert_eq!((machine.cpu.rip, machine.cpu.ssp), (CODE + 0x100, ssp - 8));
        assert_eq!(machine.load(ssp - 8, 8), CODE + 5);
        machine.execute(&[0xc3], 1); // ret
        assert_eq!((machine.cpu.rip, machine.cpu.ssp, machine.cpu.regs[4]), (CODE + 5, ssp, STACK));
    }
}

#[test]
fn a_changed_return_address_is_a_control_protection_fault() {
    let mut machine = user();
    machine.execute(&CALL, 1);
    let (rsp, ssp) = (machine.cpu.regs[4], machine.cpu.ssp);
    machine.store(rsp, 8, CODE + 6);
    machine.execute(&[0xc3], 1);
    assert_eq!(caught(&machine), (21, Code::NearRet as u64));
    assert_eq!(
        (machine.load(machine.cpu.regs[4] + 8, 8), machine.load(machine.cpu.regs[4] + 32, 8)),
        (CODE + 0x100, rsp)
    );
    assert_eq!((machine.cpu.msrs.pl_ssp[3], machine.cpu.ssp), (ssp, ssp));
}

#[test]
fn a_call_of_the_next_instruction_pushes_nothing_on_the_shadow_stack() {
    let mut machine = user();
    machine.execute(&[0xe8, 0, 0, 0, 0], 1);
    assert_eq!((machine.cpu.ssp, machine.cpu.regs[4]), (USER_SHADOW + 0x800, STACK - 8));
}

#[test]
fn indirect_calls_push_too() {
    let mut machine = user();
    machine.cpu.regs[0] = CODE + 2;
    machine.execute(&CALL_RAX, 1);
    assert_eq!(machine.load(machine.cpu.ssp, 8), CODE + 2);
}

#[test]
fn page_faults_tell_shadow_stack_accesses() {
    // A store of the program to its shadow stack: an ordinary protection violation.
    let mut machine = user();
    machine.cpu.regs[0] = USER_SHADOW;
    machine.execute(&[0x48, 0x89, 0x00], 1); // mov [rax], rax
    assert_eq!(caught(&machine), (14, 7));
    // Shadow stacks in ordinary pages and in the supervisor's: bit 6.
    for ssp in [0x3_0000, SHADOW + 0x800] {
        let mut machine = user();
        machine.cpu.ssp = ssp;
        machine.execute(&CALL, 1);
        assert_eq!((caught(&machine), machine.cpu.cr2), ((14, 0x47), ssp - 8));
        assert_eq!(
            machine.cpu.regs[4],
            KERNEL_STACK - 48,
            "RSP was put back: {:#x}",
            machine.load(KERNEL_STACK - 16, 8)
        );
        assert_eq!(machine.load(KERNEL_STACK - 16, 8), STACK);
    }
}

#[test]
fn only_shadow_stack_pages_of_the_same_privilege_can_be_used() {
    let mut machine = machine();
    let mut usable = |linear, class| machine.cpu.translate(linear, Kind::ShadowRead, class).is_ok();
    assert!(usable(USER_SHADOW, tlb::USER) && usable(SHADOW, tlb::SUPERVISOR));
    assert!(!usable(USER_SHADOW, tlb::SUPERVISOR) && !usable(SHADOW, tlb::USER) && !usable(0x3_0000, tlb::USER));
}

#[test]
fn a_page_that_is_read_only_above_is_no_shadow_stack() {
    let mut machine = machine();
    machine.store(PAGE_TABLES + 0x2000, 8, (PAGE_TABLES + 0x3000) | 5);
    assert!(machine.cpu.translate(USER_SHADOW, Kind::ShadowRead, tlb::USER).is_err());
    assert_eq!(machine.cpu.trap, Trap::Exception { vector: 14, error: Some(0x45) });
}

#[test]
fn far_calls_push_cs_address_and_ssp_and_far_returns_check_them() {
    let mut machine = user();
    machine.cpu.ssp -= 4;
    let ssp = machine.cpu.ssp;
    machine.write(0x5000, &[0, 0x90, 0, 0, 0x1b, 0]);
    machine.cpu.regs[0] = 0x5000;
    machine.execute(&[0xff, 0x18], 1); // call far [rax]
    assert_eq!((machine.at(), machine.cpu.ssp), ((0x1b, 0x9000), ssp - 28));
    let frame: Vec<u64> = (0..4).map(|n| machine.load(machine.cpu.ssp + 8 * n, 8)).collect();
    assert_eq!(frame[..3], [ssp, CODE + 2, 0x1b]);
    assert_eq!(frame[3] as u32, 0, "the hole is cleared");
    let mut changed = user();
    changed.cpu.restore(&machine.cpu.save());
    for (address, size) in [(0x5000, 0x10), (USER_SHADOW, 0x1000), (STACK - 0x100, 0x100)] {
        let mut bytes = vec![0; size];
        machine.cpu.ram.read(address, &mut bytes);
        changed.write(address, &bytes);
    }
    machine.execute(&[0xcb], 1); // retf
    assert_eq!((machine.at(), machine.cpu.ssp), ((0x1b, CODE + 2), ssp));
    changed.store(changed.cpu.ssp + 16, 8, 0x1_001b);
    changed.execute(&[0xcb], 1);
    assert_eq!(caught(&changed), (21, Code::FarRetIret as u64));
}

#[test]
fn an_interrupt_from_user_mode_takes_the_supervisors_shadow_stack_and_iret_gives_it_back() {
    let mut machine = user();
    let ssp = machine.cpu.ssp;
    let token = SHADOW + 0x3f8;
    machine.cpu.msrs.s_cet = STACKS;
    machine.cpu.msrs.pl_ssp[0] = token;
    machine.store(token, 8, token);
    machine.idt(0x20, 8, 0x9000, 0xee);
    machine.execute(&[0xcd, 0x20], 1); // int 0x20
    assert_eq!((machine.cpu.cpl, machine.cpu.ssp), (0, token));
    assert_eq!((machine.load(token, 8), machine.cpu.msrs.pl_ssp[3]), (token | 1, ssp));
    machine.execute(&IRETQ, 1);
    assert_eq!((machine.cpu.cpl, machine.cpu.ssp, machine.load(token, 8)), (3, ssp, token));
}

#[test]
fn a_busy_or_misplaced_token_is_a_general_protection_fault() {
    // A frame below the token must fit into its 32 bytes: so must a token at the end of such a region.
    for (token, value) in
        [(SHADOW + 0x3f8, (SHADOW + 0x3f8) | 1), (SHADOW + 0x3f8, 0), (SHADOW + 0x3f0, SHADOW + 0x3f0)]
    {
        let mut machine = user();
        machine.cpu.msrs.s_cet = STACKS;
        machine.cpu.msrs.pl_ssp[0] = token;
        machine.store(token, 8, value);
        machine.execute(&[0xcd, 0x20], 1);
        assert_eq!(machine.cpu.activity, Activity::Shutdown, "the fault's own delivery meets the same token");
        assert_eq!(machine.load(token, 8), value);
    }
}

#[test]
fn an_interrupt_at_the_same_level_pushes_a_frame_that_iret_checks() {
    let mut machine = kernel();
    let ssp = machine.cpu.ssp;
    machine.idt(0x20, 8, 0x9000, 0xee);
    machine.execute(&[0xcd, 0x20], 1);
    assert_eq!(machine.cpu.ssp, ssp - 24);
    assert_eq!([0, 8, 16].map(|n| machine.load(ssp - 24 + n, 8)), [ssp, CODE + 2, 8]);
    machine.execute(&IRETQ, 1);
    assert_eq!((machine.cpu.rip, machine.cpu.ssp), (CODE + 2, ssp));
    assert_eq!(machine.load(ssp, 8), ssp | 1, "the stack's own token stays busy");
    machine.cpu.rip = CODE;
    machine.steps(1);
    machine.store(machine.cpu.regs[4], 8, CODE + 3);
    machine.execute(&IRETQ, 1);
    assert_eq!(caught(&machine), (21, Code::FarRetIret as u64));
}

#[test]
fn an_interrupt_stack_has_a_shadow_stack_from_the_table() {
    let mut machine = kernel();
    let (ssp, token) = (machine.cpu.ssp, SHADOW_2 + 0x7f8);
    machine.cpu.msrs.interrupt_ssp_table = 0x5800;
    machine.store(0x5800 + 8 * 3, 8, token);
    machine.store(token, 8, token);
    machine.store(TSS + 0x24 + 8 * 2, 8, KERNEL_STACK);
    machine.idt(0x20, 8, 0x9000, 0xee);
    machine.store(crate::testing::IDT + 16 * 0x20 + 4, 1, 3);
    machine.execute(&[0xcd, 0x20], 1);
    assert_eq!((machine.cpu.ssp, machine.load(token, 8)), (token - 24, token | 1));
    assert_eq!([0, 8, 16].map(|n| machine.load(token - 24 + n, 8)), [ssp, CODE + 2, 8]);
    machine.execute(&IRETQ, 1);
    assert_eq!((machine.cpu.ssp, machine.load(token, 8)), (ssp, token), "the interrupt stack is free again");
}

#[test]
fn syscall_keeps_the_users_ssp_and_sysret_restores_it() {
    let mut machine = user();
    let ssp = machine.cpu.ssp;
    machine.cpu.efer |= Efer::SCE;
    machine.cpu.msrs.star = 0x0010_0008 << 32;
    machine.cpu.msrs.lstar = 0x9000;
    machine.cpu.msrs.s_cet = STACKS | TRACKING;
    machine.execute(&[0x0f, 0x05], 1);
    assert_eq!((machine.cpu.ssp, machine.cpu.msrs.pl_ssp[3]), (0, ssp));
    assert_eq!(machine.cpu.cet, CetCode::Waiting, "the entry point needs ENDBR64");
    machine.write(0x9000, &ENDBR64);
    machine.write(0x9004, &[0x48, 0x0f, 0x07]); // sysretq
    machine.steps(2);
    assert_eq!((machine.cpu.cpl, machine.cpu.ssp, machine.cpu.rip), (3, ssp, CODE + 2));
}

#[test]
fn switching_shadow_stacks_with_restore_tokens() {
    let mut machine = user();
    let (old, new) = (machine.cpu.ssp, USER_SHADOW + 0x400);
    machine.store(new - 8, 8, new | 1);
    machine.cpu.regs[0] = new - 8;
    machine.execute(&[0xf3, 0x0f, 0x01, 0x28], 1); // rstorssp [rax]
    assert_eq!((machine.cpu.ssp, machine.load(new - 8, 8)), (new - 8, old | 3));
    assert!(!machine.cpu.flags.cf());
    machine.execute(&[0xf3, 0x0f, 0x01, 0xea], 1); // saveprevssp
    assert_eq!((machine.cpu.ssp, machine.load(old - 8, 8)), (new, old | 1));
    machine.cpu.regs[0] = old - 8;
    machine.execute(&[0xf3, 0x0f, 0x01, 0x28], 1);
    assert_eq!(machine.cpu.ssp, old - 8);
    // A token of another place.
    machine.store(new - 8, 8, (new + 8) | 1);
    machine.cpu.regs[0] = new - 8;
    machine.execute(&[0xf3, 0x0f, 0x01, 0x28], 1);
    assert_eq!(caught(&machine), (21, Code::Rstorssp as u64));
}

#[test]
fn setssbsy_and_clrssbsy_mark_the_token() {
    let mut machine = kernel();
    let token = SHADOW_2 + 0x7f8;
    machine.store(token, 8, token);
    machine.cpu.msrs.pl_ssp[0] = token;
    machine.execute(&[0xf3, 0x0f, 0x01, 0xe8], 1); // setssbsy
    assert_eq!((machine.cpu.ssp, machine.load(token, 8)), (token, token | 1));
    machine.cpu.regs[0] = token;
    machine.execute(&[0xf3, 0x0f, 0xae, 0x30], 1); // clrssbsy [rax]
    assert_eq!((machine.cpu.ssp, machine.load(token, 8), machine.cpu.flags.cf()), (0, token, false));
    machine.execute(&[0xf3, 0x0f, 0xae, 0x30], 1);
    assert!(machine.cpu.flags.cf(), "it is free already");
    machine.store(token, 8, token | 1);
    machine.cpu.ssp = SHADOW + 0xff8;
    machine.execute(&[0xf3, 0x0f, 0x01, 0xe8], 1);
    assert_eq!(caught(&machine), (21, Code::Setssbsy as u64));
}

#[test]
fn incssp_and_rdssp() {
    let mut machine = user();
    let ssp = machine.cpu.ssp;
    machine.cpu.regs[0] = 0x102;
    machine.execute(&[0xf3, 0x48, 0x0f, 0xae, 0xe8], 1); // incsspq rax
    machine.execute(&[0xf3, 0x0f, 0xae, 0xe8], 1); // incsspd eax
    machine.execute(&[0xf3, 0x48, 0x0f, 0x1e, 0xc9], 1); // rdsspq rcx
    assert_eq!((machine.cpu.ssp, machine.cpu.regs[1]), (ssp + 16 + 8, ssp + 24));
    let mut machine = self::machine();
    machine.cpu.regs[1] = 5;
    machine.execute(&[0xf3, 0x48, 0x0f, 0x1e, 0xc9], 1);
    assert_eq!(machine.cpu.regs[1], 5, "a no-operation without shadow stacks");
    machine.execute(&[0xf3, 0x48, 0x0f, 0xae, 0xe8], 1);
    assert_eq!(caught(&machine).0, 6);
}

#[test]
fn wrss_needs_its_enable_and_wruss_stores_to_a_users_stack() {
    let mut machine = user();
    machine.cpu.regs[0] = USER_SHADOW;
    machine.write(CODE, &[0x48, 0x0f, 0x38, 0xf6, 0x00]); // wrssq [rax], rax
    machine.steps(1);
    assert_eq!(caught(&machine).0, 6);
    let mut machine = user();
    machine.cpu.msrs.u_cet |= CetControl::WR_SHSTK_EN;
    machine.cpu.regs[0] = USER_SHADOW;
    machine.execute(&[0x48, 0x0f, 0x38, 0xf6, 0x00], 1);
    assert_eq!(machine.load(USER_SHADOW, 8), USER_SHADOW);
    let mut machine = self::machine();
    machine.cpu.regs[0] = USER_SHADOW + 8;
    machine.execute(&[0x66, 0x48, 0x0f, 0x38, 0xf5, 0x00], 1); // wrussq [rax], rax
    assert_eq!(machine.load(USER_SHADOW + 8, 8), USER_SHADOW + 8);
    machine.cpu.regs[0] = SHADOW;
    machine.execute(&[0x66, 0x48, 0x0f, 0x38, 0xf5, 0x00], 1);
    assert_eq!(caught(&machine), (14, 0x47), "a user's store that met the supervisor's shadow stack");
}

#[test]
fn an_indirect_branch_must_lead_to_endbranch() {
    for (branch, cpl) in [(JMP_RAX, 3), (CALL_RAX, 3), (JMP_RAX, 0), (CALL_RAX, 0)] {
        let mut machine = tracked(cpl, 0);
        machine.write(CODE + 0x100, &ENDBR64);
        machine.execute(&branch, 2);
        assert_eq!((machine.cpu.rip, machine.cpu.cet), (CODE + 0x104, CetCode::On));
        for other in [[0x90, 0x90, 0x90, 0x90], ENDBR32, [0xff, 0xff, 0xff, 0xff]] {
            let mut machine = tracked(cpl, 0);
            machine.write(CODE + 0x100, &other);
            machine.execute(&branch, 2);
            assert_eq!(caught(&machine), (21, Code::EndBranch as u64));
            let control = if cpl == 3 { machine.cpu.msrs.u_cet } else { machine.cpu.msrs.s_cet };
            assert_ne!(control & CetControl::TRACKER, 0, "the tracker still waits");
        }
    }
}

#[test]
fn tracked_branches_are_checked_inside_a_run_too() {
    let mut machine = tracked(0, 0);
    // Two blocks that jump to each other for ever, until one loses its ENDBR64.
    machine.write(CODE, &ENDBR64);
    machine.write(CODE + 4, &[0x48, 0xff, 0xc1, 0xff, 0xe0]); // inc rcx; jmp rax
    machine.write(CODE + 0x100, &ENDBR64);
    machine.write(CODE + 0x104, &[0x48, 0x81, 0xf9, 100, 0, 0, 0]); // cmp rcx, 100
    machine.write(CODE + 0x10b, &[0x74, 0x02, 0xff, 0xe3]); // je over; jmp rbx
    machine.write(CODE + 0x10f, &[0x48, 0x8d, 0x05, 0xea, 0, 0, 0, 0xff, 0xe0]); // over: lea rax, [CODE + 0x200]; jmp rax
    machine.cpu.regs[3] = CODE;
    machine.write(HANDLERS + 16 * 21, &[0xf4]);
    machine.cpu.msrs.s_cet |= CetControl::SUPPRESS_DIS;
    let handler_needs_endbr = machine.run_to_halt(10_000);
    assert_eq!(handler_needs_endbr, Activity::Shutdown, "the handler has no ENDBR64 either");
    assert_eq!(machine.cpu.regs[1], 100);
}

#[test]
fn notrack_exempts_a_branch_where_it_is_enabled() {
    let notrack = [0x3e, 0xff, 0xe0]; // notrack jmp rax
    let mut machine = tracked(3, CetControl::NO_TRACK_EN);
    machine.write(CODE + 0x100, &[0x90]);
    machine.execute(&notrack, 2);
    assert_eq!(machine.cpu.rip, CODE + 0x101);
    let mut machine = tracked(3, 0);
    machine.execute(&notrack, 2);
    assert_eq!(caught(&machine), (21, Code::EndBranch as u64));
}

#[test]
fn int3_may_stand_for_endbranch() {
    let mut machine = tracked(3, 0);
    machine.write(CODE + 0x100, &[0xcc]);
    machine.execute(&JMP_RAX, 2);
    assert_eq!(caught(&machine).0, 3);
}

#[test]
fn suppression_ends_tracking_until_endbranch() {
    let mut machine = tracked(3, CetControl::SUPPRESS);
    machine.write(CODE + 0x100, &[0x90]);
    machine.execute(&JMP_RAX, 2);
    assert_eq!(machine.cpu.rip, CODE + 0x101);
    machine.execute(&ENDBR64, 1);
    assert_eq!(machine.cpu.msrs.u_cet & CetControl::SUPPRESS, 0);
}

#[test]
fn the_bitmap_allows_legacy_code_and_suppresses_tracking() {
    let bitmap = 0x5000;
    let mut machine = tracked(3, CetControl::LEG_IW_EN | bitmap);
    machine.store(bitmap + (CODE >> 15), 1, 1 << (CODE >> 12 & 7));
    machine.write(CODE + 0x100, &[0x90]);
    machine.execute(&JMP_RAX, 1);
    machine.steps(2);
    assert_eq!(machine.cpu.rip, CODE + 0x101);
    assert_ne!(machine.cpu.msrs.u_cet & CetControl::SUPPRESS, 0);
    let mut machine = tracked(3, CetControl::LEG_IW_EN | bitmap);
    machine.execute(&JMP_RAX, 2);
    assert_eq!(caught(&machine), (21, Code::EndBranch as u64));
}

#[test]
fn an_interrupt_between_branch_and_endbranch_leaves_the_users_tracker_waiting() {
    let mut machine = tracked(3, 0);
    machine.write(CODE + 0x100, &ENDBR64);
    machine.execute(&JMP_RAX, 1);
    machine.cpu.events.nmi = true;
    machine.steps(1);
    assert_eq!((machine.cpu.cpl, machine.cpu.cet), (0, CetCode::Off));
    machine.cpu.rip = 0x9000;
    machine.execute(&IRETQ, 1);
    assert_eq!((machine.cpu.rip, machine.cpu.cet), (CODE + 0x100, CetCode::Waiting));
}

#[test]
fn cr4_cet_and_cr0_wp_go_together() {
    let mut machine = machine();
    assert!(machine.cpu.write_cr0(machine.cpu.cr0 & !Cr0::WP).is_err());
    assert!(machine.cpu.write_cr4(machine.cpu.cr4 & !Cr4::CET).is_ok());
    assert!(machine.cpu.write_cr0(machine.cpu.cr0 & !Cr0::WP).is_ok());
    assert!(machine.cpu.write_cr4(machine.cpu.cr4 | Cr4::CET).is_err());
}

#[test]
fn msrs_refuse_what_is_reserved() {
    let cpu = &mut machine().cpu;
    assert!(!cpu.write_msr(msr::U_CET, 1 << 6) && !cpu.write_msr(msr::S_CET, 1 << 63));
    assert!(!cpu.write_msr(msr::U_CET, CetControl::SUPPRESS | CetControl::TRACKER));
    assert!(!cpu.write_msr(msr::PL0_SSP + 3, 2) && cpu.write_msr(msr::PL0_SSP + 3, 4));
    assert!(!cpu.write_msr(msr::INTERRUPT_SSP_TABLE_ADDR, 1 << 60));
    let mut without = Machine::long_with(Model::named("full,-ibt").unwrap());
    assert!(!without.cpu.write_msr(msr::U_CET, TRACKING) && without.cpu.write_msr(msr::U_CET, STACKS));
    let mut neither = Machine::long();
    assert!(neither.cpu.read_msr(msr::U_CET).is_none() && neither.cpu.read_msr(msr::PL0_SSP).is_none());
}

#[test]
fn xsaves_keeps_cet_state() {
    let mut machine = machine();
    let cpu = &mut machine.cpu;
    assert!(cpu.write_msr(msr::XSS, 0x1800) && !cpu.write_msr(msr::XSS, 0x100));
    (cpu.msrs.u_cet, cpu.msrs.pl_ssp) = (STACKS, [8, 16, 24, 32]);
    (cpu.regs[0], cpu.regs[2], cpu.regs[3]) = (0x1800, 0, 0x1_0000);
    machine.execute(&[0x0f, 0xc7, 0x2b], 1); // xsaves [rbx]
    assert_eq!((machine.load(0x1_0200, 8), machine.load(0x1_0208, 8)), (0x1800, 0x1800 | 1 << 63));
    let image: Vec<u64> = (0..5).map(|n| machine.load(0x1_0240 + 8 * n, 8)).collect();
    assert_eq!(image, [STACKS, 32, 8, 16, 24]);
    machine.store(0x1_0250, 8, 0x40);
    machine.execute(&[0x0f, 0xc7, 0x1b], 1); // xrstors [rbx]
    assert_eq!((machine.cpu.msrs.u_cet, machine.cpu.msrs.pl_ssp), (STACKS, [0x40, 16, 24, 32]));
    machine.store(0x1_0200, 8, 0x1000);
    machine.execute(&[0x0f, 0xc7, 0x1b], 1);
    assert_eq!((machine.cpu.msrs.u_cet, machine.cpu.msrs.pl_ssp[3]), (0, 0), "in its initial configuration");
    machine.store(0x1_0250, 8, 1);
    machine.execute(&[0x0f, 0xc7, 0x1b], 1);
    assert_eq!(caught(&machine).0, 13, "an SSP that WRMSR would refuse");
}

#[test]
fn a_call_gate_changes_shadow_stacks_with_the_level() {
    let mut machine = user();
    let (ssp, token) = (machine.cpu.ssp, SHADOW + 0x3f8);
    machine.cpu.msrs.s_cet = STACKS;
    machine.cpu.msrs.pl_ssp[0] = token;
    machine.store(token, 8, token);
    machine.store(crate::testing::GDT + 0x48, 8, 0x9000 | 8 << 16 | 0xec << 40);
    machine.store(crate::testing::GDT + 0x50, 8, 0);
    machine.cpu.gdtr = TableRegister { base: crate::testing::GDT, limit: 0x57 };
    machine.write(0x5000, &[0, 0, 0, 0, 0x4b, 0]);
    machine.cpu.regs[0] = 0x5000;
    machine.execute(&[0xff, 0x18], 1);
    assert_eq!((machine.cpu.cpl, machine.cpu.ssp, machine.load(token, 8)), (0, token, token | 1));
    machine.execute(&[0x48, 0xcb], 1); // retfq
    assert_eq!((machine.cpu.cpl, machine.cpu.ssp, machine.load(token, 8)), (3, ssp, token));
    assert_eq!(machine.at(), (0x1b, CODE + 2));
}

#[test]
fn a_far_jump_to_compatibility_code_needs_ssp_below_4_gib() {
    let mut machine = user();
    machine.cpu.ssp = 1 << 32;
    machine.write(0x5000, &[0, 0x90, 0, 0, 0x2b, 0]);
    machine.cpu.regs[0] = 0x5000;
    machine.execute(&[0xff, 0x28], 1); // jmp far [rax]
    assert_eq!(caught(&machine), (13, 0));
}

#[test]
fn task_switches_use_the_tss_shadow_stack_pointer() {
    let mut machine = Machine::with_model(Model::named("full").unwrap());
    let (first, second) = (0x4000, 0x4100);
    let (code, data) = (0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff);
    machine.gdt(&[
        0,
        code,
        data,
        Machine::tss_descriptor(first, 0x6b, 0x8b),
        Machine::tss_descriptor(second, 0x6b, 0x89),
    ]);
    machine.cpu.cr0 |= 1 | Cr0::WP;
    machine.flat(0);
    machine.cpu.tr = Segment { selector: 0x18, base: first, limit: 0x6b, access: 0x8b };
    machine.cpu.cr4 |= Cr4::CET;
    assert!(machine.cpu.write_msr(msr::S_CET, STACKS));
    machine.cpu.ssp = 0x1_0ff8;
    machine.store(0x1_0ff8, 8, 0x1_0ff9);
    machine.store(0x1_1ff8, 8, 0x1_1ff8);
    for (offset, value) in
        [(0x20, 0x9000), (0x24, 2), (0x38, 0x7800), (0x48, 0x10), (0x4c, 8), (0x50, 0x10), (0x68, 0x1_1ff8)]
    {
        machine.store(second + offset, 4, value);
    }
    machine.execute(&[0x9a, 0, 0, 0, 0, 0x20, 0], 1); // call 0x20:0
    assert_eq!((machine.at(), machine.cpu.ssp), ((8, 0x9000), 0x1_1ff8 - 24));
    assert_eq!(machine.load(0x1_1ff8, 8), 0x1_1ff9);
    assert_eq!([0, 8, 16].map(|n| machine.load(0x1_1fe0 + n, 8)), [0x1_0ff8, CODE + 7, 8]);
    machine.execute(&[0xcf], 1); // iret, NT set
    assert_eq!((machine.at(), machine.cpu.ssp), ((8, CODE + 7), 0x1_0ff8));
    assert_eq!(machine.load(0x1_1ff8, 8), 0x1_1ff8, "the called task's stack is free");
}

//! UMWAIT and TPAUSE, bus locks and IA32_SPEC_CTRL under their controls.

use super::{CPUID, GUEST_RIP, Host, NOP};
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{
    EntryControls, ExitReason, PendingDebug, PrimaryControls as Primary, SecondaryControls as Secondary,
    TertiaryControls as Tertiary, VmcsField as F,
};
use spec::x86::debug::{DebugCtl, Dr6};

/// TPAUSE ECX, then CPUID.
const TPAUSE: &[u8] = &[0x66, 0x0f, 0xae, 0xf1, 0x0f, 0xa2];
/// UMWAIT EBX.
const UMWAIT: &[u8] = &[0xf2, 0x0f, 0xae, 0xf3];

fn host() -> Host {
    Host::of_model("full")
}

#[test]
fn user_wait_is_undefined_without_its_control_and_exits_as_rdtsc_does() {
    let mut host = host();
    host.set(F::EXCEPTION_BITMAP, 1 << 6);
    host.add(F::PRIMARY_CONTROLS, Primary::RDTSC_EXITING);
    assert_eq!(host.enter(TPAUSE, 5), Some(ExitReason::ExceptionOrNmi));
    host.add(F::SECONDARY_CONTROLS, Secondary::ENABLE_USER_WAIT);
    assert_eq!(host.enter(TPAUSE, 5), Some(ExitReason::Tpause));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::EXIT_INSTRUCTION_LENGTH)), (0, 4));
    assert_eq!(host.get(F::EXIT_INSTRUCTION_INFO), 1 << 3 | 1 << 11, "ECX, 32 bits");
    // umonitor rdi; umwait ebx
    host.machine.cpu.regs[7] = 0x6000;
    let code = [&[0xf3, 0x0f, 0xae, 0xf7], UMWAIT].concat();
    assert_eq!(host.enter(&code, 5), Some(ExitReason::Umwait));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::EXIT_INSTRUCTION_INFO)), (1, 3 << 3 | 1 << 11));
}

#[test]
fn a_scaled_deadline_is_the_guests() {
    let mut host = host();
    host.add(F::PRIMARY_CONTROLS, Primary::USE_TSC_OFFSETTING);
    host.add(F::SECONDARY_CONTROLS, Secondary::ENABLE_USER_WAIT | Secondary::USE_TSC_SCALING);
    host.set(F::TSC_MULTIPLIER, 1 << 50);
    // rdtsc; add eax, 8000; xor ecx, ecx; tpause ecx; cpuid
    let code = [&[0x0f, 0x31, 0x05, 0x40, 0x1f, 0, 0, 0x31, 0xc9], TPAUSE].concat();
    assert_eq!(host.enter(&code, 5), None);
    // 8000 virtual ticks are 2000 real ones, 1000 ns.
    let left = host.machine.cpu.next_deadline() - host.machine.cpu.now();
    assert!((980..=1000).contains(&left), "{left}");
    host.machine.cpu.idle_time += left;
    host.machine.steps(3);
    assert_eq!(host.get(F::EXIT_REASON), ExitReason::Cpuid as u64);
}

/// LOCK INC dword [RDI] and two NOPs.
const LOCKED: &[u8] = &[0xf0, 0xff, 0x07, NOP, NOP, 0x0f, 0xa2];

#[test]
fn a_locked_access_across_a_line_exits_after_it() {
    let mut host = host();
    host.add(F::SECONDARY_CONTROLS, Secondary::BUS_LOCK_DETECTION);
    host.machine.cpu.regs[7] = 0x6000 - 3;
    assert_eq!(host.enter(LOCKED, 5), Some(ExitReason::BusLock));
    assert_eq!((host.get(F::EXIT_REASON), host.get(F::GUEST_RIP)), (74, GUEST_RIP + 3));
    assert_eq!(host.machine.load(0x6000 - 3, 4), 1, "it is done");
    for (rdi, code) in [(0x6000 - 4, LOCKED), (0x6000 - 3, &[0xff, 0x07, 0x0f, 0xa2])] {
        host.machine.cpu.regs[7] = rdi;
        host.set(F::GUEST_RIP, GUEST_RIP + 0x40);
        assert_eq!(host.enter(code, 9), Some(ExitReason::Cpuid), "within a line, or not locked");
    }
    // xchg [rdi], eax needs no prefix; lock bts [rdi], eax reaches as far as the bit number says.
    for (rdi, rax, code) in [(0x6000 - 3, 0, &[0x87, 0x07][..]), (0x6000 - 0x23, 0x100, &[0xf0, 0x0f, 0xab, 0x07])] {
        (host.machine.cpu.regs[7], host.machine.cpu.regs[0]) = (rdi, rax);
        host.set(F::GUEST_RIP, GUEST_RIP + 0x80);
        assert_eq!(host.enter(code, 5), Some(ExitReason::BusLock));
    }
}

#[test]
fn another_exit_tells_of_the_bus_lock_before_it() {
    let mut host = host();
    host.add(F::PRIMARY_CONTROLS, Primary::MONITOR_TRAP_FLAG);
    host.add(F::SECONDARY_CONTROLS, Secondary::BUS_LOCK_DETECTION);
    host.machine.cpu.regs[7] = 0x6000 - 3;
    assert_eq!(host.enter(LOCKED, 5), Some(ExitReason::MonitorTrapFlag));
    let locked = u64::from(exit_reason_flags::BUS_LOCK);
    assert_eq!(host.get(F::EXIT_REASON), locked | ExitReason::MonitorTrapFlag as u64);
    assert_eq!(host.resume(5), Some(ExitReason::MonitorTrapFlag));
    assert_eq!(host.get(F::EXIT_REASON), ExitReason::MonitorTrapFlag as u64, "once");
}

#[test]
fn a_guest_sees_its_shadow_of_spec_ctrl() {
    const SPEC_CTRL: u64 = 0x48;
    let mut host = host();
    host.add(F::PRIMARY_CONTROLS, Primary::ACTIVATE_TERTIARY_CONTROLS | Primary::USE_MSR_BITMAPS);
    host.set(F::MSR_BITMAPS, 0x4_2000);
    host.set(F::TERTIARY_CONTROLS, Tertiary::VIRTUALIZE_SPEC_CTRL);
    host.set(F::SPEC_CTRL_MASK, 1);
    host.set(F::SPEC_CTRL_SHADOW, 2);
    host.machine.cpu.msrs.spec_ctrl = 1;
    host.machine.cpu.regs[1] = SPEC_CTRL;
    // rdmsr; mov esi, eax; mov eax, 2; xor edx, edx; wrmsr; cpuid
    let code = [&[0x0f, 0x32, 0x89, 0xc6, 0xb8, 2, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x30], CPUID].concat();
    host.set(F::SPEC_CTRL_SHADOW, 0);
    assert_eq!(host.enter(&code, 10), Some(ExitReason::Cpuid));
    assert_eq!((host.machine.cpu.regs[6], host.get(F::SPEC_CTRL_SHADOW)), (0, 2));
    assert_eq!(host.machine.cpu.msrs.spec_ctrl, 3, "the bit in the mask stays");
    // A reserved bit faults unless the mask has it.
    let code = [&[0xb8, 0, 1, 0, 0, 0x31, 0xd2, 0x0f, 0x30], CPUID].concat();
    host.set(F::EXCEPTION_BITMAP, 1 << 13);
    for (mask, reason, shadow) in [(1, ExitReason::ExceptionOrNmi, 2), (0x101, ExitReason::Cpuid, 0x100)] {
        host.set(F::SPEC_CTRL_MASK, mask);
        host.set(F::GUEST_RIP, GUEST_RIP + 0x40);
        assert_eq!((host.enter(&code, 10), host.get(F::SPEC_CTRL_SHADOW)), (Some(reason), shadow));
    }
}

/// Enters a guest at privilege level 3 that has bus-lock detection on.
fn lock_in_user_mode(host: &mut Host) -> Option<ExitReason> {
    host.machine.cpu.regs[7] = 0x6000 - 3;
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_DEBUG_CONTROLS);
    host.set(F::GUEST_DEBUGCTL, DebugCtl::BLD);
    host.set(F::GUEST_DR7, 0x400);
    host.set(F::GUEST_CS_SELECTOR, 0x1b);
    host.set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb);
    host.set(F::GUEST_SS_SELECTOR, 0x23);
    host.set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3);
    host.enter(LOCKED, 5)
}

#[test]
fn a_debug_exception_for_a_bus_lock_exits() {
    let mut host = host();
    host.set(F::EXCEPTION_BITMAP, 1 << 1);
    assert_eq!(lock_in_user_mode(&mut host), Some(ExitReason::ExceptionOrNmi));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_RIP)), (Dr6::BLD, GUEST_RIP + 3));
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), 0x8000_0301);
}

#[test]
fn a_debug_exception_for_a_bus_lock_pends_over_an_exit_and_an_entry() {
    let mut host = host();
    host.add(F::SECONDARY_CONTROLS, Secondary::BUS_LOCK_DETECTION);
    assert_eq!(lock_in_user_mode(&mut host), Some(ExitReason::BusLock));
    let pending = PendingDebug::BLD | PendingDebug::ENABLED_BREAKPOINT;
    assert_eq!((host.get(F::GUEST_PENDING_DEBUG), host.get(F::GUEST_DEBUGCTL)), (pending, DebugCtl::BLD));
    host.set(F::EXCEPTION_BITMAP, 1 << 1);
    assert_eq!(host.resume(5), Some(ExitReason::ExceptionOrNmi));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_RIP)), (Dr6::BLD, GUEST_RIP + 3));
}

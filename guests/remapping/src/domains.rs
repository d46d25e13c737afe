//! Protection, devices with narrow addresses, isolation, and the trust that device TLBs ask for.

use crate::tester::{Program, Tester};
use crate::unit::{Domain, Mode, Unit};
use crate::{Verdict, expect};
use bare::{cpu, device, memory, vmx};
use spec::dma_tester::{Control, ENGINES, Failure, Flags, START, engine, engine_register, register};
use spec::vtd::registers::FaultStatus;
use spec::vtd::{FaultReason, FaultRecord};

/// Where this program, the kernel of the tests, begins.
const KERNEL: u64 = 0x10_0000;
/// The address at which domains have their page.
const BUFFER: u64 = 0x5000;
const PATTERN: u64 = 0x0807_0605_0403_0201;

fn fill(to: u64, length: u32) -> Program {
    Program { from: PATTERN, flags: Flags::FILL, ..Program::copy(0, to, length) }
}

fn same(one: u64, other: u64) -> bool {
    (0..memory::PAGE).step_by(8).all(|at| memory::read(one + at) == memory::read(other + at))
}

/// A domain for the function with a new page at [`BUFFER`].
fn domain(unit: &mut Unit, tester: &Tester, number: u16) -> Result<(Domain, u64), &'static str> {
    let domain = unit.new_domain(tester.source, number)?;
    let page = memory::take_pages(1);
    unit.map(&domain, BUFFER, page);
    Ok((domain, page))
}

/// The reason for which an address is blocked that a domain does not map.
fn unmapped(unit: &Unit) -> FaultReason {
    match unit.mode {
        Mode::Legacy => FaultReason::WriteNotPermitted,
        Mode::Scalable => FaultReason::SecondStageNotPresent,
    }
}

/// The write at `address` was stopped and reported.
fn is_blocked(unit: &Unit, tester: &Tester, address: u64) -> Verdict {
    let fault = FaultRecord { code: unmapped(unit) as u8, source: tester.source, address, write: true };
    expect(unit.hardware.take_fault() == Some(fault), "the fault is not reported as it was")
}

/// A device told to write over the kernel.
///
/// # Errors
/// What is wrong.
pub fn protection(unit: &mut Unit, tester: &Tester) -> Verdict {
    let (_, page) = domain(unit, tester, 1)?;
    expect(tester.run(&fill(BUFFER + 8, 16))? == 0, "the device does not reach its own page")?;
    expect(memory::read(page + 8) == PATTERN && memory::read(page) == 0, "the page has something else")?;
    let (before, after) = (memory::take_pages(1), memory::take_pages(1));
    memory::copy_code(before, KERNEL, memory::PAGE);
    expect(tester.run(&fill(KERNEL, 4096))? == Failure::Write as u32, "a write over the kernel passes")?;
    is_blocked(unit, tester, KERNEL)?;
    memory::copy_code(after, KERNEL, memory::PAGE);
    expect(same(before, after), "the kernel is harmed")?;
    // Nor does a transfer go on beyond its page.
    expect(tester.run(&fill(BUFFER + 0xff8, 16))? == Failure::Write as u32, "a write beyond the page passes")?;
    expect(tester.engine(0, engine::MOVED) == 8, "another part was moved")?;
    is_blocked(unit, tester, BUFFER + 0x1000)
}

/// A device with addresses of 32 bits reaches memory above 4 GiB where its domain has it.
///
/// # Errors
/// What is wrong.
pub fn narrow_addresses(unit: &mut Unit, tester: &Tester) -> Verdict {
    const HIGH: u64 = 0x1_0012_3000;
    let (domain, _) = domain(unit, tester, 1)?;
    unit.map(&domain, 0xf000_0000, HIGH);
    unit.map(&domain, 0xf000_1000, HIGH + 0x1000);
    tester.set_narrow(true);
    let result = tester.run(&fill(0x7_f000_0ffc, 8));
    tester.set_narrow(false);
    expect(result? == 0, "the device does not reach its pages")?;
    let tables = cpu::read_cr3();
    cpu::write_cr3(tables_with_high_memory());
    let (first, second) = (device::read32(HIGH + 0xffc), device::read32(HIGH + 0x1000));
    device::write64(HIGH + 0xff8, 0);
    device::write64(HIGH + 0x1000, 0);
    cpu::write_cr3(tables);
    expect(u64::from(second) << 32 | u64::from(first) == PATTERN, "the bytes are not above 4 GiB")
}

/// This program's page tables with the 2 MiB from 4 GiB on as well.
fn tables_with_high_memory() -> u64 {
    let [top, upper, high] = [(); 3].map(|()| memory::take_pages(1));
    memory::write(top, upper | 7);
    for n in 0..4 {
        memory::write(upper + 8 * n, (vmx::page_tables() + (2 + n) * memory::PAGE) | 7);
    }
    memory::write(upper + 8 * 4, high | 7);
    // A page of 2 MiB.
    memory::write(high, 1 << 32 | 0x83);
    top
}

/// Two devices in two domains, one of which goes wild.
///
/// # Errors
/// What is wrong.
pub fn isolation(unit: &mut Unit, one: &Tester, two: &Tester) -> Verdict {
    let (_, first) = domain(unit, one, 1)?;
    let (other, second) = domain(unit, two, 2)?;
    let more = memory::take_pages(1);
    unit.map(&other, BUFFER + 0x1000, more);
    expect(one.run(&fill(BUFFER, 8))? == 0, "the first does not reach its page")?;
    expect(memory::read(first) == PATTERN && memory::read(second) == 0, "the first reaches the second's page")?;
    expect(one.run(&fill(BUFFER + 0x1000, 8))? == Failure::Write as u32, "the first has a page of the second")?;
    is_blocked(unit, one, BUFFER + 0x1000)?;
    // Every engine of the first writes and copies about, while the second works.
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    memory::fill(more, 0x5a);
    for n in 0..ENGINES as u64 {
        let wild = Program {
            from: next() & 0xffff_ffff,
            flags: next() as u32 & 0x41,
            ..Program::copy(0, next() & 0xff_ffff, 0x1_0000)
        };
        one.start(n, &wild, 4, 0);
    }
    let work = Program::copy(BUFFER + 0x1000, BUFFER, 4096);
    expect(two.run(&work)? == 0, "the second cannot work")?;
    for n in 0..ENGINES as u64 {
        one.wait(n, || ())?;
    }
    unit.hardware.forget_faults();
    expect(same(second, more), "the second's page is harmed")
}

/// Addresses that a device calls translated are believed where the tables say so, and its TLB is what it was until it is invalidated.
///
/// # Errors
/// What is wrong.
pub fn translated_addresses(unit: &mut Unit, tester: &Tester) -> Verdict {
    let (domain, page) = domain(unit, tester, 1)?;
    let other = memory::take_pages(1);
    let trusted = Program { flags: Flags::FILL | Flags::TRUSTED, ..fill(page, 8) };
    expect(tester.run(&trusted)? == Failure::Write as u32, "an address is believed to be translated")?;
    let reason = match unit.mode {
        Mode::Legacy => FaultReason::RequestTypeBlocked,
        Mode::Scalable => FaultReason::DeviceTlbNotEnabled,
    };
    expect(unit.hardware.take_fault().is_some_and(|fault| fault.reason() == Some(reason)), "another fault")?;
    expect(memory::read(page) == 0, "the page is harmed")?;
    unit.allow_device_tlb(tester.source, true)?;
    let translated = Program { flags: Flags::FILL | Flags::TRANSLATE, ..fill(BUFFER, 8) };
    expect(tester.run(&translated)? == 0, "the device TLB gets no translation")?;
    expect(memory::read(page) == PATTERN, "the translation leads elsewhere")?;
    // The domain has another page there now, and the unit knows; the device does not.
    unit.map(&domain, BUFFER, other);
    unit.forget_everything()?;
    memory::write(page, 0);
    expect(tester.run(&translated)? == 0 && memory::read(page) == PATTERN, "the device TLB keeps nothing")?;
    unit.submit_device_invalidation(tester.source, None);
    unit.hardware.wait()?;
    expect(tester.run(&translated)? == 0 && memory::read(other) == PATTERN, "the device TLB is not invalidated")?;
    // A page that is not there is no fault of a device that asks first.
    unit.submit_device_invalidation(tester.source, None);
    unit.unmap(&domain, BUFFER);
    unit.forget_everything()?;
    expect(tester.run(&translated)? == Failure::NoPermission as u32, "a page that is not there is translated")?;
    expect(unit.hardware.take_fault().is_none(), "a recoverable fault is reported")
}

/// Invalidations wait for their device, for some time.
///
/// # Errors
/// What is wrong.
pub fn silent_function(unit: &mut Unit, tester: &Tester) -> Verdict {
    domain(unit, tester, 1)?;
    unit.allow_device_tlb(tester.source, true)?;
    tester.write(register::CONTROL, Control::HOLD);
    unit.submit_device_invalidation(tester.source, None);
    let waited = unit.hardware.submit_wait();
    expect(!unit.hardware.is_complete(waited), "the wait does not wait")?;
    tester.write(register::COMPLETE, 1);
    expect(unit.hardware.is_complete(waited), "the wait is not complete when the device is")?;
    unit.submit_device_invalidation(tester.source, None);
    let aborted = unit.hardware.submit_wait();
    let start = cpu::timestamp();
    while unit.hardware.fault_status() & FaultStatus::TIMEOUT_ERROR == 0 {
        if cpu::timestamp().wrapping_sub(start) > 100_000_000 {
            return Err("the device's time is never over");
        }
    }
    expect(unit.silent_source() == tester.source, "another device is named")?;
    expect(!unit.hardware.is_complete(aborted), "the wait is complete")?;
    tester.write(register::CONTROL, 0);
    unit.hardware.clear_fault_status(FaultStatus::TIMEOUT_ERROR);
    unit.hardware.wait()?;
    // What comes too late is an error of its own.
    tester.write(register::COMPLETE, 1);
    expect(unit.hardware.fault_status() & FaultStatus::COMPLETION_ERROR != 0, "a late completion is no error")?;
    unit.hardware.clear_fault_status(FaultStatus::COMPLETION_ERROR);
    Ok(())
}

/// Writes to another device's registers pass where the domain has them.
///
/// # Errors
/// What is wrong.
pub fn peer_to_peer(unit: &mut Unit, one: &Tester, two: &Tester) -> Verdict {
    let (domain, _) = domain(unit, one, 1)?;
    two.start(3, &Program::copy(0, 0, 0), 1, 0);
    two.wait(3, || ())?;
    let at = two.address(engine_register(3, engine::SOURCE));
    expect(one.run(&fill(at, 8))? == Failure::Write as u32, "registers outside the domain are written")?;
    is_blocked(unit, one, at & !0xfff)?;
    expect(two.engine(3, engine::SOURCE) == 0, "the other device is changed")?;
    unit.map(&domain, at & !0xfff, at & !0xfff);
    expect(one.run(&fill(at, 8))? == 0, "registers in the domain are not written")?;
    expect(two.engine(3, engine::SOURCE) == PATTERN as u32, "the other device is not changed")?;
    // An engine of the other device that is started by a device.
    let mut start = fill(two.address(engine_register(3, engine::COMMAND)), 4);
    start.from = START.into();
    expect(one.run(&start)? == 0, "the command is not written")?;
    two.wait(3, || ()).map(|_| ())
}

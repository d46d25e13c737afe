//! Shared virtual memory: a function uses a process's page tables, and its page faults are answered.

use crate::tester::{Program, Tester};
use crate::unit::{PAGE_VECTOR, Request, Unit, entry};
use crate::{Verdict, expect};
use bare::{cpu, device, exceptions, memory, vmx};
use spec::dma_tester::{Failure, Flags, register};
use spec::vtd::page_requests::response;
use spec::vtd::registers::page_queue;

/// The process's PASID.
const PASID: u32 = 5;
/// The domain of first-stage translations.
const DOMAIN: u16 = 9;
/// Where the process has its memory.
const HEAP: u64 = 0x7f12_3450_0000;
/// Present, read/write, user.
const USER: u64 = 7;

/// An address space: page tables that the processor uses as well.
struct Process {
    top: u64,
}

impl Process {
    fn new() -> Process {
        let top = memory::take_pages(1);
        // The first entry of the program's own top table leads to all that it has: for the supervisor.
        memory::write(top, (vmx::page_tables() + memory::PAGE) | 3);
        Process { top }
    }

    fn map(&self, address: u64) {
        memory::write(entry(self.top, address, USER), memory::take_pages(1) | USER);
    }

    fn unmap(&self, address: u64) {
        memory::write(entry(self.top, address, USER), 0);
    }

    /// Does something in the address space.
    fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        let tables = cpu::read_cr3();
        cpu::write_cr3(self.top);
        let result = act();
        cpu::write_cr3(tables);
        result
    }
}

/// A process that the function may share memory with.
fn process(unit: &mut Unit, tester: &Tester) -> Result<Process, &'static str> {
    unit.new_domain(tester.source, 1)?;
    let process = Process::new();
    unit.bind(tester.source, PASID, DOMAIN, process.top)?;
    unit.allow_device_tlb(tester.source, true)?;
    Ok(process)
}

fn program(from: u64, to: u64, length: u32) -> Program {
    Program { pasid: Some(PASID), flags: Flags::TRANSLATE | Flags::ASK, ..Program::copy(from, to, length) }
}

/// Takes page requests, and answers them by what `answer` says.
fn serve(unit: &mut Unit, mut answer: impl FnMut(&Request) -> u8) -> Result<u32, &'static str> {
    let mut count = 0;
    while let Some(request) = unit.take_request() {
        // Its event is taken before the next one can come.
        cpu::admit_interrupts();
        let code = answer(&request);
        unit.respond(&request, code)?;
        count += 1;
    }
    Ok(count)
}

/// A function copies within a process's memory, whose pages come when they are asked for.
///
/// # Errors
/// What is wrong.
pub fn shared_memory(unit: &mut Unit, tester: &Tester) -> Verdict {
    const TO: u64 = HEAP + 0x10_0000;
    let process = process(unit, tester)?;
    // The source is there, of the target nothing is.
    (0..3).for_each(|page| process.map(HEAP + page * memory::PAGE));
    process.enter(|| (0..0x3000 / 8).for_each(|n| device::write64(HEAP + 8 * n, n * 0x0101_0101)));
    let before = exceptions::interrupts(PAGE_VECTOR);
    tester.start(0, &program(HEAP + 0x80, TO + 0x80, 0x2800), 1, 0);
    let (mut pages, mut verdict) = (0, Ok(()));
    let failure = tester.wait(0, || {
        let result = serve(unit, |request| {
            process.map(request.address);
            let right = request.pasid == PASID && request.source == tester.source && request.write;
            if right { response::SUCCESS } else { response::INVALID }
        });
        match result {
            Ok(count) => pages += count,
            Err(why) => verdict = Err(why),
        }
    })?;
    verdict?;
    expect(failure == 0, "the copy fails")?;
    expect(pages == 3, "not three pages were asked for")?;
    expect(exceptions::interrupts(PAGE_VECTOR) - before == 3, "not three events came")?;
    let same = process.enter(|| {
        (0x10..0x510).all(|n| device::read64(TO + 8 * n) == n * 0x0101_0101) && device::read64(TO + 8 * 0x510) == 0
    });
    expect(same, "the process sees something else")?;
    // The kernel's part of the address space is none of a user request's.
    let kernel = Program { flags: Flags::TRANSLATE, ..program(HEAP, 0x10_0000, 8) };
    expect(tester.run(&kernel)? == Failure::NoPermission as u32, "a user request reaches the kernel")?;
    let kernel = Program { flags: 0, ..kernel };
    expect(tester.run(&kernel)? == Failure::Write as u32, "an untranslated user request reaches the kernel")?;
    unit.hardware.forget_faults();
    // A page that is taken away is taken away from the function when both have been told.
    process.unmap(HEAP);
    let again = Program { flags: Flags::TRANSLATE, ..program(HEAP, TO, 8) };
    expect(tester.run(&again)? == 0, "nothing kept the page")?;
    unit.forget_pasid(DOMAIN, PASID)?;
    unit.submit_device_invalidation(tester.source, Some(PASID));
    unit.hardware.wait()?;
    expect(tester.run(&again)? == Failure::NoPermission as u32, "the page is still there")
}

/// A process has no memory at the address.
///
/// # Errors
/// What is wrong.
pub fn refused_page(unit: &mut Unit, tester: &Tester) -> Verdict {
    let process = process(unit, tester)?;
    process.map(HEAP);
    for (code, failure) in [
        (response::INVALID, Failure::PageInvalid),
        (response::FAILURE, Failure::PageFailure),
        // Promised, and never there.
        (response::SUCCESS, Failure::TooManyAttempts),
    ] {
        tester.start(0, &program(HEAP, HEAP + 0x20_0000, 8), 1, 0);
        let mut verdict = Ok(0);
        let found = tester.wait(0, || {
            verdict = verdict.and(serve(unit, |_| code));
        })?;
        verdict?;
        expect(found == failure as u32, "the function takes the answer for another")?;
    }
    cpu::admit_interrupts();
    Ok(())
}

/// Page requests that find no room are made again.
///
/// # Errors
/// What is wrong.
pub fn full_queue(unit: &mut Unit, tester: &Tester) -> Verdict {
    let process = process(unit, tester)?;
    process.map(HEAP);
    // 127 requests fit: each engine makes one, and gives up.
    let asked = tester.read(register::PAGE_REQUESTS);
    let mut last = 0;
    while unit.page_status() & page_queue::OVERFLOW == 0 {
        let n = last % 15;
        tester.start(n, &program(HEAP, HEAP + 0x30_0000 + (last << 12), 8), 1, 0);
        while tester.read(register::PAGE_REQUESTS) - asked == last as u32 {}
        last += 1;
        expect(last <= 128, "the queue has no end")?;
    }
    expect(last == 128, "the queue is full too early")?;
    // The last one was told to try again, so often that it has given up; what is in the queue is for engines that were stopped.
    let n = (last - 1) % 15;
    expect(tester.wait(n, || ())? == Failure::TooManyAttempts as u32, "the function does not try again")?;
    let mut count = 0;
    while unit.take_request().is_some() {
        count += 1;
    }
    expect(count == 127, "requests are lost")?;
    unit.clear_page_status(page_queue::OVERFLOW);
    tester.start(0, &program(HEAP, HEAP + 0x20_0000, 8), 1, 0);
    let mut verdict = Ok(0);
    let failure = tester.wait(0, || {
        verdict = verdict.and(serve(unit, |request| {
            process.map(request.address);
            response::SUCCESS
        }));
    })?;
    verdict?;
    cpu::admit_interrupts();
    expect(failure == 0, "there is no page after an overflow")
}

//! A guest that has the machine's `edu` function for itself: it moves pages both ways by its DMA and takes its interrupts. Words on the command
//! line: a number, of interrupts; "wild": it directs the function at all memory that is not its own and has it send interrupts of its own
//! making; "crash": it ends by a triple fault the first time, with the function at work.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

use bare::{cpu, device, exceptions, memory, multiboot, pci, println};
use spec::pci::capability::id;
use spec::pci::config::{self, Command};
use spec::pci::message::{MessageAddress, MsiControl, msi};

bare::program!(run, "`vanderpool run` runs it");

const EDU: u32 = 0x11e8_1234;
const VECTOR: u8 = 0x50;
const INTERRUPTS: u32 = 1000;
/// Time-stamp counts that anything may take.
const PATIENCE: u64 = 100_000_000;

/// Registers and what is written to them (QEMU's docs/specs/edu).
const IDENTIFICATION: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;
const INTERRUPT: u64 = 4;
const BUFFER: u64 = 0x4_0000;

/// A byte of the clock's memory, which a reset keeps.
const STARTS: u8 = 0x50;

struct Edu {
    function: pci::Function,
    base: u64,
}

fn fail(why: &str) -> ! {
    println!("FAIL: {why}");
    cpu::end(1)
}

fn wait(why: &str, mut is_so: impl FnMut() -> bool) {
    let start = cpu::timestamp();
    while !is_so() {
        if cpu::timestamp().wrapping_sub(start) > PATIENCE {
            fail(why);
        }
    }
}

impl Edu {
    fn find() -> Self {
        let found = pci::Function::all().find(|function| function.config_read(config::VENDOR_ID, 4) == EDU);
        let Some(function) = found else { fail("there is no edu") };
        let base = function.config_read(config::BAR0, 4) & !0xf;
        function.config_write(config::COMMAND, 2, u32::from(Command::MEMORY | Command::BUS_MASTER));
        Self { function, base: base.into() }
    }

    fn read(&self, register: u64) -> u32 {
        device::read32(self.base + register)
    }

    fn write(&self, register: u64, value: u32) {
        device::write32(self.base + register, value);
    }

    /// Messages to the local APIC of the first processor.
    fn enable_messages(&self) {
        let mut at = self.function.config_read(config::CAPABILITIES, 1) as u16;
        while self.function.config_read(at, 1) != id::MSI.into() {
            at = self.function.config_read(at + 1, 1) as u16;
            if at == 0 {
                fail("it has no MSI");
            }
        }
        self.function.config_write(at + msi::ADDRESS, 4, 0xfee0_0000);
        self.function.config_write(at + msi::ADDRESS_HIGH, 4, 0);
        self.function.config_write(at + msi::DATA_64, 2, VECTOR.into());
        self.function.config_write(at + msi::CONTROL, 2, MsiControl::ENABLE.into());
        if self.function.config_read(at + msi::ADDRESS, 4) != 0xfee0_0000 {
            fail("the message is not as it was written");
        }
    }

    /// Starts a transfer of `count` bytes.
    fn start(&self, source: u64, destination: u64, count: u32, command: u64) {
        device::write64(self.base + SOURCE, source);
        device::write64(self.base + DESTINATION, destination);
        self.write(COUNT, count);
        self.write(COMMAND, (command | RUN) as u32);
    }

    fn wait(&self) {
        wait("a transfer has no end", || self.read(COMMAND) & RUN as u32 == 0);
    }

    /// A transfer whose end an interrupt tells.
    fn transfer(&self, source: u64, destination: u64, command: u64) {
        let before = exceptions::interrupts(VECTOR);
        self.start(source, destination, memory::PAGE as u32, command | INTERRUPT);
        let mut turns = 0u64;
        wait("no interrupt tells of a transfer", || {
            turns += 1;
            // Half of the time it waits as systems do.
            if command & TO_MEMORY != 0 && exceptions::interrupts(VECTOR) == before {
                cpu::wait_for_interrupt();
            } else {
                cpu::admit_interrupts();
            }
            exceptions::interrupts(VECTOR) != before
        });
        self.write(ACKNOWLEDGE, u32::MAX);
        self.wait();
    }
}

fn pattern(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn is_pattern(page: u64) -> bool {
    (0..memory::PAGE).step_by(8).all(|at| memory::read(page + at) == pattern(at))
}

/// Directs the function at every MiB of the machine that is not the guest's, to write there and to read from there.
fn run_wild(edu: &Edu, page: u64, own: u64) {
    const END: u64 = 512 << 20;
    let places = (own..END).step_by(1 << 20).chain([0xfec0_0000, 0xfed9_0000, 1 << 32]);
    let mut tries = 0;
    for place in places {
        edu.start(BUFFER, place, 64, TO_MEMORY);
        edu.wait();
        edu.start(place, BUFFER, 64, 0);
        edu.wait();
        tries += 2;
    }
    // The buffer is as it was: nothing was read.
    memory::fill(page, 0);
    edu.transfer(BUFFER, page, TO_MEMORY);
    if !is_pattern(page) {
        fail("the function has read what is not the guest's");
    }
    // Interrupts by writes: in compatibility format, and by every entry of the interrupt-remapping table.
    let format = |entry: u64| u64::from(MessageAddress::REMAPPABLE) | entry << 5;
    for address in core::iter::once(0).chain((0..256).map(format)).map(|part| 0xfee0_0000 | part) {
        edu.start(BUFFER, address, 4, TO_MEMORY);
        edu.wait();
    }
    println!("{tries} transfers beyond its memory and 257 interrupts of its own making tried");
}

fn starts() -> u8 {
    cpu::output8(0x70, STARTS);
    let starts = cpu::input8(0x71) + 1;
    cpu::output8(0x70, STARTS);
    cpu::output8(0x71, starts);
    starts
}

fn run() -> ! {
    memory::write_apic(0xf0, 0x1ff);
    let edu = Edu::find();
    if edu.read(IDENTIFICATION) & 0xffff != 0xed {
        fail("its registers are not there");
    }
    let is_new = edu.read(LIVENESS) == 0 && edu.read(SOURCE) == 0 && edu.read(COMMAND) == 0;
    println!("edu at {:#x}, {}", edu.base, if is_new { "as after a reset" } else { "with something of before" });
    edu.write(LIVENESS, 0x1234_5678);
    if edu.read(LIVENESS) != !0x1234_5678 {
        fail("it is not alive");
    }
    edu.enable_messages();
    let [one, other] = [(); 2].map(|()| memory::take_pages(1));
    (0..memory::PAGE).step_by(8).for_each(|at| memory::write(one + at, pattern(at)));
    edu.transfer(one, BUFFER, 0);
    edu.transfer(BUFFER, other, TO_MEMORY);
    if !is_pattern(other) {
        fail("what was moved is not what came");
    }
    println!("a page moved there and back");
    let mut numbers = multiboot::numbers();
    let wanted = numbers.next().map_or(INTERRUPTS, |number| number as u32);
    let before = exceptions::interrupts(VECTOR);
    for n in 1..=wanted {
        edu.write(RAISE, 1);
        wait("an interrupt has not come", || {
            cpu::admit_interrupts();
            exceptions::interrupts(VECTOR).wrapping_sub(before) >= n
        });
        edu.write(ACKNOWLEDGE, 1);
    }
    println!("{} interrupts taken", exceptions::interrupts(VECTOR).wrapping_sub(before));
    if multiboot::command_line_has("wild") {
        // The second number: the guest's own memory in MiB.
        run_wild(&edu, other, numbers.next().unwrap_or(0) << 20);
    }
    if multiboot::command_line_has("crash") && starts() == 1 {
        edu.start(BUFFER, other, memory::PAGE as u32, TO_MEMORY | INTERRUPT);
        println!("triple fault, with edu at work");
        cpu::load_idt(0, 0);
        cpu::admit_interrupts();
        panic!("there are interrupts without a table");
    }
    cpu::end(0)
}

//! An assigned function interrupts a guest that runs in VMX non-root operation: posted, which the guest takes without a VM exit, and not.

use crate::code;
use crate::tester::{Program, Tester};
use crate::unit::Unit;
use crate::{Verdict, expect};
use bare::vmx::instructions::vmxoff;
use bare::vmx::state::{self, Word};
use bare::vmx::{self, Entered, Hypervisor};
use bare::{boot, exceptions, memory, println};
use spec::dma_tester::Flags;
use spec::vmx::posted_interrupts as descriptor;
use spec::vmx::{ExitControls, ExitReason, PinBasedControls, PrimaryControls, SecondaryControls, VmcsField as Field};
use spec::vtd::interrupts::{RemappingEntry, request};

/// Interrupts.
const COUNT: u32 = 100_000;
/// Nanoseconds between them: longer than the guest's handler takes, with a VM exit.
const PERIOD: u32 = 4000;
/// The guest's vector.
const VECTOR: u8 = 0x61;
/// The host's notification vector.
const NOTIFICATION: u8 = 0xf2;
/// Index of the interrupt-remapping entry.
const INDEX: u16 = 9;
/// VM exits after which something is wrong.
const MOST_EXITS: u32 = 3 * COUNT;

/// Pages of the guest.
struct Pages {
    counter: u64,
    stack: u64,
    idt: u64,
    virtual_apic: u64,
    msr_bitmaps: u64,
    descriptor: u64,
}

/// Counts VM exits by what they are for.
#[derive(Default)]
struct Exits {
    external: u32,
    call: u32,
    other: u32,
}

/// 100,000 interrupts of the function to a guest that waits for them.
///
/// # Errors
/// What is wrong.
pub fn posted(unit: &mut Unit, tester: &Tester, on: bool) -> Verdict {
    let [counter, stack, idt, virtual_apic, msr_bitmaps, descriptor] = [(); 6].map(|()| memory::take_pages(1));
    let pages = Pages { counter, stack, idt, virtual_apic, msr_bitmaps, descriptor };
    // The function has a domain of its own; each run writes there and then interrupts.
    let domain = unit.new_domain(tester.source, 3)?;
    let buffer = memory::take_pages(1);
    unit.map(&domain, 0x5000, buffer);
    unit.remap(INDEX.into(), entry(tester, &pages, on))?;
    tester.set_message(0, request::address(INDEX), 0);
    let mut hypervisor = Hypervisor::start()?;
    let result = prepare(&pages, on).and_then(|()| {
        let program = Program { from: 0x11, flags: Flags::FILL | Flags::INTERRUPT, ..Program::copy(0, 0x5000, 8) };
        tester.start(0, &program, COUNT, PERIOD);
        run(&mut hypervisor, &pages)
    });
    let _ = vmxoff();
    let exits = result?;
    let Exits { external, call, other } = exits;
    let how = if on { "posted" } else { "remapped" };
    println!("     {how}: {COUNT} interrupts, VM exits: {external} external interrupt, {call} VMCALL, {other} other");
    expect(memory::read(pages.counter) == COUNT.into(), "the guest has another count of interrupts")?;
    expect(tester.wait(0, || ())? == 0 && memory::read(buffer) == 0x11, "the function has not done its work")?;
    expect(call == 1 && other == 0, "there are other VM exits")?;
    if on {
        expect(external == 0, "an interrupt exits")
    } else {
        expect(external == COUNT, "not every interrupt exits")
    }
}

/// The interrupt-remapping entry. A VM exit tells the host the guest's vector, where it is not posted.
fn entry(tester: &Tester, pages: &Pages, on: bool) -> RemappingEntry {
    if on {
        RemappingEntry::posted(VECTOR, pages.descriptor, tester.source)
    } else {
        RemappingEntry::remapped(VECTOR, 0, tester.source)
    }
}

/// Fills the VMCS.
fn prepare(pages: &Pages, on: bool) -> Verdict {
    state::write_valid(code::address(code::wait), pages.stack + memory::PAGE - 64);
    for vector in 0..=255u8 {
        let handler = if vector == VECTOR { code::address(code::handler) } else { boot::guest_handler(vector) };
        let [low, high] = exceptions::gate(handler, 0);
        memory::write(pages.idt + 16 * u64::from(vector), low);
        memory::write(pages.idt + 16 * u64::from(vector) + 8, high);
    }
    memory::write(
        pages.descriptor + descriptor::CONTROL,
        u64::from(NOTIFICATION) << descriptor::NOTIFICATION_VECTOR_SHIFT,
    );
    let posting = if on { PinBasedControls::POSTED_INTERRUPTS } else { 0 };
    let primary = PrimaryControls::USE_TPR_SHADOW
        | PrimaryControls::USE_MSR_BITMAPS
        | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS;
    let secondary = SecondaryControls::VIRTUALIZE_X2APIC_MODE
        | SecondaryControls::APIC_REGISTER_VIRTUALIZATION
        | SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
    for (word, bits) in [
        (Word::Pin, PinBasedControls::EXTERNAL_INTERRUPT_EXITING | posting),
        (Word::Primary, primary),
        (Word::Secondary, secondary),
        (Word::Exit, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
    ] {
        let bits = u64::from(bits);
        expect(word.limits().1 & bits == bits, "the processor lacks a control")?;
        vmx::write(word.field(), vmx::read(word.field()) | bits);
    }
    for (field, value) in [
        (Field::MSR_BITMAPS, pages.msr_bitmaps),
        (Field::VIRTUAL_APIC_ADDRESS, pages.virtual_apic),
        (Field::POSTED_INTERRUPT_DESCRIPTOR, pages.descriptor),
        (Field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION.into()),
        (Field::GUEST_IDTR_BASE, pages.idt),
        (Field::GUEST_RFLAGS, 0x202),
    ] {
        vmx::write(field, value);
    }
    Ok(())
}

/// Runs the guest to its VMCALL. Interrupts that exit are given to it by its virtual APIC.
fn run(hypervisor: &mut Hypervisor, pages: &Pages) -> Result<Exits, &'static str> {
    const RDI: usize = 7;
    const RSI: usize = 6;
    let mut registers = [0; 16];
    (registers[RDI], registers[RSI]) = (pages.counter, COUNT.into());
    let mut exits = Exits::default();
    loop {
        let reason = match hypervisor.enter(&mut registers) {
            Entered::Exit(reason) => reason,
            Entered::Failed(_) => return Err("the entry fails"),
        };
        match ExitReason::from_number(reason as u16) {
            Some(ExitReason::Vmcall) if boot::guest_vector(vmx::read(Field::GUEST_RIP)).is_none() => {
                exits.call += 1;
                return Ok(exits);
            }
            Some(ExitReason::ExternalInterrupt) => {
                exits.external += 1;
                memory::write_apic(0xb0, 0);
                let vector = vmx::read(Field::EXIT_INTERRUPTION_INFO) & 0xff;
                // VIRR, and RVI.
                let at = pages.virtual_apic + 0x200 + vector / 32 * 0x10;
                memory::write32(at, memory::read(at) as u32 | 1 << (vector % 32));
                let status = vmx::read(Field::GUEST_INTERRUPT_STATUS);
                vmx::write(Field::GUEST_INTERRUPT_STATUS, status & !0xff | (status & 0xff).max(vector));
            }
            _ => return Err("another VM exit"),
        }
        if exits.external > MOST_EXITS {
            return Err("VM exits have no end");
        }
    }
}

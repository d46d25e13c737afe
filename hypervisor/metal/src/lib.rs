//! The hypervisor on bare metal: what of it touches the processor. The decisions are in the crate `hypervisor`.
//!
//! | module | is |
//! | --- | --- |
//! | `memory` | memory: pages, guests' memory, the heap |
//! | `processor` | the local APIC, time, and other things of the processor outside VMX operation |
//! | `vmx` | VMX operation: the current VMCS, the way into a guest and back |
//! | `slot` | a vCPU with its VMCS, and the registers that are switched with it |
//! | `run` | what a processor does all day |
//! | `uplink` | the machine's own network card |
//!
//! `unsafe` is in `memory`, `processor` and `vmx`.
#![no_std]
extern crate alloc;

mod memory;
mod processor;
mod run;
mod slot;
mod uplink;
mod vmx;

use alloc::sync::Arc;
use alloc::vec::Vec;
use bare::processors::Tables;
use bare::{cpu, multiboot};
use core::sync::atomic::AtomicU64;
use hypervisor::capabilities::Capabilities;
use hypervisor::configuration::Configuration;
use hypervisor::console::Terminal;
use hypervisor::exits::msr_bitmap;
use hypervisor::host::Host;
use hypervisor::memory::Pages;
use hypervisor::network::Switch;
use hypervisor::report::{Guest, Report};
use hypervisor::vcpu::Vcpu;
use hypervisor::vm::{End, Environment, Vm};
use processor::{PROCESSOR, say};
use run::Shared;
use spec::vmx::EntryControls;
use spin::Mutex;

/// What the first processor has made for all of them.
static SHARED: Mutex<Option<&'static Shared>> = Mutex::new(None);

/// Starts the guests, waits until all have ended, tells about it and ends the run: 0 when every guest ended by itself.
pub fn run() -> ! {
    if !memory::set_up() {
        bare::println!("not started: the loader tells of no memory");
        cpu::end(1);
    }
    say!("Vanderpool hypervisor {}", env!("CARGO_PKG_VERSION"));
    processor::set_up();
    say!("processor: {}", processor::brand());
    let capabilities = match Capabilities::detect(cpu::has_vmx(), &|number| cpu::read_msr(number).ok()) {
        Ok(capabilities) => capabilities,
        Err(reason) => refuse(reason),
    };
    for line in alloc::format!("{capabilities}").lines() {
        say!("{line}");
    }
    let Some(module) = multiboot::module() else { refuse("there is no module with the guests' configuration") };
    let Ok(configuration) = Configuration::unpack(module) else {
        refuse("the module is not a configuration of this version")
    };
    let wanted = configuration.vms.len();
    let switch = Switch::new(&PROCESSOR);
    uplink::connect(&switch);
    let terminal = Terminal::new(&PROCESSOR);
    let vms = create(configuration, &capabilities, &switch, &terminal);
    if vms.is_empty() {
        refuse("there is no guest to run");
    }
    let msr_bitmaps = [false, capabilities.virtualizes_x2apic()].map(|x2apic| {
        let Some(bitmap) = memory::PAGES.page() else { refuse("there is no memory") };
        let pat = capabilities.entry.allowed & EntryControls::LOAD_PAT != 0;
        msr_bitmap(bitmap, capabilities.unrestricted_guest(), pat, x2apic);
        bitmap.address()
    });
    let shared: &'static Shared = alloc::boxed::Box::leak(alloc::boxed::Box::new(Shared {
        capabilities,
        msr_bitmaps,
        vms,
        switch,
        terminal,
        idle: AtomicU64::new(0),
        moving: Mutex::new(Vec::new()),
        vcpus: Mutex::new(Vec::new()),
    }));
    *SHARED.lock() = Some(shared);
    let others = bare::processors::start_others(other, None);
    distribute(shared, others + 1);
    processor::enable_terminal();
    run::processor(shared, Tables::of_first(), true);
    finish(shared, wanted)
}

/// What every other processor does.
fn other(_: u32, tables: Tables) -> ! {
    processor::set_up_local();
    let shared = *SHARED.lock();
    if let Some(shared) = shared {
        run::processor(shared, tables, false);
    }
    loop {
        cpu::wait_for_interrupt();
    }
}

fn refuse(why: impl core::fmt::Display) -> ! {
    say!("not started: {why}");
    cpu::end(1)
}

/// The guests that this processor can run; the others are refused by name.
fn create(
    configuration: Configuration,
    has: &Capabilities,
    switch: &Arc<Switch>,
    terminal: &Arc<Terminal>,
) -> Vec<Arc<Vm>> {
    let mut vms = Vec::new();
    let environment = Environment { has, pages: &memory::PAGES, host: &PROCESSOR, switch };
    for vm in configuration.vms {
        let (name, vcpus, memory) = (vm.name.clone(), vm.vcpus, vm.memory);
        let console = terminal.console(&name, vm.console_to_file);
        match Vm::new(vms.len(), vm, &console, &environment) {
            Ok(vm) => {
                say!("guest {name}: {vcpus} vCPUs, {memory} MiB");
                vms.push(Arc::new(vm));
            }
            Err(why) => say!("guest {name} is refused: {why}"),
        }
    }
    vms
}

/// Gives every vCPU a processor, in turn: the vCPUs of one guest are on different ones as far as there are enough.
fn distribute(shared: &Shared, processors: u32) {
    say!("{processors} processors");
    let mut lists: Vec<Vec<Vcpu>> = (0..processors).map(|_| Vec::new()).collect();
    let mut next = 0;
    for vm in &shared.vms {
        for index in 0..vm.mailboxes.len() {
            let place = next % lists.len();
            lists[place].push(Vcpu::new(Arc::clone(vm), index, &shared.capabilities));
            next += 1;
        }
    }
    *shared.vcpus.lock() = lists;
    // Those that came before their lists were there wait for a call.
    (1..processors).for_each(|processor| PROCESSOR.kick(processor));
}

/// Tells how it went with those that ran of the `wanted` guests, and ends.
fn finish(shared: &Shared, wanted: usize) -> ! {
    let guest = |vm: &Arc<Vm>| Guest {
        name: vm.configuration.name.clone(),
        vcpus: vm.configuration.vcpus,
        statistics: vm.result().unwrap_or_default(),
        ept_pages: vm.ept.mapped(),
        ept_tables: vm.ept.tables(),
        end: vm.outcome(),
        restarts: vm.generation(),
    };
    let report = Report {
        guests: shared.vms.iter().map(guest).collect(),
        ticks_per_millisecond: processor::ticks_per_millisecond(),
    };
    for guest in &report.guests {
        if let Some(end) = &guest.end {
            say!("guest {}: {end}", guest.name);
        }
    }
    PROCESSOR.write(alloc::format!("\r\n{report}").as_bytes());
    let well = |guest: &Guest| matches!(guest.end, Some(End::Status(0) | End::Halted | End::Stopped));
    cpu::end(if report.guests.iter().filter(|guest| well(guest)).count() == wanted { 0 } else { 2 })
}

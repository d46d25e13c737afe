//! The hypervisor on bare metal: what of it touches the processor. The decisions are in the crate `hypervisor`.
//!
//! | module | is |
//! | --- | --- |
//! | `memory` | memory: pages, guests' memory, the heap |
//! | `processor` | the local APIC, time, and other things of the processor outside VMX operation |
//! | `vmx` | VMX operation: the current VMCS, the way into a guest and back |
//! | `slot` | a vCPU with its VMCS, and the registers that are switched with it |
//! | `run` | what a processor does all day |
//! | `functions` | the machine's PCI functions |
//! | `remapping` | its remapping units (VT-d) |
//! | `uplink` | the machine's own network card |
//!
//! `unsafe` is in `memory`, `processor` and `vmx`.
#![no_std]
extern crate alloc;

mod functions;
mod memory;
mod processor;
mod remapping;
mod run;
mod slot;
mod uplink;
mod vmx;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bare::processors::Tables;
use bare::{cpu, multiboot};
use core::sync::atomic::AtomicU64;
use functions::RootBus;
use hypervisor::assignment::{Chosen, Terms};
use hypervisor::capabilities::Capabilities;
use hypervisor::configuration::Configuration;
use hypervisor::console::Terminal;
use hypervisor::exits::msr_bitmap;
use hypervisor::host::{Host, vector};
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
    let remapping = remapping::start();
    // Without guests on the switch the card is free for one of them.
    let own = if configuration.vms.iter().any(|vm| vm.network) { uplink::card() } else { None };
    let terms = Terms { bus: &RootBus, remapping: remapping.as_deref().map_err(String::as_str), own: own.as_slice() };
    let functions = terms.choose(&configuration);
    let remapping = remapping.ok();
    if own.is_some() {
        uplink::connect(&switch, remapping.as_deref());
    }
    let terminal = Terminal::new(&PROCESSOR);
    let environment = Environment {
        has: &capabilities,
        pages: &memory::PAGES,
        host: &PROCESSOR,
        switch: &switch,
        remapping: remapping.as_ref(),
    };
    let vms = create(configuration, functions, &environment, &terminal);
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
        remapping,
        idle: AtomicU64::new(0),
        moving: Mutex::new(Vec::new()),
        vcpus: Mutex::new(Vec::new()),
    }));
    *SHARED.lock() = Some(shared);
    let others = bare::processors::start_others(other, None);
    distribute(shared, others + 1);
    let entry = shared.remapping.as_ref().and_then(|remapping| remapping.io_apic_entry(vector::TERMINAL));
    processor::enable_terminal(entry);
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

/// The guests that this processor can run, with their functions; the others are refused by name.
fn create(
    configuration: Configuration,
    functions: Vec<Result<Vec<Chosen>, String>>,
    environment: &Environment<'_>,
    terminal: &Arc<Terminal>,
) -> Vec<Arc<Vm>> {
    let mut vms = Vec::new();
    for (vm, functions) in configuration.vms.into_iter().zip(functions) {
        let (name, vcpus, memory) = (vm.name.clone(), vm.vcpus, vm.memory);
        let with: String = functions.iter().flatten().map(|function| alloc::format!(", {}", function.name)).collect();
        let console = terminal.console(&name, vm.console_to_file);
        match functions.and_then(|functions| Vm::new(vms.len(), vm, functions, &console, environment)) {
            Ok(vm) => {
                say!("guest {name}: {vcpus} vCPUs, {memory} MiB{with}");
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
        for index in 0..vm.destinations.mailboxes.len() {
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
    if let Some(remapping) = &shared.remapping {
        remapping::tell_faults(remapping, &shared.vms);
        if remapping.overflows() != 0 {
            say!("VT-d: there were more faults than the units record");
        }
    }
    let guest = |vm: &Arc<Vm>| {
        let (ept_pages, ept_tables) = vm.ept_sizes();
        Guest {
            name: vm.configuration.name.clone(),
            vcpus: vm.configuration.vcpus,
            statistics: vm.result().unwrap_or_default(),
            ept_pages,
            ept_tables,
            end: vm.outcome(),
            restarts: vm.generation(),
            functions: vm.configuration.assign.len(),
            dma_faults: vm.dma_faults(),
        }
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

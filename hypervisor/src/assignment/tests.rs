//! `edu` and a virtio disk, as models, assigned to a guest.

use super::*;
use crate::assignment::layout::IDLE;
use crate::configuration::Configuration;
use crate::ept::Ept;
use crate::function::Message;
use crate::remapping::tests::with;
use crate::remapping::unit::tests::{CAPABILITY, EXTENDED};
use crate::testing::{TestHost, TestPages, destinations};
use alloc::sync::Arc;
use devices::device::Device;
use devices::edu::{Edu, register as edu};
use devices::pci::{ConfigSpace, Identity, InterruptPorts, PciFunction};
use devices::ports::{Clock, Dma, DmaFault, Msi, Unconnected};
use devices::storage::MemoryStorage;
use devices::virtio::blk::Block;
use devices::virtio::{VirtioPci, VirtioPorts};
use spec::pci::capability::id;
use spec::pci::config::Command;
use spec::pci::message::{msi, msix};
use std::sync::Mutex;

const EDU: u16 = 5 << 3;
const DISK: u16 = 6 << 3;
/// Where the machine has the registers of `edu`, and the disk's MSI-X table.
const REGISTERS: u64 = 0xc010_0000;
const TABLE: u64 = 0xc000_3000;

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Message>>>);

impl Msi for Sent {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

struct Nothing;

impl Dma for Nothing {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), DmaFault> {
        Err(DmaFault { address })
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), DmaFault> {
        Err(DmaFault { address })
    }
}

impl Clock for Nothing {
    fn now(&self) -> u64 {
        0
    }
    fn set_alarm(&self, _: Option<u64>) {}
}

/// A model as a function of the machine.
#[derive(Clone)]
struct OfModel(Arc<Mutex<Box<dyn PciFunction>>>);

impl OfModel {
    fn new(model: impl PciFunction + 'static, bars: &[(u16, u64)]) -> Self {
        let mut model: Box<dyn PciFunction> = Box::new(model);
        for (bar, base) in bars {
            model.config_write(register::BAR0 + 4 * bar, 4, *base as u32);
        }
        model.config_write(register::COMMAND, 2, (Command::MEMORY | Command::BUS_MASTER).into());
        Self(Arc::new(Mutex::new(model)))
    }

    fn at(&self, address: u64) -> Option<(u8, u64)> {
        let windows = self.0.lock().unwrap().windows();
        let window = windows.into_iter().find(|window| address.wrapping_sub(window.base) < window.size)?;
        Some((window.bar, address - window.base))
    }
}

impl Function for OfModel {
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.0.lock().unwrap().config_read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.0.lock().unwrap().config_write(offset, size, value);
    }
    fn read(&self, address: u64, size: u8) -> u32 {
        let Some((bar, offset)) = self.at(address) else { return u32::MAX };
        self.0.lock().unwrap().read(bar, offset, size) as u32
    }
    fn write(&self, address: u64, size: u8, value: u32) {
        let Some((bar, offset)) = self.at(address) else { return };
        self.0.lock().unwrap().write(bar, offset, size, value.into());
    }
}

/// Something that is no use: a function with this class and nothing else.
struct Plain(ConfigSpace);

impl Device for Plain {
    fn read(&mut self, _: u8, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn write(&mut self, _: u8, _: u64, _: u8, _: u64) {}
    fn reset(&mut self) {}
}

impl PciFunction for Plain {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.0.read(offset, size)
    }
    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        self.0.write(offset, size, value);
        false
    }
    fn windows(&self) -> Vec<devices::pci::Window> {
        Vec::new()
    }
    fn save_encoded(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore_encoded(&mut self, _: &[u8]) -> bool {
        false
    }
}

fn plain(class: u32) -> OfModel {
    let identity = Identity { vendor: 0x8086, device: 1, class, ..Identity::default() };
    OfModel::new(Plain(ConfigSpace::conventional(identity)), &[])
}

/// A machine with `edu`, a disk, and a device with two functions, of which one is a bridge.
struct Machine {
    functions: Vec<(u16, OfModel)>,
    sent: Sent,
}

impl Machine {
    fn new() -> Self {
        let sent = Sent::default();
        let interrupts = || InterruptPorts { pin: Box::new(Unconnected), msi: Box::new(sent.clone()) };
        let edu = Edu::new(u64::MAX, Box::new(Nothing), Box::new(Nothing), interrupts());
        let ports = VirtioPorts { dma: Box::new(Nothing), interrupts: interrupts() };
        let disk = VirtioPci::new(Block::new(Box::new(MemoryStorage::new(1 << 20)), "a"), ports);
        let functions = [
            (EDU, OfModel::new(edu, &[(0, REGISTERS)])),
            (DISK, OfModel::new(disk, &[(1, TABLE), (4, 0xc000_4000)])),
            (0xf8, plain(0x06_0100)),
            (0xfa, plain(0x01_0601)),
        ];
        Self { functions: functions.into(), sent }
    }

    fn edu(&self) -> &OfModel {
        &self.functions[0].1
    }

    fn disk(&self) -> &OfModel {
        &self.functions[1].1
    }
}

impl Bus for Machine {
    fn functions(&self) -> Vec<u16> {
        self.functions.iter().map(|(source, _)| *source).collect()
    }
    fn function(&self, source: u16) -> Option<Box<dyn Function>> {
        let (_, function) = self.functions.iter().find(|(other, _)| *other == source)?;
        Some(Box::new(function.clone()))
    }
}

fn guest(name: &str, assign: &[&str], after: Option<&str>) -> VmConfiguration {
    VmConfiguration {
        assign: assign.iter().map(|text| (*text).into()).collect(),
        after: after.map(Into::into),
        ..crate::testing::guest(name)
    }
}

/// What is said about the guests.
fn verdicts(machine: &Machine, own: &[u16], vms: &[VmConfiguration]) -> Vec<Result<Vec<String>, String>> {
    let remapping = with(CAPABILITY, EXTENDED);
    let terms = Terms { bus: machine, remapping: Ok(&remapping), own };
    let chosen = terms.choose(&Configuration { vms: vms.into() });
    chosen.into_iter().map(|all| Ok(all?.into_iter().map(|chosen| chosen.name).collect())).collect()
}

#[test]
fn functions_are_named_by_place_or_kind() {
    assert_eq!(Wanted::parse("00:05.0"), Ok(Wanted::At(EDU)));
    assert_eq!(Wanted::parse("1f:1f.7"), Ok(Wanted::At(0x1fff)));
    assert_eq!(Wanted::parse("disk"), Ok(Wanted::Kind("disk", 1)));
    assert_eq!(Wanted::parse("edu 2"), Ok(Wanted::Kind("edu", 2)));
    for bad in ["", "floppy", "edu 0", "edu x", "00:20.0", "00:05.8", "00:05", "100:05.0"] {
        assert!(Wanted::parse(bad).unwrap_err().contains("is no function"), "{bad}");
    }
}

#[test]
fn who_cannot_have_a_function_is_told_why() {
    let machine = Machine::new();
    let given = verdicts(&machine, &[], &[guest("a", &["edu", "00:06.0"], None), guest("b", &[], None)]);
    assert_eq!(given, [Ok(["00:05.0 (edu)".into(), "00:06.0 (disk)".into()].into()), Ok([].into())]);
    for (text, word) in [
        ("00:09.0", "there is no function 00:09.0"),
        ("edu 2", "there is no function edu 2"),
        ("00:1f.0", "00:1f.2 is of the same device"),
        ("network", "there is no function network"),
    ] {
        let refusal = verdicts(&machine, &[], &[guest("a", &[text], None)])[0].clone().unwrap_err();
        assert!(refusal.contains(word), "{refusal}");
    }
    let both = verdicts(&machine, &[], &[guest("a", &["00:1f.0", "00:1f.2"], None)])[0].clone().unwrap_err();
    assert!(both.contains("bridge"), "{both}");
    let twice = verdicts(&machine, &[], &[guest("a", &["edu", "00:05.0"], None)])[0].clone().unwrap_err();
    assert!(twice.contains("given 00:05.0 twice"), "{twice}");
    let own = verdicts(&machine, &[EDU], &[guest("a", &["edu"], None)])[0].clone().unwrap_err();
    assert!(own.contains("the hypervisor uses it itself"), "{own}");
    let remapping = Err("there is no unit");
    let terms = Terms { bus: &machine, remapping, own: &[] };
    let refusal = terms.choose(&Configuration { vms: [guest("a", &["edu"], None)].into() })[0].as_ref().err().cloned();
    assert_eq!(refusal.as_deref(), Some("00:05.0 cannot be assigned: there is no unit"));
}

#[test]
fn two_guests_share_a_function_in_turn_only() {
    let machine = Machine::new();
    let (first, beside) = (guest("a", &["edu"], None), guest("b", &["edu"], None));
    let all = verdicts(&machine, &[], &[first.clone(), beside]);
    assert!(all.iter().all(|verdict| verdict.as_ref().is_err_and(|why| why.contains("is to run after the other"))));
    let between = guest("b", &[], Some("a"));
    let third = guest("c", &["edu"], Some("b"));
    assert!(verdicts(&machine, &[], &[first, between, third]).iter().all(Result::is_ok));
}

#[test]
fn what_a_function_lacks_is_a_reason() {
    let machine = Machine::new();
    assert_eq!(Layout::find(machine.edu()).unwrap().messages(), 1);
    let disk = Layout::find(machine.disk()).unwrap();
    assert_eq!((disk.messages(), disk.windows[1].unwrap().base), (2, TABLE));
    assert!(disk.windows[4].unwrap().is_wide());
    assert!(Layout::find(&plain(0x01_0601)).unwrap_err().contains("function-level reset"));
    // Looking has changed nothing.
    let command = machine.edu().config_read(register::COMMAND, 2) as u16;
    assert_eq!(command, Command::MEMORY | Command::BUS_MASTER);
    assert_eq!(machine.edu().config_read(register::BAR0, 4), REGISTERS as u32);
}

/// An assigned function with its machine.
struct Bench {
    machine: Machine,
    remapping: Arc<Remapping>,
    function: Assigned,
}

impl Bench {
    fn new(source: u16) -> Self {
        let machine = Machine::new();
        let remapping = Arc::new(with(CAPABILITY, EXTENDED));
        let host: &'static TestHost = Box::leak(Box::default());
        let terms = Terms { bus: &machine, remapping: Ok(&remapping), own: &[] };
        let chosen = terms.chosen(source).unwrap();
        let mut function = Assigned::new(chosen, &remapping, &destinations(2), 0, host).unwrap();
        assert!(function.place(0xe800_0000, 0xfe00_0000).unwrap() > 0xe800_0000);
        let mut ept = Ept::new(&TestPages, true).unwrap();
        function.take(&mut ept).unwrap();
        Self { machine, remapping, function }
    }

    fn capability(&mut self, id: u8) -> u16 {
        let mut at = self.function.config_read(register::CAPABILITIES, 1) as u16;
        while self.function.config_read(at, 1) != id.into() {
            at = self.function.config_read(at + 1, 1) as u16;
            assert_ne!(at, 0, "no capability {id:#x}");
        }
        at
    }
}

#[test]
fn the_guest_sees_the_function_where_it_was_put_and_without_a_wire() {
    let mut bench = Bench::new(EDU);
    let function = &mut bench.function;
    assert_eq!(function.config_read(register::VENDOR_ID, 4), 0x11e8_1234);
    assert_eq!(function.config_read(register::BAR0, 4), 0xe800_0000);
    assert_eq!((function.config_read(register::INTERRUPT_PIN, 1), function.config_read(register::ROM, 4)), (0, 0));
    // Its size, as every system finds it.
    function.config_write(register::BAR0, 4, u32::MAX);
    assert_eq!(function.config_read(register::BAR0, 4), 0xfff0_0000);
    function.config_write(register::BAR0, 4, 0xe900_0000);
    assert_eq!(function.windows()[0].base, 0xe900_0000);
    assert_eq!(function.registers(0, 0x3000), Some(REGISTERS + 0x3000));
    assert_eq!((function.registers(0, 1 << 20), function.registers(1, 0)), (None, None));
    // The machine's registers are where they were, and so is the command that the hypervisor needs.
    function.config_write(register::COMMAND, 2, 0);
    assert!(function.windows().is_empty());
    let machine = bench.machine.edu();
    assert_eq!(machine.config_read(register::BAR0, 4), REGISTERS as u32);
    assert_eq!(machine.config_read(register::COMMAND, 2) as u16, IDLE);
    bench.function.config_write(register::COMMAND, 2, 0xffff);
    assert_eq!(machine.config_read(register::COMMAND, 2) as u16, IDLE | Command::BUS_MASTER);
    // No reset of the guest's own: it would take everybody's time.
    let express = bench.capability(id::EXPRESS);
    assert_eq!(bench.function.config_read(express + 4, 4) >> 28 & 1, 0);
    bench.function.config_write(express + 8, 2, 1 << 15);
    assert_eq!(bench.machine.edu().config_read(register::COMMAND, 2) as u16, IDLE | Command::BUS_MASTER);
}

#[test]
fn what_the_guest_writes_as_a_message_stays_with_the_hypervisor() {
    let mut bench = Bench::new(EDU);
    let at = bench.capability(id::MSI);
    let function = &mut bench.function;
    function.config_write(register::COMMAND, 2, (Command::MEMORY | Command::BUS_MASTER).into());
    function.config_write(at + msi::ADDRESS, 4, 0xfee0_1000);
    function.config_write(at + msi::DATA_64, 2, 0x4061);
    function.config_write(at + msi::CONTROL, 2, 0x71);
    assert_eq!(function.config_read(at + msi::ADDRESS, 4), 0xfee0_1000);
    assert_eq!(function.config_read(at + msi::DATA_64, 2), 0x4061);
    // Enabled, 64-bit addresses, one message.
    assert_eq!(function.config_read(at + msi::CONTROL, 2), 0x81);
    function.write(0, edu::INTERRUPT_RAISE, 4, 1);
    assert_eq!(bench.machine.sent.0.lock().unwrap().drain(..).collect::<Vec<_>>(), [(0xfee0_0010, 0)]);
    assert_eq!(bench.remapping.line(0x40), Some((0, (0xfee0_1000, 0x4061))));
    bench.function.config_write(at + msi::CONTROL, 2, 0);
    assert_eq!(bench.remapping.line(0x40), None);
}

#[test]
fn the_msi_x_table_is_the_hypervisor_s_and_the_rest_the_guest_s() {
    let mut bench = Bench::new(DISK);
    let at = bench.capability(id::MSI_X);
    let function = &mut bench.function;
    assert_eq!((function.registers(1, 0), function.registers(4, 0x1000)), (None, Some(0xc000_5000)));
    let entry = msix::ENTRY_SIZE;
    assert_eq!(function.read(1, entry + msix::ENTRY_CONTROL, 4), 1);
    function.write(1, entry, 8, 0xfee0_0000);
    function.write(1, entry + msix::ENTRY_DATA, 4, 0x4062);
    assert_eq!(bench.remapping.line(0x41), None, "it is masked still");
    function.write(1, entry + msix::ENTRY_CONTROL, 4, 0);
    function.config_write(at + msix::CONTROL, 2, 1 << 15);
    assert_eq!(bench.remapping.line(0x41), Some((0, (0xfee0_0000, 0x4062))));
    assert_eq!((function.read(1, entry, 8), function.read(1, entry + 8, 4)), (0xfee0_0000, 0x4062));
    let machine = bench.machine.disk();
    assert_eq!((machine.read(TABLE + entry, 4), machine.read(TABLE + entry + 8, 4)), (0xfee0_0030, 0));
    assert_eq!((machine.read(TABLE + entry + 12, 4), machine.read(TABLE + 12, 4)), (0, 1));
    assert_eq!(machine.config_read(at + 2, 2) & 0xc000, 0x8000);
}

#[test]
fn a_released_function_has_forgotten_its_guest() {
    let mut bench = Bench::new(EDU);
    let at = bench.capability(id::MSI);
    bench.function.config_write(register::COMMAND, 2, (Command::MEMORY | Command::BUS_MASTER).into());
    bench.function.config_write(at + msi::CONTROL, 2, 1);
    bench.function.write(0, edu::LIVENESS, 4, 7);
    bench.function.release();
    assert!(bench.function.windows().is_empty() && bench.function.registers(0, 0).is_none());
    assert_eq!((bench.function.read(0, edu::LIVENESS, 4), bench.remapping.line(0x40)), (0xffff_ffff, None));
    let command = bench.machine.edu().config_read(register::COMMAND, 2) as u16;
    assert_eq!(command & Command::BUS_MASTER, 0);
    // The next one waits until the reset is complete, and finds it as new.
    assert!(bench.function.ready_at().is_some());
    let mut ept = Ept::new(&TestPages, true).unwrap();
    bench.function.take(&mut ept).unwrap();
    assert_eq!(bench.function.read(0, edu::LIVENESS, 4), 0);
    assert_eq!(bench.function.config_read(at + msi::CONTROL, 2) & 1, 0);
}

#[test]
fn accesses_of_every_kind_to_every_byte_are_survived() {
    for source in [EDU, DISK] {
        let mut bench = Bench::new(source);
        for (offset, size) in (0..0x100).flat_map(|offset| [1, 2, 4].map(|size| (offset, size))) {
            let before = bench.function.config_read(offset, size);
            bench.function.config_write(offset, size, u32::MAX);
            bench.function.config_write(offset, size, before);
        }
        for (bar, offset, size) in
            (0..6).flat_map(|bar| (0..0x40).flat_map(move |offset| [1, 2, 4, 8].map(|size| (bar, offset, size))))
        {
            bench.function.write(bar, offset, size, u64::MAX);
            let _ = bench.function.read(bar, offset, size);
            let _ = bench.function.read(bar, u64::MAX - offset, size);
        }
    }
}

//! The DSDT: what cannot be found by probing, in AML (ACPI 6.5, 20).

use super::AcpiConfig;
use crate::lpc::{LpcBridge, PIRQ_TO_ISA};
use crate::memory_map::{
    ECAM_BASE, ECAM_SIZE, HPET_BASE, PCI_MEMORY32_BASE, PCI_MEMORY32_END, PM_BASE, PM_SIZE, RCBA_BASE, RCBA_SIZE,
    VGA_BASE,
};
use crate::power::{SLP_TYP_S3, SLP_TYP_S5};
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If, Local,
    Memory32Fixed, Method, Name, NotEqual, ONE, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Scope,
    Store, Uuid, ZERO,
};

pub(super) fn aml(config: &AcpiConfig) -> Vec<u8> {
    let mut aml = Vec::new();
    sleep_states(&mut aml);
    interrupt_model(&mut aml);
    let mut system_bus = Vec::new();
    pci_root(config, &mut system_bus);
    motherboard(&mut system_bus);
    hpet(&mut system_bus);
    processors(config, &mut system_bus);
    aml.extend(Scope::raw(Path::new("\\_SB_"), system_bus));
    aml
}

/// A device with `contents` already in AML.
struct RawDevice<'a> {
    path: &'a str,
    contents: Vec<Box<dyn Aml>>,
}

impl Aml for RawDevice<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        Device::new(self.path.into(), self.contents.iter().map(AsRef::as_ref).collect()).to_aml_bytes(sink);
    }
}

fn hid(id: &str) -> Box<dyn Aml> {
    Box::new(Name::new("_HID".into(), &EISAName::new(id)))
}

fn resources(children: Vec<&dyn Aml>) -> Box<dyn Aml> {
    Box::new(Name::new("_CRS".into(), &ResourceTemplate::new(children)))
}

/// `\_S3` and `\_S5`: the sleep types for suspend to RAM and for soft-off.
fn sleep_states(aml: &mut Vec<u8>) {
    for (name, sleep_type) in [("\\_S3_", SLP_TYP_S3), ("\\_S5_", SLP_TYP_S5)] {
        Name::new(name.into(), &Package::new(vec![&sleep_type, &sleep_type, &ZERO, &ZERO])).to_aml_bytes(aml);
    }
}

/// `\_PIC` remembers whether the operating system uses the I/O APIC (1) or the PICs (0).
fn interrupt_model(aml: &mut Vec<u8>) {
    Name::new("\\PICM".into(), &ZERO).to_aml_bytes(aml);
    let store = Store::new(&PICM, &Arg(0));
    Method::new("\\_PIC".into(), 1, false, vec![&store]).to_aml_bytes(aml);
}

/// ISA interrupt descriptor without flags: edge-triggered, active high (ACPI 6.5, 6.4.2.1).
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.byte(0x22);
        sink.word(1 << (self.0 & 15));
    }
}

/// A reference to a named object.
struct Reference(&'static str);

const PICM: Reference = Reference("\\PICM");

impl Aml for Reference {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        Path::new(self.0).to_aml_bytes(sink);
    }
}

fn pci_root(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let memory32 = |base: u64, end: u64| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, base as u32, (end - 1) as u32, None)
    };
    let (high, high_size) = config.ram.pci_memory64();
    let routing = Method::new(
        "_PRT".into(),
        0,
        false,
        vec![&If::new(&PICM, vec![&Return::new(&Reference("PRTA"))]), &Return::new(&Reference("PRTP"))],
    )
    .boxed();
    let mut contents: Vec<Box<dyn Aml>> = vec![
        hid("PNP0A08"),
        Box::new(Name::new("_CID".into(), &EISAName::new("PNP0A03"))),
        Box::new(Name::new("_UID".into(), &ZERO)),
        resources(vec![
            &AddressSpace::new_bus_number(0u16, 255),
            &IO::new(0xcf8, 0xcf8, 1, 8),
            &AddressSpace::new_io(0u16, 0xcf7, None),
            &AddressSpace::new_io(0xd00u16, 0xffff, None),
            &memory32(VGA_BASE, 0xc_0000),
            &memory32(PCI_MEMORY32_BASE, PCI_MEMORY32_END),
            &AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, high, high + high_size - 1, None),
        ]),
        Box::new(Name::new("PRTA".into(), &interrupt_routes(|pirq| 16 + u32::from(pirq)))),
        Box::new(Name::new("PRTP".into(), &interrupt_routes(|pirq| PIRQ_TO_ISA[usize::from(pirq & 3)].into()))),
        routing,
        operating_system_capabilities(),
    ];
    contents.push(Box::new(isa(config)));
    RawDevice { path: "PCI0", contents }.to_aml_bytes(aml);
}

/// `_OSC` of a PCI Express root (PCI Firmware Specification 3.3, 4.5): what the operating system asks to control it may, of those that nobody here
/// controls in its stead.
fn operating_system_capabilities() -> Box<dyn Aml> {
    const PCI_HOST_BRIDGE: &str = "33db4d5b-1ff7-401c-9657-7441c03dd766";
    /// Native hot plug, power management events, error reporting, the PCI Express capability structure.
    const GRANTED: u8 = 0b1_1101;
    const UNKNOWN_UUID: u8 = 1 << 2;
    const UNKNOWN_REVISION: u8 = 1 << 3;
    const MASKED: u8 = 1 << 4;
    const STATUS: Reference = Reference("CDW1");
    const CONTROL: Reference = Reference("CDW3");
    let [status_at, control_at] = [0u8, 8];
    let (buffer, granted) = (Arg(3), Local(0));
    let status = CreateDWordField::new(&STATUS, &buffer, &status_at);
    let control = CreateDWordField::new(&CONTROL, &buffer, &control_at);
    let grant = And::new(&granted, &CONTROL, &GRANTED);
    let revision = NotEqual::new(&Arg(1), &ONE);
    let say_revision = Or::new(&STATUS, &STATUS, &UNKNOWN_REVISION);
    let less = NotEqual::new(&CONTROL, &granted);
    let say_less = Or::new(&STATUS, &STATUS, &MASKED);
    let answer = Store::new(&CONTROL, &granted);
    let (if_revision, if_less) = (If::new(&revision, vec![&say_revision]), If::new(&less, vec![&say_less]));
    let uuid = Uuid::new(PCI_HOST_BRIDGE);
    let is_ours = Equal::new(&Arg(0), &uuid);
    let ours = If::new(&is_ours, vec![&control, &grant, &if_revision, &if_less, &answer]);
    let say_uuid = Or::new(&STATUS, &STATUS, &UNKNOWN_UUID);
    let other = Else::new(vec![&say_uuid]);
    let back = Return::new(&buffer);
    Method::new("_OSC".into(), 4, false, vec![&status, &ours, &other, &back]).boxed()
}

/// Boxes a piece of AML by writing it out.
trait Boxed: Aml {
    fn boxed(&self) -> Box<dyn Aml> {
        let mut bytes = Vec::new();
        self.to_aml_bytes(&mut bytes);
        Box::new(Raw(bytes))
    }
}

impl<T: Aml> Boxed for T {}

struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// One entry for each pin of each device on bus 0 (ACPI 6.5, 6.2.13): device, pin, no link device, interrupt.
fn interrupt_routes(interrupt: impl Fn(u8) -> u32) -> PackageBuilder {
    let lpc = LpcBridge::default();
    let mut routes = PackageBuilder::new();
    for device in 1..32u8 {
        for pin in 0..4u8 {
            let address = u32::from(device) << 16 | 0xffff;
            let interrupt = interrupt(lpc.pirq_of(device, pin));
            routes.add_element(&Package::new(vec![&address, &pin, &ZERO, &interrupt]));
        }
    }
    routes
}

/// Devices behind the LPC bridge.
fn isa(config: &AcpiConfig) -> RawDevice<'static> {
    let mut contents: Vec<Box<dyn Aml>> = vec![Box::new(Name::new("_ADR".into(), &0x001f_0000u32))];
    let rtc = resources(vec![&IO::new(0x70, 0x70, 1, 8), &Irq(8)]);
    contents.push(Box::new(RawDevice { path: "RTC_", contents: vec![hid("PNP0B00"), rtc] }));
    if config.keyboard_controller {
        let ports = resources(vec![&IO::new(0x60, 0x60, 1, 1), &IO::new(0x64, 0x64, 1, 1), &Irq(1)]);
        contents.push(Box::new(RawDevice { path: "KBD_", contents: vec![hid("PNP0303"), ports] }));
    }
    for (i, (port, irq)) in (0u8..).zip(&config.serial_ports) {
        let name = format!("COM{}", i + 1);
        let port = resources(vec![&IO::new(*port, *port, 8, 8), &Irq(*irq)]);
        let uid = Box::new(Name::new("_UID".into(), &(i + 1)));
        contents.push(RawDevice { path: &name, contents: vec![hid("PNP0501"), uid, port] }.boxed());
    }
    RawDevice { path: "ISA_", contents }
}

/// Address ranges that no driver may take: ECAM, root complex registers, ACPI block.
fn motherboard(aml: &mut Vec<u8>) {
    let taken = resources(vec![
        &Memory32Fixed::new(true, ECAM_BASE as u32, ECAM_SIZE as u32),
        &Memory32Fixed::new(true, RCBA_BASE as u32, RCBA_SIZE as u32),
        &IO::new(PM_BASE, PM_BASE, 1, PM_SIZE as u8),
    ]);
    RawDevice { path: "MBRD", contents: vec![hid("PNP0C02"), taken] }.to_aml_bytes(aml);
}

fn hpet(aml: &mut Vec<u8>) {
    let registers = resources(vec![&Memory32Fixed::new(false, HPET_BASE as u32, 0x400)]);
    RawDevice { path: "HPET", contents: vec![hid("PNP0103"), Box::new(Name::new("_UID".into(), &ZERO)), registers] }
        .to_aml_bytes(aml);
}

fn processors(config: &AcpiConfig, aml: &mut Vec<u8>) {
    for id in 0..config.processors {
        let name = format!("C{id:03X}");
        let contents: Vec<Box<dyn Aml>> =
            vec![Box::new(Name::new("_HID".into(), &"ACPI0007")), Box::new(Name::new("_UID".into(), &id))];
        RawDevice { path: &name, contents }.to_aml_bytes(aml);
    }
}

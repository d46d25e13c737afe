//! The remapping unit: any registers, tables, descriptors and requests; a function with any DMA program behind it, which harms its own domain
//! only.

mod device;

use crate::input::Input;
use chipset::vtd::{Access, DeviceMessages, RemappingUnit, Request, RequestKind, Source, UnitConfig, UnitPorts};
use device::{SOURCE, World};
use devices::device::Device;
use devices::pci::ats::Message;
use devices::testing::{FakeClock, RecordingMsi, VecDma};
use spec::vtd::tables::{context, pasid, scalable_context};

/// Bytes of memory. Addresses are made from 16 bits, so that tables are often met.
const MEMORY: u64 = 1 << 16;

/// No function has a device TLB.
struct Nobody;

impl DeviceMessages for Nobody {
    fn send(&self, _source: u16, _message: Message) {}
}

fn unit(config: UnitConfig, memory: &VecDma) -> RemappingUnit {
    let ports = UnitPorts {
        memory: Box::new(memory.clone()),
        events: Box::new(RecordingMsi::new()),
        clock: Box::new(FakeClock::new()),
        messages: Box::new(Nobody),
    };
    RemappingUnit::new(config, ports)
}

/// A number whose low bits are any, with an address in memory and a few high bits.
fn quadword(input: &mut Input<'_>) -> u64 {
    let (low, high) = (input.number(2), input.byte());
    low | u64::from(high & 0x0f) << 32 | u64::from(high & 0xf0) << 56
}

/// The first byte chooses what the unit has; the second, whether the function goes wild alone.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    if input.byte() < 0x40 {
        wild(&mut input, choice & 1 != 0);
        return;
    }
    let has = |bit: u8| choice >> bit & 1 != 0;
    let config = UnitConfig {
        address_width: [39, 48, 57, 57][usize::from(choice & 3)],
        host_address_width: 40,
        interrupt_remapping: !has(2),
        extended_interrupt_mode: has(3),
        posted_interrupts: !has(4),
        caching_mode: has(5),
        scalable_mode: has(6),
        device_tlb: has(7),
        page_requests: has(7),
    };
    let mut world = World::new(config, MEMORY as usize);
    let memory = world.memory.clone();
    world.unit().set_reporting(has(7));
    // Most of what there is to find lies behind these.
    let mut unit = world.unit();
    unit.write(0, 0x20, 8, 0x1000 | if has(6) { 0x400 } else { 0 });
    unit.write(0, 0xb8, 8, 0x2003);
    unit.write(0, 0x90, 8, 0x3000 | if has(6) { 0x800 } else { 0 });
    unit.write(0, 0xd0, 8, 0x4000);
    for bit in [30, 24, 26, 25, 31] {
        let status = unit.read(0, 0x1c, 4) & 0x8680_0000;
        unit.write(0, 0x18, 4, status | 1 << bit);
    }
    drop(unit);
    while !input.is_empty() {
        let operation = input.byte();
        if operation & 7 == 7 {
            world.act(&mut input);
            continue;
        }
        let mut unit = world.unit();
        match operation & 7 {
            0 => {
                let size = if operation & 8 == 0 { 4 } else { 8 };
                let offset = input.number(2) & 0xfff;
                let value = input.number(size);
                unit.write(0, offset, size, value);
                unit.read(0, offset, size);
            }
            1 | 2 => {
                let at = input.number(2) & !7;
                memory.put(at & (MEMORY - 8), &quadword(&mut input).to_le_bytes());
            }
            3 => {
                // A descriptor at the tail.
                let tail = unit.read(0, 0x88, 8);
                let step = if config.scalable_mode { 32 } else { 16 };
                let (first, second) = (input.number(8), input.number(8));
                memory.put((0x3000 + tail) & (MEMORY - 16), &first.to_le_bytes());
                memory.put((0x3008 + tail) & (MEMORY - 16), &second.to_le_bytes());
                unit.write(0, 0x88, 8, (tail + step) & 0xfff);
                unit.write(0, 0x34, 4, 0xff);
            }
            4 => {
                let address = 0xfee0_0000 | input.number(3) & 0xf_ffff;
                let id = input.number(2) as u16;
                let source = if operation & 8 == 0 { Source::Verified(id) } else { Source::Unverified(id) };
                unit.interrupt(source, address, input.number(4) as u32);
            }
            5 => {
                let state = unit.save();
                unit.restore(&state);
                assert_eq!(unit.save(), state, "the state holds everything");
                unit.take_reports();
            }
            _ => translate(&mut unit, config, &memory, &mut input, operation),
        }
        drop(unit);
        world.settle();
    }
}

/// The pages that the wild function's domain has, and where its tables are.
const DOMAIN: std::ops::Range<u64> = 0x8000..0xc000;

/// A function that may be told anything, in a domain without device TLB: nothing outside the domain changes.
fn wild(input: &mut Input<'_>, scalable: bool) {
    let config = UnitConfig { scalable_mode: true, device_tlb: true, page_requests: true, ..UnitConfig::default() };
    let mut world = World::new(config, MEMORY as usize);
    let put = |at: u64, quadwords: &[u64]| {
        for (n, quadword) in (0..).zip(quadwords) {
            world.memory.put(at + 8 * n, &quadword.to_le_bytes());
        }
    };
    put(0x1000, &[0x2001]);
    if scalable {
        let entry = [0x3000 | scalable_context::PASID_ENABLE | 1, 0];
        put(0x2000 + u64::from(SOURCE) * scalable_context::SIZE, &entry);
        put(0x3000, &[0xd001]);
        put(0xd000, &[0x4000 | 2 << pasid::WIDTH_SHIFT | pasid::TYPE_SECOND_STAGE << pasid::TYPE_SHIFT | 1, 7]);
        let first = [pasid::TYPE_FIRST_STAGE << pasid::TYPE_SHIFT | 1, 8, 0xe000];
        put(0xd000 + pasid::SIZE, &first);
    } else {
        put(0x2000 + u64::from(SOURCE) * context::SIZE, &[0x4001, 7 << context::DOMAIN_SHIFT | 2]);
    }
    put(0x4000, &[0x5003]);
    put(0x5000, &[0x6003]);
    put(0x6000, &[0x7003]);
    for page in DOMAIN.step_by(0x1000) {
        put(0x7000 + page / 0x1000 * 8, &[page | 3]);
    }
    {
        let mut unit = world.unit();
        unit.write(0, 0x20, 8, 0x1000 | if scalable { 0x400 } else { 0 });
        unit.write(0, 0x18, 4, 1 << 30);
        unit.write(0, 0x18, 4, 1 << 31);
    }
    let outside = |world: &World| {
        let memory = world.memory.bytes(0, MEMORY as usize);
        [&memory[..DOMAIN.start as usize], &memory[DOMAIN.end as usize..]].concat()
    };
    let before = outside(&world);
    while !input.is_empty() {
        world.act(input);
    }
    assert!(outside(&world) == before, "a function has changed memory outside its domain");
}

fn translate(unit: &mut RemappingUnit, config: UnitConfig, memory: &VecDma, input: &mut Input<'_>, operation: u8) {
    let has = |bit: u8| operation >> bit & 1 != 0;
    let access = Access { read: !has(3), write: has(3), execute: has(4) && !has(3), zero_length: false };
    let request = Request {
        source: input.byte().into(),
        address: quadword(input),
        access,
        kind: if has(5) { RequestKind::Translation } else { RequestKind::Untranslated },
        pasid: has(6).then(|| input.number(3) as u32 & 0xf_ffff),
        privileged: has(7),
    };
    let before = unit.save();
    let result = unit.translate(&request);
    // With empty caches, what is found is found again: from the caches as from the tables. In scalable mode flags are set in the tables,
    // which here may be any other table too.
    if !config.scalable_mode {
        let mut fresh = self::unit(config, memory);
        fresh.restore(&before);
        fresh.forget();
        let first = fresh.translate(&request);
        assert_eq!(fresh.translate(&request), first, "a translation that was kept is the translation");
    }
    if let Ok(translation) = result {
        assert!((1..=0x1000).contains(&translation.length), "a translation ends with its page");
    }
}

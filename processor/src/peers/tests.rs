//! Two processors on two threads.

use super::*;
use crate::cet::CetCode;
use crate::cpu::RDI;
use crate::decode::cache::BlockKind;
use crate::run::{Activity, RunExit};
use crate::testing::{Machine, TestBus};
use crate::{CodeCache, GuestRam};
use spec::apic::local_apic::{DeliveryMode, Shorthand};

const CODE: u64 = 0x8000;
const DATA: u64 = 0x9000;

/// Two processors in 64-bit mode with one memory, both at [`CODE`].
fn pair() -> (Arc<Peers>, [Machine; 2]) {
    let mut first = Machine::long();
    first.cpu.rip = CODE;
    let bus = TestBus::default();
    let (ram, map) = (first.cpu.ram.clone(), first.cpu.map.clone());
    let mut cpu = Cpu::new(1, ram, map, Box::new(bus.clone())).with_model(first.cpu.model.clone(), 2);
    cpu.restore(&first.cpu.save());
    let code = CodeCache::new(|feature| crate::decode::announced::announces(&cpu.model, feature));
    let mut both = [first, Machine { cpu, code, bus }];
    let peers = Peers::new(2);
    both[0].cpu.ram.share(peers.clone());
    let clock = HostClock::starting_at(0);
    for (index, machine) in both.iter_mut().enumerate() {
        let announces = |feature| crate::decode::announced::announces(&machine.cpu.model, feature);
        machine.code = CodeCache::new(announces).of_processor(index);
        machine.cpu.join(peers.clone(), clock);
    }
    (peers, both)
}

/// Runs until HLT, in short legs.
fn run(machine: &mut Machine) {
    while machine.cpu.activity == Activity::Active {
        let until = machine.cpu.now() + 1_000_000;
        machine.cpu.run(&mut machine.code, until);
    }
}

/// Has both run `code` to its HLT, with the same registers, on two threads; with translations if `translated`.
fn run_both(code: &[u8], registers: &[(usize, u64)], translated: bool) -> Arc<GuestRam> {
    let (_, mut both) = pair();
    both[0].cpu.ram.write(CODE, code);
    for machine in &mut both {
        for &(register, value) in registers {
            machine.cpu.regs[register] = value;
        }
        if translated && machine.code.use_translator() {
            machine.cpu.use_translator();
        }
    }
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for machine in &mut both {
            scope.spawn(|| {
                start.wait();
                run(machine);
            });
        }
    });
    both[0].cpu.ram.clone()
}

const RCX: usize = 1;
const RSI: usize = 6;
/// lock add qword [rdi], 1; loop; hlt.
const ADD: [u8; 8] = [0xf0, 0x48, 0x83, 0x07, 0x01, 0xe2, 0xf9, 0xf4];

#[test]
fn locked_additions_lose_nothing() {
    const TIMES: u64 = 100_000;
    for translated in [false, true] {
        // Aligned, and within a cache line.
        for at in [DATA, DATA + 0x21] {
            let ram = run_both(&ADD, &[(RDI, at), (RCX, TIMES)], translated);
            assert_eq!(ram.load::<8>(at), 2 * TIMES, "at {at:#x}, translated: {translated}");
        }
    }
}

#[test]
fn locked_additions_across_lines_and_pages_lose_nothing() {
    const TIMES: u64 = 300;
    for translated in [false, true] {
        for at in [DATA + 0x3d, DATA + 0xffd] {
            let ram = run_both(&ADD, &[(RDI, at), (RCX, TIMES)], translated);
            assert_eq!(ram.load::<8>(at), 2 * TIMES, "at {at:#x}, translated: {translated}");
        }
    }
}

#[test]
fn sixteen_bytes_are_exchanged_at_once() {
    // mov rax, [rdi]; mov rdx, [rdi + 8]; again: lea rbx, [rax + 1]; lea rcx, [rdx + 3]; lock cmpxchg16b [rdi]; jne again; dec esi; jne; hlt
    const CODE: [u8; 27] = [
        0x48, 0x8b, 0x07, 0x48, 0x8b, 0x57, 0x08, 0x48, 0x8d, 0x58, 0x01, 0x48, 0x8d, 0x4a, 0x03, 0xf0, 0x48, 0x0f,
        0xc7, 0x0f, 0x75, 0xf1, 0xff, 0xce, 0x75, 0xe6, 0xf4,
    ];
    const TIMES: u64 = 50_000;
    for translated in [false, true] {
        let ram = run_both(&CODE, &[(RDI, DATA), (RSI, TIMES)], translated);
        assert_eq!((ram.load::<8>(DATA), ram.load::<8>(DATA + 8)), (2 * TIMES, 6 * TIMES), "translated: {translated}");
    }
}

#[test]
fn a_store_by_another_is_seen_although_its_page_was_cached_before_there_was_code() {
    const WRITER: u64 = 0xa000;
    let (_, mut both) = pair();
    // mov eax, 1; hlt
    both[0].cpu.ram.write(CODE, &[0xb8, 1, 0, 0, 0, 0xf4]);
    // mov byte [rdi], 2; hlt
    both[0].cpu.ram.write(WRITER, &[0xc6, 0x07, 0x02, 0xf4]);
    let [writer, reader] = &mut both;
    let mut write = |at: u64| {
        (writer.cpu.rip, writer.cpu.regs[RDI], writer.cpu.activity) = (WRITER, at, Activity::Active);
        writer.cpu.attention = 0;
        run(writer);
    };
    let read = |reader: &mut Machine| {
        (reader.cpu.rip, reader.cpu.activity) = (CODE, Activity::Active);
        reader.cpu.attention = 0;
        run(reader);
        reader.cpu.regs[0]
    };
    write(CODE + 0x800);
    assert_eq!(read(reader), 1);
    write(CODE + 1);
    assert_eq!(read(reader), 2);
}

#[test]
fn who_decodes_from_a_marked_page_waits_until_stores_to_it_are_seen() {
    let ram = Machine::long().cpu.ram;
    let peers = Peers::new(3);
    ram.share(peers.clone());
    // mov eax, 1; hlt
    ram.write(CODE, &[0xb8, 1, 0, 0, 0, 0xf4]);
    // Processor 0 executes, with the page cached for stores.
    ram.note_writer(CODE, 1);
    peers.begin(0);
    let decode = |index: usize| {
        let mut code = CodeCache::new(|_| true).of_processor(index);
        let kind = BlockKind { code_size: 2, single: false, cet: CetCode::Off, locks: false };
        peers.begin(index);
        let block = code.decode(&ram, CODE, None, kind).unwrap();
        peers.end(index);
        code.block(block).unwrap().ops[0].imm
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| decode(1));
        wait_until(|| lock(&peers.each[0].mail).asked == 1);
        let second = scope.spawn(|| decode(2));
        std::thread::sleep(Duration::from_millis(50));
        // Nobody is told of this store.
        ram.store::<1>(CODE + 1, 2);
        peers.end(0);
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (2, 2));
    });
}

#[test]
fn what_devices_write_is_seen() {
    let (_, mut both) = pair();
    for value in [1, 2, 3] {
        both[0].cpu.ram.write(CODE, &[0xb8, value, 0, 0, 0, 0xf4]);
        for machine in &mut both {
            (machine.cpu.rip, machine.cpu.activity, machine.cpu.attention) = (CODE, Activity::Active, 0);
            run(machine);
            assert_eq!(machine.cpu.regs[0], u64::from(value));
        }
    }
}

#[test]
fn code_changed_by_another_is_seen_after_serialization() {
    const ROUNDS: u32 = 2000;
    /// again: mov eax, [rdi]; cmp eax, r8d; je again; mov r8d, eax; cpuid; mov eax, (changed); mov [rdi + 8], eax; mov [rdi + 16], r8d;
    /// cmp r8d, esi; jne again; hlt
    const PROGRAM: [u8; 30] = [
        0x8b, 0x07, 0x44, 0x39, 0xc0, 0x74, 0xf9, 0x41, 0x89, 0xc0, 0x0f, 0xa2, 0xb8, 0, 0, 0, 0, 0x89, 0x47, 0x08,
        0x44, 0x89, 0x47, 0x10, 0x41, 0x39, 0xf0, 0x75, 0xe3, 0xf4,
    ];
    for translated in [false, true] {
        let (_, mut both) = pair();
        let ram = both[0].cpu.ram.clone();
        ram.write(CODE, &PROGRAM);
        let [machine, _] = &mut both;
        (machine.cpu.regs[RDI], machine.cpu.regs[RSI], machine.cpu.regs[8]) = (DATA, u64::from(ROUNDS), 0);
        if translated && machine.code.use_translator() {
            machine.cpu.use_translator();
        }
        let late = std::thread::scope(|scope| {
            scope.spawn(|| run(machine));
            let mut late = 0;
            for round in 1..=ROUNDS {
                ram.write(CODE + 13, &round.to_le_bytes());
                ram.write(DATA, &round.to_le_bytes());
                wait_until(|| ram.load::<4>(DATA + 16) == u64::from(round));
                late += u32::from(ram.load::<4>(DATA + 8) != u64::from(round));
            }
            late
        });
        assert_eq!(late, 0, "translated: {translated}");
    }
}

#[test]
fn a_message_goes_to_whom_it_names() {
    let (peers, mut both) = pair();
    for machine in &mut both {
        machine.cpu.apic.set_virtual_wire();
        machine.cpu.begin_run();
        machine.cpu.end_run();
    }
    let message = InterruptMessage {
        destination: 0,
        logical: false,
        delivery: DeliveryMode::Fixed,
        vector: 0x41,
        level_triggered: false,
        shorthand: Shorthand::AllExcludingSelf,
    };
    peers.send(Some(0), &message);
    let [first, second] = &mut both;
    assert_eq!(second.cpu.run(&mut second.code, u64::MAX), RunExit::Kicked);
    assert!(second.cpu.apic.is_requested(0x41) && !first.cpu.is_kicked());
    peers.set_interrupt_pin(true);
    assert!(first.cpu.is_kicked() && !second.cpu.is_kicked());
}

#[test]
fn a_kick_ends_an_endless_loop() {
    for translated in [false, true] {
        let (peers, mut both) = pair();
        // jmp to itself
        both[0].cpu.ram.write(CODE, &[0xeb, 0xfe]);
        let [machine, _] = &mut both;
        if translated && machine.code.use_translator() {
            machine.cpu.use_translator();
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                loop {
                    let exit = machine.cpu.run(&mut machine.code, u64::MAX);
                    // The first may come before anything was run.
                    if exit == RunExit::Kicked && machine.cpu.instructions > 0 {
                        return;
                    }
                }
            });
            while !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
                peers.kick_all();
            }
        });
    }
}

#[test]
fn sleep_ends_by_a_kick_or_by_its_limit() {
    let (peers, mut both) = pair();
    peers.sleep(0, Some(Duration::from_millis(1)));
    assert!(!peers.all_sleep_for_good());
    std::thread::scope(|scope| {
        scope.spawn(|| peers.sleep(0, None));
        scope.spawn(|| peers.sleep(1, None));
        while !peers.all_sleep_for_good() {
            std::thread::yield_now();
        }
        peers.kick_all();
    });
    both[0].cpu.open_mail();
    assert!(!both[0].cpu.is_kicked());
}

//! MOVS, CMPS, STOS, LODS, SCAS with their repeat prefixes.
//!
//! A repeated instruction does a bounded number of iterations and then, if some are left, stays at its own RIP with the registers advanced: the
//! architecture's own picture of an interrupted one (SDM Vol 2B, REP). Runs within a page of RAM are copied or filled at once. As each of these
//! goes counts as one instruction, its length follows from the registers alone, not from what is cached.

use super::operand::{read, write};
use crate::branch;
use crate::cpu::{Cpu, Mode, RAX, RCX, RDI, RSI};
use crate::decode::op::{ADDRESS_16, ADDRESS_32, REP, REPNE};
use crate::decode::{Op, Table};
use crate::flags::{DF, LateFlags};
use crate::memory::paging::Kind;
use crate::segment::{ES, ZERO};
use crate::trap::Exec;
use iced_x86::Code;

/// Most iterations in one go of those that do not end with a page.
const ITERATIONS: u64 = 256;

#[inline(always)]
fn address_mask(op: &Op) -> u64 {
    if op.has(ADDRESS_16) {
        0xffff
    } else if op.has(ADDRESS_32) {
        0xffff_ffff
    } else {
        u64::MAX
    }
}

/// Adds to a register with the address size's width.
#[inline(always)]
fn advance(cpu: &mut Cpu, register: usize, by: u64, mask: u64) {
    let value = cpu.regs[register].wrapping_add(by) & mask;
    cpu.regs[register] = if mask == 0xffff { cpu.regs[register] & !0xffff | value } else { value };
}

impl Cpu {
    /// The linear address of a string operand: RSI through `seg`, or RDI through ES (`seg` [`ES`]; its base counts outside 64-bit mode only).
    #[inline(always)]
    pub fn string_linear(&mut self, seg: u8, offset: u64, size: u64, write: bool) -> Exec<u64> {
        if self.mode == Mode::Long64 {
            return Ok(offset.wrapping_add(self.segs[(seg & 7) as usize].base));
        }
        self.segment_linear(seg as usize, offset, size, write)
    }

    /// The segment slot of ES for string destinations.
    #[inline(always)]
    pub fn string_es(&self) -> u8 {
        if self.mode == Mode::Long64 { ZERO as u8 } else { ES as u8 }
    }
}

#[inline(always)]
fn source<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64) -> Exec<u64> {
    let offset = cpu.regs[RSI] & mask;
    let address = cpu.string_linear(op.seg, offset, N as u64, false)?;
    cpu.load::<N>(address)
}

fn destination(cpu: &mut Cpu, size: u64, mask: u64, write: bool) -> Exec<u64> {
    let offset = cpu.regs[RDI] & mask;
    let seg = cpu.string_es();
    cpu.string_linear(seg, offset, size, write)
}

fn movs<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64, step: u64) -> Exec {
    let value = source::<N>(cpu, op, mask)?;
    let address = destination(cpu, N as u64, mask, true)?;
    cpu.store::<N>(address, value)?;
    advance(cpu, RSI, step, mask);
    advance(cpu, RDI, step, mask);
    Ok(())
}

fn stos<const N: usize>(cpu: &mut Cpu, _op: &Op, mask: u64, step: u64) -> Exec {
    let address = destination(cpu, N as u64, mask, true)?;
    cpu.store::<N>(address, read::<N>(cpu, RAX as u8))?;
    advance(cpu, RDI, step, mask);
    Ok(())
}

fn lods<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64, step: u64) -> Exec {
    let value = source::<N>(cpu, op, mask)?;
    write::<N>(cpu, RAX as u8, value);
    advance(cpu, RSI, step, mask);
    Ok(())
}

fn compare<const N: usize>(cpu: &mut Cpu, a: u64, b: u64) {
    let difference = a.wrapping_sub(b);
    cpu.flags = LateFlags::with_carries(difference, !a & b | (!a | b) & difference, N);
}

fn cmps<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64, step: u64) -> Exec {
    let a = source::<N>(cpu, op, mask)?;
    let address = destination(cpu, N as u64, mask, false)?;
    let b = cpu.load::<N>(address)?;
    compare::<N>(cpu, a, b);
    advance(cpu, RSI, step, mask);
    advance(cpu, RDI, step, mask);
    Ok(())
}

fn scas<const N: usize>(cpu: &mut Cpu, _op: &Op, mask: u64, step: u64) -> Exec {
    let address = destination(cpu, N as u64, mask, false)?;
    let b = cpu.load::<N>(address)?;
    let a = read::<N>(cpu, RAX as u8);
    compare::<N>(cpu, a, b);
    advance(cpu, RDI, step, mask);
    Ok(())
}

/// Elements from linear address `at` to the end of its page.
fn in_page<const N: usize>(at: u64) -> u64 {
    (0x1000 - (at & 0xfff)) / N as u64
}

fn movs_reach<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64) -> u64 {
    match cpu.string_linear(op.seg, cpu.regs[RSI] & mask, N as u64, false) {
        Ok(from) => in_page::<N>(from).min(stos_reach::<N>(cpu, op, mask)),
        Err(_) => 0,
    }
}

fn stos_reach<const N: usize>(cpu: &mut Cpu, _op: &Op, mask: u64) -> u64 {
    destination(cpu, N as u64, mask, true).map_or(0, in_page::<N>)
}

/// Of `count` elements from the linear address `at` on, or down from there, how many lie in its page.
fn in_page_towards<const N: usize>(at: u64, forward: bool, count: u64) -> u64 {
    let down = (at & 0xfff) / N as u64 + 1;
    count.min(match in_page::<N>(at) {
        0 => 0,
        up if forward => up,
        _ => down,
    })
}

fn movs_run<const N: usize>(cpu: &mut Cpu, op: &Op, mask: u64, count: u64, forward: bool) -> u64 {
    let (Ok(from), Ok(to)) =
        (cpu.string_linear(op.seg, cpu.regs[RSI] & mask, N as u64, false), destination(cpu, N as u64, mask, true))
    else {
        return 0;
    };
    let count = in_page_towards::<N>(to, forward, in_page_towards::<N>(from, forward, count));
    if count < 2 || cpu.tlb.is_slow() {
        return 0;
    }
    let (length, es) = (count * N as u64, cpu.string_es());
    // To the lowest element.
    let down = if forward { 0 } else { length - N as u64 };
    if !run_fits(cpu, op.seg, RSI, down, length, mask, false) || !run_fits(cpu, es, RDI, down, length, mask, true) {
        return 0;
    }
    // Both pages may have the same place in the TLB's table.
    let Some(source) = present(cpu, from, Kind::Read) else { return 0 };
    let Some(target) = present(cpu, to, Kind::Write) else { return 0 };
    let (first, second) = if forward { (source, target) } else { (target, source) };
    if second > first && second < first + length {
        return 0;
    }
    cpu.ram.copy_within(source - down, target - down, length as usize);
    let by = if forward { length } else { length.wrapping_neg() };
    advance(cpu, RSI, by, mask);
    advance(cpu, RDI, by, mask);
    count
}

/// The RAM offset of the byte at `linear`, if such an access may go straight to memory.
fn present(cpu: &mut Cpu, linear: u64, kind: Kind) -> Option<u64> {
    let find = |cpu: &Cpu| if kind == Kind::Write { cpu.tlb.find_write(linear) } else { cpu.tlb.find_read(linear) };
    find(cpu).or_else(|| if cpu.make_present(linear, kind) { find(cpu) } else { None })
}

fn stos_run<const N: usize>(cpu: &mut Cpu, _op: &Op, mask: u64, count: u64, forward: bool) -> u64 {
    if !forward {
        return 0;
    }
    let Ok(to) = destination(cpu, N as u64, mask, true) else { return 0 };
    let count = count.min(in_page::<N>(to));
    let length = count * N as u64;
    if count < 2 || !run_fits(cpu, cpu.string_es(), RDI, 0, length, mask, true) {
        return 0;
    }
    let Some(target) = cpu.tlb.find_write(to) else { return 0 };
    let value = read::<N>(cpu, RAX as u8);
    let byte = value as u8;
    if value == byte as u64 * (0x0101_0101_0101_0101 >> (64 - 8 * N)) {
        cpu.ram.fill(target, length as usize, byte);
    } else {
        for i in 0..count {
            cpu.ram.store::<N>(target + i * N as u64, value);
        }
    }
    advance(cpu, RDI, length, mask);
    count
}

/// The whole run, which begins `down` bytes below the address in `register`, passes the segment's checks and does not wrap the address size.
fn run_fits(cpu: &mut Cpu, seg: u8, register: usize, down: u64, length: u64, mask: u64, write: bool) -> bool {
    let highest = cpu.regs[register] & mask;
    let offset = highest.wrapping_sub(down);
    (mask == u64::MAX || highest >= down && offset + length - 1 <= mask)
        && cpu.string_linear(seg, offset, length, write).is_ok()
}

type Body = fn(&mut Cpu, &Op, u64, u64) -> Exec;

/// How a run within a page is done at once.
#[derive(Clone, Copy)]
struct Run {
    /// Elements to the end of the page on every side, from the registers.
    reach: fn(&mut Cpu, &Op, u64) -> u64,
    /// Does at most so many of them, with rising addresses or falling; gives how many. 0 if the plain way must be taken.
    perform: fn(&mut Cpu, &Op, u64, u64, bool) -> u64,
}

/// Runs `body` once, or as REP says. `COMPARES`: REPE and REPNE look at ZF after each iteration.
#[inline(always)]
fn repeat<const N: usize, const COMPARES: bool>(cpu: &mut Cpu, op: &Op, body: Body, run: Option<Run>) -> Exec {
    let mask = address_mask(op);
    let forward = cpu.rflags & DF == 0;
    let step = if forward { N as u64 } else { (N as u64).wrapping_neg() };
    if op.flags & (REP | REPNE) == 0 {
        body(cpu, op, mask, step)?;
        cpu.rip = cpu.next_rip(op);
        return Ok(());
    }
    let mut iterations = match run {
        _ if cpu.exact => 1,
        Some(run) if forward => (run.reach)(cpu, op, mask).max(1),
        _ => ITERATIONS,
    };
    let before = cpu.flags;
    cpu.code_stores = true;
    let mut result = Ok(());
    while iterations > 0 && result.is_ok() {
        let left = cpu.regs[RCX] & mask;
        if left == 0 {
            break;
        }
        let most = left.min(iterations);
        let mut done = match run {
            Some(run) if !cpu.exact => (run.perform)(cpu, op, mask, most, forward),
            _ => 0,
        };
        if done == 0 {
            result = body(cpu, op, mask, step);
            done = 1;
        }
        if result.is_ok() {
            advance(cpu, RCX, done.wrapping_neg(), mask);
            iterations -= done;
            if COMPARES && cpu.flags.zf() == op.has(REPNE) {
                cpu.code_stores = false;
                cpu.rip = cpu.next_rip(op);
                return Ok(());
            }
        }
    }
    cpu.code_stores = false;
    if COMPARES && op.has(REPNE) && result.is_err() {
        // A page fault finds the flags as they were before the instruction (SDM Vol. 2B, REP); with REPE, which the manual does not
        // name, processors show those of the last comparison.
        cpu.flags = before;
    }
    result?;
    if cpu.regs[RCX] & mask == 0 {
        cpu.rip = cpu.next_rip(op);
    } else {
        cpu.rip = cpu.rip_of(op);
        cpu.note_iterations_left(op);
    }
    Ok(())
}

fn movs_all<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    repeat::<N, false>(cpu, op, movs::<N>, Some(Run { reach: movs_reach::<N>, perform: movs_run::<N> }))
}
fn stos_all<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    repeat::<N, false>(cpu, op, stos::<N>, Some(Run { reach: stos_reach::<N>, perform: stos_run::<N> }))
}
fn lods_all<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    repeat::<N, false>(cpu, op, lods::<N>, None)
}
fn cmps_all<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    repeat::<N, true>(cpu, op, cmps::<N>, None)
}
fn scas_all<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    repeat::<N, true>(cpu, op, scas::<N>, None)
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    table.end(Code::Movsb_m8_m8, branch!(movs_all::<1>));
    table.end(Code::Movsw_m16_m16, branch!(movs_all::<2>));
    table.end(Code::Movsd_m32_m32, branch!(movs_all::<4>));
    table.end(Code::Movsq_m64_m64, branch!(movs_all::<8>));
    table.end(Code::Stosb_m8_AL, branch!(stos_all::<1>));
    table.end(Code::Stosw_m16_AX, branch!(stos_all::<2>));
    table.end(Code::Stosd_m32_EAX, branch!(stos_all::<4>));
    table.end(Code::Stosq_m64_RAX, branch!(stos_all::<8>));
    table.end(Code::Lodsb_AL_m8, branch!(lods_all::<1>));
    table.end(Code::Lodsw_AX_m16, branch!(lods_all::<2>));
    table.end(Code::Lodsd_EAX_m32, branch!(lods_all::<4>));
    table.end(Code::Lodsq_RAX_m64, branch!(lods_all::<8>));
    table.end(Code::Cmpsb_m8_m8, branch!(cmps_all::<1>));
    table.end(Code::Cmpsw_m16_m16, branch!(cmps_all::<2>));
    table.end(Code::Cmpsd_m32_m32, branch!(cmps_all::<4>));
    table.end(Code::Cmpsq_m64_m64, branch!(cmps_all::<8>));
    table.end(Code::Scasb_AL_m8, branch!(scas_all::<1>));
    table.end(Code::Scasw_AX_m16, branch!(scas_all::<2>));
    table.end(Code::Scasd_EAX_m32, branch!(scas_all::<4>));
    table.end(Code::Scasq_RAX_m64, branch!(scas_all::<8>));
}

#[cfg(test)]
mod tests {
    use crate::testing::Machine;

    /// The state after `time` nanoseconds of a loop that fills `count` bytes at 0x9000, in turns of `turn`.
    fn after_filling(before: impl Fn(&mut Machine), count: u8, turn: u64, time: u64) -> crate::state::CpuState {
        let mut machine = Machine::long();
        machine.cpu.rip = 0x8000;
        // mov edi, 0x9000; mov ecx, count; rep stosb; inc rax; jmp to the start
        machine.write(0x8000, &[0xbf, 0, 0x90, 0, 0, 0xb9, count, 0, 0, 0, 0xf3, 0xaa, 0x48, 0xff, 0xc0, 0xeb, 0xef]);
        machine.write(0x9000, &[0xc3]);
        before(&mut machine);
        while machine.cpu.now() < time {
            let until = machine.cpu.now() + turn;
            machine.cpu.run(&mut machine.code, until.min(time));
        }
        machine.cpu.save()
    }

    #[test]
    fn a_repeated_instruction_counts_the_same_however_runs_are_cut() {
        assert_eq!(after_filling(|_| {}, 100, 1, 400), after_filling(|_| {}, 100, 400, 400));
        assert_eq!(after_filling(|_| {}, 100, 3, 400), after_filling(|_| {}, 100, 400, 400));
    }

    /// What MOVSB makes of 64 KiB, and the registers, `from` and `to` being where the lowest bytes are.
    fn moved(from: u64, to: u64, count: u64, down: bool) -> (Vec<u8>, [u64; 3]) {
        let mut machine = Machine::long();
        let memory: Vec<u8> = (0..0x1_0000u32).map(|i| (i * 7 + (i >> 8) * 3) as u8).collect();
        machine.write(0x4_0000, &memory);
        machine.write(0x8000, &[if down { 0xfd } else { 0xfc }, 0xf3, 0xa4, 0xf4]); // std or cld; rep movsb; hlt
        machine.cpu.rip = 0x8000;
        let last = if down { count - 1 } else { 0 };
        for (register, value) in
            [(crate::cpu::RSI, from + last), (crate::cpu::RDI, to + last), (crate::cpu::RCX, count)]
        {
            machine.cpu.regs[register] = value;
        }
        machine.run_to_halt(10_000);
        let mut after = vec![0; memory.len()];
        machine.cpu.ram.read(0x4_0000, &mut after);
        (after, [crate::cpu::RSI, crate::cpu::RDI, crate::cpu::RCX].map(|register| machine.cpu.regs[register]))
    }

    #[test]
    fn bytes_move_one_by_one_upwards_and_downwards() {
        for (from, to) in
            [(0x10, 0x4010), (0x4ff8, 0x1003), (0x2000, 0x2005), (0x2005, 0x2000), (0x2000, 0x2fff), (0x2fff, 0x2000)]
        {
            for count in [1, 2, 100, 0x1800] {
                for down in [false, true] {
                    let mut memory: Vec<u8> = (0..0x1_0000u32).map(|i| (i * 7 + (i >> 8) * 3) as u8).collect();
                    for i in 0..count {
                        let at = if down { count - 1 - i } else { i } as usize;
                        memory[to as usize + at] = memory[from as usize + at];
                    }
                    let past = if down { u64::MAX } else { count };
                    let ends = [from, to].map(|lowest: u64| (0x4_0000 + lowest).wrapping_add(past));
                    let (after, registers) = moved(0x4_0000 + from, 0x4_0000 + to, count, down);
                    assert!(after == memory, "{from:#x} to {to:#x}, {count} bytes, down: {down}");
                    assert_eq!(registers, [ends[0], ends[1], 0]);
                }
            }
        }
    }

    #[test]
    fn a_fault_restores_the_flags_of_repne_but_not_of_repe() {
        for (prefix, value, flags) in [(0xf2, 1, 0x8d7), (0xf3, 0, 0x46)] {
            let mut machine = Machine::real();
            machine.write(4 * 13, &[0x00, 0x90, 0x00, 0x00]);
            machine.write(0x9000, &[0xf4]);
            machine.write(0x8000, &[prefix, 0xaf]); // scasw
            machine.cpu.set_rflags(0x8d7);
            machine.cpu.regs[crate::cpu::RAX] = value;
            machine.cpu.regs[crate::cpu::RCX] = 64;
            machine.cpu.regs[crate::cpu::RDI] = 0xffe1; // the last word crosses the limit
            machine.run_to_halt(100);
            assert_eq!((machine.at(), machine.cpu.regs[crate::cpu::RDI]), ((0, 0x9001), 0xffff));
            assert_eq!(machine.load(machine.cpu.regs[4] + 4, 2), flags, "prefix {prefix:#x}");
        }
    }

    #[test]
    fn decoded_code_at_the_destination_does_not_count() {
        // ret at 0x9000 is decoded, or is not.
        let warm = |machine: &mut Machine| {
            let kind = crate::decode::cache::BlockKind {
                code_size: 2,
                single: true,
                cet: crate::cet::CetCode::Off,
                locks: false,
            };
            machine.code.decode(&machine.cpu.ram, 0x9000, None, kind);
        };
        assert_eq!(after_filling(warm, 100, 50, 50), after_filling(|_| {}, 100, 50, 50));
    }
}

//! What the host's processor makes of flags that the manual leaves undefined, compared with the interpreter when the first translator is made.

use super::buffer::CodeBuffer;
use super::emit::{Emitter, Quiet};
use super::enter::leave_address;
use super::host::extensions;
use super::run::execute;
use super::state::Blocks;
use crate::apic::InterruptMessage;
use crate::bus::Bus;
use crate::cpu::{Cpu, RAX, RBX, RDX};
use crate::decode::Ops;
use crate::decode::cache::CodeCache;
use crate::flags::{AF, LateFlags};
use crate::memory::map::MemoryMap;
use crate::memory::ram::GuestRam;
use iced_x86::{CpuidFeature, Mnemonic};
use std::sync::{Arc, LazyLock};

/// A form of an instruction on RAX, RDX and RBX, whose bytes are the host's as well as the guest's.
struct Form {
    mnemonic: Mnemonic,
    /// Prefixes that come before REX.
    prefix: &'static [u8],
    bytes: &'static [u8],
    /// There is a form for bytes, with the opcode's lowest bit clear.
    bytewise: bool,
}

const fn form(mnemonic: Mnemonic, prefix: &'static [u8], bytes: &'static [u8], bytewise: bool) -> Form {
    Form { mnemonic, prefix, bytes, bytewise }
}

/// Legacy encodings; shifts are by one.
const LEGACY: &[Form] = &[
    form(Mnemonic::And, &[], &[0x21, 0xd0], true),
    form(Mnemonic::Or, &[], &[0x09, 0xd0], true),
    form(Mnemonic::Xor, &[], &[0x31, 0xd0], true),
    form(Mnemonic::Test, &[], &[0x85, 0xd0], true),
    form(Mnemonic::Shl, &[], &[0xd1, 0xe0], true),
    form(Mnemonic::Sal, &[], &[0xd1, 0xf0], true),
    form(Mnemonic::Shr, &[], &[0xd1, 0xe8], true),
    form(Mnemonic::Sar, &[], &[0xd1, 0xf8], true),
    form(Mnemonic::Mul, &[], &[0xf7, 0xe2], true),
    form(Mnemonic::Imul, &[], &[0xf7, 0xea], true),
    form(Mnemonic::Imul, &[], &[0x0f, 0xaf, 0xc2], false),
    form(Mnemonic::Bt, &[], &[0x0f, 0xa3, 0xd0], false),
    form(Mnemonic::Bts, &[], &[0x0f, 0xab, 0xd0], false),
    form(Mnemonic::Btr, &[], &[0x0f, 0xb3, 0xd0], false),
    form(Mnemonic::Btc, &[], &[0x0f, 0xbb, 0xd0], false),
    form(Mnemonic::Bsf, &[], &[0x0f, 0xbc, 0xc2], false),
    form(Mnemonic::Bsr, &[], &[0x0f, 0xbd, 0xc2], false),
    form(Mnemonic::Tzcnt, &[0xf3], &[0x0f, 0xbc, 0xc2], false),
    form(Mnemonic::Lzcnt, &[0xf3], &[0x0f, 0xbd, 0xc2], false),
    form(Mnemonic::Popcnt, &[0xf3], &[0x0f, 0xb8, 0xc2], false),
];

/// The third byte of VEX (without W), opcode and ModRM, in map 2.
const VEX: &[(Mnemonic, [u8; 3])] = &[
    (Mnemonic::Andn, [0x68, 0xf2, 0xc3]),
    (Mnemonic::Blsr, [0x78, 0xf3, 0xca]),
    (Mnemonic::Blsmsk, [0x78, 0xf3, 0xd2]),
    (Mnemonic::Blsi, [0x78, 0xf3, 0xda]),
    (Mnemonic::Bextr, [0x60, 0xf7, 0xc2]),
    (Mnemonic::Bzhi, [0x60, 0xf5, 0xc2]),
];

const VALUES: [u64; 18] = [
    0,
    1,
    2,
    3,
    0x7f,
    0x80,
    0xff,
    0x0f0e,
    0x2010,
    0x4008,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0x1_0000_0000,
    0x1234_5678_9abc_def1,
    1 << 63,
    u64::MAX >> 1,
    u64::MAX,
];

/// Numbers to shift by.
const SHIFTS: [u8; 14] = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63];

/// No board at all.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, _now: u64, _address: u64, _size: u8) -> u64 {
        0
    }
    fn write(&mut self, _now: u64, _address: u64, _size: u8, _value: u64) {}
    fn io_read(&mut self, _now: u64, _port: u16, _size: u8) -> u32 {
        0
    }
    fn io_write(&mut self, _now: u64, _port: u16, _size: u8, _value: u32) {}
    fn send_interrupt(&mut self, _now: u64, _message: InterruptMessage) {}
    fn end_of_interrupt(&mut self, _now: u64, _vector: u8) {}
    fn acknowledge_external(&mut self, _now: u64) -> u8 {
        0
    }
    fn needs_service(&self) -> bool {
        false
    }
}

struct Probe {
    cpu: Cpu,
    code: CodeCache,
    buffer: CodeBuffer,
    blocks: Blocks,
    start: u64,
    extensions: Vec<CpuidFeature>,
}

impl Probe {
    fn new() -> Option<Self> {
        let ram = Arc::new(GuestRam::new(0x1000));
        let blocks = Blocks::new(ram.host_address()).ok()?;
        let map = Arc::new(MemoryMap { regions: Vec::new() });
        let cpu = Cpu::new(0, ram, map, Box::new(Nothing));
        let buffer = CodeBuffer::new(1 << 16).ok()?;
        let start = buffer.next();
        Some(Self { cpu, code: CodeCache::new(|_| true), buffer, blocks, start, extensions: extensions() })
    }

    /// The interpreter and the host do the same with this instruction, as far as the values show. False where the host does not have it.
    fn agree(&mut self, bytes: &[u8]) -> bool {
        self.agree_as(bytes, bytes, 1, 0)
    }

    /// The same for what the host executes instead, with each `step`th pair of values and without the flags `but`.
    fn agree_as(&mut self, bytes: &[u8], host: &[u8], step: usize, but: u64) -> bool {
        let Some((instructions, _)) = self.code.decode_again(bytes, 0, 1, 2) else { return false };
        if !instructions[0].cpuid_features().iter().all(|feature| self.extensions.contains(feature)) {
            return false;
        }
        let ops = Ops::new(vec![self.code.operation(&instructions[0], 2)], 0);
        self.buffer.reset(self.start);
        let entry = self.start;
        let mut emitter = Emitter::new(entry, Quiet::Bmi2);
        emitter.raw(host);
        emitter.far_jump(leave_address());
        self.buffer.append(emitter.bytes());
        let pairs = VALUES.iter().flat_map(|&a| VALUES.iter().map(move |&b| (a, b)));
        pairs.enumerate().step_by(step).all(|(number, (a, b))| {
            let flags = LateFlags::from_bits(if number % 3 == 0 { 0x8d5 } else { 0x8d5 & (a ^ b.rotate_left(9)) });
            let mut run = |run: &mut dyn FnMut(&mut Cpu)| {
                let cpu = &mut self.cpu;
                (cpu.regs[RAX], cpu.regs[RDX], cpu.regs[RBX], cpu.flags) = (a, b, a >> 3 ^ b, flags);
                run(cpu);
                (cpu.regs[RAX], cpu.regs[RDX], cpu.regs[RBX], cpu.flags.bits() & !but)
            };
            let ours = run(&mut |cpu| {
                ops.run(cpu);
            });
            let hosts = run(&mut |cpu| execute(&mut self.blocks, entry, cpu));
            ours == hosts
        })
    }

    /// A shift or rotate, whose ModRM byte this is, agrees by every number and by CL, but for AF.
    fn shift_agrees(&mut self, modrm: u8) -> bool {
        [&[0xc0][..], &[0x66, 0xc1], &[0xc1], &[0x48, 0xc1]].into_iter().all(|form| {
            SHIFTS.into_iter().all(|by| {
                let guest = [form, &[modrm, by]].concat();
                // The guest's CL is elsewhere: the host's RCX is free. MOV ECX, by; the form by CL.
                let mut by_count = [&[0xb9, by, 0, 0, 0], form, &[modrm]].concat();
                let opcode = by_count.len() - 2;
                by_count[opcode] |= 0x12;
                self.agree_as(&guest, &guest, 5, AF) && self.agree_as(&guest, &by_count, 5, AF)
            })
        })
    }
}

fn find() -> Vec<Mnemonic> {
    let Some(mut probe) = Probe::new() else { return Vec::new() };
    let mut found: Vec<(Mnemonic, bool)> = Vec::new();
    for form in LEGACY {
        let mut agree = true;
        for size in [&[0x66][..], &[], &[0x48]] {
            // 66, F3 and the like come before REX.
            let (before, rex) = if size == [0x48] { (&[][..], size) } else { (size, &[][..]) };
            let bytes = [before, form.prefix, rex, form.bytes].concat();
            agree &= probe.agree(&bytes);
        }
        if form.bytewise {
            agree &= probe.agree(&[form.bytes[0] & !1, form.bytes[1]]);
        }
        found.push((form.mnemonic, agree));
    }
    for (mnemonic, [third, opcode, modrm]) in VEX {
        for wide in [0, 0x80] {
            found.push((*mnemonic, probe.agree(&[0xc4, 0xe2, third | wide, *opcode, *modrm])));
        }
    }
    let agreed = |mnemonic: Mnemonic| found.iter().all(|&(other, agree)| other != mnemonic || agree);
    let mut alike: Vec<_> = found.iter().map(|&(mnemonic, _)| mnemonic).filter(|&mnemonic| agreed(mnemonic)).collect();
    alike.dedup();
    alike
}

/// The instructions that leave flags undefined, and which this host does as the interpreter does. (Of shifts, only those by one.)
pub(super) fn alike() -> &'static [Mnemonic] {
    static ALIKE: LazyLock<Vec<Mnemonic>> = LazyLock::new(find);
    &ALIKE
}

/// The shifts and rotates of which this host does as the interpreter does whatever the number is, but for AF.
pub(super) fn shifts_alike() -> &'static [Mnemonic] {
    use Mnemonic::{Rol, Ror, Sal, Sar, Shl, Shr};
    static ALIKE: LazyLock<Vec<Mnemonic>> = LazyLock::new(|| {
        let Some(mut probe) = Probe::new() else { return Vec::new() };
        let forms = [(Rol, 0xc0), (Ror, 0xc8), (Shl, 0xe0), (Shr, 0xe8), (Sal, 0xf0), (Sar, 0xf8)];
        forms.into_iter().filter(|&(_, modrm)| probe.shift_agrees(modrm)).map(|(mnemonic, _)| mnemonic).collect()
    });
    &ALIKE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logic clears AF on every processor that anyone has seen, and BT and POPCNT are alike everywhere: were they not here, the probe would be
    /// wrong, and the engine slow. (Shifts clear AF on Intel's processors and set it on AMD's.)
    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn what_every_processor_does_is_found() {
        if !super::super::supported() {
            return;
        }
        use Mnemonic::{And, Bt, Btc, Btr, Bts, Or, Popcnt, Test, Xor};
        for mnemonic in [And, Or, Xor, Test, Bt, Btc, Btr, Bts, Popcnt] {
            assert!(alike().contains(&mnemonic), "{mnemonic:?}");
        }
    }
}

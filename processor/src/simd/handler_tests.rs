//! What the handlers owe beside the lane functions: which bits they leave alone, faults and what is then unchanged.

use std::sync::Arc;

use super::lanes::Xmm;
use crate::apic::InterruptMessage;
use crate::cet::CetCode;
use crate::cpu::{Cpu, Mode, RDI, RSI};
use crate::decode::cache::BlockKind;
use crate::decode::op::Stop;
use crate::trap::Trap;
use crate::{Bus, CodeCache, GuestRam, MemoryMap, MemoryRegion};

struct NoBoard;

impl Bus for NoBoard {
    fn read(&mut self, _: u64, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn write(&mut self, _: u64, _: u64, _: u8, _: u64) {}
    fn io_read(&mut self, _: u64, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn io_write(&mut self, _: u64, _: u16, _: u8, _: u32) {}
    fn send_interrupt(&mut self, _: u64, _: InterruptMessage) {}
    fn end_of_interrupt(&mut self, _: u64, _: u8) {}
    fn acknowledge_external(&mut self, _: u64) -> u8 {
        0
    }
    fn needs_service(&self) -> bool {
        false
    }
}

const RAM: u64 = 0x10_0000;
const DATA: u64 = 0x8000;
/// The last page that identity-mapped 64-bit code can reach; the one after it is not present.
const LAST_PAGE: u64 = 0x1f_f000;

struct Machine {
    cpu: Cpu,
    code: CodeCache,
}

impl Machine {
    /// 64-bit code, vector state enabled. Linear 0 to 2 MiB less the first page is mapped to itself, nothing else.
    fn new() -> Self {
        let ram = Arc::new(GuestRam::new(2 * RAM));
        let region = MemoryRegion { base: 0, length: 2 * RAM, offset: 0, writable: true };
        let map = Arc::new(MemoryMap { regions: vec![region] });
        let mut cpu = Cpu::new(0, ram.clone(), map, Box::new(NoBoard));
        // PML4, PDPT and PD with one entry each; 512 pages.
        ram.write(0x1000, &0x2003u64.to_le_bytes());
        ram.write(0x2000, &0x3003u64.to_le_bytes());
        ram.write(0x3000, &0x4003u64.to_le_bytes());
        for page in 1..512u64 {
            ram.write(0x4000 + 8 * page, &(page << 12 | 3).to_le_bytes());
        }
        cpu.cr0 = 0x8000_0031;
        cpu.cr3 = 0x1000;
        cpu.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18;
        cpu.xcr0 = 7;
        cpu.efer = 0x500;
        cpu.segs[1].access |= 1 << 13;
        cpu.mode_changed();
        cpu.exact = true;
        assert_eq!(cpu.mode, Mode::Long64);
        let mut machine = Self { cpu, code: CodeCache::new(|_| true) };
        machine.cpu.regs[RSI] = DATA;
        for (i, register) in machine.cpu.ymm.iter_mut().enumerate() {
            *register = core::array::from_fn(|k| 0x0f0f_0f0f_0f0f_0f0f * (i as u64 + 1) + k as u64);
        }
        machine
    }

    /// Runs one instruction; `Err` with the exception if it does not complete.
    fn run(&mut self, bytes: &[u8]) -> Result<(), Trap> {
        let code_size = self.cpu.code_size();
        let block = self
            .code
            .decode_bytes(bytes, 0, BlockKind { code_size, single: true, cet: CetCode::Off, locks: false }, &[])
            .expect("whole instruction");
        match block.ops.first().run(&mut self.cpu) {
            Stop::Done | Stop::Taken => Ok(()),
            Stop::Trapped => Err(self.cpu.trap),
        }
    }

    fn data(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.cpu.ram.read(DATA, &mut bytes);
        bytes
    }
}

fn exception(vector: u8, error: Option<u32>) -> Result<(), Trap> {
    Err(Trap::Exception { vector, error })
}

const UNDEFINED: u8 = 6;
const NOT_AVAILABLE: u8 = 7;
const PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;
const SIMD: u8 = 19;

#[test]
fn legacy_keeps_the_upper_half_and_vex_clears_it() {
    let mut m = Machine::new();
    let upper = m.cpu.ymm[1][2..].to_vec();
    // paddb xmm1, xmm2
    m.run(&[0x66, 0x0f, 0xfc, 0xca]).unwrap();
    assert_eq!(m.cpu.ymm[1][2..], upper);
    // vpaddb xmm1, xmm1, xmm2; vaddsd xmm3, xmm4, xmm5; vmovd xmm6, eax
    for (bytes, register) in
        [(vec![0xc5, 0xf1, 0xfc, 0xca], 1), (vec![0xc5, 0xdb, 0x58, 0xdd], 3), (vec![0xc5, 0xf9, 0x6e, 0xf0], 6)]
    {
        assert_ne!(m.cpu.ymm[register][2..], [0, 0]);
        m.run(&bytes).unwrap();
        assert_eq!(m.cpu.ymm[register][2..], [0, 0]);
    }
}

#[test]
fn misaligned_legacy_operands_are_general_protection() {
    let mut m = Machine::new();
    m.cpu.regs[RSI] = DATA + 8;
    // movaps xmm1, [rsi]; movaps [rsi], xmm1; paddb xmm1, [rsi]; addps xmm1, [rsi]; vmovaps xmm1, [rsi]; movntdq [rsi], xmm1
    for bytes in [
        vec![0x0f, 0x28, 0x0e],
        vec![0x0f, 0x29, 0x0e],
        vec![0x66, 0x0f, 0xfc, 0x0e],
        vec![0x0f, 0x58, 0x0e],
        vec![0xc5, 0xf8, 0x28, 0x0e],
        vec![0x66, 0x0f, 0xe7, 0x0e],
    ] {
        let before = m.cpu.ymm;
        assert_eq!(m.run(&bytes), exception(PROTECTION, Some(0)), "{bytes:x?}");
        assert_eq!(m.cpu.ymm, before);
    }
    // movups xmm1, [rsi]; addss xmm1, [rsi]; vpaddb xmm1, xmm1, [rsi]; pcmpistri xmm1, [rsi], 0
    for bytes in [
        vec![0x0f, 0x10, 0x0e],
        vec![0xf3, 0x0f, 0x58, 0x0e],
        vec![0xc5, 0xf1, 0xfc, 0x0e],
        vec![0x66, 0x0f, 0x3a, 0x63, 0x0e, 0x00],
    ] {
        assert_eq!(m.run(&bytes), Ok(()), "{bytes:x?}");
    }
    // vmovaps ymm1, [rsi] needs 32 bytes.
    m.cpu.regs[RSI] = DATA + 16;
    assert_eq!(m.run(&[0xc5, 0xfc, 0x28, 0x0e]), exception(PROTECTION, Some(0)));
}

#[test]
fn control_bits_block_each_kind_of_instruction() {
    let legacy: &[u8] = &[0x0f, 0x58, 0xca]; // addps xmm1, xmm2
    let vex: &[u8] = &[0xc5, 0xf0, 0x58, 0xca]; // vaddps xmm1, xmm1, xmm2
    let mmx: &[u8] = &[0x0f, 0xfc, 0xca]; // paddb mm1, mm2
    type Change = fn(&mut Cpu);
    let cases: [(Change, [Option<u8>; 3]); 5] = [
        (|cpu| cpu.cr0 |= 8, [Some(NOT_AVAILABLE), Some(NOT_AVAILABLE), Some(NOT_AVAILABLE)]),
        (|cpu| cpu.cr0 |= 4, [Some(UNDEFINED), None, Some(UNDEFINED)]),
        (|cpu| cpu.cr4 &= !(1 << 9), [Some(UNDEFINED), None, None]),
        (|cpu| cpu.cr4 &= !(1 << 18), [None, Some(UNDEFINED), None]),
        (|cpu| cpu.xcr0 = 3, [None, Some(UNDEFINED), None]),
    ];
    for (i, (change, expected)) in cases.into_iter().enumerate() {
        let mut m = Machine::new();
        change(&mut m.cpu);
        m.cpu.mode_changed();
        for (bytes, expected) in [legacy, vex, mmx].into_iter().zip(expected) {
            let result = m.run(bytes);
            assert_eq!(result, expected.map_or(Ok(()), |vector| exception(vector, None)), "case {i} {bytes:x?}");
        }
    }
}

#[test]
fn unmasked_exceptions_write_the_flags_and_no_result() {
    let mut m = Machine::new();
    m.cpu.ymm[1] = [0x3ff0_0000_0000_0000, 7, 8, 9];
    m.cpu.ymm[2] = [0; 4];
    let before = m.cpu.ymm;
    // divsd xmm1, xmm2 with ZE unmasked
    m.cpu.mxcsr = 0x1f80 & !(1 << 9);
    assert_eq!(m.run(&[0xf2, 0x0f, 0x5e, 0xca]), exception(SIMD, None));
    assert_eq!((m.cpu.ymm, m.cpu.mxcsr & 0x3f), (before, 4));
    m.cpu.cr4 &= !(1 << 10);
    assert_eq!(m.run(&[0xf2, 0x0f, 0x5e, 0xca]), exception(UNDEFINED, None));
    // The sticky flag alone, once masked, traps nothing.
    m.cpu.mxcsr |= 1 << 9;
    assert_eq!(m.run(&[0xf2, 0x0f, 0x5e, 0xca]), Ok(()));
    assert_eq!(m.cpu.ymm[1], [0x7ff0_0000_0000_0000, 7, 8, 9]);
    // ucomisd xmm3, xmm1 with a signalling NaN and IE unmasked leaves the flags alone.
    m.cpu.ymm[3][0] = 0x7ff0_0000_0000_0001;
    m.cpu.mxcsr = 0x1f80 & !(1 << 7);
    m.cpu.cr4 |= 1 << 10;
    let flags = m.cpu.flags;
    assert_eq!(m.run(&[0x66, 0x0f, 0x2e, 0xd9]), exception(SIMD, None));
    assert_eq!(m.cpu.flags, flags);
}

#[test]
fn mxcsr_rejects_reserved_bits() {
    let mut m = Machine::new();
    m.cpu.ram.write(DATA, &0x0001_1f80u32.to_le_bytes());
    assert_eq!(m.run(&[0x0f, 0xae, 0x16]), exception(PROTECTION, Some(0)));
    assert_eq!(m.cpu.mxcsr, 0x1f80);
    m.cpu.ram.write(DATA, &0x0000_9fc1u32.to_le_bytes());
    assert_eq!(m.run(&[0x0f, 0xae, 0x16]), Ok(()));
    assert_eq!(m.cpu.mxcsr, 0x9fc1);
}

#[test]
fn masked_off_elements_do_not_fault() {
    let mut m = Machine::new();
    // The first two doublewords are in the last mapped page, the others beyond it.
    m.cpu.regs[RSI] = LAST_PAGE + 0xff8;
    m.cpu.ram.write(LAST_PAGE + 0xff8, &[1, 0, 0, 0, 2, 0, 0, 0]);
    // vpmaskmovd xmm1, xmm2, [rsi]
    let load: &[u8] = &[0xc4, 0xe2, 0x69, 0x8c, 0x0e];
    m.cpu.ymm[2] = [0x8000_0000_8000_0000, 0x7fff_ffff, 0, 0];
    m.run(load).unwrap();
    assert_eq!(m.cpu.ymm[1], [2 << 32 | 1, 0, 0, 0]);
    m.cpu.ymm[2][1] = 1 << 31;
    assert_eq!(m.run(load), exception(PAGE_FAULT, Some(0)));
    assert_eq!(m.cpu.ymm[1], [2 << 32 | 1, 0, 0, 0]);
    // vpmaskmovd [rsi], xmm2, xmm3: nothing is stored if a selected element faults.
    let store: &[u8] = &[0xc4, 0xe2, 0x69, 0x8e, 0x1e];
    assert_eq!(m.run(store), exception(PAGE_FAULT, Some(2)));
    let mut bytes = [0; 8];
    m.cpu.ram.read(LAST_PAGE + 0xff8, &mut bytes);
    assert_eq!(bytes, [1, 0, 0, 0, 2, 0, 0, 0]);
    // maskmovdqu xmm3, xmm2 to [rdi], of which only the first bytes are selected.
    m.cpu.regs[RDI] = LAST_PAGE + 0xff8;
    m.cpu.ymm[2] = [0x80 << 8, 0, 0, 0];
    m.cpu.ymm[3] = [0x4433_2211, 0, 0, 0];
    m.run(&[0x66, 0x0f, 0xf7, 0xda]).unwrap();
    m.cpu.ram.read(LAST_PAGE + 0xff8, &mut bytes);
    assert_eq!(bytes, [1, 0x22, 0, 0, 2, 0, 0, 0]);
}

#[test]
fn a_gather_that_faults_keeps_what_it_has_and_goes_on() {
    let mut m = Machine::new();
    let index = |lanes: [u32; 4]| {
        let [a, b] = Xmm::from_u32s(lanes).u64s();
        [a, b, 0, 0]
    };
    m.cpu.ram.write(DATA, &[0x11, 0, 0, 0, 0x22, 0, 0, 0]);
    m.cpu.ymm[1] = [0; 4];
    m.cpu.ymm[2] = index([0, 1, 0x10_0000, 0]);
    m.cpu.ymm[3] = index([0x8000_0000, 0x8000_0000, 0x8000_0000, 0x8000_0000]);
    // vpgatherdd xmm1, [rsi + xmm2*4], xmm3
    let gather: &[u8] = &[0xc4, 0xe2, 0x61, 0x90, 0x0c, 0x96];
    assert_eq!(m.run(gather), exception(PAGE_FAULT, Some(0)));
    assert_eq!(m.cpu.ymm[1], index([0x11, 0x22, 0, 0]));
    assert_eq!(m.cpu.ymm[3], index([0, 0, u32::MAX, u32::MAX]));
    m.cpu.ymm[2] = index([9, 9, 1, 0]);
    m.run(gather).unwrap();
    assert_eq!(m.cpu.ymm[1], index([0x11, 0x22, 0x22, 0x11]));
    assert_eq!(m.cpu.ymm[3], [0; 4]);
    // The same register twice: vpgatherdd xmm1, [rsi + xmm2*4], xmm2
    assert_eq!(m.run(&[0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x96]), exception(UNDEFINED, None));
}

#[test]
fn a_store_across_pages_is_whole_or_not_at_all() {
    let mut m = Machine::new();
    m.cpu.regs[RSI] = LAST_PAGE + 0xff8;
    // movups [rsi], xmm1
    assert_eq!(m.run(&[0x0f, 0x11, 0x0e]), exception(PAGE_FAULT, Some(2)));
    let mut bytes = [0; 8];
    m.cpu.ram.read(LAST_PAGE + 0xff8, &mut bytes);
    assert_eq!(bytes, [0; 8]);
    m.cpu.regs[RSI] = DATA - 8;
    m.run(&[0x0f, 0x11, 0x0e]).unwrap();
    assert_eq!(m.data(8), m.cpu.ymm[1][1].to_le_bytes());
}

#[test]
fn vzeroupper_outside_64_bit_mode_reaches_eight_registers() {
    let mut m = Machine::new();
    m.cpu.segs[1].access &= !(1 << 13);
    m.cpu.segs[1].access |= 1 << 14;
    m.cpu.mode_changed();
    m.run(&[0xc5, 0xf8, 0x77]).unwrap();
    assert_eq!(m.cpu.ymm[7][2..], [0, 0]);
    assert_ne!(m.cpu.ymm[8][2..], [0, 0]);
}

#[test]
fn mmx_takes_the_x87_registers_and_waits_for_its_exceptions() {
    let mut m = Machine::new();
    m.cpu.x87.top = 5;
    m.cpu.x87.valid = 0;
    m.cpu.x87.set_mmx(1, 0x0102);
    m.cpu.x87.set_mmx(2, 0x0201);
    m.run(&[0x0f, 0xfc, 0xca]).unwrap();
    assert_eq!((m.cpu.x87.mmx(1), m.cpu.x87.top, m.cpu.x87.valid), (0x0303, 0, 0xff));
    m.run(&[0x0f, 0x77]).unwrap();
    assert_eq!(m.cpu.x87.valid, 0);
    // A pending, unmasked x87 exception comes first.
    m.cpu.x87.set_control(0x37e);
    m.cpu.x87.set_status(1);
    assert_eq!(m.run(&[0x0f, 0xfc, 0xca]), exception(16, None));
    assert_eq!(m.cpu.x87.valid, 0);
}

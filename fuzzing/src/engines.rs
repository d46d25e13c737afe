//! Both engines: random code with random page tables, on the interpreter and translated, must end in the same state.
//!
//! A block of code runs until it halts, an exception reaches its handler (which halts: its address tells the vector, its frame the rest), or the
//! budget is used up. Between blocks memory and page tables change as by DMA, and the registers are set anew; caches are kept.

mod program;
mod rounds;

use crate::input::Input;
use crate::processor::{Nothing, descriptors};
use processor::decode::announced::announces;
use processor::decode::cache::CodeCache;
use processor::memory::map::{MemoryMap, MemoryRegion};
use processor::memory::ram::GuestRam;
use processor::models::Model;
use processor::run::{Activity, attention};
use processor::segment::{self, Segment};
use processor::translator::Tuning;
use processor::{Cpu, RunExit};
use program::{POINTERS, Writer};
use std::cell::RefCell;
use std::sync::Arc;

/// RAM, from address 0.
const MEMORY: u64 = 1 << 18;
const GDT: u64 = 0x800;
const TSS: u64 = 0x1000;
const IDT: u64 = 0x2000;
/// Page-map level 4, directory pointers, directory, table of the first 2 MiB, table of the window.
const TABLES: u64 = 0x8000;
/// Four pages of code.
const CODE: u64 = 0x1_0000;
/// A page where any address is near a return.
const SUBROUTINES: u64 = 0x1_4000;
/// The handler of each vector is one byte long: HLT.
const HANDLERS: u64 = 0x1_8000;
/// Two pages of stack.
const STACK: u64 = 0x2_0000;
/// 16 pages of data.
const DATA: u64 = 0x3_0000;
/// Linear addresses at which pages are mapped as the input says.
const WINDOW: u64 = 0x20_0000;
/// So far beyond, the window is mapped once more, where it competes with itself for places in the TLB.
const AGAIN: u64 = 0x40_0000;
/// How many of them are used.
const PAGES: u64 = 24;

/// One processor with its memory.
struct Side {
    cpu: Cpu,
    ram: Arc<GuestRam>,
    code: CodeCache,
}

impl Side {
    fn new(tuning: Option<Tuning>) -> Self {
        let ram = Arc::new(GuestRam::new(MEMORY));
        let region = MemoryRegion { base: 0, length: MEMORY, offset: 0, writable: true };
        let map = Arc::new(MemoryMap { regions: vec![region] });
        let model = Arc::new(Model::named("full").unwrap_or_else(|_| Model::default_model()));
        let mut cpu = Cpu::new(0, Arc::clone(&ram), map, Box::new(Nothing)).with_model(Arc::clone(&model), 1);
        let mut code = CodeCache::new(|feature| announces(&model, feature));
        if let Some(tuning) = tuning
            && code.use_tuned_translator(tuning)
        {
            cpu.use_translator();
        }
        Self { cpu, ram, code }
    }

    /// Everything as at the beginning of an input.
    fn reset(&mut self, image: &[u8]) {
        self.code.clear(&self.ram);
        self.ram.write(0, image);
        self.code.clear(&self.ram);
        self.cpu.power_on();
        self.cpu.instructions = 0;
        self.cpu.idle_time = 0;
    }

    /// Runs for `budget` instructions, `step` at a time.
    fn run(&mut self, budget: u64, step: u64) {
        let end = self.cpu.now() + budget;
        while self.cpu.now() < end {
            let until = (self.cpu.now() + step).min(end);
            match self.cpu.run(&mut self.code, until) {
                RunExit::Deadline | RunExit::Service | RunExit::Yield => {}
                RunExit::Idle | RunExit::TripleFault | RunExit::Debug | RunExit::Kicked => break,
            }
        }
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; MEMORY as usize];
        self.ram.read(0, &mut bytes);
        bytes
    }
}

/// Which code a whole input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Long64,
    Compatibility,
    /// Protected mode without IA-32e mode, with PAE paging.
    Protected,
}

/// The processor's mode for a whole input.
#[derive(Clone, Copy, Debug)]
struct Setting {
    mode: Mode,
    level: u8,
    /// Bits of CR0 and CR4 beside those always set.
    cr0: u64,
    cr4: u64,
    pcid: u64,
    pkru: u32,
}

impl Setting {
    fn read(input: &mut Input<'_>) -> Self {
        let (first, second) = (input.byte(), input.byte());
        let bit = |set: bool, number: u32| u64::from(set) << number;
        let cr4 = bit(second & 1 != 0, 21) // SMAP
            | bit(second & 2 != 0, 20) // SMEP
            | bit(second & 0x0c == 0x0c, 17) // PCIDE
            | bit(second & 4 != 0, 16) // FSGSBASE
            | bit(second & 0x48 == 0x48, 2) // TSD
            | bit(second & 0x30 == 0x30, 22); // PKE
        Self {
            mode: match first & 7 {
                0 | 1 => Mode::Compatibility,
                2 | 3 => Mode::Protected,
                _ => Mode::Long64,
            },
            level: if first & 8 != 0 { 3 } else { 0 },
            // WP; TS.
            cr0: bit(first & 0x10 != 0, 16) | bit(first & 0xe0 == 0xe0, 3),
            cr4,
            pcid: u64::from(second >> 6),
            pkru: if second & 0x30 == 0x30 { input.number(4) as u32 & !3 } else { 0 },
        }
    }

    /// What memory holds at first.
    fn image(self) -> Vec<u8> {
        let mut image = vec![0; MEMORY as usize];
        let mut quad = |address: u64, value: u64| {
            image[address as usize..][..8].copy_from_slice(&value.to_le_bytes());
        };
        for (index, descriptor) in (0..).zip(descriptors(TSS).into_iter().chain(SEGMENTS)) {
            quad(GDT + 8 * index, descriptor);
        }
        for vector in 0..256 {
            let handler = HANDLERS + vector;
            let (size, selector) = if self.mode == Mode::Protected { (8, 0x08) } else { (16, 0x18) };
            quad(IDT + size * vector, handler & 0xffff | selector << 16 | 0xee00 << 32 | (handler >> 16) << 48);
        }
        let user = if self.level == 3 { 4 } else { 0 };
        quad(TABLES, (TABLES + 0x1000) | 7);
        quad(TABLES + 8 * 511, (TABLES + 0x1000) | 7);
        quad(TABLES + 0x1000, (TABLES + 0x2000) | 7);
        quad(TABLES + 0x2000, (TABLES + 0x3000) | 7);
        quad(TABLES + 0x2008, (TABLES + 0x4000) | 7);
        quad(TABLES + 0x2000 + 8 * ((WINDOW + AGAIN) >> 21), (TABLES + 0x4000) | 7);
        for page in 0..MEMORY >> 12 {
            // Handlers and tables are the supervisor's.
            let user = if page << 12 >= CODE && page << 12 != HANDLERS { user } else { 0 };
            quad(TABLES + 0x3000 + 8 * page, page << 12 | 3 | user);
        }
        // RSP0, or ESP0 and SS0.
        quad(TSS + 4, (STACK + 0x800) | if self.mode == Mode::Protected { 0x10 << 32 } else { 0 });
        image[TSS as usize + 0x66..][..2].copy_from_slice(&0x68_u16.to_le_bytes());
        image[HANDLERS as usize..][..0x100].fill(0xf4);
        for (index, byte) in image[SUBROUTINES as usize..][..0x1000].iter_mut().enumerate() {
            // inc eax (or rax); ret
            *byte = [0x48, 0xff, 0xc0, 0xc3][index % 4];
        }
        for (index, byte) in image[DATA as usize..].iter_mut().enumerate() {
            *byte = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[6];
        }
        image
    }

    fn enter(self, cpu: &mut Cpu) {
        cpu.activity = Activity::Active;
        cpu.attention = cpu.attention & !attention::INACTIVE | attention::EVENT | attention::DEADLINE;
        let data = segment::PRESENT | segment::NON_SYSTEM | segment::WRITABLE | segment::ACCESSED;
        let big = segment::BIG | segment::GRANULARITY;
        let (level, privilege) = (u16::from(self.level), u32::from(self.level) << 5);
        let flat = |selector, access| Segment { selector, base: 0, limit: u32::MAX, access: access | privilege };
        for index in 0..6 {
            cpu.segs[index] = flat(if level == 3 { 0x2b } else { 0x10 }, data | big);
        }
        let (selector, size) = if self.mode == Mode::Long64 {
            (if level == 3 { 0x23 } else { 0x18 }, segment::LONG)
        } else {
            (if level == 3 { 0x33 } else { 0x08 }, segment::BIG)
        };
        cpu.segs[segment::CS] = flat(selector, data | segment::CODE | size | segment::GRANULARITY);
        cpu.cr3 = TABLES | if self.cr4 & 1 << 17 != 0 { self.pcid } else { 0 };
        cpu.cr4 = 0x4_0620 | self.cr4;
        cpu.xcr0 = 7;
        cpu.efer = if self.mode == Mode::Protected { 0x801 } else { 0xd01 };
        cpu.pdptes = [(TABLES + 0x2000) | 1, 0, 0, 0];
        cpu.cr0 = 0x8000_0033 | self.cr0;
        cpu.pkru = self.pkru;
        cpu.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
        (cpu.gdtr.base, cpu.gdtr.limit) = (GDT, 71 + 8 * SEGMENTS.len() as u16);
        (cpu.idtr.base, cpu.idtr.limit) = (IDT, 0xfff);
        cpu.tr = Segment { selector: 0x38, base: TSS, limit: 0x67, access: segment::PRESENT | 11 };
        cpu.set_cpl(self.level);
        cpu.mode_changed();
    }
}

/// Descriptors beside the flat ones, from selector 0x48 on, for everyone: data with a base; with a base and a limit; read-only; expand-down; a stack
/// of 16 bits; all of 4 GiB from a base that is not aligned.
const SEGMENTS: [u64; 6] = [
    0x00cf_f300_1000_ffff,
    0x0040_f320_0000_3fff,
    0x00cf_f100_0000_ffff,
    0x00c0_f700_0000_0201,
    0x008f_f300_0000_ffff,
    0x00cf_f320_0123_ffff,
];

/// A segment register of 32-bit code that differs from the flat one.
#[derive(Clone, Copy, Debug)]
struct Odd {
    register: usize,
    base: u64,
    limit: u32,
    /// Bits that are changed.
    access: u32,
}

impl Odd {
    fn read(input: &mut Input<'_>) -> Self {
        let (choice, place) = (input.byte(), input.byte());
        let register = usize::from(choice & 7) % 6;
        let base = match place & 7 {
            0..=3 => 0,
            4 => 0x1000,
            5 => 0x123,
            _ => WINDOW,
        };
        let limit = match place >> 3 & 3 {
            0 => 0x2_2fff + u32::from(place),
            1 => 0x20_7000 + u32::from(place),
            _ => u32::MAX,
        };
        let access = match choice >> 3 & 15 {
            0 => segment::UNUSABLE,
            1 => segment::WRITABLE,
            2 => segment::EXPAND_DOWN,
            3 => segment::BIG,
            _ => 0,
        };
        // Code elsewhere, or of 16 bits, would not be what was written.
        if register == segment::CS {
            Self { register, base: 0, limit, access: 0 }
        } else {
            Self { register, base, limit, access }
        }
    }
}

/// What is different before each block, for both sides.
struct Block {
    /// Linear, and physical: code is mapped where it is.
    start: u64,
    code: Vec<u8>,
    registers: [u64; 16],
    rflags: u64,
    bases: [u64; 2],
    odd: Vec<Odd>,
    mxcsr: u32,
    /// Entries of the window's table, and whether the TLB is flushed then.
    entries: Vec<(u64, u64)>,
    flush: bool,
    budget: u64,
    step: u64,
}

/// An address in the window, mostly where an access of some bytes fits.
fn address(input: &mut Input<'_>) -> u64 {
    let (page, place) = (u64::from(input.byte()) % PAGES, input.byte());
    let offset = match place & 7 {
        0 => 0xff0 + u64::from(place >> 3),
        1 => u64::from(place >> 3),
        _ => u64::from(place) << 4,
    };
    let high = match page {
        7 => 0xffff_ff80_0000_0000,
        11 | 12 if place & 0x80 != 0 => AGAIN,
        _ => 0,
    };
    high.wrapping_add(WINDOW + (page << 12)).wrapping_add(offset)
}

/// A page-table entry of the window.
fn entry(input: &mut Input<'_>) -> u64 {
    let (target, rights) = (u64::from(input.byte()), input.byte());
    let page = match target {
        0..=15 => CODE + (target << 10 & 0x3000),
        16 => TABLES + 0x4000,
        17 => STACK,
        18 => MEMORY, // nothing there
        20..=31 => SUBROUTINES,
        _ => DATA + (target << 12 & 0xf000),
    };
    // Mostly present and writable; user as the last bit says; sometimes global, accessed, dirty.
    let flags = match rights & 15 {
        0 => 0,
        1 => 1,
        _ => 3,
    } | u64::from(rights & 0x10 != 0) << 2
        | u64::from(rights & 0xe0 == 0xe0) << 8
        | u64::from(rights & 0x60 == 0x60) << 5;
    let key = u64::from(rights & 0xc0 == 0x40) << 59;
    let reserved = u64::from(target == 19 && rights & 0x8 != 0) << 51;
    page | flags | key | reserved | u64::from(rights & 0xf0 == 0xb0) << 63
}

impl Block {
    fn read(input: &mut Input<'_>, setting: Setting, first: bool) -> Self {
        let choice = input.byte();
        let user = if setting.level == 3 { 4 } else { 0 };
        let mut entries = Vec::new();
        let mut flush = true;
        if first {
            for page in 0..PAGES {
                entries.push((page, entry(input) ^ user ^ 4));
            }
        } else if choice & 3 == 0 {
            for _ in 0..=choice >> 6 {
                entries.push((u64::from(input.byte()) % PAGES, entry(input) ^ user ^ 4));
            }
            flush = choice & 4 == 0;
        }
        let place = u64::from(input.byte());
        let page = CODE + (place & 3) % 3 * 0x1000;
        let start = page + if place & 0x0c == 0 { 0xfc0 + (place >> 2) } else { (place >> 2) * 0x30 };
        let mut registers: [u64; 16] = core::array::from_fn(|_| match input.byte() {
            small @ 0..=99 => u64::from(small),
            edge @ 100..=199 => (1_u64 << (edge & 63)).wrapping_sub(u64::from(edge >> 6 & 1)),
            _ => input.number(8),
        });
        for pointer in POINTERS {
            registers[usize::from(pointer)] = address(input);
        }
        registers[1] &= 0x1f;
        registers[2] &= 0xff;
        registers[14] = if choice & 8 == 0 { registers[14] } else { start.wrapping_add(registers[0] & 0x7f) };
        // Called now and then: where it lies, or in the window, mapped as may be.
        registers[15] = if choice & 0x60 == 0x60 { registers[15] } else { SUBROUTINES + (registers[15] & 0xfff) };
        registers[4] = match input.byte() {
            top @ 0..=199 => STACK + 0x1f00 - 8 * u64::from(top),
            odd @ 200..=229 => STACK + 0x1000 - u64::from(odd & 15),
            _ => address(input),
        };
        let long = setting.mode == Mode::Long64;
        if !long && choice & 0x80 == 0 {
            for register in &mut registers {
                *register &= 0xffff_ffff;
            }
        }
        let mut odd = Vec::new();
        if !long && choice & 0x0c == 0x0c {
            odd.extend((0..=choice >> 6).map(|_| Odd::read(input)));
        }
        // Status flags, DF, AC.
        let bits = input.number(4);
        let rflags = 2 | bits & 0x8d5 | if bits & 0x7000 == 0 { 0x400 } else { 0 } | bits & 0x4_0000;
        let mxcsr = if bits >> 24 == 0 { 0x1f00 } else { 0x1f80 };
        let what = input.byte();
        let (count, loops) =
            if what >= 200 { (usize::from(what & 3), true) } else { (1 + usize::from(what % 28), false) };
        let bases = [address(input), address(input)];
        let mut writer = Writer::new(input, start, long);
        if loops {
            writer.rounds();
        }
        for _ in 0..count {
            writer.instruction();
        }
        writer.end(choice & 0x10 == 0);
        let code = writer.code;
        let (budget, step) = (10 + (u64::from(input.byte()) << if loops { 4 } else { 0 }), u64::from(input.byte()));
        let step = if step < 64 { 1 + step } else { budget };
        Self { start, code, registers, rflags, bases, odd, mxcsr, entries, flush, budget, step }
    }

    fn run(&self, side: &mut Side, setting: Setting, step: u64) {
        for &(page, entry) in &self.entries {
            side.ram.write(TABLES + 0x4000 + 8 * page, &entry.to_le_bytes());
        }
        if self.flush && !self.entries.is_empty() {
            side.cpu.tlb.flush_all();
        }
        side.ram.write(self.start, &self.code);
        let cpu = &mut side.cpu;
        cpu.regs[..16].copy_from_slice(&self.registers);
        cpu.rip = self.start;
        cpu.mxcsr = self.mxcsr;
        setting.enter(cpu);
        for (register, base) in [segment::FS, segment::GS].into_iter().zip(self.bases) {
            cpu.segs[register].base = if setting.mode == Mode::Long64 { base } else { base & 0xffff_ffff };
        }
        for odd in &self.odd {
            let segment = &mut cpu.segs[odd.register];
            (segment.base, segment.limit) = (odd.base, odd.limit);
            segment.access ^= odd.access;
        }
        cpu.mode_changed();
        cpu.set_rflags(self.rflags);
        side.run(self.budget, step);
    }
}

/// In which block the engines differ, counted from one, and how.
struct Difference {
    blocks: usize,
    text: String,
}

/// What the translators of pairs are told of the host: that it is unlike the interpreter in everything that is undefined; that it has no BMI2; both.
const TUNINGS: [Tuning; 4] = [
    Tuning { threshold: 2, unlike: false, without_bmi2: false },
    Tuning { threshold: 1, unlike: true, without_bmi2: false },
    Tuning { threshold: 1, unlike: false, without_bmi2: true },
    Tuning { threshold: 2, unlike: true, without_bmi2: true },
];

/// Both sides.
struct Pair {
    sides: [Side; 2],
}

impl Pair {
    fn new(tuning: Tuning) -> Self {
        Self { sides: [Side::new(None), Side::new(Some(tuning))] }
    }

    /// Runs an input, comparing memory after each block if `each`, else at the end. Of block `cut.0`, `cut.1` instructions at most are run.
    fn run(&mut self, data: &[u8], each: bool, cut: Option<(usize, u64)>) -> Result<usize, Difference> {
        let mut input = Input::new(data);
        let _ = input.byte();
        let setting = Setting::read(&mut input);
        let image = setting.image();
        for side in &mut self.sides {
            side.reset(&image);
        }
        let mut blocks = 0;
        while !input.is_empty() {
            let mut block = Block::read(&mut input, setting, blocks == 0);
            blocks += 1;
            if let Some((_, most)) = cut.filter(|&(number, _)| number == blocks) {
                block.budget = block.budget.min(most);
            }
            let [ours, theirs] = &mut self.sides;
            // As on a machine, whose turns are the same with either engine: where a run is cut decides what is decoded, and so what is cached.
            block.run(ours, setting, block.step);
            block.run(theirs, setting, block.step);
            let (a, b) = (ours.cpu.save(), theirs.cpu.save());
            if a != b {
                let lines = format!("{a:#?}");
                let others = format!("{b:#?}");
                let differing: Vec<_> =
                    lines.lines().zip(others.lines()).enumerate().filter(|(_, (a, b))| a != b).collect();
                return Err(Difference { blocks, text: format!("{differing:?}\n{}", describe(&block, setting)) });
            }
            if each || input.is_empty() {
                let (a, b) = (ours.memory(), theirs.memory());
                if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
                    let show = |bytes: &[u8]| format!("{:02x?}", &bytes[at & !7..][..16]);
                    let which = format!("memory at {at:#x}: {} {}", show(&a), show(&b));
                    return Err(Difference { blocks, text: format!("{which}\n{}", describe(&block, setting)) });
                }
            }
        }
        Ok(blocks)
    }
}

fn describe(block: &Block, setting: Setting) -> String {
    let registers: Vec<_> = block.registers.iter().map(|value| format!("{value:x}")).collect();
    let code: Vec<_> = block.code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{setting:?}\nat {:#x}, RFLAGS {:#x}, bases {:x?}, odd {:x?}, budget {} in steps of {}, entries {:x?}\nregisters {}\ncode {}",
        block.start,
        block.rflags,
        block.bases,
        block.odd,
        block.budget,
        block.step,
        block.entries,
        registers.join(" "),
        code.join(" ")
    )
}

thread_local! {
    static PAIRS: RefCell<[Option<Pair>; TUNINGS.len()]> = const { RefCell::new([const { None }; TUNINGS.len()]) };
}

/// Runs an input; gives the number of blocks.
///
/// # Panics
/// When the engines differ.
pub fn blocks(data: &[u8]) -> usize {
    let kind = data.first().map_or(0, |&first| usize::from(first) % TUNINGS.len());
    let tuning = TUNINGS[kind];
    PAIRS.with_borrow_mut(|pairs| {
        let pair = pairs[kind].get_or_insert_with(|| Pair::new(tuning));
        pair.run(data, false, None).unwrap_or_else(|found| {
            // Once more, to see in which block memory differs first, and after how many instructions of it.
            let found = Pair::new(tuning).run(data, true, None).err().unwrap_or(found);
            let first = (1..0x200).find_map(|most| {
                let cut = Pair::new(tuning).run(data, true, Some((found.blocks, most))).err();
                cut.filter(|cut| cut.blocks == found.blocks).map(|cut| (most, cut.text))
            });
            let first =
                first.map(|(most, text)| format!("after {most} instructions of it: {text}")).unwrap_or_default();
            panic!("the engines differ, {tuning:?}\nblock {}: {}\n{first}", found.blocks, found.text);
        })
    })
}

/// One byte for the translator, two for the processor's mode, then blocks.
pub fn run(data: &[u8]) {
    blocks(data);
}

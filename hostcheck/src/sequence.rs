//! Short runs of instructions in one block: what single instructions do not show — flags computed late or not at all, fused pairs, handlers
//! that go on with the next one, and exact state where an instruction in the middle faults.

use crate::generate::{self, Case};
use crate::native::Host;
use crate::ours::Ours;
use crate::random::Random;
use crate::selection;
use crate::state::{Outcome, SCRATCH, SCRATCH_SIZE, START, State, TAKEN};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, CpuidFeature, FlowControl, Formatter, Instruction, InstructionBlock,
    Mnemonic, NasmFormatter, OpKind, Register, RflagsBits,
};

/// Most bytes, so that the run ends before the second place that branches go to.
const MOST_BYTES: usize = 0x60;

/// A run of instructions, with the status flags that are undefined after each.
#[derive(Clone, Debug)]
pub struct Sequence {
    instructions: Vec<Instruction>,
    bytes: Vec<u8>,
    undefined: Vec<u32>,
}

/// What came of the sequences.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Runs.
    pub cases: u64,
    /// Runs in which an instruction raised an exception on the host.
    pub faults: u64,
    /// Runs that differed.
    pub different: u64,
    /// Descriptions of differences.
    pub descriptions: Vec<String>,
}

/// Codes that may stand in a run: their results are defined and the same on all makers' processors.
fn candidates() -> Vec<Code> {
    use Mnemonic::{Lahf, Popf, Popfd, Popfq, Shld, Shrd};
    selection::checked()
        .into_iter()
        .filter(|&code| {
            let info = code.op_code();
            let name = format!("{:?}", code.mnemonic());
            let features = code.cpuid_features();
            let x87 = features.iter().any(|f| {
                matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::FXSR)
                    || matches!(f, CpuidFeature::XSAVE | CpuidFeature::XSAVEC)
            });
            !x87 && info.flow_control_is_next(code)
                && ![
                    "Rcp", "Vrcp", "Rsqrt", "Vrsqrt", "Cvtp", "Cvttp", "Dpp", "Vdpp", "Mask", "Vmask", "Sha", "Stac",
                    "Clac",
                ]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                && !["In", "Out", "Ins", "Outs"]
                    .iter()
                    .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| ["", "b", "w", "d"].contains(&rest)))
                && !matches!(code.mnemonic(), Popf | Popfd | Popfq | Shld | Shrd | Lahf | Mnemonic::Cli | Mnemonic::Sti)
                && !code.is_string_instruction()
                && !matches!(code.mnemonic(), Mnemonic::Enter | Mnemonic::Leave | Mnemonic::Xlatb | Mnemonic::Hlt)
        })
        .collect()
}

trait IsNext {
    fn flow_control_is_next(&self, code: Code) -> bool;
}

impl IsNext for iced_x86::OpCodeInfo {
    fn flow_control_is_next(&self, code: Code) -> bool {
        code.flow_control() == FlowControl::Next
    }
}

/// An instruction that keeps to registers other than RSP and to memory at a fixed, aligned address.
fn fits(instruction: &mut Instruction, random: &mut Random) -> bool {
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Register if instruction.op_register(i).full_register() == Register::RSP => return false,
            OpKind::Memory => {
                if !matches!(instruction.memory_index(), Register::None) {
                    return false;
                }
                instruction.set_memory_base(Register::RIP);
                instruction.set_memory_displ_size(8);
                instruction.set_memory_displacement64(SCRATCH + 0x800 + 64 * random.below(4));
            }
            _ => {}
        }
    }
    let shifts = matches!(
        instruction.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
    );
    let (first, second) = (instruction.op0_kind(), instruction.op1_kind());
    let undone = match instruction.mnemonic() {
        // By CL it depends on the state which flags change.
        _ if shifts => second == OpKind::Register,
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => {
            first == OpKind::Memory && second == OpKind::Register
        }
        Mnemonic::Pop => first == OpKind::Memory,
        _ => false,
    };
    !undone
}

impl Sequence {
    /// A random run of two to nine instructions with conditional branches among them, which leave it when taken.
    fn new(candidates: &[Code], branches: &[Code], random: &mut Random) -> Option<Self> {
        let (mut instructions, mut undefined) = (Vec::new(), Vec::new());
        let mut dirty = 0;
        for _ in 0..2 + random.below(8) {
            let from = if random.once_in(4) { branches } else { candidates };
            let code = random.pick(from);
            let Some(Case { mut instruction, .. }) = generate::instruction(code, random) else { continue };
            if !fits(&mut instruction, random) || instruction.rflags_read() & dirty != 0 {
                continue;
            }
            let mut left_undefined = instruction.rflags_undefined();
            if matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
                left_undefined |= RflagsBits::OF;
            }
            dirty = dirty & !instruction.rflags_modified() | left_undefined;
            instructions.push(instruction);
            undefined.push(dirty);
        }
        if instructions.is_empty() {
            return None;
        }
        let block = InstructionBlock::new(&instructions, START);
        let bytes = BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).ok()?.code_buffer;
        if bytes.len() > MOST_BYTES {
            return None;
        }
        let mut decoder = iced_x86::Decoder::with_ip(64, &bytes, START, 0);
        let decoded: Vec<Instruction> = decoder.iter().collect();
        (decoded.len() == instructions.len()).then_some(Self { instructions: decoded, bytes, undefined })
    }

    /// Flags, as RFLAGS bits, that are undefined when execution stands at `rip`.
    fn undefined_at(&self, rip: u64) -> u64 {
        let before = self.instructions.iter().position(|instruction| instruction.ip() == rip);
        let bits = match before {
            Some(0) => 0,
            Some(i) => self.undefined[i - 1],
            // Any of the branches may have led there.
            None if rip == TAKEN[0] => {
                let branches = self.instructions.iter().zip(&self.undefined);
                branches.filter(|(i, _)| i.flow_control() != FlowControl::Next).fold(0, |all, (_, bits)| all | bits)
            }
            None => self.undefined.last().copied().unwrap_or(0),
        };
        [
            (RflagsBits::OF, 0x800),
            (RflagsBits::SF, 0x80),
            (RflagsBits::ZF, 0x40),
            (RflagsBits::AF, 0x10),
            (RflagsBits::CF, 1),
            (RflagsBits::PF, 4),
        ]
        .iter()
        .fold(0, |mask, &(bit, flag)| if bits & bit != 0 { mask | flag } else { mask })
    }

    fn differences(&self, host: &Outcome, ours: &Outcome) -> Vec<String> {
        let mut found = Vec::new();
        let (h, o) = (&host.state, &ours.state);
        if host.fault != ours.fault || h.rip != o.rip {
            found.push(format!("host {:x?} at {:#x}, ours {:x?} at {:#x}", host.fault, h.rip, ours.fault, o.rip));
        }
        for n in 0..16 {
            if h.gpr[n] != o.gpr[n] {
                found.push(format!("gpr {n}: host {:#x}, ours {:#x}", h.gpr[n], o.gpr[n]));
            }
        }
        let flags = 0x4cd5 & !self.undefined_at(h.rip);
        if (h.rflags ^ o.rflags) & flags != 0 {
            found.push(format!("flags: host {:#x}, ours {:#x}", h.rflags & flags, o.rflags & flags));
        }
        for n in 0..16 {
            for quad in 0..4 {
                let at = State::vector(n, quad);
                if h.u64(at) != o.u64(at) {
                    found.push(format!("ymm{n} quadword {quad}: host {:#x}, ours {:#x}", h.u64(at), o.u64(at)));
                }
            }
        }
        if h.mxcsr() != o.mxcsr() {
            found.push(format!("mxcsr: host {:#x}, ours {:#x}", h.mxcsr(), o.mxcsr()));
        }
        for i in 0..8 {
            if h.st(i) != o.st(i) {
                found.push(format!("st{i}: host {:x?}, ours {:x?}", h.st(i), o.st(i)));
            }
        }
        found
    }

    fn describe(&self, before: &State, found: &[String]) -> String {
        let mut text = String::new();
        for instruction in &self.instructions {
            text.push_str(&format!("{:#x}: ", instruction.ip()));
            NasmFormatter::new().format(instruction, &mut text);
            text.push_str(&format!(" [{:?}]\n", instruction.code()));
        }
        let gprs: Vec<String> = before.gpr.iter().map(|value| format!("{value:x}")).collect();
        format!(
            "{text}with {} rflags={:x} mxcsr={:x} fsw={:x}\n    {}",
            gprs.join(" "),
            before.rflags,
            before.mxcsr(),
            before.u16(2),
            found.join("\n    ")
        )
    }
}

/// Runs `cases` sequences, each with eight states.
///
/// # Errors
/// In words, if the host cannot be used.
pub fn run(cases: u64, seed: u64, show: usize) -> Result<Report, String> {
    let mut host = Host::new()?;
    let mut ours = Ours::new(|feature| selection::FEATURES.contains(&feature));
    let mut random = Random(seed);
    let candidates = candidates();
    let branches: Vec<Code> = selection::checked()
        .into_iter()
        .filter(|code| code.is_jcc_short_or_near() || code.is_loop() || code.is_loopcc() || code.is_jcx_short())
        .collect();
    let mut report = Report::default();
    let mut memory = Box::new([0u8; SCRATCH_SIZE]);
    for byte in memory.iter_mut() {
        *byte = random.draw() as u8;
    }
    while report.cases < cases {
        let Some(sequence) = Sequence::new(&candidates, &branches, &mut random) else { continue };
        host.set_code(&sequence.bytes);
        ours.set_run(&sequence.bytes);
        let first = Case { instruction: sequence.instructions[0], bytes: sequence.bytes.clone() };
        for _ in 0..8 {
            let before = generate::state(&first, &mut random, &mut memory);
            host.set_memory(&memory);
            ours.set_memory(&memory);
            let theirs = host.run(&before, sequence.bytes.len());
            let mine = ours.run_block(&before, sequence.bytes.len());
            let mut found = sequence.differences(&theirs, &mine);
            let (mut a, mut b) = ([0; SCRATCH_SIZE], [0; SCRATCH_SIZE]);
            host.memory(&mut a);
            ours.memory(&mut b);
            if let Some(at) = (0..SCRATCH_SIZE).find(|&i| a[i] != b[i]) {
                found.push(format!("memory at {:#x}", SCRATCH + at as u64));
            }
            report.cases += 1;
            report.faults += u64::from(theirs.fault.is_some());
            if !found.is_empty() {
                report.different += 1;
                if report.descriptions.len() < show {
                    report.descriptions.push(sequence.describe(&before, &found));
                }
            }
        }
    }
    Ok(report)
}

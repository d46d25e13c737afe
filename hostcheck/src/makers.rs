//! What AMD's and Intel's processors do differently from the manual, each other or the modelled processor, and are free to.

use crate::generate::{Case, saves_state};
use crate::state::{Outcome, State};
use iced_x86::Mnemonic;

/// Who made the host's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// AMD, or somebody whose differences were not gone through, but who is more likely to be like AMD.
    Amd,
    /// Intel.
    Intel,
}

/// Differences that are not errors of ours, each seen on a Zen 4, a Zen 5 or a Sapphire Rapids host.
#[derive(Default)]
pub struct Explained {
    /// Nothing is compared but what ours did was allowed.
    pub all: bool,
    /// RFLAGS is not compared.
    pub flags: bool,
    /// MXCSR is not compared.
    pub mxcsr: bool,
    /// The x87 registers, TOP and tags are not compared.
    pub registers: bool,
    /// The vector registers are not compared.
    pub vectors: bool,
    /// Memory is not compared.
    pub memory: bool,
    /// Of the address of a page fault, only the page is compared.
    pub page: bool,
}

impl Explained {
    /// What is not to be compared after `case`.
    pub fn new(maker: Maker, case: &Case, host: &Outcome, ours: &Outcome) -> Self {
        let mut explained = Self::default();
        let mnemonic = case.instruction.mnemonic();
        // Which part of a large image is touched first, and whether what is not needed is touched at all, is each processor's affair.
        explained.all |= saves_state(mnemonic) && faulted(host, 14);
        if mnemonic == Mnemonic::Vdpps && faulted(host, 19) {
            // The steps of both halves go together; ours finish the lower half first.
            explained.mxcsr = true;
        }
        if matches!(mnemonic, Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu) {
            // Processors check the whole operand first and tell its first byte in the page, and are in MMX state by then.
            explained.all |= faulted(host, 14) && (ours.fault.is_none() || faulted(ours, 14));
        }
        // Ours goes in steps here, of which each leaves the flags of its comparison. AMD leaves those of the last one in any case.
        explained.flags |= case.instruction.has_repne_prefix() && host.fault.is_some();
        match maker {
            Maker::Amd => explained.amd(case, host, ours),
            Maker::Intel => explained.intel(case, host, ours),
        }
        explained
    }

    fn amd(&mut self, case: &Case, host: &Outcome, ours: &Outcome) {
        let mnemonic = case.instruction.mnemonic();
        // Intel: memory operands of the SHA instructions must be aligned (SDM Vol. 2, exceptions of type 4); AMD takes any.
        self.all |= format!("{mnemonic:?}").starts_with("Sha") && faulted(ours, 13);
        if mnemonic == Mnemonic::Movsxd && case.instruction.code().op_code().operand_size() == 16 {
            // AMD loads 32 bits where 16 are wanted.
            self.all |= faulted(host, 14) && ours.fault.is_none();
        }
        // AMD looks at the operand of what an unmasked exception withholds.
        self.all |= stores_extended(mnemonic) && host.fault.is_some() && ours.fault.is_none();
        if mnemonic == Mnemonic::Vcvtps2ph && host.fault.is_some() {
            // AMD looks at the operand before it converts.
            self.all |= ours.fault.is_none() || faulted(ours, 19);
            self.mxcsr = true;
        }
        // AMD finds a tiny number underflowing that is only passed on.
        self.registers |= matches!(mnemonic, Mnemonic::Fscale | Mnemonic::Fprem | Mnemonic::Fprem1)
            && (host.state.u16(2) & !ours.state.u16(2)) & 0x10 != 0;
        // Which of several NaNs a sum of products passes on depends on the order of its steps, which the manuals leave open. Zen 5's is its own.
        self.vectors |= matches!(mnemonic, Mnemonic::Dpps | Mnemonic::Vdpps) && only_nans_differ(host, ours);
        // AMD leaves the mask of a gather as it was, but for what is done.
        self.vectors |= gathers(mnemonic) && host.fault.is_some();
    }

    fn intel(&mut self, case: &Case, host: &Outcome, ours: &Outcome) {
        use Mnemonic::{Movd, Movntq, Movq, Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq};
        let mnemonic = case.instruction.mnemonic();
        // Intel is in MMX state when the store of an MMX register faults.
        self.registers |= matches!(mnemonic, Movd | Movq | Movntq) && host.fault.is_some();
        // With an unmasked underflow Intel notes as inexact what only the denormal number would not hold.
        self.mxcsr |= mnemonic == Mnemonic::Vcvtps2ph && faulted(host, 19);
        // Ten bytes are stored as eight and two: those before the page that faults may be stored.
        self.memory |= stores_extended(mnemonic) && faulted(host, 14);
        // Intel tells another byte of the operand in the page that faults.
        self.page |= matches!(mnemonic, Vmaskmovps | Vmaskmovpd | Vpmaskmovd | Vpmaskmovq);
        // An address that is neither aligned nor canonical, through the stack segment: the manual gives no order.
        self.all |= saves_state(mnemonic) && faulted(host, 12) && faulted(ours, 13);
    }
}

fn faulted(outcome: &Outcome, vector: u8) -> bool {
    outcome.fault.is_some_and(|fault| fault.vector == vector)
}

/// Where the vector registers differ, both have NaNs of single precision.
fn only_nans_differ(host: &Outcome, ours: &Outcome) -> bool {
    let nan = |bits: u32| f32::from_bits(bits).is_nan();
    (0..16).flat_map(|n| (0..4).map(move |quad| State::vector(n, quad))).flat_map(|at| [at, at + 4]).all(|at| {
        let (a, b) = (host.state.u32(at), ours.state.u32(at));
        a == b || nan(a) && nan(b)
    })
}

fn gathers(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Vgatherdpd, Vgatherdps, Vgatherqpd, Vgatherqps, Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq};
    matches!(
        mnemonic,
        Vgatherdpd | Vgatherdps | Vgatherqpd | Vgatherqps | Vpgatherdd | Vpgatherdq | Vpgatherqd | Vpgatherqq
    )
}

/// x87 instructions that store ST(0) to memory.
fn stores_extended(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Fbstp, Fist, Fistp, Fisttp, Fst, Fstp};
    matches!(mnemonic, Fbstp | Fist | Fistp | Fisttp | Fst | Fstp)
}

//! What must be equal after an instruction, and what the architecture leaves open.

use crate::generate::{Case, saves_state};
use crate::makers::{Explained, Maker};
use crate::state::{Fault, Outcome, SCRATCH, SCRATCH_SIZE, State};
use core::ops::Range;
use iced_x86::{Mnemonic, OpKind, Register, RflagsBits};

/// CF, PF, AF, ZF, SF, DF, OF, NT, AC, ID.
const COMPARED_FLAGS: u64 = 0x24_4cd5;

/// The flags that `case` leaves undefined in this state.
pub fn undefined_flags(case: &Case, state: &State) -> u64 {
    let bits = case.instruction.rflags_undefined();
    let mut mask = 0;
    for (bit, flag) in [
        (RflagsBits::OF, 0x800),
        (RflagsBits::SF, 0x80),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::AF, 0x10),
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
    ] {
        if bits & bit != 0 {
            mask |= flag;
        }
    }
    if matches!(case.instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
        // OF is defined for counts of one only, also where the count wraps to one or zero within 9 or 17 bits.
        mask |= 0x800;
    }
    match shift_count(case, state) {
        // A count of zero changes no flag.
        Some(0) => 0,
        // iced lists OF as undefined for counts other than one: with one it is defined.
        Some(1) => mask & !0x800,
        _ => mask,
    }
}

/// The masked count of a shift or rotate.
fn shift_count(case: &Case, state: &State) -> Option<u64> {
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shld, Shr, Shrd};
    let instruction = &case.instruction;
    if !matches!(instruction.mnemonic(), Rol | Ror | Rcl | Rcr | Shl | Sal | Shr | Sar | Shld | Shrd) {
        return None;
    }
    let last = instruction.op_count() - 1;
    let count = match instruction.op_kind(last) {
        OpKind::Immediate8 => u64::from(instruction.immediate8()),
        _ => state.gpr[1] & 0xff,
    };
    let wide = instruction.code().op_code().operand_size() == 64;
    Some(count & if wide { 63 } else { 31 })
}

/// Results that the manual leaves undefined: nothing of the destination and flags is compared.
fn undefined_result(case: &Case, state: &State) -> bool {
    use Mnemonic::{Shld, Shrd};
    let instruction = &case.instruction;
    matches!(instruction.mnemonic(), Shld | Shrd)
        && instruction.code().op_code().operand_size() == 16
        && shift_count(case, state).is_some_and(|count| count > 16)
}

/// Relative error allowed between two approximations of 12 bits (SDM Vol. 2, RCPPS).
fn approximates(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Rcpps, Rcpss, Rsqrtps, Rsqrtss, Vrcpps, Vrcpss, Vrsqrtps, Vrsqrtss};
    matches!(mnemonic, Rcpps | Rcpss | Rsqrtps | Rsqrtss | Vrcpps | Vrcpss | Vrsqrtps | Vrsqrtss)
}

fn close_single(a: u32, b: u32) -> bool {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    // Reciprocals about the smallest normal number may be flushed to zero.
    a == b || (x - y).abs() <= y.abs() * 0.000_75 + 2.4e-38 && x.is_finite()
}

fn transcendental(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{F2xm1, Fcos, Fpatan, Fptan, Fsin, Fsincos, Fyl2x, Fyl2xp1};
    matches!(mnemonic, F2xm1 | Fcos | Fpatan | Fptan | Fsin | Fsincos | Fyl2x | Fyl2xp1)
}

/// FYL2XP1 outside of its domain, where the result is undefined; and a function of the smallest normal number, which underflows or not.
fn result_is_open(case: &Case, before: &State) -> bool {
    let (significand, exponent) = (before.st(0).0, before.st(0).1 & 0x7fff);
    case.instruction.mnemonic() == Mnemonic::Fyl2xp1 && matches!(exponent, 0x3ffd..=0x7ffe)
        || transcendental(case.instruction.mnemonic()) && significand == 1 << 63 && exponent <= 1
}

/// Distance of two extended numbers in units of the last place.
fn units_apart(a: (u64, u16), b: (u64, u16)) -> u128 {
    let line = |(significand, sign_exponent): (u64, u16)| {
        let magnitude = i128::from(sign_exponent & 0x7fff) << 63 | i128::from(significand << 1 >> 1);
        if sign_exponent >> 15 != 0 { -magnitude } else { magnitude }
    };
    (line(a) - line(b)).unsigned_abs()
}

/// Where in the scratch memory an image of the state has what AMD and Intel keep differently: the x87's last instruction and operand, and
/// the mask of MXCSR.
fn pointer_fields(case: &Case, before: &State) -> Vec<Range<usize>> {
    let mnemonic = case.instruction.mnemonic();
    if !saves_state(mnemonic) {
        return Vec::new();
    }
    let register = |register: Register, _: usize, _: usize| Some(before.gpr[register.full_register().number()]);
    let register = |r: Register, i: usize, n: usize| if r.is_segment_register() { Some(0) } else { register(r, i, n) };
    let Some(address) = case.instruction.virtual_address(0, 0, register) else { return Vec::new() };
    let start = address.wrapping_sub(SCRATCH) as usize;
    // FNSTENV's images have one range, FXSAVE's two.
    #[allow(clippy::single_range_in_vec_init)]
    let fields: &[Range<usize>] = match mnemonic {
        Mnemonic::Fnstenv | Mnemonic::Fnsave if case.instruction.code().op_code().operand_size() == 16 => &[6..14],
        Mnemonic::Fnstenv | Mnemonic::Fnsave => &[12..28],
        _ => &[6..24, 28..32],
    };
    fields.iter().map(|r| start.wrapping_add(r.start)..start.wrapping_add(r.end)).collect()
}

/// The differences, in words; empty if there are none.
pub fn differences(
    maker: Maker,
    case: &Case,
    before: &State,
    host: &Outcome,
    ours: &Outcome,
    host_memory: &[u8; SCRATCH_SIZE],
    our_memory: &[u8; SCRATCH_SIZE],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: String, host: String, ours: String| {
        if host != ours {
            found.push(format!("{what}: host {host}, ours {ours}"));
        }
    };
    let (h, o) = (&host.state, &ours.state);
    let explained = Explained::new(maker, case, host, ours);
    if explained.all {
        return Vec::new();
    }
    let fault = |outcome: &Outcome| {
        let kept = if explained.page { !0xfff } else { !0 };
        format!("{:x?}", outcome.fault.map(|fault| Fault { address: fault.address & kept, ..fault }))
    };
    differ("exception".into(), fault(host), fault(ours));
    differ("rip".into(), format!("{:#x}", h.rip), format!("{:#x}", o.rip));
    if undefined_result(case, before) {
        return found;
    }
    for n in 0..16 {
        if h.gpr[n] != o.gpr[n] {
            differ(format!("gpr {n}"), format!("{:#x}", h.gpr[n]), format!("{:#x}", o.gpr[n]));
        }
    }
    let compared = if explained.flags { 0 } else { COMPARED_FLAGS };
    let flags = compared & !if host.fault.is_some() { 0 } else { undefined_flags(case, before) };
    differ("flags".into(), format!("{:#x}", h.rflags & flags), format!("{:#x}", o.rflags & flags));
    let mnemonic = case.instruction.mnemonic();
    for n in if explained.vectors { 0..0 } else { 0..16 } {
        for quad in 0..4 {
            let at = State::vector(n, quad);
            let (a, b) = (h.u64(at), o.u64(at));
            let close = approximates(mnemonic)
                && close_single(a as u32, b as u32)
                && close_single((a >> 32) as u32, (b >> 32) as u32);
            if a != b && !close {
                differ(format!("ymm{n} quadword {quad}"), format!("{a:#x}"), format!("{b:#x}"));
            }
        }
    }
    if !explained.mxcsr {
        differ("mxcsr".into(), format!("{:#x}", h.mxcsr()), format!("{:#x}", o.mxcsr()));
    }
    differ("fcw".into(), format!("{:#x}", h.u16(0)), format!("{:#x}", o.u16(0)));
    let loose = transcendental(mnemonic);
    // The last place of a transcendental function may differ, and so whether it was rounded up (C1).
    let status = if loose { !0x200 } else { !0 };
    if explained.registers || result_is_open(case, before) {
        return found;
    }
    differ("fsw".into(), format!("{:#x}", h.u16(2) & status), format!("{:#x}", o.u16(2) & status));
    differ("ftw".into(), format!("{:#x}", h.xsave[4]), format!("{:#x}", o.xsave[4]));
    for i in 0..8 {
        let (a, b) = (h.st(i), o.st(i));
        if a != b && !(loose && units_apart(a, b) <= 2) {
            differ(format!("st{i}"), format!("{:x?}", a), format!("{:x?}", b));
        }
    }
    let pointers = pointer_fields(case, before);
    if explained.memory {
        return found;
    }
    if host_memory
        .iter()
        .zip(our_memory)
        .enumerate()
        .any(|(i, (a, b))| a != b && !pointers.iter().any(|r| r.contains(&i)))
    {
        let differs = |i: &usize| host_memory[*i] != our_memory[*i] && !pointers.iter().any(|r| r.contains(i));
        let at = (0..SCRATCH_SIZE).find(differs).unwrap_or(0);
        let end = (at + 16).min(SCRATCH_SIZE);
        differ(
            format!("memory at {:#x}", SCRATCH + at as u64),
            format!("{:02x?}", &host_memory[at..end]),
            format!("{:02x?}", &our_memory[at..end]),
        );
    }
    found
}

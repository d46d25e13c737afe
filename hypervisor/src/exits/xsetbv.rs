//! XSETBV: XCR0, which is the guest's own between its VM entries and the next vCPU's.

use super::Exit;
use spec::x86::Xcr0;
use spec::x86::cpuid::leaf;

pub(super) fn handle(exit: &mut Exit<'_>) {
    let value = exit.edx_eax();
    let [low, _, _, high] = exit.host.cpuid(leaf::XSAVE, 0);
    let supported = (u64::from(high) << 32 | u64::from(low)) & (Xcr0::X87 | Xcr0::SSE | Xcr0::AVX | AVX512);
    // The processor checks privilege and CR4 before it exits.
    if exit.vcpu.registers[1] as u32 == 0 && value & !supported == 0 && is_consistent(value) {
        exit.vcpu.xcr0 = value;
        exit.host.set_xcr0(value);
        exit.advance();
    } else {
        exit.general_protection();
    }
}

const AVX512: u64 = Xcr0::OPMASK | Xcr0::ZMM_HI256 | Xcr0::HI16_ZMM;

/// The combinations that XSETBV takes (SDM Vol. 1, 13.3).
fn is_consistent(value: u64) -> bool {
    let avx_needs_sse = value & Xcr0::AVX == 0 || value & Xcr0::SSE != 0;
    let avx512 = value & AVX512;
    value & Xcr0::X87 != 0 && avx_needs_sse && (avx512 == 0 || avx512 == AVX512 && value & Xcr0::AVX != 0)
}

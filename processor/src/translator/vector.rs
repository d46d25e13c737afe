//! SSE to AVX2, FMA, F16C, AES, PCLMULQDQ and SHA: which of them are emitted again. The decoder's tables say how ([`super::generic`]).
//!
//! The guest's vector registers and MXCSR come into the host's at a block's first such instruction (`Builder::guard`) and stay there until
//! translated code is left or Rust is called. While MXCSR has an exception unmasked, the interpreter does all of them: it raises what the host
//! must not see.

use iced_x86::Mnemonic;

/// False for those whose result differs between processors (SDM: approximations with a relative error, sums without a stated order), or whose
/// memory operand is not one access.
pub(super) fn kept(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    !matches!(
        mnemonic,
        Rcpps
            | Rcpss
            | Rsqrtps
            | Rsqrtss
            | Vrcpps
            | Vrcpss
            | Vrsqrtps
            | Vrsqrtss
            | Dpps
            | Dppd
            | Vdpps
            | Vdppd
            | Vmaskmovps
            | Vmaskmovpd
            | Vpmaskmovd
            | Vpmaskmovq
            | Maskmovdqu
            | Vmaskmovdqu
    )
}

/// Those without an operand that names a vector register.
pub(super) fn without_operands(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Vzeroupper | Mnemonic::Vzeroall)
}

/// Those with their result in ECX.
pub(super) fn index_in_rcx(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Pcmpestri | Pcmpestri64 | Pcmpistri | Vpcmpestri | Vpcmpestri64 | Vpcmpistri)
}

//! Shifts of lanes (SDM volume 2, PSLLW and its relatives). A count of the lane's width or more empties the lane, or fills
//! it with the sign for the arithmetic shifts.

use super::lanes::{Xmm, lanewise};

macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, $width:literal, |$a:ident, $n:ident| $lane:expr;)+) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(a: &Xmm, count: u64) -> Xmm {
            if count >= $width {
                return Xmm::ZERO;
            }
            let $n = count as u32;
            Xmm::$from(a.$view().map(|$a| $lane))
        }
    )+};
}

shifts! {
    /// PSLLW.
    left16: u16s => from_u16s, 16, |a, n| a << n;
    /// PSLLD.
    left32: u32s => from_u32s, 32, |a, n| a << n;
    /// PSLLQ.
    left64: u64s => from_u64s, 64, |a, n| a << n;
    /// PSRLW.
    right16: u16s => from_u16s, 16, |a, n| a >> n;
    /// PSRLD.
    right32: u32s => from_u32s, 32, |a, n| a >> n;
    /// PSRLQ.
    right64: u64s => from_u64s, 64, |a, n| a >> n;
}

/// PSRAW.
pub fn right_arithmetic16(a: &Xmm, count: u64) -> Xmm {
    let count = count.min(15) as u32;
    Xmm::from_i16s(a.i16s().map(|a| a >> count))
}

/// PSRAD.
pub fn right_arithmetic32(a: &Xmm, count: u64) -> Xmm {
    let count = count.min(31) as u32;
    Xmm::from_i32s(a.i32s().map(|a| a >> count))
}

/// PSLLDQ: the whole vector left by bytes.
#[inline]
pub fn left_bytes(a: &Xmm, count: u64) -> Xmm {
    if count > 15 { Xmm::ZERO } else { Xmm::from_bits(a.bits() << (8 * count as u32)) }
}

/// PSRLDQ: the whole vector right by bytes.
#[inline]
pub fn right_bytes(a: &Xmm, count: u64) -> Xmm {
    if count > 15 { Xmm::ZERO } else { Xmm::from_bits(a.bits() >> (8 * count as u32)) }
}

lanewise! {
    /// VPSLLVD: each lane by its own count.
    left_each32: u32s => from_u32s, |a, n| if n < 32 { a << n } else { 0 };
    /// VPSLLVQ.
    left_each64: u64s => from_u64s, |a, n| if n < 64 { a << n } else { 0 };
    /// VPSRLVD.
    right_each32: u32s => from_u32s, |a, n| if n < 32 { a >> n } else { 0 };
    /// VPSRLVQ.
    right_each64: u64s => from_u64s, |a, n| if n < 64 { a >> n } else { 0 };
    /// VPSRAVD.
    right_arithmetic_each32: u32s => from_u32s, |a, n| ((a as i32) >> n.min(31)) as u32;
}

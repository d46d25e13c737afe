//! The 128-bit value that every vector instruction works on, and its views as lanes.
//!
//! Lane functions take their operands by reference: LLVM then keeps them in vector registers and turns a lane loop into
//! one or two vector instructions, which it does not for `u128` passed by value in two integer registers.

use serde::{Deserialize, Serialize};

/// A 128-bit vector: an XMM register, one half of a YMM register, or a 16-byte memory operand, in memory order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C, align(16))]
pub struct Xmm(pub [u8; 16]);

/// A function from one vector to one vector.
pub type Unary = fn(&Xmm) -> Xmm;
/// A function from one vector and the immediate byte.
pub type UnaryImm = fn(&Xmm, u8) -> Xmm;
/// A function of destination (first source) and source.
pub type Binary = fn(&Xmm, &Xmm) -> Xmm;
/// A function of first source, second source and the immediate byte.
pub type BinaryImm = fn(&Xmm, &Xmm, u8) -> Xmm;
/// A function of first source, second source and a mask.
pub type Ternary = fn(&Xmm, &Xmm, &Xmm) -> Xmm;
/// A shift of each lane by one count; counts of the lane's width and above are legal.
pub type Shift = fn(&Xmm, u64) -> Xmm;

macro_rules! view {
    ($to:ident, $from:ident, $type:ty, $count:literal, $size:literal) => {
        #[doc = concat!("The vector as ", stringify!($count), " lanes of `", stringify!($type), "`, lowest first.")]
        #[inline(always)]
        pub fn $to(&self) -> [$type; $count] {
            core::array::from_fn(|i| <$type>::from_le_bytes(core::array::from_fn(|k| self.0[$size * i + k])))
        }

        #[doc = concat!("A vector of ", stringify!($count), " lanes of `", stringify!($type), "`, lowest first.")]
        #[inline(always)]
        pub fn $from(lanes: [$type; $count]) -> Self {
            let mut bytes = [0; 16];
            for i in 0..$count {
                bytes[$size * i..$size * (i + 1)].copy_from_slice(&lanes[i].to_le_bytes());
            }
            Self(bytes)
        }
    };
}

impl Xmm {
    /// All bits zero.
    pub const ZERO: Self = Self([0; 16]);

    view!(u8s, from_u8s, u8, 16, 1);
    view!(i8s, from_i8s, i8, 16, 1);
    view!(u16s, from_u16s, u16, 8, 2);
    view!(i16s, from_i16s, i16, 8, 2);
    view!(u32s, from_u32s, u32, 4, 4);
    view!(i32s, from_i32s, i32, 4, 4);
    view!(u64s, from_u64s, u64, 2, 8);
    view!(i64s, from_i64s, i64, 2, 8);

    /// The vector as one integer.
    #[inline(always)]
    pub fn bits(&self) -> u128 {
        u128::from_le_bytes(self.0)
    }

    /// A vector of these bits.
    #[inline(always)]
    pub fn from_bits(bits: u128) -> Self {
        Self(bits.to_le_bytes())
    }

    /// The lowest 64 bits.
    #[inline(always)]
    pub fn low(&self) -> u64 {
        self.u64s()[0]
    }

    /// The lowest 32 bits.
    #[inline(always)]
    pub fn low32(&self) -> u32 {
        self.u32s()[0]
    }

    /// The highest 64 bits.
    #[inline(always)]
    pub fn high(&self) -> u64 {
        self.u64s()[1]
    }

    /// This 64-bit value with zeros above it.
    #[inline(always)]
    pub fn from_low(low: u64) -> Self {
        Self::from_u64s([low, 0])
    }

    /// The vector with its lowest 32 bits replaced.
    #[inline(always)]
    pub fn with_low32(&self, low: u32) -> Self {
        let mut lanes = self.u32s();
        lanes[0] = low;
        Self::from_u32s(lanes)
    }

    /// The vector with its lowest 64 bits replaced.
    #[inline(always)]
    pub fn with_low(&self, low: u64) -> Self {
        Self::from_u64s([low, self.high()])
    }
}

impl core::fmt::Debug for Xmm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.bits())
    }
}

/// Defines lane-wise functions of two vectors: `name: view => constructor, |a, b| lane`.
macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, |$a:ident, $b:ident| $lane:expr;)+) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(a: &Xmm, b: &Xmm) -> Xmm {
            let (a, b) = (a.$view(), b.$view());
            Xmm::$from(core::array::from_fn(|i| { let ($a, $b) = (a[i], b[i]); $lane }))
        }
    )+};
}
pub(crate) use lanewise;

/// Defines lane-wise functions of one vector: `name: view => constructor, |a| lane`.
macro_rules! lanewise_unary {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, |$a:ident| $lane:expr;)+) => {$(
        $(#[$doc])*
        pub fn $name(a: &Xmm) -> Xmm {
            let a = a.$view();
            Xmm::$from(core::array::from_fn(|i| { let $a = a[i]; $lane }))
        }
    )+};
}
pub(crate) use lanewise_unary;

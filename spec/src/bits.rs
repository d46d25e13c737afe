//! The one macro of this crate: a register or control word whose bits have names.

use core::fmt;

/// The bits of `value`, by name where they have one; `none` if there are none.
#[derive(Clone)]
pub(crate) struct Listed<I> {
    pub(crate) value: u64,
    pub(crate) named: I,
    pub(crate) separator: &'static str,
}

impl<I: Iterator<Item = (u64, &'static str)> + Clone> fmt::Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.value;
        let mut first = true;
        let mut gap = |f: &mut fmt::Formatter<'_>| {
            if core::mem::take(&mut first) { Ok(()) } else { f.write_str(self.separator) }
        };
        for (mask, name) in self.named.clone() {
            if left & mask != 0 {
                gap(f)?;
                f.write_str(name)?;
                left &= !mask;
            }
        }
        while left != 0 {
            gap(f)?;
            write!(f, "bit {}", left.trailing_zeros())?;
            left &= left - 1;
        }
        if self.value == 0 { f.write_str("none") } else { Ok(()) }
    }
}

/// Defines a newtype over an integer with one constant for each named single bit, the table of the names, and `has`.
///
/// The constants are plain integers, so that `value & Cr0::PE` works on raw registers too.
macro_rules! named_bits {
    ($(#[$meta:meta])* $name:ident($int:ty) { $($bit:literal $field:ident $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub $int);

        impl $name {
            $(#[doc = concat!("Bit ", $bit, ": ", $text, ".")] pub const $field: $int = 1 << $bit;)*

            /// Every named bit: its mask and its name in the manual.
            pub const NAMED: &'static [($int, &'static str)] = &[$((1 << $bit, $text)),*];

            /// Every named bit: its mask and its symbol, the constant's name.
            pub const SYMBOLS: &'static [($int, &'static str)] = &[$((1 << $bit, stringify!($field))),*];

            /// Every named bit, set.
            pub const ALL: $int = 0 $(| (1 << $bit))*;

            /// The symbols of the bits that are 1, from bit 0 up, then the numbers of those that have none: `PE PG bit 7`.
            #[must_use]
            pub fn symbols(self) -> impl core::fmt::Display {
                let named = Self::SYMBOLS.iter().map(|(mask, name)| (u64::from(*mask), *name));
                crate::bits::Listed { value: u64::from(self.0), named, separator: " " }
            }

            /// The manual's names of the bits that are 1, from bit 0 up, then the numbers of those that have none.
            #[must_use]
            pub fn names(self) -> impl core::fmt::Display {
                let named = Self::NAMED.iter().map(|(mask, name)| (u64::from(*mask), *name));
                crate::bits::Listed { value: u64::from(self.0), named, separator: ", " }
            }

            /// Whether all of `bits` are 1.
            #[inline]
            #[must_use]
            pub const fn has(self, bits: $int) -> bool {
                self.0 & bits == bits
            }
        }
    };
}

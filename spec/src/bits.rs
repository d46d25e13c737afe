//! The one macro of this crate: a register or control word whose bits have names.

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

            /// Every named bit, set.
            pub const ALL: $int = 0 $(| (1 << $bit))*;

            /// Whether all of `bits` are 1.
            #[inline]
            #[must_use]
            pub const fn has(self, bits: $int) -> bool {
                self.0 & bits == bits
            }
        }
    };
}

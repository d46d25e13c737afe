//! The environment of an operation: control bits in, exception flags out.

/// Invalid operation (SDM Vol. 1, 4.9.1.1); the flag's bit in MXCSR and in the x87 status word.
pub const IE: u8 = 1 << 0;
/// Denormal operand (SDM Vol. 1, 4.9.1.2).
pub const DE: u8 = 1 << 1;
/// Divide by zero (SDM Vol. 1, 4.9.1.3).
pub const ZE: u8 = 1 << 2;
/// Overflow (SDM Vol. 1, 4.9.1.4).
pub const OE: u8 = 1 << 3;
/// Underflow (SDM Vol. 1, 4.9.1.5).
pub const UE: u8 = 1 << 4;
/// Inexact result, "precision" (SDM Vol. 1, 4.9.1.6).
pub const PE: u8 = 1 << 5;

/// The exceptions found before computing; if one is unmasked, the later ones are not looked for.
const BEFORE_COMPUTING: u8 = IE | DE | ZE;

/// Rounding control; the discriminants are the encoding of RC in MXCSR, the x87 control word and immediates (SDM Vol. 1, table 4-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest = 0,
    /// Toward minus infinity.
    Down = 1,
    /// Toward plus infinity.
    Up = 2,
    /// Toward zero.
    Zero = 3,
}

impl Rounding {
    /// The rounding that the low two bits of `rc` encode.
    #[inline]
    pub const fn from_bits(rc: u32) -> Self {
        match rc & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// x87 precision control (SDM Vol. 1, table 8-2). It applies to add, subtract, multiply, divide and square root only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 24-bit significands.
    Single,
    /// 53-bit significands.
    Double,
    /// 64-bit significands.
    Extended,
}

impl Precision {
    /// Bits of the significand.
    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
            Self::Extended => 64,
        }
    }
}

/// What an operation depends on besides its operands, and the flags that it raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Env {
    /// Rounding control.
    pub rounding: Rounding,
    /// Denormal operands count as zeros of their sign and raise no DE (MXCSR bit 6).
    pub daz: bool,
    /// Tiny results become zeros of their sign while UE is masked (MXCSR bit 15).
    pub ftz: bool,
    /// Masked exceptions: a set bit masks, in the positions of the flags.
    pub masks: u8,
    /// x87 precision control.
    pub precision: Precision,
    /// Exceptions raised since this environment was made (any of [`IE`] to [`PE`]).
    pub flags: u8,
    /// Flags of the finished steps of an operation that has several; see [`Env::next_step`].
    pub finished: u8,
    /// The caller has PE sticky already, so that operations need not find out whether their result is inexact.
    pub inexact_known: bool,
    /// The last rounding incremented the magnitude: C1 of the x87 when PE is raised.
    pub rounded_up: bool,
}

impl Env {
    /// The environment that an MXCSR value asks for (SDM Vol. 1, 10.2.3), with no flags raised yet.
    #[inline]
    pub const fn from_mxcsr(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_bits(mxcsr >> 13),
            daz: mxcsr & (1 << 6) != 0,
            ftz: mxcsr & (1 << 15) != 0,
            masks: (mxcsr >> 7) as u8 & 0x3f,
            precision: Precision::Extended,
            flags: 0,
            finished: 0,
            // A new, unmasked PE must be seen even though the sticky flag is set.
            inexact_known: mxcsr & (1 << 5) != 0 && mxcsr & (1 << 12) != 0,
            rounded_up: false,
        }
    }

    /// The environment that an x87 control word asks for (SDM Vol. 1, 8.1.5), with no flags raised yet.
    #[inline]
    pub const fn from_fcw(fcw: u16) -> Self {
        Self {
            rounding: Rounding::from_bits(fcw as u32 >> 10),
            daz: false,
            ftz: false,
            masks: fcw as u8 & 0x3f,
            // 01B is reserved; processors treat it as extended.
            precision: match fcw >> 8 & 3 {
                0 => Precision::Single,
                2 => Precision::Double,
                _ => Precision::Extended,
            },
            flags: 0,
            finished: 0,
            inexact_known: false,
            rounded_up: false,
        }
    }

    /// The flags to make visible and whether one of them is unmasked.
    ///
    /// With an unmasked invalid, denormal or divide-by-zero exception, in any element of a packed operation, the exceptions that
    /// would come from computing are not reported (SDM Vol. 1, 4.9.2 and appendix E.4.2.2).
    #[inline]
    pub const fn finish(&self) -> (u8, bool) {
        let unmasked = self.flags & !self.masks;
        if unmasked & BEFORE_COMPUTING != 0 {
            (self.flags & BEFORE_COMPUTING | self.finished, true)
        } else {
            (self.flags | self.finished, (unmasked | self.finished & !self.masks) != 0)
        }
    }

    /// Between the steps of an operation like DPPS, which multiplies, then adds: what the step raised stays visible whatever the next one
    /// raises. False: an unmasked exception is pending and no further step takes place.
    #[inline]
    pub const fn next_step(&mut self) -> bool {
        let (flags, unmasked) = self.finish();
        self.finished = flags;
        self.flags = 0;
        !unmasked
    }

    /// Whether a result must be withheld because of an exception found before computing (x87: nothing is stored or popped).
    #[inline]
    pub const fn withheld(&self) -> bool {
        self.flags & !self.masks & BEFORE_COMPUTING != 0
    }

    #[inline]
    pub(crate) const fn raise(&mut self, flags: u8) {
        self.flags |= flags;
    }

    #[inline]
    pub(crate) const fn masked(&self, flag: u8) -> bool {
        self.masks & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_precision_control_is_extended() {
        assert_eq!(Env::from_fcw(0x017f).precision, Precision::Extended);
        assert_eq!(Env::from_fcw(0x007f).precision, Precision::Single);
        assert_eq!(Env::from_fcw(0x027f).precision, Precision::Double);
    }

    #[test]
    fn unmasked_denormal_hides_the_exceptions_of_computing() {
        let mut env = Env::from_mxcsr(0x1f80 & !(1 << 8));
        env.raise(DE | PE | UE);
        assert_eq!(env.finish(), (DE, true));
        env.masks = 0x3f;
        assert_eq!(env.finish(), (DE | PE | UE, false));
    }
}

//! Bits of the VMX capability MSRs, by the word they stand in.

use spec::vmx::capability::{EptVpidCap, basic, misc, vmfunc};
use spec::vmx::{
    EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls,
};

/// One set of bits in each word. For controls, a bit stands for its 1-setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmxBits {
    /// Pin-based controls.
    pub pin: u32,
    /// Primary processor-based controls.
    pub primary: u32,
    /// Secondary processor-based controls.
    pub secondary: u32,
    /// Tertiary processor-based controls.
    pub tertiary: u64,
    /// Primary VM-exit controls.
    pub exit: u32,
    /// Secondary VM-exit controls.
    pub secondary_exit: u64,
    /// VM-entry controls.
    pub entry: u32,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
    /// IA32_VMX_VMFUNC.
    pub vm_functions: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// IA32_VMX_BASIC.
    pub basic: u64,
}

impl VmxBits {
    /// No bit.
    pub const NONE: Self = Self {
        pin: 0,
        primary: 0,
        secondary: 0,
        tertiary: 0,
        exit: 0,
        secondary_exit: 0,
        entry: 0,
        ept_vpid: 0,
        vm_functions: 0,
        misc: 0,
        basic: 0,
    };

    /// The bits of both.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self {
            pin: self.pin | more.pin,
            primary: self.primary | more.primary,
            secondary: self.secondary | more.secondary,
            tertiary: self.tertiary | more.tertiary,
            exit: self.exit | more.exit,
            secondary_exit: self.secondary_exit | more.secondary_exit,
            entry: self.entry | more.entry,
            ept_vpid: self.ept_vpid | more.ept_vpid,
            vm_functions: self.vm_functions | more.vm_functions,
            misc: self.misc | more.misc,
            basic: self.basic | more.basic,
        }
    }

    /// Without the bits of `less`.
    #[must_use]
    pub const fn without(self, less: Self) -> Self {
        Self {
            pin: self.pin & !less.pin,
            primary: self.primary & !less.primary,
            secondary: self.secondary & !less.secondary,
            tertiary: self.tertiary & !less.tertiary,
            exit: self.exit & !less.exit,
            secondary_exit: self.secondary_exit & !less.secondary_exit,
            entry: self.entry & !less.entry,
            ept_vpid: self.ept_vpid & !less.ept_vpid,
            vm_functions: self.vm_functions & !less.vm_functions,
            misc: self.misc & !less.misc,
            basic: self.basic & !less.basic,
        }
    }

    /// Whether any bit of `of` is there.
    #[must_use]
    pub fn intersects(self, of: Self) -> bool {
        self.without(of) != self
    }

    /// One word.
    #[must_use]
    pub const fn word(&self, word: VmxWord) -> u64 {
        match word {
            VmxWord::Pin => self.pin as u64,
            VmxWord::Primary => self.primary as u64,
            VmxWord::Secondary => self.secondary as u64,
            VmxWord::Tertiary => self.tertiary,
            VmxWord::Exit => self.exit as u64,
            VmxWord::SecondaryExit => self.secondary_exit,
            VmxWord::Entry => self.entry as u64,
            VmxWord::EptVpid => self.ept_vpid,
            VmxWord::VmFunctions => self.vm_functions,
            VmxWord::Misc => self.misc,
            VmxWord::Basic => self.basic,
        }
    }

    /// The bits `bits` of one word alone.
    #[must_use]
    pub const fn of_word(word: VmxWord, bits: u64) -> Self {
        let none = Self::NONE;
        match word {
            VmxWord::Pin => Self { pin: bits as u32, ..none },
            VmxWord::Primary => Self { primary: bits as u32, ..none },
            VmxWord::Secondary => Self { secondary: bits as u32, ..none },
            VmxWord::Tertiary => Self { tertiary: bits, ..none },
            VmxWord::Exit => Self { exit: bits as u32, ..none },
            VmxWord::SecondaryExit => Self { secondary_exit: bits, ..none },
            VmxWord::Entry => Self { entry: bits as u32, ..none },
            VmxWord::EptVpid => Self { ept_vpid: bits, ..none },
            VmxWord::VmFunctions => Self { vm_functions: bits, ..none },
            VmxWord::Misc => Self { misc: bits, ..none },
            VmxWord::Basic => Self { basic: bits, ..none },
        }
    }
}

/// A word of [`VmxBits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmxWord {
    /// Pin-based controls.
    Pin,
    /// Primary processor-based controls.
    Primary,
    /// Secondary processor-based controls.
    Secondary,
    /// Tertiary processor-based controls.
    Tertiary,
    /// Primary VM-exit controls.
    Exit,
    /// Secondary VM-exit controls.
    SecondaryExit,
    /// VM-entry controls.
    Entry,
    /// IA32_VMX_EPT_VPID_CAP.
    EptVpid,
    /// IA32_VMX_VMFUNC.
    VmFunctions,
    /// IA32_VMX_MISC.
    Misc,
    /// IA32_VMX_BASIC.
    Basic,
}

const MISC: &[(u64, &str)] = &[
    (misc::STORE_LMA, "store LMA"),
    (misc::ACTIVITY_HLT, "activity state HLT"),
    (misc::ACTIVITY_SHUTDOWN, "activity state shutdown"),
    (misc::ACTIVITY_WAIT_FOR_SIPI, "activity state wait-for-SIPI"),
    (misc::VMWRITE_ANY, "VMWRITE to any field"),
    (misc::INJECT_LENGTH_0, "inject length 0"),
];
const BASIC: &[(u64, &str)] = &[
    (basic::INS_OUTS_INFO, "INS/OUTS information"),
    (basic::TRUE_CONTROLS, "true controls"),
    (basic::ANY_ERROR_CODE, "any error code"),
];
const VM_FUNCTIONS: &[(u64, &str)] = &[(vmfunc::EPTP_SWITCHING, "EPTP switching")];

fn widened(named: &[(u32, &'static str)]) -> Vec<(u64, &'static str)> {
    named.iter().map(|&(bit, name)| (u64::from(bit), name)).collect()
}

impl VmxWord {
    /// Every word.
    pub const ALL: &'static [Self] = &[
        Self::Pin,
        Self::Primary,
        Self::Secondary,
        Self::Tertiary,
        Self::Exit,
        Self::SecondaryExit,
        Self::Entry,
        Self::EptVpid,
        Self::VmFunctions,
        Self::Misc,
        Self::Basic,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
            Self::Tertiary => "tertiary",
            Self::Exit => "exit",
            Self::SecondaryExit => "secondary-exit",
            Self::Entry => "entry",
            Self::EptVpid => "ept-vpid",
            Self::VmFunctions => "vmfunc",
            Self::Misc => "misc",
            Self::Basic => "basic",
        }
    }

    /// The bits that have names in the manual: mask and name.
    #[must_use]
    pub fn named(self) -> Vec<(u64, &'static str)> {
        match self {
            Self::Pin => widened(PinBasedControls::NAMED),
            Self::Primary => widened(PrimaryControls::NAMED),
            Self::Secondary => widened(SecondaryControls::NAMED),
            Self::Tertiary => TertiaryControls::NAMED.to_vec(),
            Self::Exit => widened(ExitControls::NAMED),
            Self::SecondaryExit => SecondaryExitControls::NAMED.to_vec(),
            Self::Entry => widened(EntryControls::NAMED),
            Self::EptVpid => EptVpidCap::NAMED.to_vec(),
            Self::VmFunctions => VM_FUNCTIONS.to_vec(),
            Self::Misc => MISC.to_vec(),
            Self::Basic => BASIC.to_vec(),
        }
    }

    /// The bit that `choice` means: its number, or its name in the manual in small letters with hyphens for all that is no letter or digit
    /// (`use-tpr-shadow`).
    #[must_use]
    pub fn bit(self, choice: &str) -> Option<u64> {
        if let Ok(number) = choice.parse::<u32>() {
            return 1u64.checked_shl(number);
        }
        self.named().into_iter().find(|(_, name)| hyphenated(name) == choice).map(|(bit, _)| bit)
    }
}

/// A name of the manual as the command line takes it: small letters and digits, hyphens for runs of anything else.
#[must_use]
pub fn hyphenated(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_found_by_number_and_by_name() {
        assert_eq!(VmxWord::Secondary.bit("5"), Some(1 << 5));
        assert_eq!(VmxWord::Secondary.bit("enable-vpid"), Some(1 << 5));
        assert_eq!(VmxWord::Exit.bit("load-ia32-pat"), Some(1 << 19));
        assert_eq!(VmxWord::Exit.bit("64"), None);
    }

    #[test]
    fn words_keep_their_bits_apart() {
        for &word in VmxWord::ALL {
            let bits = VmxBits::of_word(word, 2);
            assert!(VmxWord::ALL.iter().all(|&other| bits.word(other) == if other == word { 2 } else { 0 }));
            assert!(bits.intersects(VmxBits::of_word(word, 3)) && !bits.intersects(VmxBits::of_word(word, 4)));
        }
    }
}

//! Each control's effect, when it is 1 and when it is 0.

use bare::vmx::state::Word;
use spec::vmx::{
    EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls,
};

/// Every named bit of a control word, with its name.
pub fn names(word: Word) -> impl Iterator<Item = (u64, &'static str)> {
    let narrow: &[(u32, &str)] = match word {
        Word::Pin => PinBasedControls::NAMED,
        Word::Primary => PrimaryControls::NAMED,
        Word::Secondary => SecondaryControls::NAMED,
        Word::Exit => ExitControls::NAMED,
        Word::Entry => EntryControls::NAMED,
        Word::Tertiary | Word::SecondaryExit => &[],
    };
    let wide: &[(u64, &str)] = match word {
        Word::Tertiary => TertiaryControls::NAMED,
        Word::SecondaryExit => SecondaryExitControls::NAMED,
        _ => &[],
    };
    narrow.iter().map(|(bit, name)| (u64::from(*bit), *name)).chain(wide.iter().copied())
}

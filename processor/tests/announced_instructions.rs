//! Whatever a model announces, the decoder's table has.

use iced_x86::{Code, CpuidFeature, Mnemonic};
use processor::decode::table::Table;
use processor::models::Model;

/// Codes that need no handler: #UD is what they are, or the decoder never gives them.
fn needs_none(code: Code) -> bool {
    let info = code.op_code();
    // FSTENV and the like are WAIT followed by FNSTENV to the decoder.
    let with_wait = info.op_code_string().starts_with("9B ") && code != Code::Wait;
    // CET's instructions are filed under features that hold no-operations of older processors too.
    let cet = code.cpuid_features().contains(&CpuidFeature::CET_SS)
        && !matches!(code.mnemonic(), Mnemonic::Rdsspd | Mnemonic::Rdsspq);
    let undefined = matches!(code.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2);
    !info.is_instruction() || with_wait || cet || undefined
}

#[test]
fn every_announced_instruction_is_registered() {
    let table = Table::shared();
    for model in Model::ALL {
        let missing: Vec<Code> = Code::values()
            .filter(|&code| !needs_none(code))
            .filter(|code| {
                code.cpuid_features().iter().all(|&feature| processor::decode::announced::announces(model, feature))
            })
            .filter(|&code| !table.get(code).known)
            .collect();
        assert!(missing.is_empty(), "{}: {missing:?}", model.name);
    }
}

#[test]
fn every_registered_instruction_belongs_to_a_model() {
    let table = Table::shared();
    // There, but for models yet to come.
    let later = [CpuidFeature::VAES, CpuidFeature::VPCLMULQDQ, CpuidFeature::WBNOINVD];
    let stranded: Vec<Code> = Code::values()
        .filter(|&code| table.get(code).known)
        .filter(|code| !code.cpuid_features().iter().any(|feature| later.contains(feature)))
        .filter(|code| {
            !Model::ALL.iter().any(|model| {
                code.cpuid_features().iter().all(|&feature| processor::decode::announced::announces(model, feature))
            })
        })
        .collect();
    assert!(stranded.is_empty(), "no model announces {stranded:?}");
}

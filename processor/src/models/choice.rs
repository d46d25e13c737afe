//! Choosing a model by name, and changing it: `icelake-server,-la57,-vpid,-primary.use-msr-bitmaps`.

use super::{Model, VmxBits, VmxFeature, VmxWord, features, full};
use spec::vmx::{EntryControls, ExitControls, PinBasedControls, PrimaryControls};
use spec::x86::cpuid::Feature;

/// The features that cannot be switched off on the command line: no 64-bit PC works without them.
const BASE: &[Feature] = &[
    Feature::FPU,
    Feature::TSC,
    Feature::MSR,
    Feature::PAE,
    Feature::CX8,
    Feature::APIC,
    Feature::PGE,
    Feature::CMOV,
    Feature::FXSR,
    Feature::SSE,
    Feature::SSE2,
    Feature::LM,
    Feature::SYSCALL,
    Feature::NX,
];

impl Model {
    /// Finds a model by name, changed by what follows it. `+NAME` and `-NAME` switch a CPUID or a VT-x feature; switching off a VT-x
    /// feature switches off those that need it. `-WORD.BIT` switches off one bit of a VMX capability MSR ([`VmxWord`]).
    ///
    /// # Errors
    /// A sentence that says what is wrong and what can be chosen.
    pub fn named(choice: &str) -> Result<Self, String> {
        let mut parts = choice.split(',');
        let name = parts.next().unwrap_or_default();
        let Some(model) = Self::ALL.iter().find(|model| model.name == name) else {
            let names: Vec<&str> = Self::ALL.iter().map(|model| model.name).collect();
            return Err(format!("no CPU model is called \"{name}\"; choose one of: {}", names.join(", ")));
        };
        let mut model = model.clone();
        let mut asked = Vec::new();
        for part in parts {
            let (add, name) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(format!("\"{part}\" after the CPU model is neither +feature nor -feature")),
            };
            if let Some((word, bit)) = name.split_once('.') {
                model.vmx_off = model.vmx_off.with(single_bit(add, word, bit)?);
            } else if let Some(feature) = VmxFeature::named(name) {
                model.switch_vmx(feature, add)?;
                if add {
                    asked.push(feature);
                }
            } else {
                model.switch(name, add)?;
            }
        }
        model.check(&asked)?;
        Ok(model)
    }

    fn switch(&mut self, name: &str, add: bool) -> Result<(), String> {
        let Some(feature) = full::MODEL.features.iter().find(|feature| feature.name() == name) else {
            return Err(format!("no CPU feature is called \"{name}\"; `vanderpool cpus full` lists them"));
        };
        if add {
            self.features = self.features.with(&[feature]);
        } else if BASE.contains(&feature) {
            return Err(format!("no model can be without the CPU feature \"{name}\""));
        } else {
            self.features = self.features.without(&[feature]);
        }
        Ok(())
    }

    fn switch_vmx(&mut self, feature: VmxFeature, add: bool) -> Result<(), String> {
        if !full::MODEL.vmx.has(feature) {
            let (name, what) = (feature.name(), feature.description());
            return Err(format!("the VT-x feature \"{name}\" ({what}) is not implemented, so no model has it"));
        }
        self.vmx = if add { self.vmx.with(&[feature]) } else { self.vmx.without_dependants(feature) };
        Ok(())
    }

    /// Checks what features need; `asked` are the VT-x features that were asked for by name. VT-x features whose CPUID feature is gone go
    /// with it.
    fn check(&mut self, asked: &[VmxFeature]) -> Result<(), String> {
        for &(feature, needed) in features::REQUIREMENTS {
            if self.has(feature) && !self.has(needed) {
                let (feature, needed) = (feature.name(), needed.name());
                return Err(format!("the CPU feature \"{feature}\" needs \"{needed}\": add +{needed} or -{feature}"));
            }
        }
        if let (Some(feature), false) = (asked.first(), self.has(Feature::VMX)) {
            return Err(format!("the VT-x feature \"{}\" needs the CPU feature \"vmx\": add +vmx", feature.name()));
        }
        for feature in self.vmx.iter() {
            let needed = feature.needs().iter().find(|needed| !self.vmx.has(**needed)).map(|needed| needed.name());
            let no_cet = feature == VmxFeature::LoadCet && !self.has(Feature::CET_SS) && !self.has(Feature::CET_IBT);
            let cpuid = feature.cpuid().or(no_cet.then_some(Feature::CET_SS));
            let cpuid = cpuid.filter(|cpuid| !self.has(*cpuid)).map(Feature::name);
            let name = feature.name();
            match needed.or(cpuid) {
                None => {}
                Some(needed) if asked.contains(&feature) => {
                    return Err(format!("the VT-x feature \"{name}\" needs \"{needed}\": add +{needed}"));
                }
                Some(_) => self.vmx = self.vmx.without(&[feature]),
            }
        }
        if !self.has(Feature::VMX) {
            self.vmx = super::VmxFeatureSet::NONE;
        }
        Ok(())
    }
}

/// The bit that `-WORD.BIT` means.
fn single_bit(add: bool, word: &str, bit: &str) -> Result<VmxBits, String> {
    if add {
        return Err(format!("single bits can only be switched off: give the feature that brings {word}.{bit}"));
    }
    let Some(&found) = VmxWord::ALL.iter().find(|candidate| candidate.name() == word) else {
        let names: Vec<&str> = VmxWord::ALL.iter().map(|word| word.name()).collect();
        return Err(format!("\"{word}\" is no word of VMX capabilities; there are: {}", names.join(", ")));
    };
    let known = full::MODEL.vmx_bits().word(found);
    let Some(mask) = found.bit(bit).filter(|mask| known & mask != 0) else {
        return Err(format!(
            "no CPU model has a bit {word}.{bit} that could be switched off; `vanderpool cpus full` lists them"
        ));
    };
    let default1 = match found {
        VmxWord::Pin => PinBasedControls::DEFAULT1,
        VmxWord::Primary => PrimaryControls::DEFAULT1,
        VmxWord::Exit => ExitControls::DEFAULT1,
        VmxWord::Entry => EntryControls::DEFAULT1,
        _ => 0,
    };
    if mask & u64::from(default1) != 0 {
        return Err(format!("{word}.{bit} is of the default1 class: every processor can set it to 1"));
    }
    Ok(VmxBits::of_word(found, mask))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spec::vmx::SecondaryControls as Secondary;

    #[test]
    fn models_are_consistent() {
        for model in Model::ALL {
            assert!(model.brand.len() <= 47, "{}", model.name);
            assert_eq!(Model::named(model.name).as_ref(), Ok(model));
            for feature in BASE {
                assert!(model.has(*feature), "{} lacks {feature:?}", model.name);
            }
            for feature in model.features.iter() {
                assert!(full::MODEL.has(feature), "{}: {feature:?} is not in the full model", model.name);
            }
            for feature in model.vmx.iter() {
                assert!(full::MODEL.vmx.has(feature), "{}: {feature:?} is not in the full model", model.name);
            }
        }
    }

    #[test]
    fn features_are_taken_away_and_added_by_name() {
        let model = Model::named("icelake-server,-la57").unwrap();
        assert!(!model.has(Feature::LA57));
        assert_eq!(model.linear_bits(), 48);
        assert!(Model::named("basic64,+vmx").unwrap().has(Feature::VMX));
    }

    #[test]
    fn vmx_features_go_with_what_they_need() {
        let model = Model::named("full,-ept").unwrap();
        assert!(model.vmx.has(VmxFeature::Vpid) && !model.vmx.has(VmxFeature::UnrestrictedGuest));
        assert_eq!(model.vmx_bits().secondary & (Secondary::ENABLE_EPT | Secondary::UNRESTRICTED_GUEST), 0);
        let model = Model::named("full,-x2apic").unwrap();
        assert!(!model.vmx.has(VmxFeature::X2apicMode));
        let model = Model::named("vmx64,+ept,+unrestricted-guest").unwrap();
        assert!(model.vmx.has(VmxFeature::UnrestrictedGuest));
        assert_eq!(Model::named("icelake-server,-vmx").unwrap().vmx_bits(), VmxBits::NONE);
    }

    #[test]
    fn wrong_choices_are_explained() {
        let refused = |choice| Model::named(choice).unwrap_err();
        assert!(refused("i486").contains("icelake-server"));
        assert!(refused("vmx64,-lm").contains("without"));
        assert!(refused("vmx64,+avx2").contains("needs \"avx\""));
        assert!(refused("vmx64,+amx").contains("amx"));
        assert!(refused("vmx64,lm").contains("neither"));
        assert!(refused("vmx64,+unrestricted-guest").contains("needs \"ept\""));
        assert!(refused("icelake-server,-ept,+ept-ad").contains("needs \"ept\""));
        assert!(refused("vmx64,+x2apic-mode").contains("needs \"x2apic\""));
        assert!(refused("basic64,+ept").contains("+vmx"));
        assert!(refused("full,+load-bndcfgs").contains("not implemented"));
    }

    #[test]
    fn a_single_bit_is_switched_off_by_number_or_name() {
        let number = Model::named("icelake-server,-secondary.5").unwrap();
        assert_eq!(number, Model::named("icelake-server,-secondary.enable-vpid").unwrap());
        assert_eq!(number.vmx_bits().secondary & Secondary::ENABLE_VPID, 0);
        assert!(number.vmx.has(VmxFeature::Vpid), "the rest of the feature stays");
        for (choice, word) in [
            ("+secondary.5", "only be switched off"),
            ("-secondary.21", "no CPU model"),
            ("-tertiary.63", "no CPU model"),
            ("-cr4.5", "pin, primary"),
            ("-primary.15", "default1"),
        ] {
            let refused = Model::named(&format!("full,{choice}")).unwrap_err();
            assert!(refused.contains(word), "{choice}: {refused}");
        }
    }
}

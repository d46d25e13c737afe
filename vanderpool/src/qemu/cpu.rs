//! `-cpu NAME,+f,-f`: QEMU's names for processors and features, as changes of our models.

use super::options::{Problem, refuse, value_of};
use processor::models::{Model, VmxFeature, VmxWord};
use spec::x86::cpuid::Feature;

/// QEMU's names for Intel's generations, newest first, each with what its successor brought (in our names): a name means the
/// Ice Lake model without all that came later.
const GENERATIONS: &[(&[&str], &[&str])] = &[
    (&["Icelake-Server"], &[]),
    (&["Skylake-Server", "Cascadelake-Server", "Cooperlake"], &["la57", "umip", "rdpid", "fsrm", "sha_ni"]),
    (&["Skylake-Client"], &["pku", "clwb"]),
    (&["Broadwell"], &["clflushopt", "xsavec", "xgetbv1", "xsaves"]),
    (&["Haswell"], &["adx", "rdseed", "smap", "3dnowprefetch"]),
    (&["IvyBridge"], &["avx2", "fma", "bmi1", "bmi2", "movbe", "invpcid", "abm"]),
    (&["SandyBridge"], &["f16c", "rdrand", "fsgsbase", "smep", "erms"]),
    (&["Westmere"], &["avx", "xsave", "xsaveopt", "tsc_deadline_timer", "pdpe1gb", "rdtscp"]),
    (&["Nehalem"], &["aes", "pclmulqdq", "pcid"]),
    (&["Penryn"], &["sse4_2", "popcnt", "x2apic"]),
    (&["Conroe", "core2duo"], &["sse4_1"]),
];

/// QEMU's names for processors of other makers.
const OTHER_MAKERS: &[&str] = &["EPYC", "Opteron", "phenom", "athlon", "Dhyana", "YongFeng"];

/// QEMU's names of CPUID features where they differ from ours by more than hyphens and dots.
const FEATURES: &[(&str, &str)] = &[
    ("pni", "sse3"),
    ("tsc-deadline", "tsc_deadline_timer"),
    ("invtsc", "constant_tsc"),
    ("stibp", "intel_stibp"),
    ("ssbd", "spec_ctrl_ssbd"),
    ("flush-l1d", "flush_l1d"),
    ("lzcnt", "abm"),
    ("amx-bf16", "amx_bf16"),
    ("cet-ss", "shstk"),
    ("cet-ibt", "ibt"),
    ("fdp-excptn-only", "fdp_excptn_only"),
    ("zero-fcs-fds", "fpu_cs_ds_deprecated"),
    ("htt", "ht"),
];

/// QEMU's names of VT-x features, and the features of ours.
const VMX_FEATURES: &[(&str, &str)] = &[
    ("vmx-true-ctls", "true-controls"),
    ("vmx-vnmi", "virtual-nmis"),
    ("vmx-msr-bitmap", "msr-bitmaps"),
    ("vmx-mtf", "mtf"),
    ("vmx-preemption-timer", "preemption-timer"),
    ("vmx-any-errcode", "any-error-code"),
    ("vmx-nested-exception", "nested-exception"),
    ("vmx-vmwrite-vmexit-fields", "vmwrite-any"),
    ("vmx-zero-len-inject", "inject-length-0"),
    ("vmx-flexpriority", "tpr-shadow"),
    ("vmx-apicv-xapic", "apic-accesses"),
    ("vmx-apicv-x2apic", "x2apic-mode"),
    ("vmx-apicv-register", "apic-registers"),
    ("vmx-apicv-vid", "virtual-interrupts"),
    ("vmx-posted-intr", "posted-interrupts"),
    ("vmx-ipi-virt", "ipi-virtualization"),
    ("vmx-desc-exit", "descriptor-table-exiting"),
    ("vmx-wbinvd-exit", "wbinvd-exiting"),
    ("vmx-ple", "pause-loop-exiting"),
    ("vmx-tsc-scaling", "tsc-scaling"),
    ("vmx-shadow-vmcs", "vmcs-shadowing"),
    ("vmx-bus-lock-detection", "bus-lock-exiting"),
    ("vmx-notify-vm-exiting", "notify-exiting"),
    ("vmx-vpid", "vpid"),
    ("vmx-ept", "ept"),
    ("vmx-ept-execonly", "ept-execute-only"),
    ("vmx-ept-2mb", "ept-2m"),
    ("vmx-ept-1gb", "ept-1g"),
    ("vmx-eptad", "ept-ad"),
    ("vmx-page-walk-5", "ept-5level"),
    ("vmx-ept-advanced-exitinfo", "ept-advanced-info"),
    ("vmx-unrestricted-guest", "unrestricted-guest"),
    ("vmx-vmfunc", "eptp-switching"),
    ("vmx-eptp-switching", "eptp-switching"),
    ("vmx-pml", "pml"),
    ("vmx-ve", "ept-ve"),
    ("vmx-mbec", "mbec"),
    ("vmx-spp", "spp"),
    ("vmx-hlat", "hlat"),
];

/// QEMU's names of single bits of the capability MSRs: the word and the bit.
const VMX_BITS: &[(&str, VmxWord, u32)] = &[
    ("vmx-intr-exit", VmxWord::Pin, 0),
    ("vmx-nmi-exit", VmxWord::Pin, 3),
    ("vmx-vintr-pending", VmxWord::Primary, 2),
    ("vmx-tsc-offset", VmxWord::Primary, 3),
    ("vmx-hlt-exit", VmxWord::Primary, 7),
    ("vmx-invlpg-exit", VmxWord::Primary, 9),
    ("vmx-mwait-exit", VmxWord::Primary, 10),
    ("vmx-rdpmc-exit", VmxWord::Primary, 11),
    ("vmx-rdtsc-exit", VmxWord::Primary, 12),
    ("vmx-cr8-load-exit", VmxWord::Primary, 19),
    ("vmx-cr8-store-exit", VmxWord::Primary, 20),
    ("vmx-vnmi-pending", VmxWord::Primary, 22),
    ("vmx-movdr-exit", VmxWord::Primary, 23),
    ("vmx-io-exit", VmxWord::Primary, 24),
    ("vmx-io-bitmap", VmxWord::Primary, 25),
    ("vmx-monitor-exit", VmxWord::Primary, 29),
    ("vmx-pause-exit", VmxWord::Primary, 30),
    ("vmx-secondary-ctls", VmxWord::Primary, 31),
    ("vmx-rdtscp-exit", VmxWord::Secondary, 3),
    ("vmx-rdrand-exit", VmxWord::Secondary, 11),
    ("vmx-invpcid-exit", VmxWord::Secondary, 12),
    ("vmx-encls-exit", VmxWord::Secondary, 15),
    ("vmx-rdseed-exit", VmxWord::Secondary, 16),
    ("vmx-xsaves", VmxWord::Secondary, 20),
    ("vmx-enable-user-wait-pause", VmxWord::Secondary, 26),
    ("vmx-exit-load-perf-global-ctrl", VmxWord::Exit, 12),
    ("vmx-exit-ack-intr", VmxWord::Exit, 15),
    ("vmx-exit-save-pat", VmxWord::Exit, 18),
    ("vmx-exit-load-pat", VmxWord::Exit, 19),
    ("vmx-exit-save-efer", VmxWord::Exit, 20),
    ("vmx-exit-load-efer", VmxWord::Exit, 21),
    ("vmx-exit-save-preemption-timer", VmxWord::Exit, 22),
    ("vmx-exit-clear-bndcfgs", VmxWord::Exit, 23),
    ("vmx-exit-clear-rtit-ctl", VmxWord::Exit, 25),
    ("vmx-exit-load-pkrs", VmxWord::Exit, 29),
    ("vmx-exit-secondary-ctls", VmxWord::Exit, 31),
    ("vmx-entry-ia32e-mode", VmxWord::Entry, 9),
    ("vmx-entry-load-perf-global-ctrl", VmxWord::Entry, 13),
    ("vmx-entry-load-pat", VmxWord::Entry, 14),
    ("vmx-entry-load-efer", VmxWord::Entry, 15),
    ("vmx-entry-load-bndcfgs", VmxWord::Entry, 16),
    ("vmx-entry-load-rtit-ctl", VmxWord::Entry, 18),
    ("vmx-entry-load-pkrs", VmxWord::Entry, 22),
    ("vmx-page-walk-4", VmxWord::EptVpid, 6),
    ("vmx-invept", VmxWord::EptVpid, 20),
    ("vmx-invept-single-context", VmxWord::EptVpid, 25),
    ("vmx-invept-all-context", VmxWord::EptVpid, 26),
    ("vmx-invvpid", VmxWord::EptVpid, 32),
    ("vmx-invvpid-single-addr", VmxWord::EptVpid, 40),
    ("vmx-invvpid-single-context", VmxWord::EptVpid, 41),
    ("vmx-invvpid-all-context", VmxWord::EptVpid, 42),
    ("vmx-invept-single-context-noglobals", VmxWord::EptVpid, 43),
    ("vmx-invvpid-single-context-noglobals", VmxWord::EptVpid, 43),
    ("vmx-store-lma", VmxWord::Misc, 5),
    ("vmx-activity-hlt", VmxWord::Misc, 6),
    ("vmx-activity-shutdown", VmxWord::Misc, 7),
    ("vmx-activity-wait-sipi", VmxWord::Misc, 8),
    ("vmx-ins-outs", VmxWord::Basic, 54),
];

/// Names of QEMU's features that no processor of Intel's has.
const OTHER_FEATURES: &[&str] = &[
    "svm",
    "npt",
    "lbrv",
    "nrip-save",
    "avic",
    "vgif",
    "skinit",
    "3dnow",
    "3dnowext",
    "mmxext",
    "sse4a",
    "xop",
    "fma4",
    "tbm",
    "lwp",
    "fxsr-opt",
    "cr8legacy",
    "misalignsse",
    "osvw",
    "ibs",
    "wdt",
    "extapic",
    "cmp-legacy",
    "topoext",
    "perfctr-core",
    "perfctr-nb",
    "clzero",
    "xsaveerptr",
    "wbnoinvd",
    "ibpb",
    "ibrs",
    "amd-ssbd",
    "amd-stibp",
    "amd-no-ssb",
    "virt-ssbd",
    "svm-lock",
    "tsc-scale",
    "vmcb-clean",
    "flushbyasid",
    "decodeassists",
    "pause-filter",
    "pfthreshold",
    "rdpru",
    "ia64",
    "nodeid-msr",
    "tce",
    "rdctl-no",
    "ibrs-all",
    "mds-no",
    "pschange-mc-no",
    "taa-no",
    "ssb-no",
    "skip-l1dfl-vmentry",
    "rsba",
];

/// The Ice Lake model without what came after generation `index`.
fn generation(index: usize) -> String {
    let later = GENERATIONS[..=index].iter().flat_map(|(_, features)| *features);
    later.fold("icelake-server".to_owned(), |choice, feature| choice + ",-" + feature)
}

/// Our choice of model for QEMU's `name`.
fn model_of(name: &str) -> Result<String, Problem> {
    match name {
        // QEMU gives no guest HLAT or EPT's shadow-stack control, and tests made for it take their bits in IA32_VMX_EPT_VPID_CAP for a mistake; nor
        // does it detect bus locks, with which DR6 has a bit that such tests write with 0 and expect to read as 1.
        "max" | "host" | "base" => return Ok("full,-hlat,-ept-shadow-stack,-bus_lock_detect".into()),
        "qemu64" | "kvm64" => return Ok("basic64".into()),
        "qemu32" | "kvm32" | "486" | "coreduo" | "n270" | "pentium" | "pentium2" | "pentium3" => {
            return Err(refuse(format!("-cpu {name}: a 32-bit processor is not there")));
        }
        _ => {}
    }
    if Model::ALL.iter().any(|model| model.name == name) {
        return Ok(name.into());
    }
    if OTHER_MAKERS.iter().any(|maker| name.starts_with(maker)) {
        return Err(refuse(format!("-cpu {name}: no processor of another maker than Intel is there")));
    }
    // `-v4`, `-noTSX`, `-IBRS` and the like change little.
    let base = |known: &str| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if ["SapphireRapids", "GraniteRapids", "SierraForest", "ClearwaterForest"].iter().any(|known| base(known)) {
        return Ok("full".into());
    }
    match GENERATIONS.iter().position(|(names, _)| names.iter().any(|known| base(known))) {
        Some(index) => Ok(generation(index)),
        None => Err(refuse(format!("unable to find CPU model '{name}'"))),
    }
}

/// What a change means to our model.
enum Change {
    /// `+` or `-` with this name.
    Switch(String),
    /// A bit of a capability MSR.
    Bit(VmxWord, u32),
    /// A feature that our processors never have.
    Absent,
}

fn change_of(name: &str) -> Option<Change> {
    if let Some((_, ours)) = VMX_FEATURES.iter().find(|(theirs, _)| *theirs == name) {
        return Some(match VmxFeature::named(ours) {
            Some(feature) if Model::named("full").is_ok_and(|full| full.vmx.has(feature)) => {
                Change::Switch((*ours).to_owned())
            }
            _ => Change::Absent,
        });
    }
    if let Some((_, word, bit)) = VMX_BITS.iter().find(|(theirs, ..)| *theirs == name) {
        return Some(Change::Bit(*word, *bit));
    }
    let ours = match FEATURES.iter().find(|(theirs, _)| *theirs == name) {
        Some((_, ours)) => (*ours).to_owned(),
        None => name.replace(['-', '.'], "_"),
    };
    let known = Feature::ALL.iter().find(|feature| feature.name() == ours || feature.name().replace('_', "") == ours);
    if let Some(feature) = known {
        let full = Model::named("full").is_ok_and(|full| full.has(*feature));
        return Some(if full { Change::Switch(feature.name().to_owned()) } else { Change::Absent });
    }
    let absent = OTHER_FEATURES.contains(&name) || name.starts_with("avx512") || name.starts_with("amx");
    absent.then_some(Change::Absent)
}

/// Some processor here has the bit.
fn exists(word: VmxWord, bit: u32) -> bool {
    Model::named("full").is_ok_and(|full| full.vmx_bits().word(word) >> bit & 1 != 0)
}

/// A property that is not a feature. True when it is known.
fn property(model: &mut Properties, name: &str, value: Option<&str>) -> Result<bool, Problem> {
    let off = matches!(value, Some("off" | "no" | "false"));
    match name {
        "check" | "migratable" | "host-cache-info" | "l3-cache" | "legacy-cache" | "fill-mtrr-mask"
        | "x-force-features" => {}
        // Every feature asked for is there, or refused.
        "enforce" => {}
        "host-phys-bits" => {}
        "pmu" | "kvm" | "hypervisor" | "vmware-cpuid-freq" | "lmce" if off || name == "vmware-cpuid-freq" => {}
        "phys-bits" => {
            let bits = value.and_then(|value| value.parse().ok()).filter(|bits| (36..=52).contains(bits));
            model.physical_bits = Some(bits.ok_or_else(|| refuse("-cpu: phys-bits should be between 36 and 52"))?);
        }
        "vendor" if value == Some("GenuineIntel") => {}
        "vendor" => {
            let vendor = value.unwrap_or_default();
            return Err(refuse(format!("-cpu vendor={vendor}: the processors here are GenuineIntel's")));
        }
        _ if name.starts_with("hv-") => {
            return Err(refuse(format!("-cpu {name}: Hyper-V's interface is not there")));
        }
        _ if name.starts_with("kvm") => {
            if !off {
                return Err(refuse(format!("-cpu {name}: KVM's interface to guests is not there")));
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

#[derive(Default)]
struct Properties {
    physical_bits: Option<u8>,
}

/// The model that `-cpu CHOICE` means.
pub(super) fn model(choice: &str) -> Result<Model, Problem> {
    let mut parts = choice.split(',');
    let name = parts.next().unwrap_or_default();
    let mut ours = model_of(name)?;
    let base = Model::named(&ours).map_err(refuse)?;
    let mut properties = Properties::default();
    for part in parts {
        let (feature, on) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
            (Some(feature), _) => (feature, Some(true)),
            (_, Some(feature)) => (feature, Some(false)),
            _ => (part.split('=').next().unwrap_or(part), None),
        };
        // QEMU takes either spelling.
        let feature = feature.replace('_', "-");
        let value = part.split_once('=').map(|(_, value)| value);
        let (feature, value) = match on {
            Some(on) => (feature, Some(if on { "on" } else { "off" })),
            None => (feature, value),
        };
        if property(&mut properties, &feature, value)? {
            continue;
        }
        let on = value_of(&format!("-cpu {feature}"), value.unwrap_or("on"))?;
        match change_of(&feature) {
            Some(Change::Switch(name)) => ours = format!("{ours},{}{name}", if on { '+' } else { '-' }),
            Some(Change::Bit(word, bit)) if on && base.vmx_bits().word(word) >> bit & 1 == 0 => {
                return Err(refuse(format!("-cpu {feature}: the processor {} does not have it", base.name)));
            }
            Some(Change::Bit(word, bit)) if !on && exists(word, bit) => ours = format!("{ours},-{}.{bit}", word.name()),
            Some(Change::Absent) if on => {
                return Err(refuse(format!("-cpu {feature}: no processor here has this feature")));
            }
            Some(Change::Bit(..) | Change::Absent) => {}
            None => return Err(refuse(format!("Property '{name}-x86_64-cpu.{feature}' not found"))),
        }
    }
    let mut model = Model::named(&ours).map_err(|why| refuse(format!("-cpu {choice}: {why}")))?;
    if let Some(bits) = properties.physical_bits {
        model.physical_bits = bits;
    }
    Ok(model)
}

/// The answer to `-cpu help`.
pub(super) fn help() -> String {
    let mut text = "Available CPUs:\n".to_owned();
    let mut line = |name: &str, what: &str| text.push_str(&format!("x86 {name:<20}  {what}\n"));
    line("max, host, base", "full,-hlat,-ept-shadow-stack,-bus_lock_detect");
    line("qemu64, kvm64", "basic64");
    line("SapphireRapids", "full");
    for (names, _) in GENERATIONS {
        line(&names.join(", "), "icelake-server without what came later");
    }
    for model in Model::ALL {
        line(model.name, model.description);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(choice: &str) -> String {
        model(choice).unwrap_err().text()
    }

    #[test]
    fn every_name_of_ours_exists() {
        for index in 0..GENERATIONS.len() {
            Model::named(&generation(index)).unwrap();
        }
        for (_, ours) in FEATURES {
            assert!(Feature::ALL.iter().any(|feature| feature.name() == *ours), "{ours}");
        }
    }

    #[test]
    fn generations_lose_what_came_later() {
        let has = |name: &str, feature| model(name).unwrap().has(feature);
        assert!(has("Icelake-Server-v4", Feature::LA57) && !has("Skylake-Server", Feature::LA57));
        assert!(has("Skylake-Server-noTSX-IBRS", Feature::PKU) && !has("Broadwell", Feature::PKU));
        assert!(has("Haswell", Feature::AVX2) && !has("IvyBridge", Feature::AVX2) && has("IvyBridge", Feature::AVX));
        assert!(!has("Nehalem", Feature::AES) && has("Nehalem", Feature::VMX));
    }

    #[test]
    fn features_have_qemu_s_names() {
        let chosen = model("qemu64,+x2apic,+tsc-deadline,pni=on,-vmx,sse4.1=off").unwrap();
        assert!(chosen.has(Feature::X2APIC) && chosen.has(Feature::TSC_DEADLINE) && !chosen.has(Feature::VMX));
        let chosen = model("max,+vmx,-pku,-vmx-ept-1gb,-vmx-hlt-exit").unwrap();
        assert!(!chosen.has(Feature::PKU) && !chosen.vmx.has(VmxFeature::EptPages1G));
        assert_eq!(chosen.vmx_bits().primary >> 7 & 1, 0);
        for (name, ours) in VMX_FEATURES {
            assert!(model(&format!("max,-{name}")).is_ok(), "{name}: what is there or not can be switched off");
            assert!(VmxFeature::named(ours).is_some() || *ours == "nested-exception", "{ours}");
        }
        assert!(model("max,-svm,-avx512f").is_ok(), "what is not there can be switched off");
    }

    #[test]
    fn physical_bits_are_set() {
        assert_eq!(model("IvyBridge,phys-bits=36,host-phys-bits=off").unwrap().physical_bits, 36);
        assert!(refused("max,phys-bits=64").contains("36"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        assert!(refused("max,+svm").contains("svm"));
        assert!(refused("Opteron_G1,vendor=AuthenticAMD").contains("Opteron_G1"));
        assert!(refused("max,vendor=AuthenticAMD").contains("AuthenticAMD"));
        assert!(refused("host,hv_passthrough").contains("hv-passthrough"));
        assert!(refused("max,+nonsense").contains("nonsense"));
        assert!(refused("pdp11").contains("pdp11"));
    }
}

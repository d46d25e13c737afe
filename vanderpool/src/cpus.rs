//! `vanderpool cpus`: the processor models and what each has.

use crate::Error;
use processor::models::{CacheKind, Model, VmxFeature, VmxWord, hyphenated};
use processor::vmx::VmxCapabilities;
use serde_json::{Value, json};
use std::fmt::Write;

const CHANGES: &str = "\
`vanderpool cpus MODEL` shows one in full. Changes after the model, here and in `boot --cpu`:
  +NAME, -NAME   switch a CPUID or a VT-x feature; -ept switches off too what needs EPT
  -WORD.BIT      switch off one bit of a VMX capability MSR, by its number or its name: -secondary.5, -primary.use-msr-bitmaps
";

/// The text that `vanderpool cpus [CHOICE]` prints; `choice` may be followed by `,+feature` and `,-feature`.
///
/// # Errors
/// When there is no such model or feature.
pub fn report(choice: Option<&str>, as_json: bool) -> Result<String, Error> {
    let models = match choice {
        Some(choice) => vec![Model::named(choice).map_err(Error::new)?],
        None => Model::ALL.to_vec(),
    };
    if as_json {
        let list: Vec<Value> = models.iter().map(describe).collect();
        let value = if choice.is_some() { list.into_iter().next().unwrap_or_default() } else { Value::Array(list) };
        return Ok(format!("{value:#}\n"));
    }
    if choice.is_some() {
        return Ok(models.iter().map(detail).collect());
    }
    let mut text = String::new();
    for (index, model) in models.iter().enumerate() {
        let default = if index == 0 { " (default)" } else { "" };
        let _ = writeln!(text, "{:<16} {}{default}", model.name, model.description);
        let _ = writeln!(text, "{:<16} {}", "", features(model).join(" "));
        if !vmx_features(model).is_empty() {
            let _ = writeln!(text, "{:<16} VT-x: {}", "", vmx_features(model).join(" "));
        }
        text.push('\n');
    }
    text += CHANGES;
    Ok(text)
}

fn features(model: &Model) -> Vec<&'static str> {
    model.features.iter().map(|feature| feature.name()).collect()
}

fn family_model_stepping(signature: u32) -> (u32, u32, u32) {
    let family = signature >> 8 & 0xf;
    let extended = if family == 0xf { signature >> 20 & 0xff } else { 0 };
    let model = signature >> 4 & 0xf | if family == 0xf || family == 6 { signature >> 12 & 0xf0 } else { 0 };
    (family + extended, model, signature & 0xf)
}

fn kind(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::Data => "data",
        CacheKind::Instruction => "instructions",
        CacheKind::Unified => "unified",
    }
}

fn detail(model: &Model) -> String {
    let (family, number, stepping) = family_model_stepping(model.signature);
    let mut text = format!(
        "{}: {}\n\nbrand         {}\nsignature     family {family}, model {number}, stepping {stepping} ({:#x})\n\
         microcode     {:#x}\naddresses     {} bits physical, {} bits linear\n",
        model.name,
        model.description,
        model.brand,
        model.signature,
        model.microcode,
        model.physical_bits,
        model.linear_bits()
    );
    for cache in model.caches {
        let size = cache.ways * cache.sets * 64 / 1024;
        let shared = if cache.shared { ", shared" } else { "" };
        let _ = writeln!(
            text,
            "cache         level {}, {}: {size} KiB, {} ways{shared}",
            cache.level,
            kind(cache.kind),
            cache.ways
        );
    }
    let _ = writeln!(text, "XCR0          {:#x}", model.xcr0_supported());
    if model.arch_capabilities != 0 {
        let _ = writeln!(text, "ARCH_CAPS     {:#x}", model.arch_capabilities);
    }
    text += "\nfeatures\n";
    for line in wrap(&features(model), 100) {
        let _ = writeln!(text, "  {line}");
    }
    detail_vmx(model, &mut text);
    text
}

fn detail_vmx(model: &Model, text: &mut String) {
    let msrs = VmxCapabilities::new(model).msrs();
    if msrs.is_empty() {
        return;
    }
    *text += "\nVT-x features\n";
    for line in wrap(&vmx_features(model), 100) {
        let _ = writeln!(text, "  {line}");
    }
    *text += "\nbits of VT-x capabilities, each of which -WORD.BIT switches off\n";
    for (word, names) in capability_bits(model) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (n, line) in wrap(&names, 86).iter().enumerate() {
            let _ = writeln!(text, "  {:<14} {line}", if n == 0 { word } else { "" });
        }
    }
    *text += "\nVMX capability MSRs\n";
    for (number, name, value) in msrs {
        let _ = writeln!(text, "  {number:#x} {name:<30} {value:#018x}");
    }
}

fn vmx_features(model: &Model) -> Vec<&'static str> {
    model.vmx.iter().map(VmxFeature::name).collect()
}

/// The bits that features bring, by word: names, or numbers where there is no name.
fn capability_bits(model: &Model) -> Vec<(&'static str, Vec<String>)> {
    let bits = model.vmx_bits();
    VmxWord::ALL
        .iter()
        .map(|word| {
            let set = bits.word(*word);
            let names = word.named().into_iter().filter(|(bit, _)| set & bit != 0).map(|(_, name)| hyphenated(name));
            (word.name(), names.collect::<Vec<_>>())
        })
        .filter(|(_, names)| !names.is_empty())
        .collect()
}

fn describe(model: &Model) -> Value {
    let (family, number, stepping) = family_model_stepping(model.signature);
    let caches: Vec<Value> = model
        .caches
        .iter()
        .map(|cache| {
            json!({
                "level": cache.level, "kind": kind(cache.kind), "bytes": cache.ways * cache.sets * 64, "ways": cache.ways,
                "shared": cache.shared, "inclusive": cache.inclusive,
            })
        })
        .collect();
    json!({
        "name": model.name, "description": model.description, "brand": model.brand,
        "family": family, "model": number, "stepping": stepping, "microcode": model.microcode,
        "physical_bits": model.physical_bits, "linear_bits": model.linear_bits(), "xcr0": model.xcr0_supported(),
        "arch_capabilities": model.arch_capabilities, "caches": caches, "features": features(model),
        "vmx_features": vmx_features(model),
        "vmx_bits": capability_bits(model).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "vmx_msrs": VmxCapabilities::new(model)
            .msrs()
            .into_iter()
            .map(|(number, name, value)| json!({ "name": name, "number": number, "value": format!("{value:#x}") }))
            .collect::<Vec<_>>(),
    })
}

fn wrap(words: &[&str], width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push((*word).to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_listed_and_one_is_the_default() {
        let text = report(None, false).unwrap();
        for model in Model::ALL {
            assert!(text.contains(model.name) && text.contains(model.description));
        }
        assert_eq!(text.matches("(default)").count(), 1);
    }

    #[test]
    fn json_of_one_model_is_an_object_and_follows_the_changes_asked_for() {
        let with = |choice: &str| serde_json::from_str::<Value>(&report(Some(choice), true).unwrap()).unwrap();
        let has_vmx = |value: &Value| value["features"].as_array().unwrap().contains(&json!("vmx"));
        assert!(has_vmx(&with("vmx64")));
        assert!(!has_vmx(&with("vmx64,-vmx")));
        assert_eq!(with("vmx64")["name"], "vmx64");
    }

    #[test]
    fn vmx_features_and_capability_msrs_are_shown() {
        let with = |choice: &str| serde_json::from_str::<Value>(&report(Some(choice), true).unwrap()).unwrap();
        let msr = |value: &Value, number: u32| {
            value["vmx_msrs"].as_array().unwrap().iter().find(|msr| msr["number"] == number).cloned()
        };
        let full = with("full");
        assert!(full["vmx_features"].as_array().unwrap().contains(&json!("ept")));
        assert!(msr(&full, 0x48c).is_some() && msr(&with("vmx64"), 0x48c).is_none());
        assert!(full["vmx_bits"]["secondary"].as_array().unwrap().contains(&json!("enable-vpid")));
        let text = report(Some("full,-secondary.enable-vpid"), false).unwrap();
        assert!(text.contains("IA32_VMX_MISC") && text.contains("unrestricted-guest") && !text.contains("enable-vpid"));
        assert!(!report(Some("basic64"), false).unwrap().contains("VMX capability"));
    }

    #[test]
    fn an_unknown_model_is_refused() {
        assert!(report(Some("z80"), false).is_err());
    }

    #[test]
    fn signatures_are_taken_apart_as_cpuid_leaf_1_says() {
        assert_eq!(family_model_stepping(0x0006_06a6), (6, 0x6a, 6));
        assert_eq!(family_model_stepping(0x00a2_0f10), (0x19, 0x21, 0));
    }
}

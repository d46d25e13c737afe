//! Remapping units, as options and machine files tell of them.

use crate::Error;
use machine::{ReservedMemory, Slot};
use std::str::FromStr;

/// Remapping units: `on`, then properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iommu(pub machine::Iommu);

impl FromStr for Iommu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        if words.next() != Some("on") {
            return Err("begin with on; without --iommu there is no unit".to_owned());
        }
        let mut iommu = machine::Iommu::default();
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, "on"));
            set(&mut iommu, key, value)?;
        }
        check(iommu).map(Self)
    }
}

/// From the section `[iommu]` of a machine file: the same properties, true and false for on and off; a list gives one several times.
///
/// # Errors
/// When there is no such property, or not of this value.
pub fn from_section(section: &toml::Table) -> Result<machine::Iommu, Error> {
    let mut iommu = machine::Iommu::default();
    for (key, value) in section {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            let text = match value {
                toml::Value::Boolean(true) => "on".to_owned(),
                toml::Value::Boolean(false) => "off".to_owned(),
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                _ => return Err(Error::new(format!("[iommu]: {key} has a value of another kind"))),
            };
            set(&mut iommu, key, &text).map_err(|why| Error::new(format!("[iommu]: {why}")))?;
        }
    }
    check(iommu).map_err(|why| Error::new(format!("[iommu]: {why}")))
}

fn check(iommu: machine::Iommu) -> Result<machine::Iommu, String> {
    let unit = &iommu.unit;
    if unit.page_requests && !(unit.scalable_mode && unit.device_tlb) {
        return Err("page-requests need scalable and device-iotlb".to_owned());
    }
    Ok(iommu)
}

/// Functions of bus 0: `DEV.FN`, several with `+` between.
fn functions(text: &str) -> Result<Vec<Slot>, String> {
    let function = |word: &str| {
        let (device, function) = word.split_once('.')?;
        let (device, function) = (u8::from_str_radix(device, 16).ok()?, function.parse::<u8>().ok()?);
        (device < 32 && function < 8).then(|| Slot::new(device, function))
    };
    text.split('+').map(|word| function(word).ok_or_else(|| format!("{word} is no function like 3.0"))).collect()
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is no address"))
}

/// `FIRST-LAST@DEV.FN`.
fn reserved(text: &str) -> Result<ReservedMemory, String> {
    let parts = text.split_once('@').and_then(|(range, slots)| Some((range.split_once('-')?, slots)));
    let ((first, last), slots) = parts.ok_or_else(|| format!("reserved={text}: give FIRST-LAST@DEV.FN"))?;
    Ok(ReservedMemory { first: number(first)?, last: number(last)?, functions: functions(slots)? })
}

/// Sets a property of the units, by QEMU's name where QEMU has it.
///
/// # Errors
/// A line that says what there is.
pub fn set(iommu: &mut machine::Iommu, key: &str, value: &str) -> Result<(), String> {
    let unit = &mut iommu.unit;
    let switch = match key {
        "aw-bits" => {
            unit.address_width = match value {
                "39" => 39,
                "48" => 48,
                "57" => 57,
                _ => return Err(format!("aw-bits={value}: there are 39, 48 and 57")),
            };
            return Ok(());
        }
        "scope" => {
            iommu.scopes.push(functions(value)?);
            return Ok(());
        }
        "reserved" => {
            iommu.reserved.push(reserved(value)?);
            return Ok(());
        }
        "intremap" => &mut unit.interrupt_remapping,
        "eim" => &mut unit.extended_interrupt_mode,
        "posting" => &mut unit.posted_interrupts,
        "caching-mode" => &mut unit.caching_mode,
        "scalable" | "x-scalable-mode" => &mut unit.scalable_mode,
        "device-iotlb" => &mut unit.device_tlb,
        "page-requests" => &mut unit.page_requests,
        "verify-ioapic" => &mut iommu.verify_io_apic,
        _ => {
            return Err(format!(
                "{key} is no property of the unit; there are: aw-bits, intremap, eim, posting, caching-mode, \
                 scalable, device-iotlb, page-requests, verify-ioapic, scope, reserved"
            ));
        }
    };
    *switch = match value {
        "on" => true,
        "off" => false,
        _ => return Err(format!("{key}={value}: neither on nor off")),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_the_remapping_unit_are_checked() {
        let Iommu(iommu) = "on,eim=off,aw-bits=57,caching-mode".parse().unwrap();
        let unit = iommu.unit;
        assert!(!unit.extended_interrupt_mode && unit.caching_mode && unit.interrupt_remapping);
        assert_eq!(unit.address_width, 57);
        for bad in ["", "off", "on,eim=perhaps", "on,aw-bits=40", "on,dma=on"] {
            assert!(bad.parse::<Iommu>().is_err(), "{bad}");
        }
    }

    #[test]
    fn units_of_their_own_and_reserved_memory_name_functions() {
        let Iommu(iommu) = "on,scope=3.0+1f.2,reserved=0x70000-0x7ffff@3.0".parse().unwrap();
        assert_eq!(iommu.scopes, [[Slot::new(3, 0), Slot::new(0x1f, 2)]]);
        let reserved = ReservedMemory { first: 0x7_0000, last: 0x7_ffff, functions: vec![Slot::new(3, 0)] };
        assert_eq!(iommu.reserved, [reserved]);
        for bad in ["on,scope=3", "on,scope=20.0", "on,scope=", "on,reserved=1-2", "on,reserved=a-b@3.0"] {
            assert!(bad.parse::<Iommu>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_section_of_a_machine_file_has_the_same_properties() {
        let section = "scalable = true\naw-bits = 57\nscope = [\"1.0\", \"2.0\"]".parse().unwrap();
        let iommu = from_section(&section).unwrap();
        assert_eq!((iommu.unit.scalable_mode, iommu.unit.address_width, iommu.scopes.len()), (true, 57, 2));
        for bad in ["unknown = true", "eim = 3", "page-requests = true"] {
            assert!(from_section(&bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}

//! What remapping costs: a disk's throughput with VT-d off, in legacy and in scalable mode, each in a boot of its own.

use super::{Boot, Interval, Machine};
use guests::images;
use std::ffi::OsString;
use std::fs::File;
use vanderpool::Error;
use vanderpool::debian::Kernel;

/// Bytes of a disk.
const DISK: u64 = 64 << 20;

/// What is between the disks and memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remapping {
    Off,
    Legacy,
    Scalable,
}

/// Disk (virtio-blk and AHCI), bytes of a request, requests.
const ROWS: [(&str, &str, u32); 4] =
    [("vda", "64k", 1000), ("vda", "4k", 5000), ("sda", "64k", 1000), ("sda", "4k", 5000)];

/// The boots.
pub(super) fn boots(kernel: &Kernel) -> Result<Vec<Boot>, Error> {
    let disk = |name: &str| -> Result<String, Error> {
        let path = guests::programs::output_directory()?.join(name);
        let file = File::create(&path).and_then(|file| file.set_len(DISK));
        file.map_err(|e| Error::new(format!("cannot make {}: {e}", path.display())))?;
        Ok(path.display().to_string())
    };
    let disks = [disk("bench-vda.img")?, disk("bench-sda.img")?];
    let reads = ROWS.map(|(disk, size, count)| {
        let line = format!("disk: {disk} {size}");
        format!("echo {line} start\ndd if=/dev/{disk} of=/dev/null bs={size} count={count} iflag=direct 2>/dev/null\necho {line} end\n")
    });
    let script = format!("modprobe sd_mod; while [ ! -e /dev/sda ]; do sleep 1; done\n{}", reads.concat());
    let initrd = images::write("bench-disk", images::with_modules(kernel, &["ahci", "sd_mod"], &script)?)?;
    Ok([Remapping::Off, Remapping::Legacy, Remapping::Scalable]
        .into_iter()
        .map(|remapping| {
            let append = match remapping {
                Remapping::Off => "",
                Remapping::Legacy => "intel_iommu=on iommu.strict=1 ",
                Remapping::Scalable => "intel_iommu=on,sm_on iommu.strict=1 ",
            };
            let name = match remapping {
                Remapping::Off => "VT-d off",
                Remapping::Legacy => "legacy",
                Remapping::Scalable => "scalable",
            };
            let interval = |(disk, size, count): &(&str, &str, u32)| Interval {
                name: format!("disk {disk} {size} × {count}, {name}"),
                from: Some(format!("disk: {disk} {size} start")),
                to: format!("disk: {disk} {size} end"),
            };
            let disks = disks.clone();
            Boot {
                initrd: initrd.clone(),
                append: format!("console=ttyS0 panic=-1 {append}vp.run={}", images::SCRIPT),
                intervals: ROWS.iter().map(interval).collect(),
                devices: Box::new(move |machine| {
                    (machine != Machine::Bochs).then(|| devices(machine, remapping, &disks))
                }),
            }
        })
        .collect())
}

fn devices(machine: Machine, remapping: Remapping, [vda, sda]: &[String; 2]) -> Vec<OsString> {
    let words: Vec<String> = if machine == Machine::Qemu {
        let iommu = match remapping {
            Remapping::Off => Vec::new(),
            Remapping::Legacy => vec!["-device".to_owned(), "intel-iommu,intremap=on".to_owned()],
            Remapping::Scalable => vec!["-device".to_owned(), "intel-iommu,intremap=on,x-scalable-mode=on".to_owned()],
        };
        let drive = |id: &str, file: &str| vec!["-drive".to_owned(), format!("if=none,id={id},format=raw,file={file}")];
        let device = |text: &str| vec!["-device".to_owned(), text.to_owned()];
        [
            iommu,
            drive("v", vda),
            device("virtio-blk-pci,drive=v,disable-legacy=on,iommu_platform=on"),
            drive("s", sda),
            device("ide-hd,drive=s"),
        ]
        .concat()
    } else {
        let iommu = match remapping {
            Remapping::Off => Vec::new(),
            Remapping::Legacy => vec!["--iommu".to_owned(), "on".to_owned()],
            Remapping::Scalable => vec!["--iommu".to_owned(), "on,scalable".to_owned()],
        };
        let disks = ["--disk".to_owned(), vda.clone(), "--disk".to_owned(), format!("{sda},sata")];
        [iommu, disks.to_vec()].concat()
    };
    words.into_iter().map(OsString::from).collect()
}

//! `-device NAME,property=value`: the devices that are here, by QEMU's names.

use super::options::{Options, Problem, Properties, Sink, refuse};

/// The devices asked for.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub debug_exit: bool,
    pub pc_testdev: bool,
    pub pci_testdev: bool,
    /// DMA masks of `edu` functions.
    pub edu: Vec<u64>,
    /// How many `dma-tester` functions.
    pub dma_testers: usize,
    pub entropy: bool,
    /// The drive of each virtio-blk function, or SATA device.
    pub blocks: Vec<Block>,
    /// MAC address of the network function, if there is one.
    pub network: Option<[u8; 6]>,
    pub console: Option<Sink>,
    pub iommu: Option<machine::Iommu>,
    pub debug_port: Option<Sink>,
}

/// A device on a drive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub drive: String,
    pub virtio: bool,
    pub optical: bool,
    pub serial: Option<String>,
}

/// Name, bus and description of each device.
const DEVICES: &[(&str, &str, &str)] = &[
    ("dma-tester", "PCI", "DMA engines for tests of remapping (not in QEMU)"),
    ("edu", "PCI", ""),
    ("ide-cd", "IDE", "virtual IDE CD-ROM"),
    ("ide-hd", "IDE", "virtual IDE disk"),
    ("intel-iommu", "System", "Intel IOMMU (VT-d) DMA Remapping device"),
    ("isa-debug-exit", "ISA", ""),
    ("isa-debugcon", "ISA", ""),
    ("pc-testdev", "ISA", ""),
    ("pci-testdev", "PCI", "PCI Test Device"),
    ("virtconsole", "virtio-serial-bus", ""),
    ("virtio-blk-pci", "PCI", ""),
    ("virtio-net-pci", "PCI", ""),
    ("virtio-rng-pci", "PCI", ""),
    ("virtio-serial-pci", "PCI", ""),
];

/// The answer to `-device help`.
pub(super) fn help() -> String {
    let line = |(name, bus, what): &(&str, &str, &str)| match *what {
        "" => format!("name \"{name}\", bus {bus}\n"),
        _ => format!("name \"{name}\", bus {bus}, desc \"{what}\"\n"),
    };
    DEVICES.iter().map(line).collect()
}

impl Devices {
    /// The network function, of which there is one.
    pub fn add_network(&mut self, mac: Option<&str>) -> Result<(), Problem> {
        if self.network.is_some() {
            return Err(refuse("there can be one network function"));
        }
        self.network = Some(match mac {
            None => [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
            Some(text) => {
                let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
                bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
                    refuse(format!("mac={text}: give six bytes in hexadecimal with colons between them"))
                })?
            }
        });
        Ok(())
    }
}

/// The virtio device's name without what says that it is on PCI.
fn plain(name: &str) -> &str {
    let name = name.strip_suffix("-non-transitional").or_else(|| name.strip_suffix("-transitional")).unwrap_or(name);
    if name.starts_with("virtio-") { name.strip_suffix("-pci").unwrap_or(name) } else { name }
}

/// Adds the device that `value` describes.
pub(super) fn add(options: &mut Options, value: &str) -> Result<(), Problem> {
    let mut pairs = Properties::parse("-device", value, "driver");
    let name = pairs.take("driver").unwrap_or_default();
    pairs.what = format!("-device {name}");
    pairs.ignore(&["id", "bootindex", "rombar", "romfile"]);
    pairs.only("bus", &["pcie.0", "pci.0"])?;
    let needed = |pairs: &mut Properties, key: &str| {
        pairs.take(key).ok_or_else(|| refuse(format!("-device {name}: {key} property not set")))
    };
    match plain(&name) {
        "isa-debug-exit" => {
            pairs.only("iobase", &["0xf4", "0xF4", "244"])?;
            pairs.only("iosize", &["0x4", "0x04", "4"])?;
            options.devices.debug_exit = true;
        }
        "pc-testdev" => options.devices.pc_testdev = true,
        "pci-testdev" => options.devices.pci_testdev = true,
        "isa-debugcon" => {
            pairs.only("iobase", &["0x402", "1026"])?;
            let id = needed(&mut pairs, "chardev")?;
            options.devices.debug_port = Some(options.chardev_sink(&pairs.what, &id)?);
        }
        "dma-tester" => options.devices.dma_testers += 1,
        "edu" => {
            let mask = pairs.take_number("dma_mask")?;
            options.devices.edu.push(mask.unwrap_or(devices::edu::DEFAULT_DMA_MASK));
        }
        "virtio-rng" => {
            pairs.ignore(&["rng", "max-bytes", "period"]);
            pairs.only("iommu_platform", &["on"])?;
            options.devices.entropy = true;
        }
        "virtio-blk" | "ide-hd" | "ide-cd" => {
            let drive = needed(&mut pairs, "drive")?;
            let serial = pairs.take("serial");
            pairs.ignore(&["disable-legacy", "disable-modern", "num-queues", "iothread", "write-cache"]);
            // Every access of every function passes the IOMMU.
            pairs.only("iommu_platform", &["on"])?;
            let (virtio, optical) = (plain(&name) == "virtio-blk", name == "ide-cd");
            options.devices.blocks.push(Block { drive, virtio, optical, serial });
        }
        "virtio-net" => {
            let id = needed(&mut pairs, "netdev")?;
            if !options.netdevs.contains(&id) {
                return Err(refuse(format!("-device {name}: netdev \"{id}\" not found")));
            }
            let mac = pairs.take("mac");
            pairs.ignore(&["disable-legacy", "disable-modern", "mq", "vectors"]);
            pairs.only("iommu_platform", &["on"])?;
            options.devices.add_network(mac.as_deref())?;
        }
        "virtio-serial" => {
            pairs.ignore(&["max_ports", "disable-legacy", "disable-modern"]);
            pairs.only("iommu_platform", &["on"])?;
        }
        "virtconsole" => {
            let id = needed(&mut pairs, "chardev")?;
            options.devices.console = Some(options.chardev_sink(&pairs.what, &id)?);
            pairs.ignore(&["name"]);
        }
        "intel-iommu" => {
            // QEMU's I/O APIC has no source id that could be verified.
            let mut iommu = machine::Iommu { verify_io_apic: false, ..machine::Iommu::default() };
            for key in ["aw-bits", "intremap", "eim", "caching-mode", "x-scalable-mode", "device-iotlb"] {
                if let Some(value) = pairs.take(key).filter(|value| value != "auto") {
                    crate::iommu::set(&mut iommu, key, &value)
                        .map_err(|why| refuse(format!("-device {name}: {why}")))?;
                }
            }
            for key in ["pt", "snoop-control", "dma-drain", "dma-translation", "x-buggy-eim"] {
                pairs.only(key, if key == "x-buggy-eim" { &["off"] } else { &["on"] })?;
            }
            pairs.only("x-pasid-mode", &["off"])?;
            options.devices.iommu = Some(iommu);
        }
        "virtio-iommu" | "amd-iommu" => {
            return Err(refuse(format!("-device {name}: the IOMMU that there is is intel-iommu")));
        }
        _ => return Err(refuse(format!("-device {name}: '{name}' is not a valid device model name"))),
    }
    pairs.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(devices: &[&str]) -> Result<Options, Problem> {
        let mut options = Options { netdevs: vec!["n".into()], ..Options::default() };
        devices.iter().try_for_each(|device| add(&mut options, device))?;
        Ok(options)
    }

    #[test]
    fn devices_have_their_properties() {
        let devices = options(&[
            "edu,dma_mask=0xffffffff",
            "edu",
            "virtio-net-pci,netdev=n,mac=02:00:00:00:00:07",
            "virtio-blk,drive=d,serial=s",
            "ide-cd,drive=c",
        ]);
        let devices = devices.unwrap().devices;
        assert_eq!(devices.edu, [0xffff_ffff, (1 << 28) - 1]);
        assert_eq!(devices.network, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(
            devices.blocks[0],
            Block { drive: "d".into(), virtio: true, optical: false, serial: Some("s".into()) }
        );
        assert!(devices.blocks[1].optical);
    }

    #[test]
    fn properties_that_would_change_something_are_refused() {
        for (device, word) in [
            ("isa-debug-exit,iobase=0x501", "0x501"),
            ("pci-testdev,membar=1M", "membar"),
            ("virtio-net-pci,netdev=m", "\"m\""),
            ("virtio-blk-pci", "drive"),
            ("edu,addr=5", "addr"),
            ("intel-iommu,x-pasid-mode=on", "x-pasid-mode"),
            ("virtio-rng-pci,iommu_platform=off", "iommu_platform"),
        ] {
            let why = options(&[device]).unwrap_err().text();
            assert!(why.contains(word), "{device}: {why}");
        }
    }
}

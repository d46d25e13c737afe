//! Debian's kernel behind VT-d: translation and interrupt remapping in use for every device.

mod common;

use common::{BOOT_LIMIT, boot_arguments, cache, kernel, run, serve, temporary};
use guests::images;
use sha2::{Digest, Sha256};

const PAGE: &str = "a page through remapped DMA\n";

/// Disk and network under load; what DMAR said at boot, and whether any fault was logged.
const SCRIPT: &str = "set -e\n\
    dmesg | grep -E 'DMAR|x2apic' | sed 's/^.*] /dmar: /'\n\
    modprobe sd_mod; while [ ! -e /dev/sda ]; do sleep 1; done\n\
    for d in vda sda; do\n\
      (dd if=/dev/urandom of=/tmp/$d bs=64k count=64 2>/dev/null; dd if=/tmp/$d of=/dev/$d bs=64k oflag=direct 2>/dev/null) &\n\
    done; wait\n\
    echo 3 >/proc/sys/vm/drop_caches\n\
    for d in vda sda; do dd if=/dev/$d bs=64k count=64 2>/dev/null | cmp - /tmp/$d && echo $d: same; done\n\
    i=0; while [ $i -lt 40 ]; do wget -q -O - http://10.0.2.2:PORT/ >>/tmp/pages; i=$((i + 1)); done\n\
    echo pages: $(wc -l </tmp/pages)\n\
    grep -E ' (IR-)?(PCI-MSI|IO-APIC)' /proc/interrupts | grep -v IR- && echo an interrupt is not remapped\n\
    grep -c IR-PCI-MSI /proc/interrupts\n\
    dmesg | grep -E 'handling fault|fault addr|fault index' && echo faults\n\
    echo groups: $(ls /sys/kernel/iommu_groups | wc -l)\n\
    echo cap: $(cat /sys/class/iommu/dmar0/intel-iommu/cap)";

fn works(name: &str, iommu: &str, command_line: &str, expected: &[&str]) {
    let port = serve(PAGE);
    let script = SCRIPT.replace("PORT", &port.to_string());
    let mut arguments = boot_arguments(name, images::with_modules(kernel(), &["ahci", "sd_mod"], &script).unwrap());
    let append = arguments.last_mut().unwrap();
    append.push_str(&format!(" {command_line}"));
    let disk = temporary(&format!("{name}.img"), &vec![0; 8 << 20]);
    let sata = temporary(&format!("{name}-sata.img"), &vec![0; 8 << 20]);
    arguments.extend(["--cpus", "2", "--memory", "512M", "--net", "user", "--iommu", iommu].map(str::to_owned));
    arguments.extend(["--disk".to_owned(), disk.display().to_string()]);
    arguments.extend(["--disk".to_owned(), format!("{},sata", sata.display())]);
    let run = run(&arguments, BOOT_LIMIT);
    for text in expected {
        run.expect(text);
    }
    run.expect("vda: same").expect("sda: same").expect("pages: 40").expect_success();
    // Posting is announced to Linux, which prints nothing about it: CAP_REG bit 59.
    let cap = run.console.lines().find_map(|line| u64::from_str_radix(line.trim_end().strip_prefix("cap: ")?, 16).ok());
    assert!(cap.is_some_and(|cap| cap >> 59 & 1 != 0), "{cap:x?}\n{}", run.console);
    for bad in ["an interrupt is not remapped", "\nfaults"] {
        assert!(!run.console.contains(bad), "{bad}\n{}", run.console);
    }
}

#[test]
fn debian_uses_legacy_mode_and_interrupt_remapping_with_x2apic() {
    let expected = [
        "dmar: DMAR-IR: Enabled IRQ remapping in x2apic mode",
        "dmar: DMAR: Intel(R) Virtualization Technology for Directed I/O",
        "dmar: DMAR: dmar0: Using Queued invalidation",
    ];
    works("iommu", "on", "intel_iommu=on iommu.strict=1", &expected);
}

#[test]
fn debian_uses_scalable_mode_with_the_first_stage() {
    let expected = ["dmar: DMAR: dmar0: Using Queued invalidation", "groups: 5"];
    works("iommu-scalable", "on,scalable", "intel_iommu=on,sm_on iommu.strict=1", &expected);
}

/// A disk of 64 MiB goes from L1 to a guest of QEMU in it, whose own driver reads and writes it: all of its DMA by the guest's addresses.
#[test]
fn a_disk_is_assigned_to_a_guest_of_the_guest() {
    let mut contents: Vec<u8> = (0..64u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = temporary("iommu-assigned.img", &contents);
    let before = "set -e\n\
        modprobe vfio-pci; modprobe vfio_iommu_type1\n\
        d=$(basename $(readlink -f /sys/block/vda/device/..))\n\
        echo assigned: $d\n\
        echo vfio-pci >/sys/bus/pci/devices/$d/driver_override\n\
        echo $d >/sys/bus/pci/devices/$d/driver/unbind\n\
        echo $d >/sys/bus/pci/drivers_probe\n\
        [ ! -e /dev/vda ]\n\
        (while sleep 1; do grep vfio /proc/interrupts | sed 's/^/in L1: /'; done) &\n\
        set -- -device vfio-pci,host=$d";
    let l2 = "set -e\n\
        echo sum: $(sha256sum </dev/vda)\n\
        seq 1 100000 | dd of=/dev/vda bs=64k conv=notrunc,fsync iflag=fullblock 2>/dev/null\n\
        grep virtio /proc/interrupts";
    let guest = images::with_script(kernel(), l2).unwrap();
    let image_of_l1 =
        images::nested_after(cache(), kernel(), &["vfio-pci", "vfio_iommu_type1"], before, guest, "-m 256M \"$@\"");
    let mut arguments = boot_arguments("iommu-assigned", image_of_l1.unwrap());
    arguments.last_mut().unwrap().push_str(" intel_iommu=on iommu.strict=1");
    arguments.extend(["--cpus", "1", "--memory", "1G", "--iommu", "on", "--disk"].map(str::to_owned));
    arguments.push(image.display().to_string());
    let run = run(&arguments, BOOT_LIMIT * 3);
    let sum = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    run.expect(&format!("sum: {sum}")).expect_success();
    assert!(!run.console.contains("fault addr"), "{}", run.console);
    // KVM has the function's interrupts posted: L2 gets them, and L1's handler for them is not called.
    let counts = |begin: &str, name: &str| -> Vec<u64> {
        let lines = run.console.lines().filter(|line| line.starts_with(begin) && line.contains(name));
        lines.filter_map(|line| line[begin.len()..].split_whitespace().nth(1)?.parse().ok()).collect()
    };
    let (l2, l1) = (counts("", "virtio0-req"), counts("in L1: ", "vfio-msix"));
    assert!(l2.iter().any(|count| *count > 100), "{}", run.console);
    assert!(!l1.is_empty() && l1.iter().all(|count| *count == 0), "{}", run.console);
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    contents[..numbers.len()].copy_from_slice(numbers.as_bytes());
    assert!(std::fs::read(&image).unwrap() == contents, "what the guest of the guest wrote");
}

#[test]
fn debian_works_in_xapic_mode_and_lazily() {
    let expected = ["dmar: DMAR-IR: Enabled IRQ remapping in xapic mode"];
    works("iommu-xapic", "on,eim=off,aw-bits=39", "intel_iommu=on iommu.strict=0", &expected);
}

/// The network card (1.0) has a unit of its own, and memory that it needs at all times; so has the first disk (2.0).
#[test]
fn debian_uses_several_units_and_leaves_reserved_memory_alone() {
    let expected = [
        "dmar: DMAR: dmar0: reg_base_addr fed91000",
        "dmar: DMAR: dmar1: reg_base_addr fed92000",
        "dmar: DMAR: dmar2: reg_base_addr fed90000",
        "dmar: DMAR: RMRR base: 0x00000000070000 end: 0x0000000007ffff",
        "dmar: DMAR-IR: Enabled IRQ remapping in x2apic mode",
    ];
    let units = "on,scope=1.0,scope=2.0,reserved=0x70000-0x7ffff@1.0";
    works("iommu-units", units, "intel_iommu=on iommu.strict=1", &expected);
}

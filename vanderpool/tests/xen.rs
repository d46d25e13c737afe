//! Debian's Xen on our VT-x: the hypervisor and its dom0.

mod common;

use common::{Session, cache, kernel};
use guests::images;
use guests::iso::{self, IsoFile};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(900);

/// An ISO image on which GRUB starts Xen with Debian's kernel as dom0, which runs `script`.
fn image(name: &str, script: &str) -> std::path::PathBuf {
    let packages = cache().packages("xen", &["xen-hypervisor-4.17-amd64"]).expect("Debian's Xen");
    let initrd = images::write(name, images::with_script(kernel(), script).unwrap()).unwrap();
    let files = [
        IsoFile { path: "xen.gz", source: &packages.join("boot/xen-4.17-amd64.gz") },
        IsoFile { path: "vmlinuz", source: &kernel().image },
        IsoFile { path: "initrd", source: &initrd },
    ];
    let script = format!(
        "multiboot2 /xen.gz console=com1 com1=115200,8n1 loglvl=info dom0_mem=512M dom0_max_vcpus=1\n\
         module2 /vmlinuz console=hvc0 vp.run={}\nmodule2 /initrd",
        images::SCRIPT
    );
    iso::grub(cache(), name, &script, &files).unwrap()
}

#[test]
fn xen_boots_debians_kernel_as_dom0() {
    let iso = image("xen-dom0", "echo hypervisor: $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/version/major)");
    let arguments = ["boot", "--firmware", "seabios", "--cdrom", iso.to_str().unwrap(), "--memory", "1G"];
    let run = Session::start(&arguments, LIMIT).finish();
    run.expect("VMX: Supported advanced features").expect("hypervisor: xen 4").expect_success();
}

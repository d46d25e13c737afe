//! Debian's Xen on an ISO image, and a dom0 with its tools and a guest.

use crate::images::SCRIPT;
use crate::iso::{self, IsoFile};
use crate::{elf, images};
use std::path::PathBuf;
use vanderpool::Error;
use vanderpool::debian::{Cache, Kernel};
use vanderpool::initramfs::Initramfs;

/// The kernel modules that Xen's tools need in dom0.
const MODULES: &[&str] = &["xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "xenfs"];

/// The tools, below the root directory of the packages.
const TOOLS: &[&str] = &[
    "usr/lib/xen-4.17/bin/xl",
    "usr/lib/xen-4.17/bin/xenstored",
    "usr/lib/xen-4.17/bin/xenconsoled",
    "usr/lib/xen-4.17/bin/xen-init-dom0",
];

/// Starts the daemons and the guest, whose console goes to dom0's, and waits for the guest's end.
const START: &str = "\
modprobe -a xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xenfs
mount -t xenfs xenfs /proc/xen
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mkdir -p /var/lib/xen /var/log/xen/console /var/run/xen /run/xen /run/xenstored /var/run/xenstored /var/lock /run/lock
xenstored && xen-init-dom0 && xenconsoled --log=guest || exit 1
xl info | grep -E '^(virt_caps|xen_version|free_memory)'
xl create /guest/configuration || exit 1
xl list
tail -F /var/log/xen/console/guest-guest.log &
while xl domid guest 2>/dev/null >/dev/null; do sleep 1; done
sleep 1
echo dom0: the guest has ended
xl list";

/// Makes `target/guests/<name>.iso`, on which GRUB starts Xen with `kernel` as dom0; `dom0` has a script at [`SCRIPT`], which it runs, and
/// `memory` (as Xen's `dom0_mem` has it).
///
/// # Errors
/// When a package is not to be had or GRUB's tools fail.
pub fn grub(cache: &Cache, name: &str, kernel: &Kernel, dom0: Initramfs, memory: &str) -> Result<PathBuf, Error> {
    let packages = cache.packages("xen", &["xen-hypervisor-4.17-amd64"])?;
    let initrd = images::write(name, dom0)?;
    let files = [
        IsoFile { path: "xen.gz", source: &packages.join("boot/xen-4.17-amd64.gz") },
        IsoFile { path: "vmlinuz", source: &kernel.image },
        IsoFile { path: "initrd", source: &initrd },
    ];
    let script = format!(
        "multiboot2 /xen.gz console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info dom0_mem={memory} dom0_max_vcpus=1\n\
         module2 /vmlinuz console=hvc0 vp.run={SCRIPT}\nmodule2 /initrd"
    );
    iso::grub(cache, name, &script, &files)
}

/// A dom0 with Xen's tools. Its script starts a PVH guest with the same kernel and `guest`, which has a script at [`SCRIPT`], runs it and powers
/// off; then the script ends.
///
/// # Errors
/// When a package is not to be had or a file cannot be read.
pub fn dom0_with_guest(cache: &Cache, kernel: &Kernel, guest: Initramfs) -> Result<Initramfs, Error> {
    let root = cache.with_dependencies("xen-tools", &["xen-utils-4.17"])?;
    let mut image = Initramfs::with_modules(kernel, MODULES)?;
    for tool in TOOLS {
        elf::add_program(&mut image, &root, &root.join(tool), "bin")?;
    }
    // For pthread_cancel.
    elf::add_library(&mut image, &root, "libgcc_s.so.1")?;
    image.file("etc/xen/xl.conf", 0o644, b"");
    image.file(SCRIPT, 0o755, format!("#!/bin/sh\n{START}\n").as_bytes());
    image.host_file("guest/vmlinuz", 0o644, &kernel.image)?;
    image.file("guest/initrd", 0o644, &guest.finish());
    let configuration = format!(
        "type = \"pvh\"\nname = \"guest\"\nmemory = 256\nvcpus = 1\nkernel = \"/guest/vmlinuz\"\nramdisk = \"/guest/initrd\"\n\
         extra = \"console=hvc0 panic=-1 vp.run={SCRIPT}\"\non_poweroff = \"destroy\"\non_crash = \"destroy\"\non_reboot = \"destroy\"\n"
    );
    image.file("guest/configuration", 0o644, configuration.as_bytes());
    Ok(image)
}

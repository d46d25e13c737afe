//! Initramfs images: the base system with a script, and the one that holds QEMU with a guest of its own.

use crate::elf;
use std::fs;
use std::path::{Path, PathBuf};
use vanderpool::Error;
use vanderpool::debian::{Cache, Kernel};
use vanderpool::initramfs::Initramfs;

/// Where [`with_script`] puts the script; name it with `vp.run=`.
pub const SCRIPT: &str = "/run/test";

/// The base system with `script` (a shell script without its first line) at [`SCRIPT`].
///
/// # Errors
/// When busybox or a module cannot be read.
pub fn with_script(kernel: &Kernel, script: &str) -> Result<Initramfs, Error> {
    with_modules(kernel, &[], script)
}

/// As [`with_script`], with `modules` besides the usual ones.
///
/// # Errors
/// When busybox or a module cannot be read.
pub fn with_modules(kernel: &Kernel, modules: &[&str], script: &str) -> Result<Initramfs, Error> {
    let mut image = Initramfs::with_modules(kernel, modules)?;
    image.file(SCRIPT, 0o755, format!("#!/bin/sh\n{script}\n").as_bytes());
    Ok(image)
}

/// The options that the QEMU in [`nested`] gives its guest besides accelerator, memory, kernel and initramfs.
const NESTED_QEMU: &str =
    "-nodefaults -nographic -vga none -serial stdio -no-reboot -L /usr/share/qemu -L /usr/share/seabios";

/// An image which holds Debian's `qemu-system-x86_64` with its libraries and firmware, the same kernel and the initramfs `guest`, which has
/// a script at [`SCRIPT`]. The image's own script starts them with KVM and `qemu_options` (`-m` among them), runs that script and powers
/// off; it ends with QEMU's exit status. A guest that is itself such an image makes one more level.
///
/// # Errors
/// When QEMU is neither installed nor to be had from Debian's packages, or a file cannot be read.
pub fn nested(cache: &Cache, kernel: &Kernel, guest: Initramfs, qemu_options: &str) -> Result<Initramfs, Error> {
    nested_after(cache, kernel, &[], "", guest, qemu_options)
}

/// As [`nested`], with `modules` in the system around QEMU and what it does `before` it starts QEMU.
///
/// # Errors
/// As [`nested`].
pub fn nested_after(
    cache: &Cache,
    kernel: &Kernel,
    modules: &[&str],
    before: &str,
    guest: Initramfs,
    qemu_options: &str,
) -> Result<Initramfs, Error> {
    let script = format!(
        "{before}\nqemu-system-x86_64 -accel kvm -cpu host {NESTED_QEMU} {qemu_options} \\\n\
         -kernel /guest/vmlinuz -initrd /guest/initrd -append 'console=ttyS0 panic=-1 vp.run={SCRIPT}'"
    );
    let mut image = with_modules(kernel, modules, &script)?;
    image.host_file("guest/vmlinuz", 0o644, &kernel.image)?;
    image.file("guest/initrd", 0o644, &guest.finish());
    add_qemu(&mut image, &qemu_root(cache)?)?;
    Ok(image)
}

/// A root directory with QEMU in it: the system's own, or one made of Debian's packages.
fn qemu_root(cache: &Cache) -> Result<PathBuf, Error> {
    let system = Path::new("/");
    let complete =
        ["usr/bin/qemu-system-x86_64", "usr/share/seabios/bios-256k.bin"].iter().all(|f| system.join(f).exists());
    if complete { Ok(system.to_owned()) } else { cache.with_dependencies("qemu", &["qemu-system-x86", "seabios"]) }
}

fn add_qemu(image: &mut Initramfs, root: &Path) -> Result<(), Error> {
    let program = root.join("usr/bin/qemu-system-x86_64");
    elf::add_program(image, root, &program, "bin")?;
    for file in
        ["seabios/bios-256k.bin", "qemu/kvmvapic.bin", "qemu/linuxboot_dma.bin", "qemu/linuxboot.bin", "qemu/pvh.bin"]
    {
        let source = root.join("usr/share").join(file);
        if source.exists() {
            image.host_file(&format!("usr/share/{file}"), 0o644, &source)?;
        }
    }
    Ok(())
}

/// Writes `image` to a file `<name>.cpio` below the workspace's `target` and returns its path.
///
/// # Errors
/// When the file cannot be written.
pub fn write(name: &str, image: Initramfs) -> Result<PathBuf, Error> {
    let path = crate::programs::output_directory()?.join(format!("{name}.cpio"));
    fs::write(&path, image.finish()).map_err(|e| Error::file("write", &path, &e))?;
    Ok(path)
}
